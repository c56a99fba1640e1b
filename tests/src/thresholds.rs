//! The best cut points for known sizes, by closed forms.
//!
//! A baseline with badly chosen cuts would flatter whatever is compared with it. PIAS (NSDI 2015) derives its
//! thresholds from the distribution of sizes; so do these, for aging and for the oracle, by
//! the formulas of the M/G/1 queue with preemptive levels (Kleinrock, Queueing Systems II, 4.7):
//! with levels that end at `c[k]`, a message of size `x` in level `k` takes
//! `(W[k] + x) / (1 - load[k-1])`, where `load[k]` and `W[k] = rate * second moment / 2 / (1 - load[k])`
//! count of each message what it sends in levels up to `k`: its first `c[k]` bytes under
//! aging, all or nothing under the oracle. All but the top level, which is sure of its rate, also wait for half a
//! packet of a later one that is under way.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::class::{BANDS, Cuts};

/// Steps of the grid of candidates, evenly spread over the logarithm of the size.
const GRID: usize = 96;
/// Passes over all cuts; later ones hardly move any.
const PASSES: usize = 8;
/// Descents from starts by chance: one alone may end in a valley of its own.
const STARTS: usize = 24;

/// Who schedules.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Knowing {
    /// Bytes sent so far.
    BytesSent,
    /// The size, at the start.
    Size,
}

/// A message by its size.
#[derive(Clone, Copy, Debug)]
pub struct Sized {
    /// Bytes.
    pub bytes: u64,
    /// What it would take if it had none: less on a kept connection.
    pub base_s: f64,
}

/// What they share.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Its rate.
    pub rate_bps: u64,
    /// Share of it that they ask for.
    pub load: f64,
    /// Bytes that are sent at a time: a packet, or a super-packet.
    pub packet_bytes: u32,
}

/// Sums over the sorted sizes up to each place.
#[derive(Debug)]
struct Sums {
    /// Seconds that each message takes the link.
    seconds: Vec<f64>,
    first: Vec<f64>,
    second: Vec<f64>,
    /// Of `1 / ideal` and of `seconds / ideal`, where ideal counts the base time too.
    inverse: Vec<f64>,
    share: Vec<f64>,
    /// Messages a second at the wanted load.
    arrivals: f64,
    load: f64,
    /// Seconds that the link takes for what nothing interrupts.
    packet_s: f64,
}

impl Sums {
    fn new(messages: &[Sized], link: &Link) -> Self {
        let Link { rate_bps, load, .. } = *link;
        let mut messages: Vec<(f64, f64)> = messages
            .iter()
            .map(|message| (message.bytes as f64 * 8.0 / rate_bps as f64, message.base_s))
            .collect();
        messages.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let running = |value: fn(f64, f64) -> f64| {
            let sums = messages.iter().scan(0.0, |sum, (x, base)| {
                *sum += value(*x, *base);
                Some(*sum)
            });
            std::iter::once(0.0).chain(sums).collect::<Vec<f64>>()
        };
        let seconds: Vec<f64> = messages.iter().map(|(x, _)| *x).collect();
        let total: f64 = seconds.iter().sum();
        Self {
            first: running(|x, _| x),
            second: running(|x, _| x * x),
            inverse: running(|x, base| 1.0 / (x + base)),
            share: running(|x, base| x / (x + base)),
            arrivals: load * seconds.len() as f64 / total.max(f64::MIN_POSITIVE),
            load,
            packet_s: f64::from(link.packet_bytes) * 8.0 / rate_bps as f64,
            seconds,
        }
    }

    /// Load and mean unfinished work of all levels that end at or before `cut`.
    fn up_to(&self, cut_s: f64, knowing: Knowing) -> (f64, f64) {
        let count = self.seconds.len();
        let place = self.seconds.partition_point(|x| *x <= cut_s);
        let longer = match knowing {
            Knowing::BytesSent if cut_s.is_finite() => (count - place) as f64,
            Knowing::BytesSent | Knowing::Size => 0.0,
        };
        let cut_s = if longer > 0.0 { cut_s } else { 0.0 };
        let first = longer.mul_add(cut_s, self.first[place]) / count as f64;
        let second = longer.mul_add(cut_s * cut_s, self.second[place]) / count as f64;
        let load = self.arrivals * first;
        let work = self.arrivals * second / 2.0 / (1.0 - load);
        (load, work)
    }

    /// Logarithms of mean completion time and mean slowdown, added.
    fn cost(&self, cuts_s: &[f64], knowing: Knowing) -> f64 {
        let (mut time, mut slowdown) = (0.0, 0.0);
        let (mut from, mut load_above) = (0, 0.0);
        let cuts_s = cuts_s.iter().copied().chain([f64::INFINITY]);
        for (level, cut) in cuts_s.enumerate() {
            let to = self.seconds.partition_point(|x| *x <= cut);
            let (load, mut work) = self.up_to(cut, knowing);
            if level > 0 {
                work += (self.load - load).max(0.0) * self.packet_s / 2.0;
            }
            let left = 1.0 - load_above;
            let sum = |sums: &[f64]| sums[to] - sums[from];
            time += (sum(&self.first) + (to - from) as f64 * work) / left;
            slowdown += work.mul_add(sum(&self.inverse), sum(&self.share)) / left;
            (from, load_above) = (to, load);
        }
        let count = self.seconds.len() as f64;
        (time / count).ln() + (slowdown / count).ln()
    }
}

