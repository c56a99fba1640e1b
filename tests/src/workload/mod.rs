//! Workloads as data: which services send what, to whom, and when.
//!
//! Arrivals are Poisson given their number: each kind of message gets as many as its share of
//! the load needs, at independent uniform times. Sizes are drawn from evenly spread quantiles
//! in random order. So every seed offers the wanted load, and a short run is not decided by
//! whether one backup more happened to fall into it; the bursts stay as random as Poisson's.

mod catalog;
pub mod sizes;

use std::{net::IpAddr, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

pub use self::{
    catalog::{WORKLOADS, find},
    sizes::Sizes,
};
use crate::{
    beds::far_address,
    mix::wire_bytes,
    traffic::{Exchange, Line},
};

/// Port of a workload's first service; the others follow.
pub const FIRST_PORT: u16 = 7001;

/// Messages of a burst follow one another within this time, like the objects of a page.
const BURST_SPAN: Duration = Duration::from_millis(10);

/// What a workload shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Group {
    /// Sizes follow nothing that a host sees before the message (a).
    NothingToLearn,
    /// Sizes hang on what a host sees (b).
    Learnable,
    /// Kept connections that carry many messages (c).
    Kept,
    /// A service changes in the middle (e).
    Changing,
}

impl Group {
    /// The letter in the report.
    #[must_use]
    pub const fn letter(self) -> &'static str {
        match self {
            Self::NothingToLearn => "a",
            Self::Learnable => "b",
            Self::Kept => "c",
            Self::Changing => "e",
        }
    }
}

/// A service of a workload; its port is [`FIRST_PORT`] and its place.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Name in tables.
    pub name: &'static str,
    /// What an administrator who writes port rules takes it for.
    pub usually: Usually,
}

/// What a service is known for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Usually {
    /// Short replies that somebody waits for.
    Interactive,
    /// Pages and files of middling size.
    Ordinary,
    /// Large transfers.
    Bulk,
}

/// What [`Kind::amount`] is a share of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Amounts {
    /// Bytes.
    OfBytes,
    /// Messages.
    OfMessages,
}

/// One kind of message; a service may have several.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Place of its service in [`Workload::services`].
    pub service: u8,
    /// Its share, relative to those of the other kinds.
    pub amount: f64,
    /// Sizes of the replies.
    pub sizes: Sizes,
    /// Least and largest request.
    pub request_bytes: (u32, u32),
    /// Whether connections are kept open for further messages.
    pub kept: bool,
    /// Mean number of messages that arrive together.
    pub burst: f64,
    /// The client's networks that ask for it (see [`far_address`]); none is the client's own.
    pub networks: &'static [u8],
    /// Kept connections are shared among kinds with the same pool, port and network.
    pub pool: u8,
    /// Factor on the sizes.
    pub scale: f64,
}

impl Kind {
    /// Everything that most kinds have in common.
    pub const PLAIN: Self = Self {
        service: 0,
        amount: 1.0,
        sizes: Sizes::all_of(sizes::WEB_SEARCH),
        request_bytes: (100, 300),
        kept: false,
        burst: 1.0,
        networks: &[],
        pool: 0,
        scale: 1.0,
    };

    /// The same with its sizes multiplied.
    #[must_use]
    pub fn scaled(mut self, by: f64) -> Self {
        self.scale *= by;
        self
    }

    fn reply_bytes(&self, q: f64) -> u64 {
        ((self.sizes.at(q) * self.scale) as u64).max(1)
    }

    fn mean_wire_bytes(&self) -> f64 {
        const STEPS: u32 = 400;
        let sum: u64 = (0..STEPS)
            .map(|step| wire_bytes(self.reply_bytes((f64::from(step) + 0.5) / f64::from(STEPS))))
            .sum();
        sum as f64 / f64::from(STEPS)
    }
}

/// A workload: services, and what they send in one phase after another.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Name on the command line and in reports.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub about: &'static str,
    /// What it shows.
    pub group: Group,
    /// Its services.
    pub services: &'static [Service],
    /// What the kinds' amounts are shares of.
    pub amounts: Amounts,
    /// Kinds of each phase; the phases take equal parts of a run.
    pub phases: &'static [&'static [Kind]],
    /// Factor on the sizes that makes them comparable with the published ones.
    pub unit: f64,
}

