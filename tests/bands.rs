//! A model at work in the kernel programs.

use scheduler_common::{
    class::Cuts, counter::Counter, sample::Hook, settings::Settings, tree::Block,
};
use treeline::datapath::DatapathError;

use crate::support::{
    host::{Fate, Twin},
    kernel::Kernel,
    packets::{ACK, Ends, Talk},
    privileged, tables, unlimited,
};

/// Cut points of this test's own: the defaults may change.
fn settings() -> Settings {
    let cuts = Cuts {
        bytes: [
            15_000, 50_000, 150_000, 500_000, 1_500_000, 5_000_000, 15_000_000,
        ],
        _pad: 0,
    };
    Settings {
        cuts,
        first_bytes: 15_000,
        ..unlimited()
    }
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
    // Of each reply the ten segments that stay on top whatever is predicted are nobody's.
    assert_eq!(kernel.datapath.packets_of(7).unwrap(), 220);
    assert_eq!(kernel.counter(Counter::ModelPackets), 220);

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
    cyclic.blocks[0] = Block::split([1; 3], [0; 3], 0);
    let mut foreign = tables::by_port(5, 80);
    foreign.abi_version += 1;
    let mut outside = tables::by_port(6, 80);
    outside.blocks[0] = Block::split([1; 3], [0; 3], 64);
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
