//! The demo's mix: what its services send, and when.

use std::time::Duration;

use rand::{SeedableRng as _, rngs::StdRng};
use serde::Serialize;

use crate::workload::{self, Amounts, Kind, Sizes, Span};

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

/// The kinds of messages, by their shares of the bytes; a service may have several.
pub(crate) static KINDS: [Kind; 6] = [
    Kind {
        service: Service::Rpc as u8,
        amount: 0.02,
        sizes: Sizes::LogNormal {
            median_bytes: 1_200.0,
            sigma: 0.9,
            bounds: (200.0, 8_000.0),
        },
        request_bytes: (60, 240),
        kept: true,
        burst: 1.0,
        ..Kind::PLAIN
    },
    Kind {
        service: Service::Web as u8,
        amount: 0.13,
        sizes: Sizes::LogNormal {
            median_bytes: 16_000.0,
            sigma: 0.9,
            bounds: (2_000.0, 120_000.0),
        },
        request_bytes: (300, 700),
        kept: true,
        burst: 4.0,
        ..Kind::PLAIN
    },
    Kind {
        service: Service::Media as u8,
        amount: 0.04,
        sizes: Sizes::LogNormal {
            median_bytes: 18_000.0,
            sigma: 0.5,
            bounds: (8_000.0, 40_000.0),
        },
        request_bytes: (140, 165),
        kept: true,
        burst: 2.0,
        ..Kind::PLAIN
    },
    Kind {
        service: Service::Media as u8,
        amount: 0.26,
        sizes: Sizes::LogNormal {
            median_bytes: 1_400_000.0,
            sigma: 0.6,
            bounds: (500_000.0, 4_000_000.0),
        },
        request_bytes: (400, 440),
        kept: true,
        burst: 1.0,
        ..Kind::PLAIN
    },
    Kind {
        service: Service::Download as u8,
        amount: 0.25,
        sizes: Sizes::LogNormal {
            median_bytes: 600_000.0,
            sigma: 0.7,
            bounds: (200_000.0, 3_000_000.0),
        },
        request_bytes: (180, 260),
        kept: false,
        burst: 1.0,
        ..Kind::PLAIN
    },
    Kind {
        service: Service::Bulk as u8,
        amount: 0.30,
        sizes: Sizes::LogNormal {
            median_bytes: 6_500_000.0,
            sigma: 0.5,
            bounds: (3_000_000.0, 20_000_000.0),
        },
        request_bytes: (250, 300),
        kept: false,
        burst: 1.0,
        ..Kind::PLAIN
    },
];

/// Bytes that a reply takes on the link, headers counted.
#[must_use]
pub fn wire_bytes(reply_bytes: u64) -> u64 {
    reply_bytes + HEADER_BYTES * reply_bytes.div_ceil(SEGMENT_BYTES).max(1)
}

/// Draws the arrivals of one run, in order of time; the same seed gives the same list.
#[must_use]
pub fn schedule(plan: &Plan, seed: u64) -> Vec<Arrival> {
    let kinds = KINDS.map(|kind| {
        if kind.service == Service::Bulk as u8 {
            kind.scaled(1.0 / plan.shrink)
        } else {
            kind
        }
    });
    let span = Span {
        length: plan.length,
        bytes: plan.rate_bps as f64 / 8.0 * plan.load * plan.length.as_secs_f64(),
    };
    let mut arrivals: Vec<Arrival> = workload::draw(
        &kinds,
        Amounts::OfBytes,
        &span,
        &mut StdRng::seed_from_u64(seed),
    )
    .into_iter()
    .map(|item| Arrival {
        at: item.at,
        service: Service::ALL[usize::from(item.service)],
        request_bytes: item.request_bytes,
        reply_bytes: item.reply_bytes,
        kept: item.kept,
    })
    .collect();
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
            let Sizes::LogNormal { bounds, .. } = kind.sizes else {
                panic!("the demo's sizes are log-normal");
            };
            let (low, high) = (kind.sizes.at(0.02), kind.sizes.at(0.98));
            assert!(low >= bounds.0 && high <= bounds.1);
            assert!(high > 3.0 * low, "{:?}: {low} to {high}", kind.service);
        }
    }
}
