//! Snapshots, ends, and what the table says of them.

use scheduler_common::{
    flow::{Flow, FlowSet, Hashing, MULTIPLIERS, Story, TICK_SHIFT, half_flags},
    settings::Settings,
};
use scheduler_ebpf::hash;

use super::{
    super::samples::{decision, end},
    *,
};

#[test]
fn every_snapshot_of_a_message_gets_its_own_remainder() {
    let mut joiner = Joiner::default();
    assert!(joiner.push(&decision(7, 1, 10, 1000)).is_empty());
    assert!(joiner.push(&decision(7, 1, 20, 4000)).is_empty());
    assert!(joiner.push(&decision(8, 1, 25, 500)).is_empty());
    let rows = joiner.push(&end(7, 1, 30, 9000));
    assert_eq!(
        rows.iter()
            .map(|r| (r.bytes_at, r.remaining_bytes))
            .collect::<Vec<_>>(),
        [(1000, 8000), (4000, 5000)]
    );
    assert!(rows.iter().all(|r| r.total_bytes == 9000));
    assert_eq!(joiner.pending(), 1);
    assert_eq!(joiner.counts().labelled, 2);
}

#[test]
fn directions_and_messages_are_kept_apart() {
    let mut joiner = Joiner::default();
    joiner.push(&decision(7, 1, 1, 100));
    joiner.push(&Sample {
        half: 1,
        ..decision(7, 1, 2, 200)
    });
    joiner.push(&decision(7, 2, 3, 300));
    let rows = joiner.push(&Sample {
        half: 1,
        ..end(7, 1, 4, 250)
    });
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].bytes_at, rows[0].remaining_bytes), (200, 50));
    assert_eq!(joiner.pending(), 2);
}

#[test]
fn the_oldest_gives_way_when_too_many_wait() {
    let mut joiner = Joiner::new(JoinLimits {
        pending: 3,
        age_ns: u64::MAX,
    });
    for flow in 0..5 {
        joiner.push(&decision(flow, 1, flow, 100));
    }
    assert_eq!((joiner.pending(), joiner.counts().censored_full), (3, 2));
    assert!(joiner.push(&end(0, 1, 9, 100)).is_empty());
    assert_eq!(joiner.push(&end(4, 1, 9, 100)).len(), 1);
    assert_eq!(joiner.counts().ends_unmatched, 1);
    assert_eq!(joiner.by_message.len(), 2);
}

#[test]
fn what_waits_too_long_leaves_censored() {
    let mut joiner = Joiner::new(JoinLimits {
        pending: 100,
        age_ns: 1000,
    });
    joiner.push(&decision(1, 1, 0, 100));
    joiner.push(&decision(2, 1, 600, 100));
    joiner.push(&decision(1, 1, 700, 2500));
    let rows = joiner.push(&decision(3, 1, 1001, 100));
    assert_eq!(rows.len(), 1);
    assert!(rows[0].censored);
    // So much came after it that is known of.
    assert_eq!((rows[0].bytes_at, rows[0].remaining_bytes), (100, 2400));
    assert_eq!((joiner.pending(), joiner.counts().censored_old), (3, 1));
    let rows = joiner.push(&end(1, 1, 1002, 3000));
    assert_eq!((rows.len(), rows[0].censored), (1, false));
    assert_eq!(rows[0].remaining_bytes, 500);
}

#[test]
fn a_flow_that_starts_anew_does_not_inherit_old_snapshots() {
    let mut joiner = Joiner::default();
    joiner.push(&decision(1, 1, 1, 50_000));
    let lost = joiner.push(&decision(1, 1, 9, 700));
    assert_eq!(
        (lost.len(), lost[0].censored, lost[0].total_bytes),
        (1, true, 50_000)
    );
    let rows = joiner.push(&end(1, 1, 10, 900));
    assert_eq!(
        rows.iter().map(|r| r.remaining_bytes).collect::<Vec<_>>(),
        [200]
    );
    assert_eq!(joiner.counts().censored_restarted, 1);
}

#[test]
fn an_end_below_its_snapshot_leaves_nothing_to_come() {
    let mut joiner = Joiner::default();
    joiner.push(&decision(1, 1, 1, 500));
    assert_eq!(joiner.push(&end(1, 1, 2, 400))[0].remaining_bytes, 0);
}

