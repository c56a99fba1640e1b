//! Decision points wait here for the end of their message.

use std::collections::{BTreeMap, HashMap};

use scheduler_common::{
    ABI_VERSION,
    sample::{Hook, Sample, SampleKind},
};
use serde::Serialize;

use super::{
    Row,
    reading::{Readings, State},
};

/// How much may wait, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinLimits {
    /// Snapshots that may wait at once.
    pub pending: usize,
    /// Longest wait, by the samples' own clock.
    pub age_ns: u64,
}

impl Default for JoinLimits {
    fn default() -> Self {
        // About 10 MB at most; ten minutes are a window's age, so nothing older would be kept.
        Self {
            pending: 65_536,
            age_ns: 600_000_000_000,
        }
    }
}

/// What became of the records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct JoinCounts {
    /// Decision points taken in.
    pub decisions: u64,
    /// Message ends taken in.
    pub ends: u64,
    /// Rows that left with a label.
    pub labelled: u64,
    /// Those of them whose message's end was read in the flow table: no packet told of it.
    pub labelled_by_table: u64,
    /// Rows that left censored because too many were waiting.
    pub censored_full: u64,
    /// Rows that left censored because their message did not end in time.
    pub censored_old: u64,
    /// Rows that left censored because their flow was seen anew before their message ended.
    pub censored_restarted: u64,
    /// Rows that left censored because recording ended.
    pub censored_last: u64,
    /// Message ends for which no snapshot was waiting.
    pub ends_unmatched: u64,
    /// Records of another ABI version.
    pub refused_abi: u64,
    /// Records of an unknown kind or hook.
    pub refused_kind: u64,
}

/// A message in one direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Key {
    flow_hash: u64,
    message: u32,
    half: u8,
}

/// What waits of one message.
#[derive(Clone, Debug, Default)]
struct Waiting {
    /// Places of its snapshots, ascending.
    places: Vec<u64>,
    /// Bytes of it that are known to have been sent.
    known_bytes: u64,
}

/// Joins decision points with the ends of their messages.
///
/// A snapshot whose message does not end in time leaves all the same, as a right-censored row: at least so much
/// was still to come as has been seen since.
#[derive(Debug)]
pub struct Joiner {
    limits: JoinLimits,
    counts: JoinCounts,
    /// Snapshots in the order in which they came, so that the oldest is at hand.
    waiting: BTreeMap<u64, (Key, Row)>,
    by_message: HashMap<Key, Waiting>,
    next: u64,
}

impl Joiner {
    /// An empty joiner.
    pub fn new(limits: JoinLimits) -> Self {
        Self {
            limits,
            counts: JoinCounts::default(),
            waiting: BTreeMap::new(),
            by_message: HashMap::new(),
            next: 0,
        }
    }

    /// Takes the next record of the ring buffer; returns the rows that it completes, and those that have
    /// waited for too long.
    pub fn push(&mut self, sample: &Sample) -> Vec<Row> {
        if u32::from(sample.abi_version) != ABI_VERSION {
            self.counts.refused_abi += 1;
            return Vec::new();
        }
        let (Ok(kind), Some(hook)) = (SampleKind::try_from(sample.kind), hook_of(sample.hook))
        else {
            self.counts.refused_kind += 1;
            return Vec::new();
        };
        let mut rows = Vec::new();
        self.expire(sample.time_ns, &mut rows);
        let key = Key {
            flow_hash: sample.flow_hash,
            message: sample.message,
            half: sample.half,
        };
        match kind {
            SampleKind::Decision => self.wait(key, snapshot(sample, hook), &mut rows),
            SampleKind::MessageEnd => {
                self.counts.ends += 1;
                if !self.complete(key, sample.bytes, &mut rows) {
                    self.counts.ends_unmatched += 1;
                }
            }
        }
        rows
    }

    /// Takes in what stands in the flow table: messages that are over without a packet that told of it are
    /// complete, and of open ones it is known how far they have come.
    pub fn read(&mut self, readings: &Readings) -> Vec<Row> {
        let mut over = Vec::new();
        for (key, waiting) in &mut self.by_message {
            let state = readings.state(key.flow_hash, key.half, key.message);
            match state {
                // Fewer bytes than a snapshot saw are an earlier or later life of the flow.
                Some(State::Over { bytes }) if bytes >= waiting.known_bytes => {
                    over.push((*key, bytes));
                }
                Some(State::Open { bytes }) => {
                    waiting.known_bytes = waiting.known_bytes.max(bytes);
                }
                _ => {}
            }
        }
        // In an order that does not hang on the map's.
        over.sort_unstable();
        let mut rows = Vec::new();
        for (key, bytes) in over {
            self.complete(key, bytes, &mut rows);
        }
        self.counts.labelled_by_table += rows.len() as u64;
        rows
    }

    /// Ends the recording: what still waits leaves, censored.
    pub fn finish(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        while let Some(row) = self.give_up_oldest() {
            self.counts.censored_last += 1;
            rows.push(row);
        }
        rows
    }

    /// What became of the records so far.
    pub const fn counts(&self) -> JoinCounts {
        self.counts
    }

    /// Snapshots that wait for the end of their message.
    pub fn pending(&self) -> usize {
        self.waiting.len()
    }

