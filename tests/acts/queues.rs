//! Transmit queues of a network card's own driver.

use std::process::Command;

use bed::{
    command,
    netns::{CLIENT_V4, SERVER_V4, UPLINK},
};

use super::wire::{Wire, never_idle, send_message, sender};
use crate::support::{agent::Site, privileged};

const DATAGRAMS: usize = 300;
/// What ends before the first 120 000 bytes: bands 0 to 2, in datagrams with their headers.
const BEFORE_THE_CUT: u64 = 120_000 / 1428;

/// Packets that each of the two queues was given by a message.
fn by_queue(wire: &Wire, site: &Site<'_>) -> [u64; 2] {
    never_idle(site);
    let before = wire.classes(2);
    send_message(&sender(&wire.near, SERVER_V4), CLIENT_V4, DATAGRAMS);
    let after = wire.classes(2);
    [0, 1].map(|queue| after[queue].0 - before[queue].0)
}

#[track_caller]
fn assert_split([first, second]: [u64; 2]) {
    let sent = format!("{first} and {second}");
    assert!(first.abs_diff(BEFORE_THE_CUT) < 8, "{sent}");
    assert!(
        second.abs_diff(DATAGRAMS as u64 - BEFORE_THE_CUT) < 8,
        "{sent}"
    );
}

/// Lets no CPU have a transmit queue of its own.
fn without_xps(wire: &Wire) {
    for queue in 0..2 {
        // A sysfs of the namespace, since the card is not in the other.
        let write = format!("echo 0 > /sys/class/net/{UPLINK}/queues/tx-{queue}/xps_cpus");
        command::output(
            Command::new("ip")
                .args(["netns", "exec", wire.near.name(), "sh", "-c"])
                .arg(write),
        )
        .unwrap();
    }
}

#[test]
fn a_cards_queues_are_chosen_by_band_once_no_cpu_has_its_own() {
    if !privileged() {
        return;
    }
    let Some(wire) = Wire::on_card() else {
        return;
    };
    assert!(wire.has_root("mq"));
    for queue in 1..=2 {
        wire.near
            .tc(&format!(
                "qdisc replace dev {UPLINK} parent 10:{queue} pfifo_fast"
            ))
            .unwrap();
    }
    let site = Site::new(&wire.near);
    site.call(&["up", UPLINK, "--queues", "0-2=0,3-7=1"])
        .expect(0)
        .says("pfifo_fast below mq");
    let by_cpu = by_queue(&wire, &site);
    eprintln!("with the driver's XPS {by_cpu:?}");
    without_xps(&wire);
    let by_band = by_queue(&wire, &site);
    eprintln!("without XPS {by_band:?}");
    assert_split(by_band);
    // The other way round it is not the kernel's own hash that chose.
    site.call(&["up", UPLINK, "--queues", "0-2=1,3-7=0"])
        .expect(0);
    let [first, second] = by_queue(&wire, &site);
    assert_split([second, first]);
    site.down().expect(0);
}

#[test]
fn mqprio_on_a_card_sorts_by_its_map() {
    if !privileged() {
        return;
    }
    let Some(wire) = Wire::on_card() else {
        return;
    };
    let map = "mqprio num_tc 2 map 1 1 1 0 1 1 1 1 1 1 1 1 1 1 1 1 queues 1@0 1@1 hw 0";
    if !wire.has_root(map) {
        return;
    }
    let site = Site::new(&wire.near);
    site.call(&["up", UPLINK, "--model", "none"])
        .expect(0)
        .says("mqprio 10:, 8 bands on 2");
    let settings = site.datapath().settings().unwrap();
    assert_eq!(settings.priorities[0], 3, "{settings:?}");
    never_idle(&site);
    let long = 1000;
    let before = wire.classes(2);
    send_message(&sender(&wire.near, SERVER_V4), CLIENT_V4, long);
    let after = wire.classes(2);
    let [first, second] = [0, 1].map(|queue| after[queue].0 - before[queue].0);
    // Bands 0 to 3 are the first traffic class; they end at a cut, above which all is in the second.
    let cut = u64::from(scheduler_common::class::DEFAULT_CUTS_BYTES[3]) / 1428;
    let sent = format!("{first} and {second}");
    eprintln!("mqprio: {sent}");
    assert!(first.abs_diff(cut) < 20, "{sent}");
    assert!(second.abs_diff(long as u64 - cut) < 20, "{sent}");
    site.down().expect(0);
}
