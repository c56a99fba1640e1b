//! The flow table of the loaded programs: its sizes, what it keeps, what it lets go.

mod contention;
mod memory;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use scheduler_common::{
    counter::Counter,
    flow::{DEAD_TICKS, Flow, FlowSet, MAX_ENTRIES, WAYS},
    sample::Hook,
    settings::Settings,
};
use scheduler_ebpf::parse;

use crate::support::{
    frames::BOTH,
    kernel::Kernel,
    packets::{Ends, Passing},
    privileged,
};

/// A flow as the tests push it.
#[derive(Clone, Debug)]
struct Known {
    /// A datagram by hook.
    passing: [Passing; 2],
    tag: u64,
    /// Index of the direction by hook.
    half: [usize; 2],
    payload_bytes: u32,
}

impl Known {
    fn new(kernel: &Kernel, ends: Ends, payload_bytes: usize) -> Self {
        let passing = BOTH.map(|hook| Passing {
            hook,
            frame: ends.udp(hook, payload_bytes),
            segments: 1,
        });
        let identities = passing.each_ref().map(|passing| {
            let headers = parse::headers(passing.frame.as_slice()).expect("a plain datagram");
            kernel.identify(&headers)
        });
        Self {
            passing,
            tag: identities[0].tag,
            half: identities.map(|identity| identity.half as usize),
            payload_bytes: payload_bytes as u32,
        }
    }

    /// So many flows of as many far ports, with payloads that tell them apart.
    fn many(kernel: &Kernel, count: u16) -> Vec<Self> {
        (0..count)
            .map(|number| {
                let ends = Ends::v4(443, 1024 + number);
                Self::new(kernel, ends, 64 + usize::from(number) % 1024)
            })
            .collect()
    }

    fn push(&self, kernel: &Kernel) {
        kernel.push(&self.passing[Hook::Egress as usize]).unwrap();
    }

    fn entry(&self, kernel: &Kernel) -> Option<Flow> {
        kernel.flow(self.tag).map(|(flow, _)| flow)
    }
}

/// No pause of the machine ends a message.
fn patient() -> Settings {
    Settings {
        idle_floor_us: 600_000_000,
        ..Settings::default()
    }
}

/// All sets of a table of `entries`.
fn sets(kernel: &Kernel, entries: u32) -> Vec<FlowSet> {
    (0..entries / WAYS as u32)
        .map(|set| kernel.set(set))
        .collect()
}

/// Pushes the flow until the coarse clock has gone on.
fn push_later(kernel: &Kernel, known: &Known, after_ticks: u32) -> u32 {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        known.push(kernel);
        let entry = known.entry(kernel).expect("it has just been pushed");
        let ticks = entry.halves[known.half[0]].last_ticks;
        if ticks.wrapping_sub(after_ticks) as i32 > 0 {
            return ticks;
        }
        assert!(Instant::now() < deadline, "the coarse clock stands still");
    }
}

fn present(kernel: &Kernel, flows: &[Known]) -> Vec<usize> {
    (0..flows.len())
        .filter(|index| flows[*index].entry(kernel).is_some())
        .collect()
}

#[test]
fn the_flow_that_was_silent_for_longest_makes_room() {
    if !privileged() {
        return;
    }
    let mut kernel = Kernel::with_entries(&patient(), WAYS as u32);
    let flows = Known::many(&kernel, 7);
    flows[0].push(&kernel);
    let first = flows[0].entry(&kernel).unwrap().halves[flows[0].half[0]].last_ticks;
    let mut ticks = first;
    for flow in &flows[1..4] {
        ticks = push_later(&kernel, flow, ticks);
    }
    let counted = |kernel: &Kernel| {
        [Counter::FlowsCreated, Counter::FlowsEvicted].map(|counter| kernel.counter(counter))
    };
    assert_eq!(counted(&kernel), [4, 0], "free places are no evictions");
    // The first has been heard again, so the second is the oldest, then the third.
    ticks = push_later(&kernel, &flows[0], ticks);
    ticks = push_later(&kernel, &flows[4], ticks);
    assert_eq!(present(&kernel, &flows), [0, 2, 3, 4]);
    ticks = push_later(&kernel, &flows[5], ticks);
    assert_eq!(present(&kernel, &flows), [0, 3, 4, 5]);
    assert_eq!(counted(&kernel), [6, 2]);
    // A place whose flow is dead is given away like any other, but nobody has lost it.
    kernel.age(flows[4].tag, DEAD_TICKS + 1);
    push_later(&kernel, &flows[6], ticks);
    assert_eq!(present(&kernel, &flows), [0, 3, 5, 6]);
    assert_eq!(counted(&kernel), [7, 2]);
}

#[test]
fn a_table_has_the_size_asked_for_rounded_up_to_a_power_of_two() {
    if !privileged() {
        return;
    }
    for (asked, given) in [
        (0, 4),
        (1, 4),
        (4, 4),
        (5, 8),
        (64, 64),
        (100, 128),
        (65_537, 131_072),
    ] {
        let kernel = Kernel::with_entries(&patient(), asked);
        assert_eq!(kernel.datapath.flow_entries().unwrap(), given, "{asked}");
        // The last set can be reached.
        let last = given / WAYS as u32 - 1;
        assert_eq!(kernel.set(last), FlowSet::default());
    }
}