    fn wait(&mut self, key: Key, row: Row, rows: &mut Vec<Row>) {
        self.counts.decisions += 1;
        self.forget_earlier_life(key, row.bytes_at, rows);
        while self.waiting.len() >= self.limits.pending.max(1) {
            rows.extend(self.give_up_oldest());
            self.counts.censored_full += 1;
        }
        self.waiting.insert(self.next, (key, row));
        let waiting = self.by_message.entry(key).or_default();
        waiting.places.push(self.next);
        waiting.known_bytes = waiting.known_bytes.max(row.bytes_at);
        self.next += 1;
    }

    /// A flow that left the kernel's table and came back counts its messages from one again: a
    /// byte count below what is known belongs to the new life, what waits to the lost one.
    fn forget_earlier_life(&mut self, key: Key, bytes_now: u64, rows: &mut Vec<Row>) {
        let known_bytes = self.by_message.get(&key).map(|of| of.known_bytes);
        if known_bytes.is_none_or(|known_bytes| known_bytes <= bytes_now) {
            return;
        }
        let Some(Waiting {
            places,
            known_bytes,
        }) = self.by_message.remove(&key)
        else {
            return;
        };
        for place in places {
            if let Some((_, row)) = self.waiting.remove(&place) {
                self.counts.censored_restarted += 1;
                rows.push(censored(row, known_bytes));
            }
        }
    }

    /// Labels what waits for the end of this message; false if nothing does.
    fn complete(&mut self, key: Key, total_bytes: u64, rows: &mut Vec<Row>) -> bool {
        let Some(Waiting { places, .. }) = self.by_message.remove(&key) else {
            return false;
        };
        for place in places {
            if let Some((_, row)) = self.waiting.remove(&place) {
                self.counts.labelled += 1;
                rows.push(labelled(row, total_bytes));
            }
        }
        true
    }

    fn expire(&mut self, now_ns: u64, rows: &mut Vec<Row>) {
        let oldest_kept_ns = now_ns.saturating_sub(self.limits.age_ns);
        while let Some((_, (_, row))) = self.waiting.first_key_value() {
            if row.time_ns >= oldest_kept_ns {
                break;
            }
            rows.extend(self.give_up_oldest());
            self.counts.censored_old += 1;
        }
    }

    /// The snapshot that has waited longest, with what is known of its message.
    fn give_up_oldest(&mut self) -> Option<Row> {
        let (place, (key, row)) = self.waiting.pop_first()?;
        let waiting = self.by_message.get_mut(&key)?;
        let known_bytes = waiting.known_bytes;
        waiting.places.retain(|other| *other != place);
        if waiting.places.is_empty() {
            self.by_message.remove(&key);
        }
        Some(censored(row, known_bytes))
    }
}

impl Default for Joiner {
    fn default() -> Self {
        Self::new(JoinLimits::default())
    }
}

const fn labelled(row: Row, total_bytes: u64) -> Row {
    Row {
        total_bytes,
        remaining_bytes: total_bytes.saturating_sub(row.bytes_at),
        ..row
    }
}

const fn censored(row: Row, known_bytes: u64) -> Row {
    Row {
        censored: true,
        ..labelled(row, known_bytes)
    }
}

const fn hook_of(code: u8) -> Option<Hook> {
    match code {
        0 => Some(Hook::Egress),
        1 => Some(Hook::Ingress),
        _ => None,
    }
}

fn snapshot(sample: &Sample, hook: Hook) -> Row {
    Row {
        features: sample.features,
        bytes_at: sample.bytes,
        remaining_bytes: 0,
        total_bytes: sample.bytes,
        time_ns: sample.time_ns,
        flow_hash: sample.flow_hash,
        message: sample.message,
        half: sample.half,
        hook,
        generation: sample.generation,
        predicted_log2_q8: sample.predicted_log2_q8,
        network_hash: sample.network_hash,
        censored: false,
        shadow_generation: sample.shadow_generation,
        shadow_log2_q8: sample.shadow_log2_q8,
    }
}

#[cfg(test)]
mod tests {
    use scheduler_common::{
        flow::{Flow, FlowSet, Hashing, Story, TICK_SHIFT, half_flags},
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
            multipliers: [3; 12],
            sample_key: [5, 6],
            set_mask: 0,
            _pad: 0,
        }
    }

    /// A set with one flow, tag 9, whose first direction is in message 4 with `bytes`, silent since `silent_ns`.
    fn set(bytes: u32, silent_ns: u64) -> FlowSet {
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
        (set.flows[2], set.stories[2]) = (flow, story);
        set
    }

    fn readings(set: &FlowSet) -> Readings {
        let mut readings = Readings::default();
        readings.take(set, (&hashing(), &Settings::default()), NOW_NS);
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
        // Within the bound of 200 ms it may still go on.
        assert!(joiner.read(&readings(&set(900, 100_000_000))).is_empty());
        let rows = joiner.read(&readings(&set(900, 300_000_000)));
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].censored, rows[0].remaining_bytes), (false, 800));
        let counts = joiner.counts();
        assert_eq!((counts.labelled, counts.labelled_by_table), (1, 1));
        assert_eq!(joiner.pending(), 1);
    }

    #[test]
    fn silence_with_something_unacknowledged_is_no_end() {
        let mut set = set(900, 5_000_000_000);
        let [own, other] = &mut set.flows[2].halves;
        own.flags |= half_flags::SEQ_VALID;
        own.seq_end = 1000;
        other.flags |= half_flags::ACK_VALID;
        other.ack = 400;
        let mut joiner = Joiner::default();
        joiner.push(&decision(name(), 4, 1, 100));
        assert!(joiner.read(&readings(&set)).is_empty());
        set.flows[2].halves[1].ack = 1000;
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
}