/// Moves one cut after another to where the cost is least.
fn descend(
    mut chosen: [usize; BANDS - 1],
    cost: impl Fn(&[usize; BANDS - 1]) -> f64,
) -> [usize; BANDS - 1] {
    for _ in 0..PASSES {
        for place in 0..chosen.len() {
            let below = place.checked_sub(1).map_or(0, |before| chosen[before]);
            let above = chosen.get(place + 1).copied().unwrap_or(GRID - 1);
            let moved = |step: usize| {
                let mut chosen = chosen;
                chosen[place] = step;
                cost(&chosen)
            };
            let best = (below..=above).min_by(|a, b| moved(*a).total_cmp(&moved(*b)));
            chosen[place] = best.unwrap_or(chosen[place]);
        }
    }
    chosen
}

/// The cuts under which such messages fare best: mean completion time and mean slowdown count alike.
#[must_use]
pub fn best_cuts(messages: &[Sized], link: &Link, knowing: Knowing) -> Cuts {
    let sums = Sums::new(messages, link);
    let (Some(low), Some(high)) = (sums.seconds.first(), sums.seconds.last()) else {
        return Cuts::default();
    };
    let low = low.max(high * 1e-5);
    let grid: Vec<f64> = (0..GRID)
        .map(|step| low * (high / low).powf((step as f64 + 1.0) / (GRID as f64 + 1.0)))
        .collect();
    let cuts_of = |chosen: &[usize; BANDS - 1]| chosen.map(|step| grid[step]);
    let cost = |chosen: &[usize; BANDS - 1]| sums.cost(&cuts_of(chosen), knowing);
    let mut rng = StdRng::seed_from_u64(0);
    let chosen = (0..STARTS)
        .map(|_| {
            let mut start: [usize; BANDS - 1] = std::array::from_fn(|_| rng.random_range(0..GRID));
            start.sort_unstable();
            descend(start, cost)
        })
        .min_by(|a, b| cost(a).total_cmp(&cost(b)))
        .unwrap_or_default();
    Cuts {
        bytes: cuts_of(&chosen).map(|seconds| (seconds * link.rate_bps as f64 / 8.0) as u32),
        _pad: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link {
        rate_bps: 200_000_000,
        load: 0.8,
        packet_bytes: 1514,
    };

    fn web_search(base_s: f64) -> Vec<Sized> {
        let sizes = crate::workload::Sizes::all_of(crate::workload::sizes::WEB_SEARCH);
        (0..4000)
            .map(|i| Sized {
                bytes: (sizes.at((f64::from(i) + 0.5) / 4000.0) / 10.0) as u64,
                base_s,
            })
            .collect()
    }

    fn slowdown_and_time(cuts: &Cuts, knowing: Knowing) -> f64 {
        let sums = Sums::new(&web_search(2e-4), &LINK);
        sums.cost(
            &cuts
                .bytes
                .map(|bytes| f64::from(bytes) * 8.0 / LINK.rate_bps as f64),
            knowing,
        )
    }

    #[test]
    fn without_cuts_the_formula_is_that_of_one_queue() {
        // Pollaczek and Khinchine: load * x / 2 / (1 - load) + x for messages of one size.
        let alike = Sized {
            bytes: 125_000,
            base_s: 0.0,
        };
        let link = Link {
            rate_bps: 1_000_000_000,
            load: 0.5,
            packet_bytes: 0,
        };
        let sums = Sums::new(&[alike; 50], &link);
        let none = [f64::INFINITY; BANDS - 1];
        for knowing in [Knowing::BytesSent, Knowing::Size] {
            let cost = sums.cost(&none, knowing);
            assert!(
                (cost - (1.5e-3f64.ln() + 1.5f64.ln())).abs() < 1e-9,
                "{cost}"
            );
        }
    }

    #[test]
    fn the_cuts_found_beat_those_that_others_use() {
        let published = Cuts {
            bytes: [10, 30, 100, 200, 400, 800, 1600].map(|kilobytes| kilobytes * 1000),
            _pad: 0,
        };
        for knowing in [Knowing::BytesSent, Knowing::Size] {
            let best = best_cuts(&web_search(2e-4), &LINK, knowing);
            assert!(best.bytes.is_sorted(), "{best:?}");
            for other in [published, Cuts::default()] {
                assert!(
                    slowdown_and_time(&best, knowing) <= slowdown_and_time(&other, knowing),
                    "{knowing:?}: {best:?} is worse than {other:?}"
                );
            }
        }
    }

    #[test]
    fn where_a_message_of_no_length_takes_less_short_ones_are_kept_apart_more() {
        let first = |base_s| best_cuts(&web_search(base_s), &LINK, Knowing::Size).bytes[0];
        assert!(first(5e-5) < first(5e-3), "{} {}", first(5e-5), first(5e-3));
    }

    #[test]
    fn knowing_the_size_is_better_than_knowing_the_bytes_sent() {
        let cost = |knowing| {
            let best = best_cuts(&web_search(2e-4), &LINK, knowing);
            slowdown_and_time(&best, knowing)
        };
        assert!(cost(Knowing::Size) < cost(Knowing::BytesSent) - 0.1);
    }
}
