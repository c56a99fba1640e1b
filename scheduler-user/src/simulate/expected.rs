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
        let idle_above = before.map_or(1.0, |above| self.idle[above]);
        let under_way = self.under_way[last];
        match within {
            Within::Fifo => (bytes + self.backlog[last] + under_way) / idle_above,
            // Its equals take turns with it instead of going first (processor sharing).
            Within::Fair => {
                let backlog_above = before.map_or(0.0, |above| self.backlog[above]);
                (backlog_above + under_way) / idle_above + bytes / self.idle[last]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use scheduler_common::class::Cuts;

    use super::*;

    #[test]
    fn all_but_the_top_band_wait_for_a_packet_under_way() {
        // Half of the bytes in the top band, half in the last but one.
        let sizes = [1_000.0, 1_000.0, 2_000.0];
        let cuts = Cuts {
            bytes: [1_000, 1_200, 1_300, 1_400, 1_500, 1_600, 2_000],
            _pad: 0,
        };
        let paths = Paths::of_sizes(sizes.map(|bytes| bytes as u64), &cuts);
        let link = Bottleneck::of_rate(8_000_000_000);
        let took = |packet_bytes: u64| {
            let link = Bottleneck {
                packet_bytes,
                ..link
            };
            let [of] = expected((&sizes, &[1_000.0, 2_000.0]), &paths, &link, [0.8]);
            of.short_ns
        };
        // A byte takes a nanosecond. Nothing is behind the last used band, and the top one does not wait.
        assert_eq!(took(0), took(10_000));
        let later = Cuts {
            bytes: [500, 1_000, 1_200, 1_300, 1_400, 1_500, 1_600],
            _pad: 0,
        };
        let paths = Paths::of_sizes(sizes.map(|bytes| bytes as u64), &later);
        let took = |packet_bytes: u64| {
            let link = Bottleneck {
                packet_bytes,
                ..link
            };
            let [of] = expected((&sizes, &[1_000.0, 2_000.0]), &paths, &link, [0.8]);
            of.short_ns
        };
        // Two of three messages wait for half a packet, which is there for 0.4 of the time.
        let [short, all] = std::array::from_fn(|of: usize| took(10_000)[of] - took(0)[of]);
        let expected_ns = 2.0 / 3.0 * 0.4 * 5_000.0;
        assert!((short - expected_ns).abs() < 1e-6, "{short}");
        assert!((all - expected_ns).abs() < 1e-6, "{all}");
    }
}
