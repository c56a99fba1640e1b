//! Every root qdisc that bands are told to, and what is said where there is none.

use bed::netns::{CLIENT_V4, SERVER_V4, UPLINK};
use scheduler_common::{
    class::{BANDS, DEFAULT_CUTS_BYTES, class_handles},
    settings::Act,
};

use super::wire::{FULL_BYTES, Wire, never_idle, receiver, send_message, sender};
use crate::support::{agent::Site, privileged};

/// Bytes of a datagram with IPv4 and UDP headers, which cuts count, and with Ethernet's, which classes count.
const PACKET_BYTES: u64 = FULL_BYTES as u64 + 28;
const FRAME_BYTES: u64 = PACKET_BYTES + 14;
/// A message that reaches the last band.
const LONG: usize = 5000;

fn shown(wire: &Wire) -> String {
    let all = wire.near.tc(&format!("qdisc show dev {UPLINK}")).unwrap();
    // The kernel shows the reference counts of what it has made anew.
    all.split(" refcnt").next().unwrap().to_owned()
}

/// Sends a long message; each class must have got the packets between its cuts.
fn assert_sorted(wire: &Wire, site: &Site<'_>, bands_of_class: &[std::ops::Range<usize>]) {
    let taken = receiver(&wire.far, CLIENT_V4);
    never_idle(site);
    let before = wire.classes(bands_of_class.len());
    send_message(&sender(&wire.near, SERVER_V4), CLIENT_V4, LONG);
    let after = wire.classes(bands_of_class.len());
    drop(taken);
    let all_bytes = LONG as u64 * PACKET_BYTES;
    for (class, bands) in bands_of_class.iter().enumerate() {
        let cut = |band: usize| {
            DEFAULT_CUTS_BYTES
                .get(band)
                .map_or(all_bytes, |cut| u64::from(*cut))
        };
        let from = bands.start.checked_sub(1).map_or(0, cut);
        let expected = (cut(bands.end - 1) - from) / PACKET_BYTES;
        let packets = after[class].0 - before[class].0;
        // Cuts may count payload or packets; headers are 2 % of these.
        let slack = 4 + cut(bands.end - 1) / PACKET_BYTES / 25;
        assert!(
            packets.abs_diff(expected) <= slack,
            "class {class} has {packets} packets, not {expected}: {after:?}"
        );
        let bytes = after[class].1 - before[class].1;
        assert!(bytes.abs_diff(packets * FRAME_BYTES) < 4 * FRAME_BYTES);
    }
}

#[test]
fn an_administrators_prio_is_kept_and_used() {
    if !privileged() {
        return;
    }
    let wire = Wire::with_queues(1);
    if !wire.has_root("prio") {
        return;
    }
    let before = shown(&wire);
    let site = Site::new(&wire.near);
    site.call(&["up", UPLINK, "--model", "none"])
        .expect(0)
        .says("prio 10:, 8 bands on 3");
    assert_eq!(shown(&wire), before);
    assert_sorted(&wire, &site, &[0..3, 3..6, 6..8]);
    site.down().expect(0);
    assert_eq!(shown(&wire), before);
}

#[test]
fn an_administrators_ets_is_kept_and_used() {
    if !privileged() {
        return;
    }
    let wire = Wire::with_queues(1);
    if !wire.has_root("ets bands 4 strict 2") {
        return;
    }
    let site = Site::new(&wire.near);
    site.call(&["up", UPLINK, "--model", "none"])
        .expect(0)
        .says("8 bands on 4");
    assert_sorted(&wire, &site, &[0..2, 2..4, 4..6, 6..8]);
    site.down().expect(0);
}

#[test]
fn mqprio_is_told_by_its_map() {
    if !privileged() {
        return;
    }
    let wire = Wire::with_queues(4);
    let map = "mqprio num_tc 3 map 2 2 1 0 2 2 2 2 2 2 2 2 2 2 2 2 queues 1@0 1@1 2@2 hw 0";
    if !wire.has_root(map) {
        return;
    }
    let site = Site::new(&wire.near);
    site.call(&["up", UPLINK, "--model", "none"])
        .expect(0)
        .says("mqprio 10:, 8 bands on 3");
    let settings = site.datapath().settings().unwrap();
    assert_eq!(settings.priorities, [3, 3, 3, 2, 2, 2, 0, 0]);
    let taken = receiver(&wire.far, CLIENT_V4);
    never_idle(&site);
    let before = wire.classes(4);
    send_message(&sender(&wire.near, SERVER_V4), CLIENT_V4, LONG);
    let after = wire.classes(4);
    drop(taken);
    let sent: Vec<u64> = after.iter().zip(&before).map(|(b, a)| b.0 - a.0).collect();
    // Classes 1 to 4 are the queues; the third traffic class has two of them.
    let expected = [84, 2016, LONG as u64 - 2100];
    let sent = [sent[0], sent[1], sent[2] + sent[3]];
    for (sent_there, expected) in sent.iter().zip(expected) {
        assert!(sent_there.abs_diff(expected) < 90, "{sent:?}");
    }
}

