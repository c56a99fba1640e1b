//! Labelled rows become messages that can be offered to a link again.

use std::ops::Range;

use rand::Rng;
use scheduler_common::features::Feature;

use super::Job;
use crate::dataset::Row;

/// A silence of more than so many mean gaps is cut to that: all queues are empty through it, and a host that was
/// busy for one minute of ten would else be replayed at ten times the wanted load and then at none.
const LONGEST_GAPS: f64 = 20.0;

/// A message as the rows tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its first row's time: with all rows kept, its first packet's.
    pub arrival_ns: u64,
    /// Its size.
    pub bytes: u64,
    /// Keyed hash of its flow.
    pub session: u64,
    /// Keyed hash of the far end's network.
    pub network: u32,
    /// Its rows in [`Traffic`], in the order of their bytes.
    rows: Range<usize>,
}

/// Messages in the order of their arrival.
///
/// Sampled flows, of which a full window keeps an equal share per service, are part of what the link carried. Since
/// time is scaled until the wanted load is reached, they stand for the whole: a link as loaded, with this mix.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    rows: Vec<Row>,
    messages: Vec<Message>,
    /// Before each message, nanoseconds.
    gaps: Vec<f64>,
}

impl Traffic {
    /// Rebuilds the messages of `rows`, which may stand in any order.
    pub fn of(rows: &[Row]) -> Self {
        // A flow that left the kernel's table and came back counts its messages anew: the size tells them apart.
        let key = |row: &Row| (row.flow_hash, row.half, row.message, row.total_bytes);
        let mut rows = rows.to_vec();
        rows.sort_unstable_by_key(|row| (key(row), row.bytes_at, row.time_ns));
        let mut messages = Vec::new();
        let mut start = 0;
        for group in rows.chunk_by(|a, b| key(a) == key(b)) {
            messages.push(Message {
                arrival_ns: group.iter().map(|row| row.time_ns).min().unwrap_or(0),
                bytes: group[0].total_bytes.max(1),
                session: group[0].flow_hash,
                network: group[0].network_hash,
                rows: start..start + group.len(),
            });
            start += group.len();
        }
        messages.sort_by_key(|message| (message.arrival_ns, message.rows.start));
        let gaps = gaps(&messages);
        Self {
            rows,
            messages,
            gaps,
        }
    }

    /// Only the latest messages, at most `count`.
    #[must_use]
    pub fn latest(mut self, count: usize) -> Self {
        let first = self.messages.len().saturating_sub(count);
        self.messages.drain(..first);
        self.gaps.drain(..first);
        self
    }

    /// At most `count` messages and how many each stands for: the largest quarter of them, and of the rest evenly out of all.
    ///
    /// A few large messages are most of the bytes, and what waits behind them most of the time: a share of them, drawn
    /// evenly, is another traffic.
    pub(crate) fn thinned(mut self, count: usize) -> (Self, Vec<f64>) {
        if self.messages.len() <= count {
            let weights = vec![1.0; self.messages.len()];
            return (self, weights);
        }
        let mut sizes: Vec<u64> = self.messages.iter().map(|message| message.bytes).collect();
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        let largest = count / 4;
        let bound = sizes[largest];
        let larger = sizes.partition_point(|bytes| *bytes > bound);
        let rest = sizes.len() - larger;
        let step = rest.div_ceil(count - larger);
        let weight = rest as f64 / rest.div_ceil(step) as f64;
        let (mut weights, mut seen) = (Vec::new(), 0);
        let is_kept: Vec<bool> = (self.messages.iter())
            .map(|message| {
                let is_large = message.bytes > bound;
                seen += usize::from(!is_large);
                let is_kept = is_large || (seen - 1).is_multiple_of(step);
                if is_kept {
                    weights.push(if is_large { 1.0 } else { weight });
                }
                is_kept
            })
            .collect();
        let mut kept = is_kept.iter();
        self.messages.retain(|_| kept.next().is_some_and(|it| *it));
        let mut kept = is_kept.iter();
        self.gaps.retain(|_| kept.next().is_some_and(|it| *it));
        (self, weights)
    }

