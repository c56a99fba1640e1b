//! A model in the shadow answers, is counted and reported, and changes nothing.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use scheduler_common::{sample::Hook, settings::Settings};

use crate::support::{
    host::Twin,
    kernel::Kernel,
    packets::{Ends, Passing},
    privileged, tables, unlimited,
};

const ACTS: u32 = 6;
const WATCHED: u32 = 7;

/// Datagrams of a few flows, whose messages grow beyond the first bytes.
fn datagrams(rng: &mut StdRng) -> Vec<Passing> {
    (0..1500)
        .map(|_| {
            let near_port = *[41000, 41001, 41002].choose(rng).unwrap();
            let far_port = *[80, 443, 5060, 5061].choose(rng).unwrap();
            let payload = rng.random_range(1..1400);
            Passing {
                hook: Hook::Egress,
                frame: Ends::v4(near_port, far_port).udp(Hook::Egress, payload),
                segments: rng.random_range(1..20),
            }
        })
        .collect()
}

#[test]
fn a_watched_model_answers_beside_the_acting_one_and_changes_nothing() {
    if !privileged() {
        return;
    }
    let mut rng = StdRng::seed_from_u64(8);
    let settings = unlimited();
    let mut kernel = Kernel::load(&settings);
    let mut twin = Twin::new(settings);
    let acts = tables::by_port(ACTS, 443);
    let watched = tables::by_port(WATCHED, 5060);
    kernel.datapath.activate(&acts).unwrap();
    kernel.datapath.watch(&watched).unwrap();
    assert_eq!(kernel.datapath.active().unwrap().unwrap().generation, ACTS);
    assert_eq!(
        kernel.datapath.watched().unwrap().unwrap().generation,
        WATCHED
    );
    twin.table = Some(acts);
    twin.shadow = Some(watched);
    let packets = datagrams(&mut rng);
    // The twin holds bands, entries and samples to what they are; the shadow's answers stand in the latter.
    let (before, after) = packets.split_at(packets.len() / 2);
    for passing in before {
        twin.compare(&mut kernel, passing, "with a shadow");
    }
    let bands = kernel.datapath.beside(WATCHED).unwrap();
    assert_eq!(bands, twin.beside.bands);
    let (mut same, mut other) = (0, 0);
    for (stood, guessed) in bands.iter().enumerate() {
        for (guess, count) in guessed.iter().enumerate() {
            *(if stood == guess {
                &mut same
            } else {
                &mut other
            }) += count;
        }
    }
    assert!(same > 0 && other > 0, "{bands:?}");
    assert_eq!(kernel.datapath.packets_of(WATCHED).unwrap(), 0);

    kernel.datapath.watch_none().unwrap();
    assert_eq!(kernel.datapath.watched().unwrap(), None);
    assert_eq!(kernel.datapath.active().unwrap().unwrap().generation, ACTS);
    twin.shadow = None;
    for passing in after {
        twin.compare(&mut kernel, passing, "without a shadow");
    }
    assert_eq!(kernel.datapath.beside(WATCHED).unwrap(), bands);
}

#[test]
fn an_exchange_under_way_is_the_hosts_too() {
    if !privileged() {
        return;
    }
    let mut rng = StdRng::seed_from_u64(9);
    let settings = Settings {
        first_bytes: 3000,
        // A stream is not asked about.
        stream_window_us: 0,
        ..unlimited()
    };
    let mut kernel = Kernel::load(&settings);
    let mut twin = Twin::new(settings);
    for (passing, number) in datagrams(&mut rng).iter().zip(0u32..) {
        if number.is_multiple_of(300) {
            let generation = 1 + number / 300;
            let port = *[80, 443, 5060].choose(&mut rng).unwrap();
            let table = tables::by_port(generation, port);
            kernel.datapath.activate(&table).unwrap();
            twin.table = Some(table);
            let shadow = tables::by_port(generation + 100, 5061);
            kernel.datapath.watch(&shadow).unwrap();
            twin.shadow = Some(shadow);
        }
        twin.compare(&mut kernel, passing, "across exchanges");
    }
    assert!(twin.held() > 0, "no message was open across an exchange");
}
