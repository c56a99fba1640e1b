//! The programs on single packets, compared with the same code on the host.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use scheduler_common::{
    class::BANDS,
    counter::{Counter, Skip},
    sample::Hook,
    settings::Settings,
};
use treeline::datapath::DatapathError;

use crate::support::{
    host::{Fate, Twin},
    kernel::Kernel,
    packets::{
        ACK, ETHERNET_BYTES, Ends, Flags, Passing, Talk, tagged, with_extensions,
        with_ipv4_options, without_ports,
    },
    privileged, tables,
};

const VLAN: u16 = 0x8100;
const QINQ: u16 = 0x88a8;
const BOTH: [Hook; 2] = [Hook::Egress, Hook::Ingress];
/// The kernel's test interface makes no packet of frames that end in the network header.
const REFUSED_BELOW_BYTES: usize = ETHERNET_BYTES + 40;

/// No budget: every sample is compared.
fn settings() -> Settings {
    Settings {
        samples_per_window: u32::MAX,
        ..Settings::default()
    }
}

fn udp4() -> Vec<u8> {
    Ends::v4(53, 5353).udp(Hook::Egress, 40)
}

fn tcp4() -> Vec<u8> {
    Ends::v4(80, 1000).tcp(Hook::Egress, (1, 1), ACK, 40)
}

fn udp6() -> Vec<u8> {
    Ends::v6(53, 5353).udp(Hook::Egress, 40)
}

fn tcp6() -> Vec<u8> {
    Ends::v6(80, 1000).tcp(Hook::Egress, (1, 1), ACK, 40)
}

fn changed(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame[at] = value;
    frame
}

/// An eight-byte extension header behind its first byte.
fn extension() -> Vec<u8> {
    vec![0; 7]
}

/// Frames with what the parser must say: a reason to skip them, or `None`.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn table() -> Vec<(&'static str, Vec<u8>, Option<Skip>)> {
    const IP: usize = ETHERNET_BYTES;
    let [echo, echo6, arp] = without_ports();
    let fragment = |offset: u8| vec![0, 0, offset, 0, 0, 0, 9];
    vec![
        ("udp", udp4(), None),
        ("udp over ipv6", udp6(), None),
        ("tcp", tcp4(), None),
        ("tcp over ipv6", tcp6(), None),
        ("vlan", tagged(&tcp4(), &[VLAN]), None),
        ("vlan ipv6", tagged(&udp6(), &[VLAN]), None),
        ("qinq", tagged(&udp4(), &[QINQ, VLAN]), None),
        (
            "three tags",
            tagged(&udp4(), &[QINQ, VLAN, VLAN]),
            Some(Skip::TooDeep),
        ),
        ("tagged arp", tagged(&arp, &[VLAN]), Some(Skip::NotIp)),
        ("arp", arp, Some(Skip::NotIp)),
        ("icmp", echo, Some(Skip::OtherProtocol)),
        ("icmpv6", echo6, Some(Skip::OtherProtocol)),
        ("one word of options", with_ipv4_options(&tcp4(), 1), None),
        ("all options", with_ipv4_options(&udp4(), 10), None),
        (
            "options behind two tags",
            tagged(&with_ipv4_options(&tcp4(), 10), &[QINQ, VLAN]),
            None,
        ),
        ("first fragment", changed(udp4(), IP + 6, 0x20), None),
        (
            "later fragment",
            changed(udp4(), IP + 7, 1),
            Some(Skip::LaterFragment),
        ),
        (
            "version 5",
            changed(udp4(), IP, 0x55),
            Some(Skip::Malformed),
        ),
        (
            "header of 4 words",
            changed(udp4(), IP, 0x44),
            Some(Skip::Malformed),
        ),
        ("ipv4 length 0", changed(udp4(), IP + 3, 0), None),
        (
            "ipv4 shorter than its header",
            changed(udp4(), IP + 3, 19),
            Some(Skip::Malformed),
        ),
        (
            "ipv4 longer than the frame",
            changed(udp4(), IP + 3, 200),
            Some(Skip::Truncated),
        ),
        (
            "udp cut by the ip length",
            changed(udp4(), IP + 3, 27),
            Some(Skip::Malformed),
        ),
        (
            "tcp cut by the ip length",
            changed(tcp4(), IP + 3, 39),
            Some(Skip::Malformed),
        ),
        (
            "tcp header of 4 words",
            changed(tcp4(), IP + 32, 0x40),
            Some(Skip::Malformed),
        ),
        (
            "tcp header beyond the packet",
            changed(tcp4(), IP + 32, 0xf0),
            None,
        ),
        (
            "ipv6 of version 4",
            changed(udp6(), IP, 0x40),
            Some(Skip::Malformed),
        ),
        ("ipv6 length 0", changed(udp6(), IP + 5, 0), None),
        (
            "ipv6 longer than the frame",
            changed(udp6(), IP + 5, 99),
            Some(Skip::Truncated),
        ),
        (
            "udp cut by the ipv6 length",
            changed(udp6(), IP + 5, 7),
            Some(Skip::Malformed),
        ),
        (
            "hop by hop",
            with_extensions(&tcp6(), &[(0, extension())]),
            None,
        ),
        (
            "four extensions",
            with_extensions(
                &udp6(),
                &[
                    (0, extension()),
                    (43, extension()),
                    (44, fragment(0)),
                    (60, extension()),
                ],
            ),
            None,
        ),
        (
            "five extensions",
            with_extensions(&udp6(), &vec![(60, extension()); 5]),
            Some(Skip::TooDeep),
        ),
        (
            "ipv6 first fragment with more to come",
            with_extensions(&udp6(), &[(44, vec![0, 0, 1, 0, 0, 0, 9])]),
            None,
        ),
        (
            "ipv6 later fragment",
            with_extensions(&udp6(), &[(44, fragment(8))]),
            Some(Skip::LaterFragment),
        ),
        (
            "a long extension",
            with_extensions(&tcp6(), &[(60, [vec![31], vec![0; 254]].concat())]),
            None,
        ),
        (
            "an extension beyond the packet",
            with_extensions(&udp6(), &[(60, changed(extension(), 0, 20))]),
            Some(Skip::Malformed),
        ),
        (
            "no next header",
            with_extensions(&udp6(), &[(60, extension()), (59, extension())]),
            Some(Skip::OtherProtocol),
        ),
        ("not ip", changed(udp4(), 12, 0x88), Some(Skip::NotIp)),
        (
            "a length instead of an ethertype",
            changed(udp4(), 12, 0),
            Some(Skip::NotIp),
        ),
    ]
}

