//! The acts on single packets, run in the kernel without an interface.

use std::{ops::RangeInclusive, time::Instant};

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use etherparse::{IpHeaders, PacketHeaders};
use scheduler_common::{
    act::{KEEP_DSCP, MIN_PACE_BPS, PACE_HORIZON_NS, duration_ns, pace_of},
    class::{BANDS, Cuts, class_handles},
    counter::Counter,
    flow::DEFAULT_ENTRIES,
    names,
    sample::Hook,
    settings::{Act, Settings, settings_flags},
};
use treeline::datapath::{Datapath, Origin};

use crate::support::{
    OwnInstance,
    frames::{QINQ, VLAN, tcp4, tcp6, udp4, udp6},
    packets::{ETHERNET_BYTES, Ends, tagged, tunnelled, with_ipv4_options, without_ports},
    privileged,
};

/// Size and offsets of `struct __sk_buff` (kernel 6.18 `include/uapi/linux/bpf.h`).
const SKB_BYTES: usize = 192;
const SKB_PRIORITY: RangeInclusive<usize> = 32..=35;
const SKB_TSTAMP: RangeInclusive<usize> = 152..=159;
const UNTOUCHED: u32 = 0x0bad_cafe;

/// What a packet is after the program.
struct After {
    priority: u32,
    departure_ns: u64,
    frame: Vec<u8>,
}

/// The egress program, loaded and on no interface.
struct Egress {
    program: SchedClassifier,
    datapath: Datapath,
    // Last: what is above holds files below its directories.
    _instance: OwnInstance,
}

impl Egress {
    fn load(settings: &Settings) -> Self {
        let instance = OwnInstance::new();
        let (datapath, origin) =
            Datapath::open_or_load(&instance, settings, DEFAULT_ENTRIES).unwrap();
        assert_eq!(origin, Origin::Loaded);
        let pin = instance.pins().join("programs").join(names::EGRESS);
        Self {
            program: SchedClassifier::from_pin(pin).unwrap(),
            datapath,
            _instance: instance,
        }
    }

    fn run(&self, frame: &[u8]) -> After {
        let mut context = [0; SKB_BYTES];
        context[SKB_PRIORITY].copy_from_slice(&UNTOUCHED.to_ne_bytes());
        let mut after = context;
        let mut out = vec![0; frame.len() + 64];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        options.ctx_in = Some(&context);
        options.ctx_out = Some(&mut after);
        let result = self.program.test_run(options).unwrap();
        out.truncate(result.data_size_out as usize);
        After {
            priority: u32::from_ne_bytes(after[SKB_PRIORITY].try_into().unwrap()),
            departure_ns: u64::from_ne_bytes(after[SKB_TSTAMP].try_into().unwrap()),
            frame: out,
        }
    }

    fn counter(&self, wanted: Counter) -> u64 {
        let counters = self.datapath.counters().unwrap();
        counters
            .iter()
            .find(|(counter, _)| *counter == wanted)
            .unwrap()
            .1
    }
}

/// Settings under which the size of a first packet decides its band.
fn by_size() -> Settings {
    Settings {
        cuts: Cuts {
            bytes: [200, 300, 400, 500, 600, 700, 800],
            _pad: 0,
        },
        first_bytes: 0,
        // Small packets are looked at for what they are told to be, not as a stream.
        stream_window_us: 0,
        ..Settings::default()
    }
}

/// A first packet of a flow of its own, in the middle of the sizes of `band`.
fn first_packet(band: usize, far_port: u16) -> Vec<u8> {
    Ends::v4(53, far_port).udp(Hook::Egress, 150 + 100 * band)
}