#[test]
fn fq_is_told_by_its_map_where_it_has_bands() {
    if !privileged() {
        return;
    }
    let wire = Wire::with_queues(1);
    if !wire.has_root("fq") {
        return;
    }
    let site = Site::new(&wire.near);
    let up = site.call(&["up", UPLINK]).expect(0);
    let settings = site.datapath().settings().unwrap();
    let kernel = aya::util::KernelVersion::current().unwrap();
    if kernel >= aya::util::KernelVersion::new(6, 7, 0) {
        up.says("fq 10:, 8 bands on 3");
        assert_eq!(settings.priorities, [6, 6, 6, 0, 0, 0, 1, 1]);
        assert_eq!(settings.act, Act::Priority as u32);
    } else {
        up.says("fq does not sort");
        assert_eq!(settings.act, Act::FlagsOnly as u32);
    }
    site.down().expect(0);
}

#[test]
fn cake_is_told_by_its_tins() {
    if !privileged() {
        return;
    }
    let wire = Wire::with_queues(1);
    if !wire.has_root("cake bandwidth 1gbit diffserv4") {
        return;
    }
    let site = Site::new(&wire.near);
    site.call(&["up", UPLINK]).expect(0).says("8 bands on 4");
    let [a, b, c, d] = [4, 3, 2, 1].map(|minor| 0x10_0000 | minor);
    let settings = site.datapath().settings().unwrap();
    assert_eq!(settings.priorities, [a, a, b, b, c, c, d, d]);
    never_idle(&site);
    send_message(&sender(&wire.near, SERVER_V4), CLIENT_V4, LONG);
    // Columns are bulk, best effort, video, voice.
    let text = wire
        .near
        .tc(&format!("-s qdisc show dev {UPLINK}"))
        .unwrap();
    let packets: Vec<u64> = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("pkts "))
        .unwrap_or_else(|| panic!("{text}"))
        .split_whitespace()
        .map(|count| count.parse().unwrap())
        .collect();
    assert!(packets.iter().all(|count| *count > 20), "{text}");
    site.down().expect(0);
}

#[test]
fn roots_of_our_own_sort_without_a_rate() {
    if !privileged() {
        return;
    }
    for kind in ["prio", "ets"] {
        let wire = Wire::with_queues(1);
        let before = shown(&wire);
        let there = wire.has_root(kind_with_options(kind));
        let site = Site::new(&wire.near);
        let up = ["up", UPLINK, "--qdisc", kind, "--model", "none"];
        if !there {
            let module = format!("sch_{kind}");
            site.call(&up).expect(1).says(&module).says("--rate");
            site.assert_no_trace();
            assert_eq!(shown(&wire), before);
            continue;
        }
        // What an administrator has set stays unless it may be put aside.
        site.call(&up).expect(5).says("--replace");
        wire.near
            .tc(&format!("qdisc del dev {UPLINK} root"))
            .unwrap();
        site.call(&up).expect(0).says("8 bands on 8");
        assert!(shown(&wire).starts_with(&format!("qdisc {kind} 7e: root")));
        assert_eq!(
            site.datapath().settings().unwrap().priorities,
            class_handles()
        );
        let bands: Vec<std::ops::Range<usize>> = (0..BANDS).map(|band| band..band + 1).collect();
        assert_sorted(&wire, &site, &bands);
        let status = site.status();
        let interface = &status["interfaces"][0];
        assert_eq!(
            (&interface["root"], &interface["rate_bps"]),
            (&kind.into(), &().into())
        );
        assert!(interface["bands"][0]["packets"].as_u64().unwrap() > 0);
        site.call(&up).expect(0).says("already up");
        site.down().expect(0);
        assert_eq!(shown(&wire), before);
    }
}

fn kind_with_options(kind: &str) -> &str {
    if kind == "ets" { "ets bands 2" } else { kind }
}