/// How much is offered, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Link rate.
    pub rate_bps: u64,
    /// Share of the link that the replies fill, headers counted.
    pub load: f64,
    /// Time in which messages arrive.
    pub length: Duration,
    /// Factor on the published sizes.
    pub scale: f64,
}

/// Length of a phase, and the bytes on the wire that it offers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) length: Duration,
    pub(crate) bytes: f64,
}

/// One request and its reply.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item {
    /// When it starts, from the start of the run.
    pub at: Duration,
    /// Place of its service in [`Workload::services`].
    pub service: u8,
    /// Network that asks (see [`far_address`]).
    pub network: Option<u8>,
    /// Connections are shared within a pool.
    pub pool: u8,
    /// Length of the request with its header.
    pub request_bytes: u32,
    /// Length of the reply.
    pub reply_bytes: u64,
    /// Whether it may use a connection that was kept open.
    pub kept: bool,
}

impl Exchange for Item {
    fn at(&self) -> Duration {
        self.at
    }

    fn line(&self) -> Line {
        let from: Option<IpAddr> = self.network.map(far_address);
        Line {
            port: FIRST_PORT + u16::from(self.service),
            from,
            pool: self.pool,
            kept: self.kept,
        }
    }

    fn request_bytes(&self) -> u32 {
        self.request_bytes
    }

    fn reply_bytes(&self) -> u64 {
        self.reply_bytes
    }
}

impl Workload {
    /// Draws the messages of one run, in order of time; the same seed gives the same list.
    #[must_use]
    pub fn schedule(&self, demand: &Demand, seed: u64) -> Vec<Item> {
        let mut rng = StdRng::seed_from_u64(seed);
        let length = demand.length / self.phases.len().max(1) as u32;
        let span = Span {
            length,
            bytes: demand.rate_bps as f64 / 8.0 * demand.load * length.as_secs_f64(),
        };
        let mut items = Vec::new();
        for (number, kinds) in self.phases.iter().enumerate() {
            let kinds: Vec<Kind> = kinds
                .iter()
                .map(|kind| kind.scaled(demand.scale * self.unit))
                .collect();
            let start = length * number as u32;
            items.extend(
                draw(&kinds, self.amounts, &span, &mut rng)
                    .into_iter()
                    .map(|item| Item {
                        at: item.at + start,
                        ..item
                    }),
            );
        }
        items.sort_by_key(|item| item.at);
        items
    }
}

/// Draws the messages of one phase, kind by kind.
pub(crate) fn draw(kinds: &[Kind], amounts: Amounts, span: &Span, rng: &mut StdRng) -> Vec<Item> {
    let means: Vec<f64> = kinds.iter().map(Kind::mean_wire_bytes).collect();
    let share = |(kind, mean): (&Kind, &f64)| match amounts {
        Amounts::OfBytes => kind.amount,
        Amounts::OfMessages => kind.amount * mean,
    };
    let whole: f64 = kinds.iter().zip(&means).map(share).sum();
    let mut items = Vec::new();
    for (kind, mean) in kinds.iter().zip(&means) {
        let bytes = span.bytes * share((kind, mean)) / whole;
        let count = (bytes / mean).round().max(1.0) as usize;
        items.extend(draw_kind(kind, count, span.length, rng));
    }
    items
}

fn draw_kind(kind: &Kind, count: usize, length: Duration, rng: &mut StdRng) -> Vec<Item> {
    let mut quantiles: Vec<f64> = (0..count)
        .map(|i| (i as f64 + rng.random::<f64>()) / count as f64)
        .collect();
    quantiles.shuffle(rng);
    let mut left_of_burst = 0;
    let mut start = Duration::ZERO;
    let mut network = None;
    let mut draw_one = |quantile| {
        if left_of_burst == 0 {
            start = length.mul_f64(rng.random());
            left_of_burst = rng.random_range(1..=(2.0 * kind.burst - 1.0) as usize);
            network = match kind.networks {
                [] => None,
                [only] => Some(*only),
                several => Some(several[rng.random_range(0..several.len())]),
            };
        }
        left_of_burst -= 1;
        let apart = if kind.burst > 1.0 { rng.random() } else { 0.0 };
        Item {
            at: start + BURST_SPAN.mul_f64(apart),
            service: kind.service,
            network,
            pool: kind.pool,
            request_bytes: rng.random_range(kind.request_bytes.0..=kind.request_bytes.1),
            reply_bytes: kind.reply_bytes(quantile),
            kept: kind.kept,
        }
    };
    quantiles.into_iter().map(&mut draw_one).collect()
}