#[test]
fn every_band_gets_the_priority_of_its_table() {
    if !privileged() {
        return;
    }
    let egress = Egress::load(&by_size());
    let tables = [
        class_handles(),
        [6, 6, 6, 0, 0, 0, 1, 1],
        [3, 3, 3, 2, 2, 2, 0, 0],
        [1, 2, 3, 4, 5, 6, 7, 8].map(|minor| 0x0010_0000 | minor),
        [u32::MAX, 0, u32::MAX, 0, 1, 0x8000_0000, 7, 15],
    ];
    let mut port = 1000;
    for priorities in tables {
        let settings = Settings {
            priorities,
            ..by_size()
        };
        egress.datapath.set_settings(&settings).unwrap();
        for (band, priority) in priorities.iter().enumerate() {
            port += 1;
            let frame = first_packet(band, port);
            let after = egress.run(&frame);
            assert_eq!(after.priority, *priority, "band {band} of {priorities:x?}");
            assert_eq!((after.frame, after.departure_ns), (frame, 0));
        }
    }
    for (act, flags) in [
        (Act::Observe, settings_flags::RARE_ACTS),
        (Act::FlagsOnly, 0),
    ] {
        let settings = Settings {
            act: act as u32,
            flags,
            dscp: [46; BANDS],
            pace: [u32::MAX; BANDS],
            ..by_size()
        };
        egress.datapath.set_settings(&settings).unwrap();
        for band in 0..BANDS {
            port += 1;
            let frame = first_packet(band, port);
            for _ in 0..2 {
                let after = egress.run(&frame);
                assert_eq!(after.priority, UNTOUCHED, "{act:?}");
                assert_eq!((&after.frame, after.departure_ns), (&frame, 0));
            }
        }
    }
}

/// DSCP, ECN and whether the checksum is right, by an independent reader.
fn marks(frame: &[u8]) -> (u8, u8, bool) {
    match PacketHeaders::from_ethernet_slice(frame).unwrap().net {
        Some(etherparse::NetHeaders::Ipv4(ip, _)) => (
            ip.dscp.value(),
            ip.ecn.value(),
            ip.calc_header_checksum() == ip.header_checksum,
        ),
        Some(etherparse::NetHeaders::Ipv6(ip, _)) => {
            (ip.traffic_class >> 2, ip.traffic_class & 3, true)
        }
        other => panic!("{other:?} is no IP"),
    }
}

/// The frame with other DSCP and ECN bits, written by an independent hand.
fn remarked(frame: &[u8], (dscp, ecn): (u8, u8)) -> Vec<u8> {
    let ip_at = ip_at(frame);
    let (mut headers, payload) = IpHeaders::from_slice(&frame[ip_at..]).unwrap();
    match &mut headers {
        IpHeaders::Ipv4(ip, _) => {
            ip.dscp = dscp.try_into().unwrap();
            ip.ecn = ecn.try_into().unwrap();
            ip.header_checksum = ip.calc_header_checksum();
        }
        IpHeaders::Ipv6(ip, _) => ip.traffic_class = dscp << 2 | ecn,
    }
    let mut out = frame[..ip_at].to_vec();
    headers.write(&mut out).unwrap();
    out.extend(payload.payload);
    out
}

fn ip_at(frame: &[u8]) -> usize {
    let mut at = ETHERNET_BYTES;
    while [VLAN, QINQ].contains(&u16::from_be_bytes([frame[at - 2], frame[at - 1]])) {
        at += 4;
    }
    at
}

#[test]
fn a_mark_changes_the_dscp_and_nothing_else() {
    if !privileged() {
        return;
    }
    let marking = |dscp| Settings {
        flags: settings_flags::DSCP,
        dscp: [dscp; BANDS],
        ..Settings::default()
    };
    let egress = Egress::load(&marking(46));
    let plain = [
        tcp4(),
        udp4(),
        tcp6(),
        udp6(),
        with_ipv4_options(&tcp4(), 3),
    ];
    let mut rewritten = 0;
    for frame in &plain {
        for tags in [&[] as &[u16], &[VLAN], &[QINQ, VLAN]] {
            for before in [(0, 0), (0, 1), (10, 2), (63, 3), (46, 0), (46, 2)] {
                let frame = remarked(&tagged(frame, tags), before);
                assert_eq!(marks(&frame), (before.0, before.1, true));
                for dscp in [0, 1, 46, 63] {
                    egress.datapath.set_settings(&marking(dscp)).unwrap();
                    let after = egress.run(&frame);
                    assert_eq!(
                        after.frame,
                        remarked(&frame, (dscp, before.1)),
                        "{tags:x?}, {before:?} to {dscp}"
                    );
                    rewritten += u64::from(before.0 != dscp);
                }
            }
        }
    }
    assert_eq!(egress.counter(Counter::DscpRewritten), rewritten);
    assert!(rewritten > 200);
}

