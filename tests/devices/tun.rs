//! Tun devices, real ones.

use tun_tap::Mode;

use super::Pair;
use crate::support::{
    privileged,
    tunnel::{DEVICE, Tunnel},
};

fn flows_are_seen(network: [u8; 3], options: &[&str]) {
    let tunnel = Tunnel::new(network, Mode::Tun);
    let pair = Pair {
        namespace: &tunnel.near,
        device: DEVICE,
        exchange: &|near_answers, bytes| tunnel.exchange(near_answers, bytes),
    };
    super::flows_are_seen(&pair, options);
}

#[test]
fn flows_of_a_tun_device_are_seen_both_ways() {
    if privileged() {
        flows_are_seen([10, 77, 0], &[]);
    }
}

/// The address begins with the bytes of an EtherType, at the place of one.
#[test]
fn an_address_that_looks_like_an_ethertype_misleads_nobody() {
    if privileged() {
        flows_are_seen([8, 0, 77], &[]);
    }
}

#[test]
fn the_downlink_of_a_tun_device_is_shaped() {
    if privileged() {
        flows_are_seen([10, 78, 0], &["--ingress-rate", "400mbit"]);
    }
}
