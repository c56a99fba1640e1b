//! A full link: what each scheme leaves of it for payload.

use std::time::Duration;

use anyhow::Result;
use bed::{
    netns::SERVER_V4,
    played,
    traffic::Play,
    workload::{Demand, Item, find},
};
use serde::Serialize;

use crate::{
    bench::Bench,
    cell::{Place, tune},
    figures::Spread,
    options::BedKind,
    scheme::{self, Scheme},
};

const ROUNDS: u32 = 5;
/// Long enough for windows to open, and for a band's guarantee to be small change.
const LENGTH: Duration = Duration::from_secs(5);
const TRANSFERS: u32 = 6;

/// Goodput under each scheme while transfers without end fill the link.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Saturation {
    pub(crate) bed: BedKind,
    pub(crate) transfers: u32,
    pub(crate) seconds: f64,
    pub(crate) schemes: Vec<Filled>,
}

/// One scheme's entry.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Filled {
    pub(crate) name: Scheme,
    pub(crate) goodput_bps: Spread,
    /// Over that of FIFO in the same round.
    pub(crate) to_fifo: Option<Spread>,
}

impl Saturation {
    pub(crate) fn new(bed: BedKind, found: Vec<(Scheme, Vec<f64>)>) -> Self {
        let fifo = found
            .iter()
            .find(|(name, _)| *name == Scheme::Fifo)
            .map(|(_, rounds)| rounds.clone());
        let fill = |(name, rounds_bps): (Scheme, Vec<f64>)| Filled {
            name,
            goodput_bps: Spread::of(rounds_bps.iter().copied()).unwrap_or_default(),
            to_fifo: fifo.as_ref().and_then(|fifo| {
                Spread::of(
                    rounds_bps
                        .iter()
                        .zip(fifo)
                        .map(|(ours, theirs)| ours / theirs),
                )
            }),
        };
        Self {
            bed,
            transfers: TRANSFERS,
            seconds: LENGTH.as_secs_f64(),
            schemes: found.into_iter().map(fill).collect(),
        }
    }
}

/// Fills the link under every scheme, in another order each round.
///
/// # Errors
/// When a run can't be made.
pub(crate) fn measure(bench: &mut Bench<'_>, place: &Place<'_>) -> Result<Saturation> {
    let options = bench.options;
    let demand = Demand {
        rate_bps: options.rate,
        load: 0.8,
        length: LENGTH,
        scale: options.scale,
    };
    let workload = find("websearch").unwrap_or(&bed::workload::WORKLOADS[0]);
    let tuned = tune(place, workload, &demand);
    let mut found: Vec<(Scheme, Vec<f64>)> = bench
        .schemes
        .iter()
        .map(|name| (*name, Vec::new()))
        .collect();
    let count = found.len();
    for round in 0..ROUNDS {
        for turn in 0..count {
            let (name, rounds) = &mut found[(turn + round as usize) % count];
            let standing = if *name == Scheme::Treeline {
                None
            } else {
                Some(scheme::set_up(
                    *name,
                    place.bed,
                    options.rate,
                    &tuned,
                    &place.aging,
                )?)
            };
            let agent = match standing {
                Some(_) => None,
                None => Some(place.start_agent(bench, Duration::from_secs(60))?),
            };
            let play = Play {
                server: SERVER_V4,
                drain: LENGTH,
                band: None,
            };
            let marking = standing.as_ref().and_then(scheme::Standing::marking);
            let played = played::play(place.bed, transfers(), play, marking, &mut || Ok(()))?;
            if let Some(agent) = agent {
                agent.stop()?;
                place.treeline.down()?;
            }
            let bytes: u64 = played
                .run
                .outcomes
                .iter()
                .map(|outcome| outcome.received_bytes)
                .sum();
            let goodput_bps = bytes as f64 * 8.0 / LENGTH.as_secs_f64();
            rounds.push(goodput_bps);
            bench.progress.say(&format!(
                "  full link, {:<13} {:.2} Mbit/s of payload",
                name.name(),
                goodput_bps / 1e6
            ));
        }
    }
    Ok(Saturation::new(place.kind, found))
}

fn transfers() -> Vec<Item> {
    let endless = |service| Item {
        at: Duration::ZERO,
        service,
        network: None,
        pool: 0,
        request_bytes: 100,
        reply_bytes: 1 << 40,
        kept: false,
    };
    (0..TRANSFERS)
        .map(|number| endless((number % 5) as u8))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodputs_are_compared_with_those_of_fifo_in_the_same_round() {
        let found = vec![
            (Scheme::Fifo, vec![100.0, 200.0, 50.0]),
            (Scheme::Treeline, vec![99.0, 100.0, 49.0]),
        ];
        let saturation = Saturation::new(BedKind::Host, found);
        let ours = saturation.schemes[1].to_fifo.unwrap();
        assert_eq!((ours.min, ours.median, ours.max), (0.5, 0.98, 0.99));
    }
}
