//! Decision points wait here for the end of their message.

use std::collections::{BTreeMap, HashMap};

use scheduler_common::{
    ABI_VERSION,
    sample::{Hook, Sample, SampleKind},
};
use serde::Serialize;

use super::Row;

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
    /// Snapshots dropped because too many were waiting.
    pub dropped_full: u64,
    /// Snapshots dropped because their message did not end in time.
    pub dropped_old: u64,
    /// Snapshots whose flow was seen anew before their message ended.
    pub dropped_restarted: u64,
    /// Message ends for which no snapshot was waiting.
    pub ends_unmatched: u64,
    /// Records of another ABI version.
    pub refused_abi: u64,
    /// Records of an unknown kind or hook.
    pub refused_kind: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    flow_hash: u64,
    message: u32,
    half: u8,
}

/// Joins decision points with the ends of their messages.
#[derive(Debug)]
pub struct Joiner {
    limits: JoinLimits,
    counts: JoinCounts,
    /// Snapshots in the order in which they came, so that the oldest is at hand.
    waiting: BTreeMap<u64, (Key, Row)>,
    /// Places in `waiting`, ascending.
    by_message: HashMap<Key, Vec<u64>>,
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

    /// Takes the next record of the ring buffer; returns the rows that it completes.
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
        self.expire(sample.time_ns);
        let key = Key {
            flow_hash: sample.flow_hash,
            message: sample.message,
            half: sample.half,
        };
        match kind {
            SampleKind::Decision => {
                self.wait(key, snapshot(sample, hook));
                Vec::new()
            }
            SampleKind::MessageEnd => self.complete(key, sample.bytes),
        }
    }

    /// What became of the records so far.
    pub const fn counts(&self) -> JoinCounts {
        self.counts
    }

    /// Snapshots that wait for the end of their message.
    pub fn pending(&self) -> usize {
        self.waiting.len()
    }

    fn wait(&mut self, key: Key, row: Row) {
        self.counts.decisions += 1;
        self.forget_earlier_life(key, row.bytes_at);
        while self.waiting.len() >= self.limits.pending.max(1) {
            self.drop_oldest();
            self.counts.dropped_full += 1;
        }
        self.waiting.insert(self.next, (key, row));
        self.by_message.entry(key).or_default().push(self.next);
        self.next += 1;
    }

    /// A flow that left the kernel's table and came back counts its messages from one again: a
    /// byte count below what is waiting belongs to the new life, what waits to the lost one.
    fn forget_earlier_life(&mut self, key: Key, bytes_now: u64) {
        let Some(places) = self.by_message.get(&key) else {
            return;
        };
        let last = places.last().and_then(|place| self.waiting.get(place));
        if last.is_none_or(|(_, row)| row.bytes_at <= bytes_now) {
            return;
        }
        for place in self.by_message.remove(&key).into_iter().flatten() {
            self.counts.dropped_restarted += u64::from(self.waiting.remove(&place).is_some());
        }
    }

    fn complete(&mut self, key: Key, total_bytes: u64) -> Vec<Row> {
        self.counts.ends += 1;
        let Some(places) = self.by_message.remove(&key) else {
            self.counts.ends_unmatched += 1;
            return Vec::new();
        };
        let rows: Vec<Row> = places
            .iter()
            .filter_map(|place| self.waiting.remove(place))
            .map(|(_, row)| Row {
                total_bytes,
                remaining_bytes: total_bytes.saturating_sub(row.bytes_at),
                ..row
            })
            .collect();
        self.counts.labelled += rows.len() as u64;
        rows
    }

    fn expire(&mut self, now_ns: u64) {
        let oldest_kept_ns = now_ns.saturating_sub(self.limits.age_ns);
        while let Some((_, (_, row))) = self.waiting.first_key_value() {
            if row.time_ns >= oldest_kept_ns {
                break;
            }
            self.drop_oldest();
            self.counts.dropped_old += 1;
        }
    }

    fn drop_oldest(&mut self) {
        let Some((place, (key, _))) = self.waiting.pop_first() else {
            return;
        };
        if let Some(places) = self.by_message.get_mut(&key) {
            places.retain(|other| *other != place);
            if places.is_empty() {
                self.by_message.remove(&key);
            }
        }
    }
}

impl Default for Joiner {
    fn default() -> Self {
        Self::new(JoinLimits::default())
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
        assert_eq!((joiner.pending(), joiner.counts().dropped_full), (3, 2));
        assert!(joiner.push(&end(0, 1, 9, 100)).is_empty());
        assert_eq!(joiner.push(&end(4, 1, 9, 100)).len(), 1);
        assert_eq!(joiner.counts().ends_unmatched, 1);
        assert_eq!(joiner.by_message.len(), 2);
    }

    #[test]
    fn what_waits_too_long_is_dropped_and_counted() {
        let mut joiner = Joiner::new(JoinLimits {
            pending: 100,
            age_ns: 1000,
        });
        joiner.push(&decision(1, 1, 0, 100));
        joiner.push(&decision(2, 1, 600, 100));
        joiner.push(&decision(3, 1, 1001, 100));
        assert_eq!((joiner.pending(), joiner.counts().dropped_old), (2, 1));
        assert!(joiner.push(&end(1, 1, 1002, 100)).is_empty());
    }

    #[test]
    fn a_flow_that_starts_anew_does_not_inherit_old_snapshots() {
        let mut joiner = Joiner::default();
        joiner.push(&decision(1, 1, 1, 50_000));
        joiner.push(&decision(1, 1, 9, 700));
        let rows = joiner.push(&end(1, 1, 10, 900));
        assert_eq!(
            rows.iter().map(|r| r.remaining_bytes).collect::<Vec<_>>(),
            [200]
        );
        assert_eq!(joiner.counts().dropped_restarted, 1);
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
}