#[test]
fn an_interface_that_never_queues_is_left_alone_and_says_so() {
    if !privileged() {
        return;
    }
    let wire = Wire::with_queues(1);
    let before = shown(&wire);
    let site = Site::new(&wire.near);
    site.call(&["up", UPLINK])
        .expect(0)
        .says("never queues")
        .says("--rate");
    let settings = site.datapath().settings().unwrap();
    assert_eq!(settings.act, Act::FlagsOnly as u32);
    let status = site.status();
    assert_eq!(status["interfaces"][0]["root"], "keep");
    site.call(&["status"]).expect(0).says("its own noqueue");
    // By hand a table may be given all the same.
    let by_hand = ["up", UPLINK, "--priorities", "1:10,1:20,6"];
    site.call(&by_hand).expect(0).says("as given");
    let settings = site.datapath().settings().unwrap();
    assert_eq!(settings.act, Act::Priority as u32);
    assert_eq!(settings.priorities, [0x1_0010, 0x1_0020, 6, 6, 6, 6, 6, 6]);
    site.down().expect(0);
    assert_eq!(shown(&wire), before);
}

#[test]
fn a_rate_belongs_to_htb_and_a_pace_to_fq() {
    if !privileged() {
        return;
    }
    let wire = Wire::with_queues(1);
    let before = shown(&wire);
    let site = Site::new(&wire.near);
    for wrong in [
        &["up", UPLINK, "--qdisc", "htb"] as &[&str],
        &["up", UPLINK, "--qdisc", "prio", "--rate", "1mbit"],
        &["up", UPLINK, "--qdisc", "keep", "--rate", "1mbit"],
    ] {
        site.call(wrong).expect(2).says("--rate");
    }
    for unpaced in [
        &["up", UPLINK, "--pace", "7=1mbit"] as &[&str],
        &["up", UPLINK, "--rate", "10mbit", "--pace", "7=1mbit"],
    ] {
        site.call(unpaced).expect(1).says("--qdisc fq");
        assert_eq!(shown(&wire), before);
        site.assert_no_trace();
    }
}

#[test]
fn one_root_gives_way_to_another_and_down_restores_the_first() {
    if !privileged() {
        return;
    }
    let wire = Wire::with_queues(1);
    wire.near
        .tc(&format!(
            "qdisc add dev {UPLINK} root handle 10: tbf rate 50mbit burst 20000 limit 400000"
        ))
        .unwrap();
    let before = shown(&wire);
    let site = Site::new(&wire.near);
    let shaped = ["up", UPLINK, "--rate", "100mbit", "--replace"];
    site.call(&shaped).expect(0).says("is up at 100mbit");
    assert!(shown(&wire).starts_with("qdisc htb 7e: root"));
    site.call(&["up", UPLINK])
        .expect(0)
        .says("was up and is now");
    assert_eq!(shown(&wire), before);
    site.call(&["up", UPLINK]).expect(0).says("already up");
    site.call(&["up", UPLINK, "--rate", "100mbit"])
        .expect(5)
        .says("--replace");
    assert_eq!(shown(&wire), before);
    site.call(&shaped).expect(0).says("is now at 100mbit");
    assert_eq!(
        site.datapath().settings().unwrap().priorities,
        class_handles()
    );
    site.down().expect(0);
    assert_eq!(shown(&wire), before);
    site.assert_no_trace();
}

#[test]
fn interfaces_that_need_other_priorities_are_told_apart() {
    if !privileged() {
        return;
    }
    let wire = Wire::with_queues(1);
    for command in [
        "link add second type veth peer name other",
        "link set second up",
        "link set other up",
    ] {
        wire.near.ip(command).unwrap();
    }
    wire.near
        .tc("qdisc add dev second root handle 30: pfifo_fast")
        .unwrap();
    let site = Site::new(&wire.near);
    site.call(&["up", UPLINK, "--rate", "100mbit"]).expect(0);
    let before = site.datapath().settings().unwrap();
    site.call(&["up", "second"])
        .expect(1)
        .says("--instance")
        .says(UPLINK);
    assert_eq!(site.datapath().settings().unwrap(), before);
    let apart = Site::new(&wire.near);
    apart.call(&["up", "second"]).expect(0).says("8 bands on 3");
    assert_eq!(site.datapath().settings().unwrap(), before);
    site.call(&["up", "other", "--rate", "10mbit"]).expect(0);
}
