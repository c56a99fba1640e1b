//! What strict bands are to be expected to do to messages, by queueing theory instead of a replay.
//!
//! The multilevel queue with Poisson arrivals (Kleinrock, *Queueing Systems* 2, 1976, 4.7), for any paths through the bands: before
//! a message whose last byte goes in band `f` go, of all that came earlier, the bytes in bands up to `f`, and of all that
//! come later, those in bands before `f`. A replay of one list of arrivals has the luck of that list in it, and a
//! search finds what suits that luck; this has none.
//!
//! A packet of a lower band that is under way is waited for by all but the top band, which is sure of its rate
//! ([`crate::qdisc`]).

use scheduler_common::class::BANDS;

use super::{Bottleneck, Job, Paths, Scheme, Segment, Within, replay};

/// Sums over messages of what the bands before and up to each hold of them.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// Bytes, and their square: means over all messages.
    first: f64,
    second: f64,
}

/// A message, and how many of its kind it stands for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Weighed {
    pub(crate) bytes: f64,
    pub(crate) weight: f64,
}

/// Expected means over the messages of `paths`, of which `messages` says the bytes, at each of some loads, as [`super::Tally`]
/// counts them. Messages of at most so many bytes each are summed up apart, too.
///
/// Takes O(messages × (bands + loads)).
pub(crate) fn expected<const LOADS: usize, const SHORT: usize>(
    (messages, short_bytes): (&[Weighed], &[f64; SHORT]),
    paths: &Paths,
    link: &Bottleneck,
    loads: [f64; LOADS],
) -> [Expected<SHORT>; LOADS] {
    let weights = messages.iter().map(|message| message.weight);
    let levels = levels(paths, weights.clone().enumerate());
    let count = weights.sum::<f64>().max(1.0);
    let total: f64 = messages.iter().map(|it| it.bytes * it.weight).sum();
    let queues = loads.map(|load| {
        let rate = load * count / f64::max(total, 1.0);
        Queue::new(&levels, rate, link.packet_bytes as f64)
    });
    let none = Expected {
        slowdown: 0.0,
        fct_ns: 0.0,
        short_ns: [0.0; SHORT],
    };
    let mut sums = [none; LOADS];
    for (place, message) in messages.iter().enumerate() {
        let last = last_band(paths.of(place));
        let idle_ns = link.felt_ns(message.bytes);
        let share = message.weight / count;
        for (sum, queue) in sums.iter_mut().zip(&queues) {
            let took_ns = link.felt_ns(queue.takes(message.bytes, last, link.within));
            sum.slowdown += took_ns / idle_ns * share;
            sum.fct_ns += took_ns * share;
            for (sum, bound) in sum.short_ns.iter_mut().zip(short_bytes) {
                if message.bytes <= *bound {
                    *sum += took_ns * share;
                }
            }
        }
    }
    sums
}

/// Replays the bands, and adds what all but the top one wait for a packet under way, on average: a replay lets any byte
/// follow any other.
pub(crate) fn banded(jobs: &[Job], paths: &Paths, link: &Bottleneck) -> Vec<f64> {
    let mut took = replay(jobs, Scheme::Bands(paths, link.within));
    let levels = levels(paths, jobs.iter().map(|job| (job.message, 1.0)));
    let span = jobs.last().map_or(1.0, |last| last.arrival.max(1.0));
    let queue = Queue::new(&levels, jobs.len() as f64 / span, link.packet_bytes as f64);
    for (job, took) in jobs.iter().zip(&mut took) {
        *took += queue.holds_up(last_band(paths.of(job.message)));
    }
    took
}

fn last_band(path: &[Segment]) -> usize {
    path.last().map_or(0, |segment| usize::from(segment.band))
}

/// What the bands up to each hold of these messages, each with its weight.
fn levels(paths: &Paths, messages: impl Iterator<Item = (usize, f64)>) -> [Level; BANDS] {
    let mut count = 0.0;
    let mut levels = [Level::default(); BANDS];
    for (message, weight) in messages {
        count += weight;
        let mut within = [0.0; BANDS];
        for segment in paths.of(message) {
            within[usize::from(segment.band)] += segment.bytes;
        }
        let mut above = 0.0;
        for (level, bytes) in levels.iter_mut().zip(within) {
            above += bytes;
            level.first += above * weight;
            level.second += above * above * weight;
        }
    }
    let count = f64::max(count, 1.0);
    levels.map(|sum| Level {
        first: sum.first / count,
        second: sum.second / count,
    })
}

/// Means over messages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Expected<const SHORT: usize> {
    pub(crate) slowdown: f64,
    /// Completion time, nanoseconds.
    pub(crate) fct_ns: f64,
    /// What the short ones add to that, by what counts as short.
    pub(crate) short_ns: [f64; SHORT],
}