    /// The messages in the order of their arrival.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Size and rows of each message, in the order of arrival.
    pub fn sized(&self) -> Vec<(u64, &[Row])> {
        let rows = |message: &Message| &self.rows[message.rows.clone()];
        self.messages
            .iter()
            .map(|message| (message.bytes, rows(message)))
            .collect()
    }

    /// Bytes of the packet, or super-packet, that a byte was sent in on average.
    pub(crate) fn packet_bytes(&self) -> u64 {
        let packets = self.rows.iter();
        let packets = packets.map(|row| u64::from(row.feature(Feature::PacketBytes)));
        let (bytes, squares) = packets.fold((0, 0), |(bytes, squares), packet| {
            (bytes + packet, squares + packet * packet)
        });
        squares / bytes.max(1)
    }

    /// Bytes of all messages.
    pub fn bytes(&self) -> u64 {
        self.messages.iter().map(|message| message.bytes).sum()
    }

    /// Everything as it came, faster or slower, so that `load` of the link is asked for.
    pub fn jobs(&self, load: f64) -> Vec<Job> {
        self.jobs_of(0..self.messages.len(), load)
    }

    /// Messages by their places, each at its own gap behind the one before, at `load`.
    pub fn jobs_of(&self, places: impl Iterator<Item = usize> + Clone, load: f64) -> Vec<Job> {
        let (bytes, span) = places.clone().fold((0.0, 0.0), |(bytes, span), place| {
            (
                bytes + self.messages[place].bytes as f64,
                span + self.gaps[place],
            )
        });
        let bytes_per_ns = bytes / (load * span);
        let mut arrival = 0.0;
        places
            .map(|place| {
                arrival += self.gaps[place] * bytes_per_ns;
                Job {
                    arrival,
                    bytes: self.messages[place].bytes as f64,
                    message: place,
                }
            })
            .collect()
    }

    /// As many messages as there are, in `blocks` runs drawn with replacement: a block bootstrap, which keeps
    /// what belongs together (bursts, one connection's messages) together (Künsch 1989).
    pub fn redrawn(&self, blocks: usize, random: &mut impl Rng) -> Vec<usize> {
        let count = self.messages.len();
        let blocks = blocks.clamp(1, count.max(1));
        let bound = |block: usize| block * count / blocks;
        (0..blocks)
            .map(|_| random.random_range(0..blocks))
            .flat_map(|block| bound(block)..bound(block + 1))
            .collect()
    }
}

