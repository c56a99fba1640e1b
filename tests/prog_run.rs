//! The programs on single packets, compared with the same code on the host.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use scheduler_common::{
    class::BANDS,
    counter::{Counter, Skip},
    sample::Hook,
    settings::{Settings, settings_flags},
};

use crate::support::{
    frames::{BOTH, QINQ, VLAN, conversations, extension, table, tcp4, tcp6, udp4, udp6},
    host::{Fate, Twin},
    kernel::{Kernel, UNTOUCHED},
    packets::{
        ETHERNET_BYTES, Ends, Passing, tagged, tunnelled, with_extensions, with_ipv4_options,
    },
    privileged, tables, unlimited,
};

/// The kernel's test interface makes no packet of frames that end in the network header.
const REFUSED_BELOW_BYTES: usize = ETHERNET_BYTES + 40;

#[test]
fn every_frame_of_the_table_is_judged_alike_in_the_kernel_and_on_the_host() {
    if !privileged() {
        return;
    }
    let mut kernel = Kernel::load(&unlimited());
    let mut twin = Twin::new(unlimited());
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
fn tunnels_are_entered_when_asked_for() {
    if !privileged() {
        return;
    }
    for flags in [0, settings_flags::INNER] {
        let settings = Settings {
            flags,
            ..unlimited()
        };
        let mut kernel = Kernel::load(&settings);
        let mut twin = Twin::new(settings);
        for frame in [
            udp4(),
            with_ipv4_options(&tcp4(), 3),
            tagged(&tcp4(), &[VLAN]),
        ] {
            for (number, frame) in tunnelled(&frame).into_iter().enumerate() {
                for hook in BOTH {
                    let passing = Passing {
                        hook,
                        frame: frame.clone(),
                        segments: 1,
                    };
                    twin.compare(&mut kernel, &passing, &format!("tunnel {number}"));
                }
            }
        }
        let inner = kernel.counter(Counter::InnerPackets);
        // What a tag stands before is no packet to GRE and IP in IP.
        assert!(if flags == 0 { inner == 0 } else { inner >= 26 }, "{inner}");
    }
}

#[test]
fn a_frame_may_end_at_any_byte() {
    if !privileged() {
        return;
    }
    let mut kernel = Kernel::load(&unlimited());
    let mut twin = Twin::new(unlimited());
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

#[test]
fn flows_messages_and_samples_are_the_hosts() {
    if !privileged() {
        return;
    }
    let mut kernel = Kernel::load(&unlimited());
    let mut twin = Twin::new(unlimited());
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

/// Bands of so many small packets of one flow, without repetitions.
fn voice(kernel: &mut Kernel, twin: &mut Twin, packets: usize) -> Vec<u8> {
    let passing = Passing {
        hook: Hook::Egress,
        frame: Ends::v4(5004, 40_000).udp(Hook::Egress, 200),
        segments: 1,
    };
    let mut bands: Vec<u8> = (0..packets)
        .map(
            |place| match twin.compare(kernel, &passing, &format!("packet {place}")) {
                Fate::Banded(band) => band,
                fate => panic!("packet {place}: {fate:?}"),
            },
        )
        .collect();
    bands.dedup();
    bands
}

/// The agent may cut the top band far below the first bytes.
#[test]
fn a_stream_stays_on_top_wherever_the_first_cut_is() {
    if !privileged() {
        return;
    }
    let mut settings = Settings {
        stream_window_us: 1,
        idle_floor_us: 60_000_000,
        ..unlimited()
    };
    settings.cuts.bytes[0] = 2_640;
    let mut kernel = Kernel::load(&settings);
    let mut twin = Twin::new(settings);
    assert_eq!(voice(&mut kernel, &mut twin, 400), [0]);
}

#[test]
fn a_stream_stays_on_top_until_it_turns_into_something_else() {
    if !privileged() {
        return;
    }
    // Packets come as fast as they can: nothing is too fast, and then everything.
    let settings = Settings {
        stream_window_us: 1,
        idle_floor_us: 60_000_000,
        ..unlimited()
    };
    let mut kernel = Kernel::load(&settings);
    let mut twin = Twin::new(settings);
    assert_eq!(voice(&mut kernel, &mut twin, 400), [0]);
    assert!(kernel.counter(Counter::DecisionPoints) > 20);
    let nothing_is_slow = Settings {
        stream_window_us: u32::MAX,
        ..settings
    };
    kernel.datapath.set_settings(&nothing_is_slow).unwrap();
    twin.settings = nothing_is_slow;
    // The rest of a window, after which its message is over, and the first bytes of the next one.
    assert_eq!(voice(&mut kernel, &mut twin, 60), [0]);
    assert_eq!(kernel.counter(Counter::EndedByGap), 1);
    assert_eq!(voice(&mut kernel, &mut twin, 300), [0, 1, 2]);
    assert_eq!(kernel.counter(Counter::EndedByGap), 1);
}

#[test]
fn only_the_chosen_flows_are_sampled() {
    if !privileged() {
        return;
    }
    let settings = Settings {
        sample_mask: 1,
        ..unlimited()
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
    let mut kernel = Kernel::load(&unlimited());
    let foreign = Settings {
        abi_version: 77,
        ..unlimited()
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
        assert_eq!(ran.priority, UNTOUCHED);
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
        ..unlimited()
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
        if round % 200 == 100 {
            // One tree has leaves far apart; the mean of many is near the middle.
            let trees = if round % 400 == 100 { 1 } else { 16 };
            let grow = [tables::forest, tables::oblivious][round / 400 % 2];
            let table = grow(round as u32, (trees, 6), &mut rng);
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
        bands.iter().filter(|count| **count > 0).count() >= 3,
        "{figures}"
    );
    assert!(skipped > ROUNDS / 10 && refused < ROUNDS / 10, "{figures}");
    assert!(kernel.counter(Counter::EndedByGap) > 0);
}
