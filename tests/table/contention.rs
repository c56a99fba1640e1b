//! Two CPUs that fight for the same entries.

use std::{collections::BTreeMap, sync::Barrier, thread};

use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use scheduler_common::{
    class::BANDS,
    counter::Counter,
    flow::{Flow, WAYS},
    sample::Hook,
    settings::Settings,
};
use scheduler_ebpf::hash;

use super::{Known, patient, sets};
use crate::support::{
    kernel::{Kernel, Programs},
    packets::{Ends, Passing},
    privileged,
};

/// CPUs at once; an entry's races are bounded by it.
const CPUS: usize = 2;
const TC_ACT_UNSPEC: u32 = -1i32 as u32;
const XDP_PASS: u32 = 2;

/// Two CPUs of this process; one twice where there is but one.
fn cpus() -> [usize; CPUS] {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true));
    let first = cpus.next().expect("this runs on one");
    [first, cpus.next().unwrap_or(first)]
}

/// Runs `work` on both CPUs at the same time, with programs of its own.
fn on_both(kernel: &Kernel, work: impl Fn(usize, &Programs) + Sync) {
    let start = Barrier::new(CPUS);
    thread::scope(|scope| {
        for (index, cpu) in cpus().into_iter().enumerate() {
            let (start, work, programs) = (&start, &work, kernel.programs());
            scope.spawn(move || {
                let mut set = CpuSet::new();
                set.set(cpu).unwrap();
                sched_setaffinity(Pid::from_raw(0), &set).unwrap();
                start.wait();
                work(index, &programs);
            });
        }
    });
}

/// Pushes, and holds that the packet passes.
fn push(programs: &Programs, passing: &Passing, times: u32) {
    let (verdict, _) = programs.push_often(passing, times).unwrap();
    let pass = match passing.hook {
        Hook::Egress => TC_ACT_UNSPEC,
        Hook::Ingress => XDP_PASS,
    };
    assert_eq!(verdict, pass);
}

/// Holds that each packet was accounted once: counters belong to one CPU each, so they are exact.
fn assert_all_counted(kernel: &Kernel, egress: u64, ingress: u64) {
    let count = |counter| kernel.counter(counter);
    assert_eq!(count(Counter::EgressPackets), egress);
    assert_eq!(count(Counter::IngressPackets), ingress);
    assert_eq!(count(Counter::AgingPackets), egress, "none was skipped");
    let named = kernel.datapath.counters().unwrap();
    let skipped = named
        .iter()
        .filter(|(counter, _)| counter.name().starts_with("skip_"));
    assert_eq!(skipped.map(|(_, count)| count).sum::<u64>(), 0);
}

#[test]
fn two_cpus_with_a_direction_each_lose_nothing() {
    const BATCHES: u32 = 2;
    const TIMES: u32 = 200_000;
    if !privileged() {
        return;
    }
    let kernel = Kernel::with_entries(&patient(), 64);
    let known = Known::new(&kernel, Ends::v4(443, 7000), 100);
    known.push(&kernel);
    on_both(&kernel, |index, programs| {
        for _ in 0..BATCHES {
            push(programs, &known.passing[index], TIMES);
        }
    });
    let pushed = BATCHES * TIMES;
    let flow = known.entry(&kernel).unwrap();
    let [egress, ingress] = known.half.map(|half| flow.halves[half]);
    assert_eq!(
        (egress.packets, egress.bytes),
        (pushed + 1, (pushed + 1) * 100)
    );
    assert_eq!((ingress.packets, ingress.bytes), (pushed, pushed * 100));
    assert_eq!([egress.band, ingress.band], [BANDS as u8 - 1; 2]);
    assert_all_counted(&kernel, u64::from(pushed) + 1, u64::from(pushed));
    assert_eq!(kernel.counter(Counter::FlowsCreated), 1);
    assert_eq!(kernel.counter(Counter::MessagesStarted), 2);
}

