//! What strict bands are to be expected to do to messages, by queueing theory instead of a replay.
//!
//! The multilevel queue with Poisson arrivals (Kleinrock, *Queueing Systems* 2, 1976, 4.7), for any paths through the bands: before
//! a message whose last byte goes in band `f` go, of all that came earlier, the bytes in bands up to `f`, and of all that
//! come later, those in bands before `f`. A replay of one list of arrivals has the luck of that list in it, and a
//! search finds what suits that luck; this has none.

use scheduler_common::class::BANDS;

use super::{Bottleneck, Paths, Within};

/// Sums over messages of what the bands before and up to each hold of them.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// Bytes, and their square: means over all messages.
    first: f64,
    second: f64,
}

/// Expected means over the messages of `paths`, of which `sizes` says the bytes, at each of some loads, as [`super::Tally`]
/// counts them. Messages of at most so many bytes each are summed up apart, too.
///
/// Takes O(messages × (bands + loads)).
pub(crate) fn expected<const LOADS: usize, const SHORT: usize>(
    (sizes, short_bytes): (&[f64], &[f64; SHORT]),
    paths: &Paths,
    link: &Bottleneck,
    loads: [f64; LOADS],
) -> [Expected<SHORT>; LOADS] {
    let count = sizes.len().max(1) as f64;
    let mut levels = [Level::default(); BANDS];
    let mut total = 0.0;
    for (message, bytes) in sizes.iter().enumerate() {
        total += bytes;
        let mut within = [0.0; BANDS];
        for segment in paths.of(message) {
            within[usize::from(segment.band)] += segment.bytes;
        }
        let mut above = 0.0;
        for (level, bytes) in levels.iter_mut().zip(within) {
            above += bytes;
            level.first += above / count;
            level.second += above * above / count;
        }
    }
    let queues = loads.map(|load| Queue::new(&levels, load * count / f64::max(total, 1.0)));
    let none = Expected {
        slowdown: 0.0,
        fct_ns: 0.0,
        short_ns: [0.0; SHORT],
    };
    let mut sums = [none; LOADS];
    for (message, bytes) in sizes.iter().enumerate() {
        let last = (paths.of(message).last()).map_or(0, |segment| usize::from(segment.band));
        let idle_ns = link.felt_ns(*bytes);
        for (sum, queue) in sums.iter_mut().zip(&queues) {
            let took_ns = link.felt_ns(queue.takes(*bytes, last, link.within));
            sum.slowdown += took_ns / idle_ns / count;
            sum.fct_ns += took_ns / count;
            for (sum, bound) in sum.short_ns.iter_mut().zip(short_bytes) {
                if bytes <= bound {
                    *sum += took_ns / count;
                }
            }
        }
    }
    sums
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
}

impl Queue {
    /// `rate` is in messages for each byte that the link could send.
    fn new(levels: &[Level; BANDS], rate: f64) -> Self {
        let idle = levels.map(|level| 1.0 - rate * level.first);
        Self {
            backlog: std::array::from_fn(|band| rate * levels[band].second / 2.0 / idle[band]),
            idle,
        }
    }

    /// Bytes that the link could send while a message is under way whose last byte goes in band `last`.
    fn takes(&self, bytes: f64, last: usize, within: Within) -> f64 {
        let before = last.checked_sub(1);
        let idle_above = before.map_or(1.0, |above| self.idle[above]);
        match within {
            Within::Fifo => (bytes + self.backlog[last]) / idle_above,
            // Its equals take turns with it instead of going first (processor sharing).
            Within::Fair => {
                let backlog_above = before.map_or(0.0, |above| self.backlog[above]);
                backlog_above / idle_above + bytes / self.idle[last]
            }
        }
    }
}