#[test]
fn every_frame_of_the_table_is_judged_alike_in_the_kernel_and_on_the_host() {
    if !privileged() {
        return;
    }
    let mut kernel = Kernel::load(&settings());
    let mut twin = Twin::new(settings());
    for (name, frame, skip) in table() {
        for hook in BOTH {
            let passing = Passing {
                hook,
                frame: frame.clone(),
                segments: 1,
            };
            match (twin.compare(&mut kernel, &passing, name), skip) {
                (Fate::Skipped(found), Some(skip)) => assert_eq!(found, skip, "{name}"),
                (Fate::Banded(band), None) => assert_eq!(band, 0, "{name}"),
                (fate, skip) => panic!("{name} at {hook:?}: {fate:?} instead of {skip:?}"),
            }
        }
    }
}

#[test]
fn a_frame_may_end_at_any_byte() {
    if !privileged() {
        return;
    }
    let mut kernel = Kernel::load(&settings());
    let mut twin = Twin::new(settings());
    let frames = [
        tcp4(),
        tagged(&with_ipv4_options(&tcp4(), 2), &[QINQ, VLAN]),
        tagged(&tcp6(), &[VLAN]),
        with_extensions(&udp6(), &[(0, extension()), (44, extension())]),
    ];
    let (mut truncated, mut refused) = (0, 0);
    for frame in frames {
        for bytes in ETHERNET_BYTES..frame.len() {
            for hook in BOTH {
                let frame = frame[..bytes].to_vec();
                let passing = Passing {
                    hook,
                    frame,
                    segments: 1,
                };
                let name = format!("{bytes} bytes at {hook:?}");
                match twin.compare(&mut kernel, &passing, &name) {
                    Fate::Skipped(Skip::Truncated) => truncated += 1,
                    Fate::Refused if hook == Hook::Egress => {
                        assert!(bytes < REFUSED_BELOW_BYTES, "{name} was refused");
                        refused += 1;
                    }
                    fate => panic!("{name}: {fate:?}"),
                }
            }
        }
    }
    assert!(
        truncated > 400 && refused < truncated / 4,
        "{truncated}, {refused}"
    );
}