#[test]
fn two_cpus_in_one_direction_lose_bytes_and_nothing_else() {
    const BATCHES: u32 = 2;
    const TIMES: u32 = 200_000;
    if !privileged() {
        return;
    }
    // A CPU that was stopped brings old flags back with it: with streams, a message that was one once more would end.
    let settings = Settings {
        stream_window_us: 0,
        ..patient()
    };
    let kernel = Kernel::with_entries(&settings, 64);
    let known = Known::new(&kernel, Ends::v6(443, 7000), 100);
    known.push(&kernel);
    on_both(&kernel, |_, programs| {
        for _ in 0..BATCHES {
            push(programs, &known.passing[0], TIMES);
        }
    });
    let by_one = BATCHES * TIMES;
    let by_all = 2 * by_one + 1;
    let flow = known.entry(&kernel).unwrap();
    let half = flow.halves[known.half[0]];
    println!("{} of {by_all} packets are in the entry", half.packets);
    // Each store is an own load plus one, so about the pushes of one CPU are the least; a CPU that was
    // stopped between the two throws the other back.
    for (kept, each) in [(half.packets, 1), (half.bytes, 100)] {
        assert!(
            kept <= by_all * each && kept >= by_one * each / 2,
            "{half:?}"
        );
    }
    assert_eq!(half.band, BANDS as u8 - 1);
    assert_all_counted(&kernel, u64::from(by_all), 0);
    assert_eq!(kernel.counter(Counter::FlowsCreated), 1);
    assert_eq!(kernel.counter(Counter::MessagesStarted), 1);
}

/// What stood in the table after a storm.
#[derive(Debug, Default)]
struct Left {
    entries: usize,
    /// Directions with bytes that are not so many packets of this flow.
    mixed_halves: usize,
    /// Tags that stand in a set twice.
    doubles: usize,
}

/// Times that each CPU repeats an egress packet inside the kernel: the second hardly leaves it, so that most packets
/// of the first meet one. Ingress packets come once, for a repeated one waits for a grace period of RCU.
const TIMES: [u32; CPUS] = [1, 100];
const ROUNDS: u32 = 2;

/// Each CPU pushes all flows in an order of its own, both directions.
fn storm(kernel: &Kernel, flows: &[Known], seed: u64) {
    on_both(kernel, |index, programs| {
        let mut order: Vec<&Known> = flows.iter().collect();
        let mut random = StdRng::seed_from_u64(seed * CPUS as u64 + index as u64);
        for _ in 0..ROUNDS {
            order.shuffle(&mut random);
            for known in &order {
                push(
                    programs,
                    &known.passing[Hook::Egress as usize],
                    TIMES[index],
                );
                push(programs, &known.passing[Hook::Ingress as usize], 1);
            }
        }
    });
}

/// Holds that what stands in the table are the flows, each in its set; `pushed` is by flow and direction.
fn survey(kernel: &Kernel, flows: &[Known], entries: u32, pushed: u64) -> Left {
    let by_tag: BTreeMap<u64, &Known> = flows.iter().map(|known| (known.tag, known)).collect();
    let most_bytes = flows
        .iter()
        .map(|known| u64::from(known.payload_bytes))
        .sum::<u64>()
        * pushed;
    let mut left = Left::default();
    for (index, set) in sets(kernel, entries).iter().enumerate() {
        let mut copies: BTreeMap<u64, usize> = BTreeMap::new();
        for flow in set.flows.iter().filter(|flow| flow.tag != 0) {
            let known = by_tag.get(&flow.tag).expect("nobody pushed this flow");
            assert_eq!(hash::set_of(flow.tag, &kernel.hashing) as usize, index);
            *copies.entry(flow.tag).or_default() += 1;
            left.entries += 1;
            left.mixed_halves += mixed(flow, known, (pushed, most_bytes));
        }
        assert!(copies.values().all(|count| *count <= CPUS), "{copies:?}");
        left.doubles += copies.values().filter(|count| **count > 1).count();
    }
    left
}