fn gaps(messages: &[Message]) -> Vec<f64> {
    let between = messages
        .windows(2)
        .map(|pair| (pair[1].arrival_ns - pair[0].arrival_ns) as f64);
    let mean = |gaps: &[f64]| gaps.iter().sum::<f64>() / gaps.len().max(1) as f64;
    let mut gaps: Vec<f64> = between.collect();
    // All at once leaves no order of arrival to keep but the list's.
    let longest = (LONGEST_GAPS * mean(&gaps)).max(1.0);
    for gap in &mut gaps {
        *gap = gap.min(longest);
    }
    let first = mean(&gaps).max(1.0);
    if !messages.is_empty() {
        gaps.insert(0, first);
    }
    gaps
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::dataset::samples;

    fn row(flow: u64, time_ns: u64, (bytes_at, total_bytes): (u64, u64)) -> Row {
        Row {
            bytes_at,
            total_bytes,
            ..samples::row(flow, time_ns, 443)
        }
    }

    #[test]
    fn rows_of_a_message_come_together_whatever_their_order() {
        let rows = [
            row(2, 500, (10, 10)),
            row(1, 400, (3000, 9000)),
            row(1, 100, (1000, 9000)),
            row(1, 900, (1000, 7000)),
        ];
        let traffic = Traffic::of(&rows);
        let told: Vec<(u64, u64)> = (traffic.messages().iter())
            .map(|message| (message.arrival_ns, message.bytes))
            .collect();
        assert_eq!(told, [(100, 9000), (500, 10), (900, 7000)]);
        let seen: Vec<usize> = traffic.sized().iter().map(|(_, rows)| rows.len()).collect();
        assert_eq!(seen, [2, 1, 1]);
        assert_eq!(traffic.sized()[0].1[0].bytes_at, 1000);
    }

    #[test]
    fn every_load_is_met_and_silences_are_cut() {
        let mut rows: Vec<Row> = (0..1000)
            .map(|flow| row(flow, flow * 50, (1000, 1000)))
            .collect();
        rows.push(row(1000, 10_000_000_000, (1000, 1000)));
        let traffic = Traffic::of(&rows);
        for load in [0.5, 0.9] {
            let jobs = traffic.jobs(load);
            let end = jobs.last().unwrap().arrival;
            assert!((traffic.bytes() as f64 / end - load).abs() < 1e-9);
        }
        let gap = traffic.gaps[1000] / traffic.gaps[1];
        assert!(gap < 10_000_000_000.0 / 50.0 / 10.0, "{gap}");
    }

    #[test]
    fn messages_of_one_moment_can_be_replayed() {
        let rows: Vec<Row> = (0..10).map(|flow| row(flow, 7, (1000, 1000))).collect();
        let jobs = Traffic::of(&rows).jobs(0.5);
        assert!(jobs.iter().all(|job| job.arrival.is_finite()), "{jobs:?}");
        assert!(Traffic::of(&[]).jobs(0.5).is_empty());
    }

    #[test]
    fn a_redraw_keeps_neighbours_together() {
        let rows: Vec<Row> = (0..100).map(|flow| row(flow, flow, (10, 10))).collect();
        let traffic = Traffic::of(&rows);
        let drawn = traffic.redrawn(10, &mut StdRng::seed_from_u64(1));
        assert_eq!(drawn.len(), 100);
        assert!(
            drawn
                .chunks(10)
                .all(|block| block[0] % 10 == 0 && block.windows(2).all(|w| w[1] == w[0] + 1))
        );
    }

    #[test]
    fn all_large_ones_and_few_of_the_rest_stand_for_all() {
        // Sizes from 1 to 100, each at its time.
        let rows: Vec<Row> = (0..100)
            .map(|flow| row(flow, flow, (1, 1 + flow * 37 % 100)))
            .collect();
        let all = Traffic::of(&rows);
        let kept = |count| all.clone().thinned(count);
        let (traffic, weights) = kept(20);
        assert_eq!(traffic.gaps.len(), traffic.messages().len());
        let of_bytes = traffic.messages().iter().map(|message| message.bytes);
        let weighed: Vec<(u64, f64)> = of_bytes.zip(weights).collect();
        let large = weighed.iter().filter(|it| it.0 > 95);
        assert!(large.clone().all(|it| it.1 == 1.0) && large.count() == 5);
        assert!(weighed.len() <= 20);
        let total: f64 = weighed.iter().map(|it| it.1).sum();
        assert!((total - 100.0).abs() < 1e-9, "{total}");
        let bytes: f64 = weighed.iter().map(|it| it.0 as f64 * it.1).sum();
        assert!((bytes / all.bytes() as f64 - 1.0).abs() < 0.2, "{bytes}");
        for count in [100, 1000] {
            let (traffic, weights) = kept(count);
            assert_eq!(traffic.messages(), all.messages());
            assert_eq!(weights, [1.0; 100]);
        }
        // All alike: none is larger.
        let alike: Vec<Row> = (0..100).map(|flow| row(flow, flow, (10, 10))).collect();
        assert_eq!(Traffic::of(&alike).thinned(4).1, [25.0; 4]);
    }

    #[test]
    fn the_latest_are_kept() {
        let rows: Vec<Row> = (0..100).map(|flow| row(flow, flow, (10, 10))).collect();
        let traffic = Traffic::of(&rows).latest(30);
        assert_eq!(traffic.messages().len(), 30);
        assert_eq!(traffic.messages()[0].arrival_ns, 70);
        assert_eq!(traffic.jobs(0.5).len(), 30);
    }
}