#[test]
fn the_largest_table_loads_and_works() {
    const NEEDED_KIB: u64 = 4 << 20;
    if !privileged() {
        return;
    }
    let available_kib = memory::available_kib();
    let entries = if available_kib < NEEDED_KIB {
        eprintln!("1 Mi entries only: {available_kib} KiB of memory are too few for 16 Mi");
        1 << 20
    } else {
        u32::MAX
    };
    let kernel = Kernel::with_entries(&patient(), entries);
    let given = kernel.datapath.flow_entries().unwrap();
    assert_eq!(given, entries.min(MAX_ENTRIES));
    let flows = Known::many(&kernel, 200);
    let used: BTreeSet<u32> = flows
        .iter()
        .map(|flow| scheduler_ebpf::hash::set_of(flow.tag, &kernel.hashing))
        .collect();
    // Flows lie in all of it: chance puts one of 200 in the last sixteenth, and misses it once in 400 000 loads.
    let last = used.last().expect("there are flows");
    assert!(
        *last >= given / WAYS as u32 / 16 * 15,
        "set {last} is the last"
    );
    for flow in &flows {
        flow.push(&kernel);
        flow.push(&kernel);
        let entry = flow.entry(&kernel).unwrap();
        assert_eq!(entry.halves[flow.half[0]].packets, 2);
    }
    assert_eq!(kernel.counter(Counter::FlowsCreated), 200);
    assert_eq!(kernel.counter(Counter::FlowsEvicted), 0);
}

/// Share of places that `flows` flows a set on average leave used: chance alone, and no place wasted.
fn expected_use(flows: f64) -> f64 {
    let (mut probability, mut used, mut rest) = ((-flows).exp(), 0.0, 1.0);
    for count in 0..WAYS {
        used += probability * count as f64;
        rest -= probability;
        probability *= flows / (count + 1) as f64;
    }
    (used + rest * WAYS as f64) / WAYS as f64
}

#[test]
fn a_flood_fills_the_table_like_chance_and_spares_what_fits() {
    const ENTRIES: u32 = 8192;
    if !privileged() {
        return;
    }
    // Flows by entry, and the bounds of the share that the second round still finds.
    for (load, survive) in [(0.5, 0.80..0.97), (1.0, 0.38..0.85)] {
        let kernel = Kernel::with_entries(&patient(), ENTRIES);
        let flows = Known::many(&kernel, (f64::from(ENTRIES) * load) as u16);
        let count = flows.len() as f64;
        for flow in &flows {
            flow.push(&kernel);
        }
        assert_eq!(kernel.counter(Counter::FlowsCreated), flows.len() as u64);
        let kept = present(&kernel, &flows).len() as f64;
        let created = kernel.counter(Counter::FlowsCreated);
        let evicted = kernel.counter(Counter::FlowsEvicted) as f64;
        assert_eq!(
            kept + evicted,
            count,
            "each flow has its place or has lost it"
        );
        let used = kept / f64::from(ENTRIES);
        let expected = expected_use(load * WAYS as f64);
        for flow in &flows {
            flow.push(&kernel);
        }
        let found = 1.0 - (kernel.counter(Counter::FlowsCreated) - created) as f64 / count;
        println!(
            "load {load}: {used:.3} of the places used (chance: {expected:.3}), \
             {found:.3} of the flows found by the second round"
        );
        assert!((used - expected).abs() < 0.03, "{used} {expected}");
        assert!(survive.contains(&found), "{found}");
    }
}

#[test]
fn both_families_are_kept_alike_and_each_load_has_its_secret() {
    if !privileged() {
        return;
    }
    let kernels = [0; 2].map(|_| Kernel::load(&patient()));
    let mut tags = BTreeSet::new();
    for ends in [Ends::v4(443, 5000), Ends::v6(443, 5000)] {
        let mut kept = Vec::new();
        for kernel in &kernels {
            let known = Known::new(kernel, ends, 700);
            for _ in 0..30 {
                for passing in &known.passing {
                    kernel.push(passing).unwrap();
                }
            }
            assert!(tags.insert(known.tag), "another secret, another tag");
            let (flow, story) = kernel.flow(known.tag).unwrap();
            let halves = known.half.map(|half| {
                let (half, page) = (&flow.halves[half], &story.halves[half]);
                (
                    half.bytes,
                    half.packets,
                    half.band,
                    half.flags,
                    half.until_bytes,
                    page.message,
                )
            });
            assert_eq!((halves[0].0, halves[0].1, halves[0].2), (21_000, 30, 1));
            kept.push((halves, story.service_port, story.service_known));
        }
        assert_eq!(kept[0], kept[1]);
        if let Some(other) = tags.iter().next() {
            // Who knows one load's tags finds nothing in the other.
            let found = kernels
                .each_ref()
                .map(|kernel| kernel.flow(*other).is_some());
            assert!(found[0] != found[1]);
        }
    }
    let [a, b] = kernels.map(|kernel| kernel.hashing);
    assert!(
        a.multipliers
            .iter()
            .zip(&b.multipliers)
            .all(|(a, b)| a != b)
    );
    assert_ne!(a.sample_key, b.sample_key);
}