/// Conversations that come past every branch of the flow step.
fn conversations() -> Vec<Vec<Passing>> {
    let mut kept = Talk::new(Ends::v4(80, 2001));
    kept.exchange(200, 40).exchange(3000, 3).exchange(1, 1);
    let mut closed = Talk::new(Ends::v6(443, 2002));
    closed.exchange(500, 12);
    closed.say(Hook::Egress, Flags { fin: true, ..ACK }, 52);
    closed.say(Hook::Ingress, Flags { fin: true, ..ACK }, 0);
    closed.say(Hook::Egress, ACK, 0);
    let mut reset = Talk::new(Ends::v4(8080, 2003));
    reset
        .say(Hook::Ingress, ACK, 100)
        .say(Hook::Egress, ACK, 1448);
    let rst = Flags {
        rst: true,
        ..Flags::default()
    };
    reset.say(Hook::Ingress, rst, 0);
    let mut again = Talk::new(Ends::v4(25, 2004));
    again.say(Hook::Ingress, ACK, 100);
    let numbers = (again.seq(Hook::Egress), again.seq(Hook::Ingress));
    again
        .say(Hook::Egress, ACK, 1448)
        .say(Hook::Egress, ACK, 1448);
    again.out_of_order(Hook::Egress, numbers, ACK, 1448);
    again.out_of_order(
        Hook::Egress,
        (numbers.0.wrapping_add(2000), numbers.1),
        ACK,
        1448,
    );
    let ahead = again.seq(Hook::Egress).wrapping_add(20_000);
    again.out_of_order(Hook::Egress, (ahead, numbers.1), ACK, 1448);
    let mut super_packets = Talk::new(Ends::v4(80, 2005));
    super_packets.say(Hook::Ingress, ACK, 300);
    for segments in [2, 5, 1, 17, 40] {
        super_packets
            .say(Hook::Egress, ACK, 1448)
            .in_segments(segments);
    }
    let datagrams = (0..40)
        .map(|number| Passing {
            hook: BOTH[number % 2],
            frame: Ends::v6(443, 2006).udp(BOTH[number % 2], 1200),
            segments: 1,
        })
        .collect();
    let mut passed: Vec<Vec<Passing>> = [kept, closed, reset, again, super_packets]
        .iter_mut()
        .map(Talk::take)
        .collect();
    passed.push(datagrams);
    passed
}

#[test]
fn flows_messages_and_samples_are_the_hosts() {
    if !privileged() {
        return;
    }
    let mut kernel = Kernel::load(&settings());
    let mut twin = Twin::new(settings());
    for (number, passed) in conversations().iter().enumerate() {
        for (place, passing) in passed.iter().enumerate() {
            let name = format!("packet {place} of conversation {number}");
            let fate = twin.compare(&mut kernel, passing, &name);
            assert!(matches!(fate, Fate::Banded(_)), "{name}: {fate:?}");
        }
    }
    for counter in [
        Counter::RetransmittedPackets,
        Counter::EndedByTurn,
        Counter::EndedByClose,
        Counter::ControlPackets,
        Counter::DecisionPoints,
    ] {
        assert!(
            kernel.counter(counter) > 0,
            "no packet was {}",
            counter.name()
        );
    }
    assert_eq!(kernel.counter(Counter::ModelPackets), 0);
}

#[test]
fn only_the_chosen_flows_are_sampled() {
    if !privileged() {
        return;
    }
    let settings = Settings {
        sample_mask: 1,
        ..settings()
    };
    let mut kernel = Kernel::load(&settings);
    let mut twin = Twin::new(settings);
    for port in 3000..3064 {
        let frame = Ends::v4(53, port).udp(Hook::Egress, 10);
        let passing = Passing {
            hook: Hook::Egress,
            frame,
            segments: 1,
        };
        twin.compare(&mut kernel, &passing, "a datagram");
    }
    let sent = kernel.counter(Counter::SamplesSent);
    assert!((8..=56).contains(&sent), "{sent} of 64 flows were sampled");
}

