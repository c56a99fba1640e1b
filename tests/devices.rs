//! Interfaces without an Ethernet header: real tun devices, and wireguard where there is one.

use bed::netns::Namespace;
use scheduler_common::ingress::interface_flags;
use tun_tap::Mode;

use crate::support::{
    agent::Site,
    privileged,
    tunnel::{DEVICE, Tunnel},
};

/// Packets of each band on the way out.
fn bands(site: &Site<'_>, downlink: bool) -> Vec<u64> {
    let mut interface = site.status()["interfaces"][0].take();
    let mut shaped = interface["downlink"]["bands"].take();
    let mut out = interface["bands"].take();
    let bands = if downlink { &mut shaped } else { &mut out };
    let bands = bands.as_array().unwrap();
    bands
        .iter()
        .map(|band| band["packets"].as_u64().unwrap())
        .collect()
}

/// Traffic both ways over a tun device; what is neither a flow nor a message would show.
fn flows_are_seen(network: [u8; 3], options: &[&str]) {
    let tunnel = Tunnel::new(network, Mode::Tun);
    let site = Site::new(&tunnel.near);
    let index = tunnel
        .near
        .enter(|| Ok(nix::net::if_::if_nametoindex(DEVICE)?))
        .unwrap();
    let up = ["up", DEVICE, "--rate", "500mbit"];
    site.call(&[&up, options].concat()).expect(0);
    let shaped = !options.is_empty();
    let facts = site.datapath().interface(index).unwrap().unwrap();
    assert_eq!(facts.flags, interface_flags::NETWORK_FRAMES);
    let names = [
        "flows_created",
        "messages_ended_turn",
        "skip_not_ip",
        "skip_malformed",
    ];
    let counters = || names.map(|name| site.counter(name));
    let before = counters();
    for near_answers in [true, false, true, false] {
        tunnel.exchange(near_answers, 400_000);
    }
    let now = counters();
    let [flows, turns, strange, damaged] = std::array::from_fn(|at| now[at] - before[at]);
    assert_eq!(flows, 4, "the two directions are flows of their own");
    assert!(turns >= 4, "{turns}: the two directions do not meet");
    assert_eq!([strange, damaged], [0, 0]);
    let out = bands(&site, false);
    assert!(out[0] > 0 && out[1] > 0 && out[2] > 0, "{out:?}");
    if shaped {
        let bands = bands(&site, true);
        assert!(bands[0] > 0 && bands[1] > 0 && bands[2] > 0, "{bands:?}");
        assert_eq!(site.counter("ingress_packets"), 0);
    } else {
        assert!(site.counter("ingress_packets") > 100);
    }
    site.call(&["down", DEVICE]).expect(0);
    site.assert_no_trace();
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

#[test]
fn a_wireguard_device_is_known_to_have_no_ethernet_header() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::new("wireguard").unwrap();
    if namespace.ip("link add wg0 type wireguard").is_err() {
        eprintln!("not run: this kernel has no wireguard");
        return;
    }
    namespace.ip("link set wg0 up").unwrap();
    let site = Site::new(&namespace);
    site.call(&["up", "wg0", "--rate", "100mbit"]).expect(0);
    let index = namespace
        .enter(|| Ok(nix::net::if_::if_nametoindex("wg0")?))
        .unwrap();
    let facts = site.datapath().interface(index).unwrap().unwrap();
    assert_eq!(facts.flags, interface_flags::NETWORK_FRAMES);
}