#[test]
fn what_is_not_to_be_marked_stays_as_it_is() {
    if !privileged() {
        return;
    }
    let mut dscp = [46; BANDS];
    dscp[0] = KEEP_DSCP;
    let settings = Settings {
        flags: settings_flags::DSCP,
        dscp,
        ..by_size()
    };
    let egress = Egress::load(&settings);
    let kept = first_packet(0, 2000);
    assert_eq!(egress.run(&kept).frame, kept, "a band that keeps");
    let marked = egress.run(&first_packet(1, 2001)).frame;
    assert_eq!(marks(&marked), (46, 0, true), "a band that marks");
    let count = egress.counter(Counter::DscpRewritten);
    let [_, _, arp] = without_ports();
    let deep = tagged(&tcp4(), &[QINQ, VLAN, VLAN]);
    for frame in [arp, deep] {
        assert_eq!(egress.run(&frame).frame, frame);
    }
    assert_eq!(egress.counter(Counter::DscpRewritten), count);
}

#[test]
fn only_the_outer_header_of_a_tunnel_is_marked() {
    if !privileged() {
        return;
    }
    for inner in [0, settings_flags::INNER] {
        let settings = Settings {
            flags: settings_flags::DSCP | inner,
            dscp: [46; BANDS],
            ..Settings::default()
        };
        let egress = Egress::load(&settings);
        for frame in tunnelled(&udp4()) {
            let after = egress.run(&frame).frame;
            let (_, ecn, was_right) = marks(&frame);
            assert_eq!(marks(&after), (46, ecn, was_right));
            // 20 bytes of IPv4, or what of IPv6 has no traffic class.
            let behind = ETHERNET_BYTES + 20;
            assert_eq!(after[behind..], frame[behind..], "the inside was touched");
        }
    }
}

#[test]
fn paced_packets_depart_one_after_another_and_within_the_horizon() {
    // So slow that an emulated processor keeps up: a packet takes 392 ms.
    const PACE: u32 = pace_of(MIN_PACE_BPS);
    if !privileged() {
        return;
    }
    let mut pace = [0; BANDS];
    pace[2] = PACE;
    let settings = Settings {
        flags: settings_flags::PACE,
        pace,
        ..by_size()
    };
    let egress = Egress::load(&settings);
    let mut port = 3000;
    let mut packet = |band| {
        port += 1;
        first_packet(band, port)
    };
    let started = Instant::now();
    let first = packet(2);
    let cost_ns = duration_ns(PACE, first.len() as u32);
    assert_eq!(egress.run(&first).departure_ns, 0, "nothing is before it");
    let departures: Vec<u64> = (0..4)
        .map(|_| egress.run(&packet(2)).departure_ns)
        .collect();
    assert!(departures[0] > 0);
    for pair in departures.windows(2) {
        assert_eq!(pair[1] - pair[0], cost_ns, "{departures:?}");
    }
    for band in (0..BANDS).filter(|band| *band != 2) {
        for _ in 0..3 {
            assert_eq!(egress.run(&packet(band)).departure_ns, 0, "band {band}");
        }
    }
    assert_eq!(egress.counter(Counter::PacedPackets), 4);
    assert_eq!(egress.counter(Counter::PacedAtHorizon), 0);

    let until_horizon = PACE_HORIZON_NS / cost_ns + 2;
    let last = (0..until_horizon).fold(0, |_, _| egress.run(&packet(2)).departure_ns);
    let elapsed_ns = started.elapsed().as_nanos() as u64;
    let begin_ns = departures[0] - cost_ns;
    assert!(last <= begin_ns + elapsed_ns + PACE_HORIZON_NS, "{last}");
    assert!(last >= begin_ns + PACE_HORIZON_NS, "{last}");
    assert!(egress.counter(Counter::PacedAtHorizon) > 0);
}