#[test]
fn a_spent_budget_ends_sampling_until_the_next_window() {
    if !privileged() {
        return;
    }
    let settings = Settings {
        samples_per_window: 3,
        ..Settings::default()
    };
    let kernel = Kernel::load(&settings);
    for port in 4000..4200 {
        let frame = Ends::v4(53, port).udp(Hook::Egress, 10);
        let passing = Passing {
            hook: Hook::Egress,
            frame,
            segments: 1,
        };
        kernel.push(&passing).unwrap();
    }
    let sent = kernel.counter(Counter::SamplesSent);
    let limited = kernel.counter(Counter::SamplesLimited);
    assert_eq!(sent + limited, 200);
    assert!(sent >= 3 && limited > 100, "{sent} sent, {limited} limited");
}

#[test]
fn settings_of_another_version_make_every_packet_pass() {
    if !privileged() {
        return;
    }
    let mut kernel = Kernel::load(&settings());
    let foreign = Settings {
        abi_version: 77,
        ..settings()
    };
    kernel.datapath.set_settings(&foreign).unwrap();
    for hook in BOTH {
        let passing = Passing {
            hook,
            frame: tcp4(),
            segments: 1,
        };
        let ran = kernel.run(&passing).unwrap();
        assert_eq!(ran.counted[Skip::NoSettings as usize], 1);
        assert_eq!(ran.priority, crate::support::kernel::UNTOUCHED);
        assert!(ran.samples.is_empty());
    }
}

/// A packet of the pool, as it is or damaged.
fn random_packet(pool: &[Passing], rng: &mut StdRng) -> Passing {
    let mut passing = pool.choose(rng).expect("the pool is full").clone();
    let frame = &mut passing.frame;
    match rng.random_range(0..10) {
        0 => frame.truncate(rng.random_range(ETHERNET_BYTES..=frame.len())),
        1 => rng.fill(&mut frame[ETHERNET_BYTES..]),
        2..6 => {
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(12..frame.len().min(90));
                frame[at] = rng.random();
            }
        }
        _ => {}
    }
    if passing.hook == Hook::Egress && rng.random_range(0..4) == 0 {
        passing.segments = rng.random_range(0..60);
    }
    passing
}

#[test]
fn random_and_damaged_packets_are_judged_alike() {
    const ROUNDS: usize = 4000;
    if !privileged() {
        return;
    }
    let mut rng = StdRng::seed_from_u64(0x7ee1);
    // So short that some gaps end a message and some do not, and predictions count early.
    let settings = Settings {
        idle_floor_us: 500,
        first_bytes: 100,
        ..settings()
    };
    let mut kernel = Kernel::load(&settings);
    let mut twin = Twin::new(settings);
    let mut pool: Vec<Passing> = conversations().concat();
    for (_, frame, _) in table() {
        let frame = frame.clone();
        pool.extend(BOTH.map(|hook| Passing {
            hook,
            frame: frame.clone(),
            segments: 1,
        }));
    }
    let mut bands = [0; BANDS];
    let (mut skipped, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        if round % 500 == 250 {
            let table = tables::forest(round as u32, (16, 6), &mut rng);
            kernel.datapath.activate(&table).unwrap();
            twin.table = Some(table);
        }
        let passing = random_packet(&pool, &mut rng);
        let name = format!("round {round}, {passing:02x?}");
        match twin.compare(&mut kernel, &passing, &name) {
            Fate::Banded(band) => bands[usize::from(band)] += 1,
            Fate::Skipped(_) => skipped += 1,
            Fate::Refused => refused += 1,
        }
    }
    let figures = format!("{bands:?}, {skipped} skipped, {refused} refused");
    assert!(
        bands.iter().filter(|count| **count > 0).count() >= 4,
        "{figures}"
    );
    assert!(skipped > ROUNDS / 10 && refused < ROUNDS / 10, "{figures}");
    assert!(kernel.counter(Counter::EndedByGap) > 0);
}

