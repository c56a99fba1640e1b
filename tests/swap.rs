//! Models are exchanged under load without a packet seeing a mix.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use rand::{SeedableRng as _, rngs::StdRng};
use scheduler_common::{
    counter::GENERATION_SLOTS,
    sample::{Hook, Sample, SampleKind},
    settings::Settings,
    tree::Table,
};
use scheduler_ebpf::parse;

use crate::support::{
    kernel::{Kernel, Programs},
    packets::{Ends, Passing},
    privileged, tables, unlimited,
};

const FLIPS: u32 = 120;
const RUNNERS: u16 = 2;

/// Every leaf of this generation's table carries the generation in its prediction.
fn mark_of(generation: u32) -> u16 {
    let half: u16 = if generation.is_multiple_of(2) {
        14 << 8
    } else {
        30 << 8
    };
    half + (generation % 256) as u16
}

/// In blocks and in the oblivious form by turns: a walk that mixed the forms would end anywhere.
fn table(generation: u32, rng: &mut StdRng) -> Box<Table> {
    let grow = if (generation / 2).is_multiple_of(2) {
        tables::unanimous
    } else {
        tables::unanimous_oblivious
    };
    grow(generation, mark_of(generation), rng)
}

fn datagram(near_port: u16, far_port: u16) -> Passing {
    Passing {
        hook: Hook::Egress,
        frame: Ends::v4(near_port, far_port).udp(Hook::Egress, 100),
        segments: 1,
    }
}

fn tag_of(kernel: &Kernel, passing: &Passing) -> u64 {
    let headers = parse::headers(passing.frame.as_slice()).expect("a plain datagram");
    kernel.identify(&headers).tag
}

/// The generations in these samples, each of which must belong to its prediction.
fn check(samples: Vec<Sample>, seen: &mut BTreeSet<u32>) -> usize {
    let mut count = 0;
    // The end of a message, too, leaves a sample; only a decision has a prediction.
    let decisions = samples
        .into_iter()
        .filter(|sample| sample.kind == SampleKind::Decision as u16);
    for sample in decisions {
        count += 1;
        assert_eq!(
            sample.predicted_log2_q8,
            u32::from(mark_of(sample.generation)),
            "generation {} is stamped on another table's prediction",
            sample.generation
        );
        seen.insert(sample.generation);
    }
    count
}

#[test]
fn a_flip_is_whole_and_immediate_under_load() {
    if !privileged() {
        return;
    }
    let mut rng = StdRng::seed_from_u64(11);
    // The first packet of a flow, too, goes by the model.
    let mut kernel = Kernel::load(&Settings {
        first_bytes: 0,
        stream_window_us: 0,
        ..unlimited()
    });
    kernel.datapath.activate(&table(1, &mut rng)).unwrap();
    let runners: Vec<Programs> = (0..RUNNERS).map(|_| kernel.programs()).collect();
    let stop = AtomicBool::new(false);
    let mut seen = BTreeSet::new();
    let mut count = 0;
    thread::scope(|scope| {
        for (runner, near_port) in runners.iter().zip(100..) {
            let stop = &stop;
            scope.spawn(move || {
                // Each datagram opens a flow, so each is a decision.
                for far_port in (1024..=u16::MAX).cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    runner.push(&datagram(near_port, far_port)).unwrap();
                }
            });
        }
        // Ends the runners also when an assertion fails.
        let stopper = StopOnDrop(&stop);
        for generation in 2..2 + FLIPS {
            kernel
                .datapath
                .activate(&table(generation, &mut rng))
                .unwrap();
            let probe = datagram(99, generation as u16);
            kernel.push(&probe).unwrap();
            let (flow, _) = kernel.flow(tag_of(&kernel, &probe)).unwrap();
            let by = flow.halves.map(|half| u32::from(half.generation_slot));
            assert!(
                by.contains(&(generation % GENERATION_SLOTS)),
                "after the flip to {generation} a packet still met generation {by:?}"
            );
            count += check(kernel.drain(), &mut seen);
        }
        drop(stopper);
    });
    count += check(kernel.drain(), &mut seen);
    assert!(
        seen.len() as u32 >= FLIPS,
        "only {} generations were met",
        seen.len()
    );
    assert!(count as u32 > FLIPS * 10, "only {count} samples");
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