/// Directions of the entry that hold another flow's numbers: a CPU had found its flow before the place was taken.
fn mixed(flow: &Flow, known: &Known, (pushed, most_bytes): (u64, u64)) -> usize {
    let is_mixed = |half: &&scheduler_common::flow::Half| {
        assert!(usize::from(half.band) < BANDS, "{half:?}");
        assert!(u64::from(half.bytes) <= most_bytes, "{half:?}");
        u64::from(half.packets) > pushed || half.bytes != half.packets * known.payload_bytes
    };
    flow.halves.iter().filter(is_mixed).count()
}

/// Holds that the flow is found, grows and falls to lower bands as if there had been no storm.
fn assert_works(kernel: &Kernel, known: &Known) {
    let half = |kernel: &Kernel| known.entry(kernel).expect("it was pushed").halves[known.half[0]];
    known.push(kernel);
    let created = kernel.counter(Counter::FlowsCreated);
    let before = half(kernel);
    known.push(kernel);
    let after = half(kernel);
    assert_eq!(after.bytes, before.bytes + known.payload_bytes);
    assert_eq!(after.packets, before.packets + 1);
    let mut band = after.band;
    while band == after.band && usize::from(band) < BANDS - 1 {
        kernel.push_often(&known.passing[0], 50).unwrap();
        let now = half(kernel);
        assert!(now.band >= band && now.bytes < 8_000_000, "{now:?}");
        band = now.band;
    }
    assert_eq!(kernel.counter(Counter::FlowsCreated), created);
}

/// Storms over tables of `entries`; answers what was left, all together.
fn storms(entries: u32, flows: u16, storms: u64) -> Left {
    let mut sum = Left::default();
    let mut twice_taken = 0;
    for seed in 0..storms {
        let kernel = Kernel::with_entries(&patient(), entries);
        let known = Known::many(&kernel, flows);
        storm(&kernel, &known, seed);
        let by_flow = u64::from(ROUNDS * TIMES.iter().sum::<u32>());
        let ingress_by_flow = u64::from(ROUNDS) * CPUS as u64;
        let all = u64::from(flows);
        assert_all_counted(&kernel, by_flow * all, ingress_by_flow * all);
        let [created, evicted] =
            [Counter::FlowsCreated, Counter::FlowsEvicted].map(|counter| kernel.counter(counter));
        let left = survey(&kernel, &known, entries, by_flow);
        assert_eq!(left.entries, entries as usize, "every place is taken");
        // A creation that evicts nobody has taken a free place, which each CPU can do but once.
        let free_taken = created - evicted;
        let places = u64::from(entries);
        twice_taken += free_taken - places;
        assert!(
            (places..=places * CPUS as u64).contains(&free_taken),
            "{created} {evicted}"
        );
        assert!(evicted >= all - places * CPUS as u64, "{evicted}");
        for known in known.iter().take(3 * WAYS) {
            assert_works(&kernel, known);
        }
        sum.entries += left.entries;
        sum.mixed_halves += left.mixed_halves;
        sum.doubles += left.doubles;
    }
    println!(
        "{entries} entries, {flows} flows, {storms} storms: {sum:?}, {twice_taken} free places taken twice"
    );
    sum
}

#[test]
fn thousands_of_flows_from_two_cpus_leave_a_sound_table() {
    if !privileged() {
        return;
    }
    let left = storms(64, 2000, 2);
    // A packet must meet another in the same few instructions of the same set.
    assert!(left.mixed_halves * 20 <= left.entries, "{left:?}");
    assert!(left.doubles * 10 <= left.entries, "{left:?}");
}

#[test]
fn one_set_that_all_fight_for_stays_sound() {
    if !privileged() {
        return;
    }
    let left = storms(WAYS as u32, 300, 12);
    assert!(left.mixed_halves * 5 <= left.entries, "{left:?}");
    assert!(left.doubles * 5 <= left.entries, "{left:?}");
}