/// A reply of so many segments on `port`; the band of every segment.
fn bands_of_reply(
    (kernel, twin): (&mut Kernel, &mut Twin),
    (port, far_port): (u16, u16),
    segments: usize,
) -> Vec<u8> {
    let mut talk = Talk::new(Ends::v4(port, far_port));
    let handshake_and_reply = talk.exchange(300, segments).take();
    handshake_and_reply
        .iter()
        .filter_map(|passing| {
            let data = passing.hook == Hook::Egress && passing.frame.len() > 1000;
            let fate = twin.compare(kernel, passing, "a reply");
            match fate {
                Fate::Banded(band) if data => Some(band),
                Fate::Banded(_) => None,
                other => panic!("{other:?}"),
            }
        })
        .collect()
}

#[test]
fn bands_follow_the_prediction_behind_the_first_bytes_and_never_rise() {
    if !privileged() {
        return;
    }
    let mut kernel = Kernel::load(&settings());
    let mut twin = Twin::new(settings());
    let pair = (&mut kernel, &mut twin);
    let aged = bands_of_reply(pair, (80, 5001), 120);
    // 15 000, 50 000 and 150 000 bytes are passed in segments 11, 35 and 104.
    let aging: Vec<u8> = (1..=120)
        .map(|segment| u8::from(segment > 10) + u8::from(segment > 34) + u8::from(segment > 103))
        .collect();
    assert_eq!(aged, aging);

    let table = tables::by_port(7, 80);
    kernel.datapath.activate(&table).unwrap();
    twin.table = Some(table);
    let long = bands_of_reply((&mut kernel, &mut twin), (80, 5002), 120);
    let expected: Vec<u8> = (1..=120)
        .map(|segment| if segment > 10 { 6 } else { 0 })
        .collect();
    assert_eq!(long, expected, "10 MB were predicted");
    let short = bands_of_reply((&mut kernel, &mut twin), (81, 5003), 120);
    assert_eq!(short, aging, "a wrong \"short\" must age");
    assert_eq!(kernel.datapath.packets_of(7).unwrap(), 240);
    assert_eq!(kernel.counter(Counter::ModelPackets), 240);

    // A message that was predicted to be long stays where it is when the model changes its mind.
    let mut talk = Talk::new(Ends::v4(80, 5004));
    talk.exchange(300, 16);
    let mut band = 0;
    for passing in talk.take() {
        twin.compare(&mut kernel, &passing, "before the change");
    }
    let milder = tables::by_port(8, 9999);
    kernel.datapath.activate(&milder).unwrap();
    twin.table = Some(milder);
    for _ in 0..20 {
        talk.say(Hook::Egress, ACK, 1448);
    }
    for passing in talk.take() {
        if let Fate::Banded(now) = twin.compare(&mut kernel, &passing, "after the change") {
            assert!(now >= band, "the message rose from band {band} to {now}");
            band = now;
        }
    }
    assert_eq!(band, 6);
    assert!(
        kernel.datapath.packets_of(8).unwrap() > 0,
        "the new model was asked"
    );
    let next = bands_of_reply((&mut kernel, &mut twin), (80, 5005), 20);
    assert_eq!(next.last(), Some(&1), "the next message starts afresh");
}

#[test]
fn an_unsound_table_is_refused_and_the_old_one_goes_on() {
    if !privileged() {
        return;
    }
    let mut kernel = Kernel::load(&settings());
    let mut twin = Twin::new(settings());
    let good = tables::by_port(3, 80);
    kernel.datapath.activate(&good).unwrap();
    twin.table = Some(good);
    let mut cyclic = tables::by_port(4, 80);
    cyclic.nodes[2].child = 0;
    let mut foreign = tables::by_port(5, 80);
    foreign.abi_version += 1;
    let mut outside = tables::by_port(6, 80);
    outside.nodes[2].child = 4;
    for bad in [cyclic, foreign, outside] {
        let error = kernel.datapath.activate(&bad).unwrap_err();
        assert!(
            matches!(error, DatapathError::UnsoundTable { .. }),
            "{error}"
        );
        let active = kernel.datapath.active().unwrap().unwrap();
        assert_eq!(active.generation, 3);
    }
    let bands = bands_of_reply((&mut kernel, &mut twin), (80, 6001), 12);
    assert_eq!(bands.last(), Some(&6));
    kernel.datapath.deactivate().unwrap();
    twin.table = None;
    let bands = bands_of_reply((&mut kernel, &mut twin), (80, 6002), 12);
    assert_eq!(bands.last(), Some(&1), "without a model aging rules");
}
