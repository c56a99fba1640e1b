//! What the services send, and when: one seeded list of arrivals.
//!
//! Arrivals are Poisson given their number: each service gets as many messages as its share of
//! the load needs, at independent uniform times. Sizes are drawn from evenly spread quantiles
//! in random order. So every seed offers the wanted load, and a short run is not decided by
//! whether one backup more happened to fall into it; the bursts stay as random as Poisson's.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde::Serialize;

/// Payload of a full segment with the usual TCP timestamps.
pub const SEGMENT_BYTES: u64 = 1448;
/// Ethernet, IPv4 and TCP headers with timestamps, as the qdisc counts them.
pub const HEADER_BYTES: u64 = 66;
/// Largest message of class small.
pub const SMALL_BYTES: u64 = 100_000;
/// Largest message of class medium.
pub const MEDIUM_BYTES: u64 = 1_000_000;

/// A service with a port of its own.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Short replies over kept connections.
    Rpc,
    /// Objects of pages, a few at a time, over kept connections.
    Web,
    /// Thumbnails and originals on one port; the request's length tells which.
    Media,
    /// Files over fresh connections.
    Download,
    /// Backups over fresh connections: few and large.
    Bulk,
}

impl Service {
    /// All services, in the order of their ports.
    pub const ALL: [Self; 5] = [
        Self::Rpc,
        Self::Web,
        Self::Media,
        Self::Download,
        Self::Bulk,
    ];

    /// TCP port the server listens on.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::Rpc => 7001,
            Self::Web => 7002,
            Self::Media => 7003,
            Self::Download => 7004,
            Self::Bulk => 7005,
        }
    }

    /// Place in [`Self::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Name for tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rpc => "rpc",
            Self::Web => "web",
            Self::Media => "media",
            Self::Download => "download",
            Self::Bulk => "bulk",
        }
    }
}

/// One request and its reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// When it starts, from the start of the run.
    pub at: Duration,
    /// Which service it asks.
    pub service: Service,
    /// Length of the request with its header.
    pub request_bytes: u32,
    /// Length of the reply.
    pub reply_bytes: u64,
    /// Whether it may use a connection that was kept open.
    pub kept: bool,
}

/// How much is offered, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Link rate.
    pub rate_bps: u64,
    /// Share of the link that the replies fill, headers counted.
    pub load: f64,
    /// Time in which messages arrive.
    pub length: Duration,
    /// Divides the largest sizes, so that a short run still holds enough of them.
    pub shrink: f64,
}

/// One kind of message; a service may have several.
#[derive(Clone, Copy, Debug)]
struct Kind {
    service: Service,
    /// Share of the offered bytes.
    share: f64,
    /// Median and spread (of the natural logarithm) of the reply, cut to the bounds.
    median_bytes: f64,
    sigma: f64,
    bounds: (f64, f64),
    request_bytes: (u32, u32),
    kept: bool,
    /// Mean number of messages that arrive together.
    burst: f64,
}

const KINDS: [Kind; 6] = [
    Kind {
        service: Service::Rpc,
        share: 0.02,
        median_bytes: 1_200.0,
        sigma: 0.9,
        bounds: (200.0, 8_000.0),
        request_bytes: (60, 240),
        kept: true,
        burst: 1.0,
    },
    Kind {
        service: Service::Web,
        share: 0.13,
        median_bytes: 16_000.0,
        sigma: 0.9,
        bounds: (2_000.0, 120_000.0),
        request_bytes: (300, 700),
        kept: true,
        burst: 4.0,
    },
    Kind {
        service: Service::Media,
        share: 0.04,
        median_bytes: 18_000.0,
        sigma: 0.5,
        bounds: (8_000.0, 40_000.0),
        request_bytes: (140, 165),
        kept: true,
        burst: 2.0,
    },
    Kind {
        service: Service::Media,
        share: 0.26,
        median_bytes: 1_400_000.0,
        sigma: 0.6,
        bounds: (500_000.0, 4_000_000.0),
        request_bytes: (400, 440),
        kept: true,
        burst: 1.0,
    },
    Kind {
        service: Service::Download,
        share: 0.25,
        median_bytes: 600_000.0,
        sigma: 0.7,
        bounds: (200_000.0, 3_000_000.0),
        request_bytes: (180, 260),
        kept: false,
        burst: 1.0,
    },
    Kind {
        service: Service::Bulk,
        share: 0.30,
        median_bytes: 6_500_000.0,
        sigma: 0.5,
        bounds: (3_000_000.0, 20_000_000.0),
        request_bytes: (250, 300),
        kept: false,
        burst: 1.0,
    },
];

/// Messages of a burst follow one another within this time, like the objects of a page.
const BURST_SPAN: Duration = Duration::from_millis(10);

impl Kind {
    fn shrunk(mut self, by: f64) -> Self {
        if self.service == Service::Bulk {
            self.median_bytes /= by;
            self.bounds = (self.bounds.0 / by, self.bounds.1 / by);
        }
        self
    }

    /// The reply at quantile `q` of the cut log-normal distribution.
    fn reply_bytes(&self, q: f64) -> u64 {
        let at = |bytes: f64| normal_below((bytes / self.median_bytes).ln() / self.sigma);
        let (low, high) = (at(self.bounds.0), at(self.bounds.1));
        let normal = normal_quantile((high - low).mul_add(q, low));
        let bytes = self.median_bytes * (self.sigma * normal).exp();
        bytes.clamp(self.bounds.0, self.bounds.1) as u64
    }

