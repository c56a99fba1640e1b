//! No single far network decides: what a verdict would be without each of them.
//!
//! Shares bound how many messages a network brings, and not what one of them weighs. A kilobyte that waits behind bulk is a hundred
//! times slower, so a twentieth of such messages can make any model look worse than aging.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    JudgeLimits, LOADS, Parts,
    advantage::{Advantage, contest_without},
    evaluate::mean,
    forecast::{Arena, Entrants},
    judge::percent,
};
use crate::{
    dataset::Row,
    simulate::{Paths, felt},
};

/// Whether a candidate wins by one far network alone, and all others lose.
pub(super) fn flattery(
    arena: &Arena,
    entrants: &Entrants,
    parts: &Parts,
    limits: &JudgeLimits,
) -> Option<String> {
    let rival = entrants.running.as_ref().unwrap_or(&arena.aging);
    let candidate = entrants.candidate.as_ref()?;
    let minor = minor_networks(&[&parts.train, &parts.held_out]);
    let contest = (candidate, rival);
    let [(least, _), _] = gains_but_for_one(arena, contest, &minor, limits.min_messages)?;
    (least < -limits.min_gain).then(|| {
        format!(
            "but for one far network it gains {} over what runs",
            percent(least)
        )
    })
}

/// Whether the model surely serves all others well, and one far network alone makes it look bad.
pub(super) fn is_outvoted_by_one(
    arena: &Arena,
    model: &Paths,
    recent: &[Row],
    limits: &JudgeLimits,
) -> bool {
    let minor = minor_networks(&[recent]);
    let contest = (model, &arena.aging);
    let swayed = gains_but_for_one(arena, contest, &minor, limits.min_messages);
    let Some([_, (_, worst_off)]) = swayed else {
        return false;
    };
    let tallies = contest_without(arena, &[model, &arena.aging], limits.seed, Some(worst_off));
    Advantage::of(&tallies[0], &tallies[1]).is_sure(limits.still_sure, limits.min_gain)
}

/// Networks that send less than half of the messages that `rows` tell of: none of them speaks for the host.
fn minor_networks(rows: &[&[Row]]) -> BTreeSet<u32> {
    let messages: BTreeSet<_> = (rows.iter().copied().flatten())
        .map(|row| (row.network_hash, row.flow_hash, row.half, row.message))
        .collect();
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for (network, ..) in &messages {
        *counts.entry(*network).or_default() += 1;
    }
    counts.retain(|_, count| 2 * *count < messages.len());
    counts.into_keys().collect()
}

/// Sums over messages at one load under two contenders: completion times of both, slowdowns of both.
type Sums = [f64; 4];

/// Gain of `own` over `other` without one network, for the network without which it is least and that without which it is
/// most, and which these are; nobody's mean is safe from one who has messages that fare badly.
///
/// Only `minor` networks are left out, and only if `least_messages` remain; `None` if there are none such.
fn gains_but_for_one(
    arena: &Arena,
    (own, other): (&Paths, &Paths),
    minor: &BTreeSet<u32>,
    least_messages: usize,
) -> Option<[(f64, u32); 2]> {
    let messages = arena.traffic.messages();
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for message in messages {
        *counts.entry(message.network).or_default() += 1;
    }
    let enough_remain = |count: usize| messages.len() - count >= least_messages;
    counts.retain(|network, count| minor.contains(network) && enough_remain(*count));
    if counts.is_empty() {
        return None;
    }
    let mut all = [Sums::default(); LOADS.len()];
    let mut by_network: BTreeMap<u32, [Sums; LOADS.len()]> = BTreeMap::new();
    for (load, all) in all.iter_mut().enumerate() {
        let jobs = arena.traffic.jobs(LOADS[load]);
        let took = [own, other].map(|paths| arena.took(&jobs, paths));
        for (place, job) in jobs.iter().enumerate() {
            let [own, other] = [0, 1].map(|of| felt(job, took[of][place], &arena.link));
            let of_network = by_network.entry(messages[job.message].network).or_default();
            for (sum, felt) in [own.0, other.0, own.1, other.1].into_iter().enumerate() {
                all[sum] += felt;
                of_network[load][sum] += felt;
            }
        }
    }
    let without = |network: &u32| {
        mean((0..LOADS.len()).map(|load| {
            let [own_fct, other_fct, own_slowdown, other_slowdown]: Sums =
                std::array::from_fn(|sum| all[load][sum] - by_network[network][load][sum]);
            f64::midpoint(
                (other_slowdown / own_slowdown).ln(),
                (other_fct / own_fct).ln(),
            )
        }))
    };
    let gains: Vec<(f64, u32)> = (counts.keys())
        .map(|network| (without(network), *network))
        .collect();
    let least = (gains.iter().copied()).min_by(|a, b| a.0.total_cmp(&b.0))?;
    let most = (gains.iter().copied()).max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some([least, most])
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            advantage::contest,
            mixes::{Hangs, host},
        },
        *,
    };
    use crate::simulate::{Bottleneck, Traffic, cdf::Cdf};

    #[test]
    fn the_gain_of_all_but_one_is_told_where_no_half_is_left_out() {
        let cdf = Cdf::pareto(1.2, (5_000.0, 30e6));
        let mut rows: Vec<Row> = host(&cdf, Hangs::Nowhere, (500, 0.0, 1));
        // Two networks of which one has a message in four.
        for row in &mut rows {
            row.network_hash = u32::from(row.flow_hash % 4 == 0);
        }
        let minor = minor_networks(&[&rows]);
        assert_eq!(minor, BTreeSet::from([1]));
        let arena = Arena::new(Traffic::of(&rows), Bottleneck::of_rate(100_000_000));
        // Perfect guesses for the one, and all of the other's are bulk.
        let guess = |row: &Row| {
            let is_minor = row.network_hash == 1;
            Some(if is_minor {
                100_000_000
            } else {
                row.remaining_bytes
            })
        };
        let paths = Paths::of_verdicts(&arena.traffic.sized(), &arena.link.settings, guess);
        let tallies = contest(&arena, &[&paths, &arena.aging], 1);
        let all = Advantage::of(&tallies[0], &tallies[1]);
        let told = gains_but_for_one(&arena, (&paths, &arena.aging), &minor, 50);
        let [least, most] = told.unwrap();
        assert_eq!((least.1, most.1), (1, 1), "only one can be left out");
        assert!(
            all.gain < 0.0 && most.0 > 0.05,
            "{all:?}, without it {most:?}"
        );
        let limits = JudgeLimits::default();
        assert!(is_outvoted_by_one(&arena, &paths, &rows, &limits));
        let nobody = gains_but_for_one(&arena, (&paths, &arena.aging), &minor, 450);
        assert_eq!(nobody, None, "too few would remain");
    }
}
