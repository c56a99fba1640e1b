//! Decision points wait here for the end of their message.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

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
    /// Where the flow table has its flow.
    flow_set: u32,
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
            SampleKind::Decision => {
                self.wait((key, sample.flow_set), snapshot(sample, hook), &mut rows);
            }
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
        #[expect(clippy::iter_over_hash_type, reason = "what comes of it is sorted")]
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

    /// Flows of which something waits.
    pub fn flows(&self) -> HashSet<u64> {
        self.by_message.keys().map(|key| key.flow_hash).collect()
    }

    /// Sets of the flow table that hold them.
    pub fn flow_sets(&self) -> BTreeSet<u32> {
        (self.by_message.values())
            .map(|waiting| waiting.flow_set)
            .collect()
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

    fn wait(&mut self, (key, flow_set): (Key, u32), row: Row, rows: &mut Vec<Row>) {
        self.counts.decisions += 1;
        self.forget_earlier_life(key, row.bytes_at, rows);
        while self.waiting.len() >= self.limits.pending.max(1) {
            rows.extend(self.give_up_oldest());
            self.counts.censored_full += 1;
        }
        self.waiting.insert(self.next, (key, row));
        let waiting = self.by_message.entry(key).or_default();
        waiting.places.push(self.next);
        waiting.flow_set = flow_set;
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
            ..
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
mod tests;