#[test]
fn foreign_records_are_refused_and_counted() {
    let mut joiner = Joiner::default();
    joiner.push(&Sample {
        abi_version: 999,
        ..decision(1, 1, 1, 1)
    });
    joiner.push(&Sample {
        kind: 3,
        ..decision(1, 1, 1, 1)
    });
    joiner.push(&Sample {
        hook: 2,
        ..decision(1, 1, 1, 1)
    });
    let counts = joiner.counts();
    assert_eq!(
        (counts.refused_abi, counts.refused_kind, joiner.pending()),
        (1, 2, 0)
    );
}

const NOW_NS: u64 = 50_000_000_000;

fn hashing() -> Hashing {
    Hashing {
        multipliers: [3; MULTIPLIERS],
        sample_key: [5, 6],
        set_mask: 0,
        _pad: 0,
    }
}

/// A set with one flow, tag 9, whose first direction is in message 4 with `bytes`, silent since `silent_ns`.
fn set(bytes: u32, silent_ns: u64) -> (FlowSet, Story) {
    let mut set = FlowSet::default();
    let mut flow = Flow {
        tag: 9,
        ..Flow::default()
    };
    flow.halves[0].bytes = bytes;
    flow.halves[0].flags = half_flags::OPEN;
    flow.halves[0].last_ticks = ((NOW_NS - silent_ns) >> TICK_SHIFT) as u32;
    let mut story = Story::default();
    story.halves[0].message = 4;
    story.halves[0].previous_bytes = 777;
    set.flows[2] = flow;
    (set, story)
}

fn readings((set, story): &(FlowSet, Story)) -> Readings {
    let mut readings = Readings::of([name(), 1].into());
    let read = |way| {
        assert_eq!(way, 2, "the others are free");
        Ok::<_, ()>(*story)
    };
    let how = (&hashing(), &Settings::default());
    readings.take(set, read, how, NOW_NS).unwrap();
    assert_eq!(readings.len(), 1);
    readings
}

fn name() -> u64 {
    hash::sample_name(9, &hashing())
}

#[test]
fn a_message_that_fell_silent_is_labelled_from_the_table() {
    let mut joiner = Joiner::default();
    joiner.push(&decision(name(), 4, 1, 100));
    joiner.push(&decision(8, 4, 1, 100));
    let sets = [name(), 8].map(|name| decision(name, 4, 1, 100).flow_set);
    assert_eq!(joiner.flow_sets(), sets.into());
    // Within the bound of 200 ms it may still go on.
    assert!(joiner.read(&readings(&set(900, 100_000_000))).is_empty());
    let rows = joiner.read(&readings(&set(900, 300_000_000)));
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].censored, rows[0].remaining_bytes), (false, 800));
    let counts = joiner.counts();
    assert_eq!((counts.labelled, counts.labelled_by_table), (1, 1));
    assert_eq!(joiner.pending(), 1);
    assert_eq!(joiner.flow_sets(), [sets[1]].into());
}

#[test]
fn silence_with_something_unacknowledged_is_no_end() {
    let mut set = set(900, 5_000_000_000);
    let [own, other] = &mut set.0.flows[2].halves;
    own.flags |= half_flags::SEQ_VALID;
    own.seq_end = 1000;
    other.flags |= half_flags::ACK_VALID;
    other.ack = 400;
    let mut joiner = Joiner::default();
    joiner.push(&decision(name(), 4, 1, 100));
    assert!(joiner.read(&readings(&set)).is_empty());
    set.0.flows[2].halves[1].ack = 1000;
    assert_eq!(joiner.read(&readings(&set)).len(), 1);
}

#[test]
fn a_message_whose_end_was_lost_is_labelled_by_its_successor() {
    let mut joiner = Joiner::default();
    joiner.push(&decision(name(), 3, 1, 100));
    joiner.push(&decision(name(), 2, 1, 100));
    let rows = joiner.read(&readings(&set(10, 0)));
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].message, rows[0].remaining_bytes), (3, 677));
}

#[test]
fn what_is_still_open_at_the_end_is_censored_at_what_the_table_says() {
    let mut joiner = Joiner::default();
    joiner.push(&decision(name(), 4, 1, 100));
    joiner.push(&decision(name(), 4, 2, 300));
    assert!(joiner.read(&readings(&set(5000, 0))).is_empty());
    let rows = joiner.finish();
    assert!(
        rows.iter()
            .all(|row| row.censored && row.total_bytes == 5000)
    );
    assert_eq!(
        rows.iter().map(|r| r.remaining_bytes).collect::<Vec<_>>(),
        [4900, 4700]
    );
    assert_eq!((joiner.pending(), joiner.counts().censored_last), (0, 2));
}