    fn mean_wire_bytes(&self) -> f64 {
        const STEPS: u32 = 400;
        let sum: u64 = (0..STEPS)
            .map(|step| wire_bytes(self.reply_bytes((f64::from(step) + 0.5) / f64::from(STEPS))))
            .sum();
        sum as f64 / f64::from(STEPS)
    }
}

/// Bytes that a reply takes on the link, headers counted.
#[must_use]
pub fn wire_bytes(reply_bytes: u64) -> u64 {
    reply_bytes + HEADER_BYTES * reply_bytes.div_ceil(SEGMENT_BYTES).max(1)
}

/// Draws the arrivals of one run, in order of time; the same seed gives the same list.
#[must_use]
pub fn schedule(plan: &Plan, seed: u64) -> Vec<Arrival> {
    let mut rng = StdRng::seed_from_u64(seed);
    let total_bytes = plan.rate_bps as f64 / 8.0 * plan.load * plan.length.as_secs_f64();
    let mut arrivals = Vec::new();
    for kind in KINDS.map(|kind| kind.shrunk(plan.shrink)) {
        let count = (total_bytes * kind.share / kind.mean_wire_bytes())
            .round()
            .max(1.0) as usize;
        let mut quantiles: Vec<f64> = (0..count)
            .map(|i| (i as f64 + rng.random::<f64>()) / count as f64)
            .collect();
        quantiles.shuffle(&mut rng);
        let mut left_of_burst = 0;
        let mut start = Duration::ZERO;
        for quantile in quantiles {
            if left_of_burst == 0 {
                start = plan.length.mul_f64(rng.random());
                left_of_burst = rng.random_range(1..=(2.0 * kind.burst - 1.0) as usize);
            }
            left_of_burst -= 1;
            let apart = if kind.burst > 1.0 { rng.random() } else { 0.0 };
            arrivals.push(Arrival {
                at: start + BURST_SPAN.mul_f64(apart),
                service: kind.service,
                request_bytes: rng.random_range(kind.request_bytes.0..=kind.request_bytes.1),
                reply_bytes: kind.reply_bytes(quantile),
                kept: kind.kept,
            });
        }
    }
    arrivals.sort_by_key(|arrival| arrival.at);
    arrivals
}

/// Share of the link that a list of arrivals fills.
#[must_use]
pub fn offered_load(arrivals: &[Arrival], plan: &Plan) -> f64 {
    let bytes: u64 = arrivals
        .iter()
        .map(|arrival| wire_bytes(arrival.reply_bytes))
        .sum();
    bytes as f64 * 8.0 / (plan.rate_bps as f64 * plan.length.as_secs_f64())
}

/// Distribution function of the standard normal (Abramowitz and Stegun 26.2.17).
fn normal_below(x: f64) -> f64 {
    const B: [f64; 5] = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let t = 1.0 / 0.231_641_9f64.mul_add(x.abs(), 1.0);
    let series = B.iter().rev().fold(0.0, |sum, b| (sum + b) * t);
    let upper = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * series;
    if x < 0.0 { upper } else { 1.0 - upper }
}

/// Inverse of [`normal_below`] by bisection: exact enough and cheap enough for some thousands.
fn normal_quantile(q: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if normal_below(middle) < q {
            low = middle
        } else {
            high = middle
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        rate_bps: 200_000_000,
        load: 0.8,
        length: Duration::from_secs(8),
        shrink: 2.0,
    };

    #[test]
    fn the_same_seed_gives_the_same_arrivals() {
        assert_eq!(schedule(&PLAN, 7), schedule(&PLAN, 7));
        assert_ne!(schedule(&PLAN, 7), schedule(&PLAN, 8));
    }

    #[test]
    fn every_seed_offers_the_wanted_load() {
        for seed in 0..20 {
            let load = offered_load(&schedule(&PLAN, seed), &PLAN);
            assert!((load - PLAN.load).abs() < 0.05, "seed {seed}: {load}");
        }
    }

    #[test]
    fn arrivals_are_in_order_and_every_class_has_some() {
        let arrivals = schedule(&PLAN, 1);
        assert!(arrivals.is_sorted_by_key(|arrival| arrival.at));
        let count = |low, high| {
            arrivals
                .iter()
                .filter(|a| a.reply_bytes > low && a.reply_bytes <= high)
                .count()
        };
        assert!(count(0, SMALL_BYTES) > 500);
        assert!(count(SMALL_BYTES, MEDIUM_BYTES) > 30);
        assert!(count(MEDIUM_BYTES, u64::MAX) > 20);
    }

    #[test]
    fn sizes_stay_within_their_bounds_and_spread() {
        for kind in KINDS {
            let (low, high) = (kind.reply_bytes(0.02), kind.reply_bytes(0.98));
            assert!(low as f64 >= kind.bounds.0 && high as f64 <= kind.bounds.1);
            assert!(high > 3 * low, "{:?}: {low} to {high}", kind.service);
        }
    }

    #[test]
    fn the_normal_quantile_inverts_the_distribution() {
        assert!((normal_quantile(0.975) - 1.96).abs() < 1e-3);
        assert!(normal_quantile(0.5).abs() < 1e-3);
    }
}