/// The bands at one load.
struct Queue {
    /// Share of the link that the bands up to each leave.
    idle: [f64; BANDS],
    /// Mean bytes that wait in the bands up to each.
    backlog: [f64; BANDS],
    /// Mean bytes that are still to be sent of a packet of the bands behind each.
    under_way: [f64; BANDS],
}

impl Queue {
    /// `rate` is in messages for each byte that the link could send.
    fn new(levels: &[Level; BANDS], rate: f64, packet_bytes: f64) -> Self {
        let idle = levels.map(|level| 1.0 - rate * level.first);
        let behind = |band: usize| idle[band] - idle[BANDS - 1];
        Self {
            under_way: std::array::from_fn(|band| match band {
                0 => 0.0,
                _ => behind(band) * packet_bytes / 2.0,
            }),
            backlog: std::array::from_fn(|band| rate * levels[band].second / 2.0 / idle[band]),
            idle,
        }
    }

    /// Bytes that the link could send while a message is under way whose last byte goes in band `last`.
    fn takes(&self, bytes: f64, last: usize, within: Within) -> f64 {
        let before = last.checked_sub(1);
        let queued = match within {
            Within::Fifo => (bytes + self.backlog[last]) / self.idle_above(last),
            // Its equals take turns with it instead of going first (processor sharing).
            Within::Fair => {
                let backlog_above = before.map_or(0.0, |above| self.backlog[above]);
                backlog_above / self.idle_above(last) + bytes / self.idle[last]
            }
        };
        queued + self.holds_up(last)
    }

    /// The part of it for which a packet of a band behind holds it up.
    fn holds_up(&self, last: usize) -> f64 {
        self.under_way[last] / self.idle_above(last)
    }

    fn idle_above(&self, band: usize) -> f64 {
        let above = band.checked_sub(1);
        above.map_or(1.0, |above| self.idle[above])
    }
}

#[cfg(test)]
mod tests {
    use scheduler_common::class::Cuts;

    use super::*;

    const SIZES: [f64; 3] = [1_000.0, 1_000.0, 2_000.0];
    const LOAD: f64 = 0.8;

    fn paths(lowest_cuts: [u32; 2]) -> Paths {
        let mut bytes = [1_500; 7];
        bytes[..2].copy_from_slice(&lowest_cuts);
        Paths::of_sizes(SIZES.map(|bytes| bytes as u64), &Cuts { bytes, _pad: 0 })
    }

    /// By how much all messages, and the short ones, take longer with such packets; a byte takes a nanosecond.
    fn added_ns(paths: &Paths, packet_bytes: u64) -> [f64; 2] {
        let link = Bottleneck::of_rate(8_000_000_000);
        let took = |packet_bytes: u64| {
            let link = Bottleneck {
                packet_bytes,
                ..link
            };
            let messages = SIZES.map(|bytes| Weighed { bytes, weight: 1.0 });
            let [of] = expected((&messages, &[1_000.0]), paths, &link, [LOAD]);
            [of.fct_ns, of.short_ns[0]]
        };
        let (with, without) = (took(packet_bytes), took(0));
        [with[0] - without[0], with[1] - without[1]]
    }

    #[test]
    fn all_but_the_top_band_wait_for_a_packet_under_way() {
        // The short ones are in the top band, and nothing is behind the last.
        assert_eq!(added_ns(&paths([1_000, 1_500]), 10_000), [0.0, 0.0]);
        // In the second band, two of three messages wait for half a packet, which is there for 0.4 of the time.
        let below = paths([500, 1_000]);
        let expected_ns = 2.0 / 3.0 * 0.4 * 5_000.0;
        for added in added_ns(&below, 10_000) {
            assert!((added - expected_ns).abs() < 1e-6, "{added}");
        }
    }

    #[test]
    fn a_replay_is_held_up_alike() {
        let jobs: Vec<Job> = (SIZES.into_iter().enumerate())
            .map(|(message, bytes)| Job {
                arrival: message as f64 * 2_500.0,
                bytes,
                message,
            })
            .collect();
        let below = paths([500, 1_000]);
        let link = Bottleneck {
            packet_bytes: 10_000,
            ..Bottleneck::of_rate(8_000_000_000)
        };
        let plain = replay(&jobs, Scheme::Bands(&below, link.within));
        let held = banded(&jobs, &below, &link);
        let added: Vec<f64> = held.iter().zip(plain).map(|(a, b)| a - b).collect();
        for (added, wanted) in added.iter().zip([2_000.0, 2_000.0, 0.0]) {
            assert!((added - wanted).abs() < 1e-6, "{added} {wanted}");
        }
    }
}