/// Share of the link that a list of messages fills.
#[must_use]
pub fn offered_load(items: &[Item], demand: &Demand) -> f64 {
    let bytes: u64 = items.iter().map(|item| wire_bytes(item.reply_bytes)).sum();
    bytes as f64 * 8.0 / (demand.rate_bps as f64 * demand.length.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand {
        rate_bps: 200_000_000,
        load: 0.8,
        length: Duration::from_secs(15),
        scale: 0.1,
    };

    #[test]
    fn the_same_seed_gives_the_same_messages() {
        for workload in &WORKLOADS {
            let first = workload.schedule(&DEMAND, 7);
            assert_eq!(first, workload.schedule(&DEMAND, 7));
            assert_ne!(first, workload.schedule(&DEMAND, 8));
            assert!(first.is_sorted_by_key(|item| item.at), "{}", workload.name);
        }
    }

    #[test]
    fn every_workload_offers_the_wanted_load_in_every_phase() {
        for workload in &WORKLOADS {
            for (seed, load) in (0..10).zip([0.5, 0.8, 0.9].into_iter().cycle()) {
                let demand = Demand { load, ..DEMAND };
                let items = workload.schedule(&demand, seed);
                let offered = offered_load(&items, &demand);
                assert!(
                    (offered / load - 1.0).abs() < 0.05,
                    "{} seed {seed}: {offered} instead of {load}",
                    workload.name
                );
                let phases = workload.phases.len() as u32;
                let part = demand.length / phases;
                for phase in 0..phases {
                    let within: Vec<Item> = items
                        .iter()
                        .filter(|item| item.at >= part * phase && item.at < part * (phase + 1))
                        .copied()
                        .collect();
                    let demand = Demand {
                        length: part,
                        ..demand
                    };
                    let offered = offered_load(&within, &demand);
                    assert!(
                        (offered / load - 1.0).abs() < 0.08,
                        "{}: {offered}",
                        workload.name
                    );
                }
            }
        }
    }

    #[test]
    fn sizes_follow_the_published_table() {
        let items = find("websearch").unwrap().schedule(&DEMAND, 3);
        for (bytes, share) in sizes::WEB_SEARCH {
            let scaled = bytes * DEMAND.scale;
            let below = items
                .iter()
                .filter(|item| item.reply_bytes as f64 <= scaled)
                .count();
            let found = below as f64 / items.len() as f64;
            assert!(
                (found - share).abs() < 0.01,
                "up to {bytes}: {found} instead of {share}"
            );
        }
    }

    #[test]
    fn arrivals_spread_over_the_run_as_poisson_ones_do() {
        let items = find("websearch").unwrap().schedule(&DEMAND, 5);
        let windows = 150;
        let mut counts = vec![0.0; windows];
        for item in &items {
            let place = item.at.as_secs_f64() / DEMAND.length.as_secs_f64() * windows as f64;
            counts[(place as usize).min(windows - 1)] += 1.0;
        }
        let mean = items.len() as f64 / windows as f64;
        let variance = counts.iter().map(|n| (n - mean).powi(2)).sum::<f64>() / windows as f64;
        assert!(
            (0.7..1.4).contains(&(variance / mean)),
            "{}",
            variance / mean
        );
    }

    #[test]
    fn names_are_unique_and_services_are_named() {
        for (place, workload) in WORKLOADS.iter().enumerate() {
            assert!(
                WORKLOADS[..place]
                    .iter()
                    .all(|other| other.name != workload.name)
            );
            for kind in workload.phases.iter().copied().flatten() {
                assert!(usize::from(kind.service) < workload.services.len());
            }
        }
    }
}
