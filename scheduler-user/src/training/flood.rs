//! The loop of learning while somebody floods it with made-up flows.

use std::collections::BTreeMap;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::features::Feature;

use super::{
    DecisionTree, JudgeLimits, Trainer as _,
    evaluate::InKernel,
    forecast::Arena,
    judge,
    mixes::{Hangs, Sent, decision_points, rows, sent_by_host},
    retire, split,
};
use crate::{
    dataset::{Row, Window, WindowLimits},
    model::{Model, compile},
    simulate::{Replay, Traffic, cdf::Cdf},
};

const RATE_BPS: u64 = 200_000_000;
/// Honest messages between two trainings; at 2 ms each a cycle takes 0.8 s.
const CYCLE_MESSAGES: u64 = 400;
const CYCLE_NS: u64 = CYCLE_MESSAGES * 2_000_000;
/// Cycles before the flood, under it, and in all.
const QUIET: usize = 7;
const FLOODED: usize = 4;
const CYCLES: usize = QUIET + FLOODED + 9;
/// The window that the agent has, made smaller as much as the cycles are.
const WINDOW: WindowLimits = WindowLimits {
    rows: 12_000,
    age_ns: 10 * CYCLE_NS,
    network_share: 0.25,
    undisputed_rows: 1200,
};
/// At which the honest messages are replayed.
const LOAD: f64 = 0.8;
/// Networks from here up are the attacker's.
const FOREIGN: u64 = 1_000_000;
/// What the attacker's messages are where they are bulk, and where they are short.
const BULK: u64 = 3_000_000;
const SHORT: u64 = 1000;

/// How the flood lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// Bulk in the dress of the host's short messages.
    BulkAsShort,
    /// Short messages in the dress of its bulk.
    ShortAsBulk,
}

#[derive(Clone, Copy, Debug)]
struct Flood {
    lie: Lie,
    /// Networks that it comes from.
    networks: u64,
    /// Ports that it goes to, the honest service's the first.
    ports: u32,
    /// Its rows to each honest row.
    times: u64,
    /// Cycles that it lasts.
    cycles: usize,
}

/// What an honest host's messages look like where they are short, and where they are bulk: port and request.
const fn dress(hangs: Hangs, lie: Lie) -> (u32, u32) {
    match (hangs, lie) {
        (Hangs::Service, Lie::BulkAsShort) => (8001, 400),
        (Hangs::Service, Lie::ShortAsBulk) => (8006, 400),
        (_, Lie::BulkAsShort) => (443, 200),
        (_, Lie::ShortAsBulk) => (443, 750),
    }
}

impl Flood {
    /// Its messages beside so many honest rows.
    fn sent(&self, hangs: Hangs, honest_rows: u64, seed: u64) -> Vec<Sent> {
        let mut random = StdRng::seed_from_u64(seed);
        let (port, request) = dress(hangs, self.lie);
        let bytes = match self.lie {
            Lie::BulkAsShort => BULK,
            Lie::ShortAsBulk => SHORT,
        };
        let count = honest_rows * self.times / decision_points(bytes).len() as u64;
        let from_ns = QUIET as u64 * CYCLE_NS;
        let every_ns = self.cycles as f64 * CYCLE_NS as f64 / count as f64;
        (0..count)
            .map(|number| Sent {
                at_ns: from_ns + (number as f64 * every_ns) as u64,
                flow: FOREIGN * 1000 + number,
                port: port + random.random_range(0..self.ports),
                network: FOREIGN + random.random_range(0..self.networks),
                request_bytes: request + random.random_range(0..100),
                bytes: bytes + random.random_range(0..bytes / 10),
            })
            .collect()
    }
}

/// What honest messages met in the cycle after each training.
#[derive(Clone, Debug, Default)]
struct Felt {
    slowdown: f64,
    by_port: BTreeMap<u32, f64>,
    by_model: bool,
}

fn is_honest(row: &Row) -> bool {
    u64::from(row.network_hash) < FOREIGN
}

/// Plays the whole story; `None` for the same host without a flood.
fn play(cdf: &Cdf, hangs: Hangs, flood: Option<&Flood>, seed: u64) -> Vec<Felt> {
    let honest = sent_by_host(cdf, hangs, (CYCLE_MESSAGES * CYCLES as u64, 0.05, seed));
    let mut sent = honest.clone();
    if let Some(flood) = flood {
        let under_way = (honest.iter())
            .filter(|sent| sent.at_ns / CYCLE_NS < flood.cycles as u64)
            .map(|sent| decision_points(sent.bytes).len() as u64);
        sent.extend(flood.sent(hangs, under_way.sum(), seed));
        sent.sort_by_key(|sent| sent.at_ns);
    }
    let rows = rows(&sent, seed);
    let cycles: Vec<&[Row]> =
        (rows.chunk_by(|a, b| a.time_ns / CYCLE_NS == b.time_ns / CYCLE_NS)).collect();
    let limits = JudgeLimits::of_rate(RATE_BPS);
    let mut window = Window::new(WINDOW, seed);
    let mut running: Option<Model> = None;
    let mut felt = Vec::new();
    for pair in cycles.windows(2).take(CYCLES - 1) {
        for row in pair[0] {
            window.push(*row);
        }
        running = cycle(&window.rows(), running, &limits);
        felt.push(feel(pair[1], running.as_ref(), &limits));
    }
    felt
}

/// As the agent does: train, judge, replace, or give up what no longer gains.
fn cycle(rows: &[Row], running: Option<Model>, limits: &JudgeLimits) -> Option<Model> {
    let parts = split(rows, limits);
    let Ok(candidate) = DecisionTree::default().train(&parts.train) else {
        return running;
    };
    let verdict = judge(&candidate, running.as_ref(), &parts, limits);
    if verdict.accepted {
        return Some(candidate);
    }
    running.filter(|running| !retire(running, rows, limits).retire)
}

/// Mean slowdown of the honest messages alone: what the flood does by teaching, not by filling the link.
fn feel(rows: &[Row], running: Option<&Model>, limits: &JudgeLimits) -> Felt {
    let honest: Vec<Row> = rows.iter().filter(|row| is_honest(row)).copied().collect();
    let arena = Arena::new(Traffic::of(&honest), limits.link);
    let jobs = arena.traffic.jobs(LOAD);
    let took = match running {
        Some(model) => arena.took(&jobs, &arena.paths(&InKernel(compile(model).unwrap()))),
        None => arena.took(&jobs, &arena.aging),
    };
    let slowdown = |port: Option<u32>| {
        let of_port =
            |rows: &[Row]| port.is_none_or(|port| rows[0].feature(Feature::ServicePort) == port);
        let chosen: Vec<bool> = (arena.traffic.sized().iter())
            .map(|(_, rows)| of_port(rows))
            .collect();
        let (jobs, took): (Vec<_>, Vec<f64>) = (jobs.iter().zip(&took).zip(chosen))
            .filter(|(_, chosen)| *chosen)
            .map(|((job, took), _)| (*job, *took))
            .unzip();
        Replay::of(&jobs, &took, &limits.link).all.mean_slowdown
    };
    let ports: std::collections::BTreeSet<u32> = (honest.iter())
        .map(|row| row.feature(Feature::ServicePort))
        .collect();
    Felt {
        slowdown: slowdown(None),
        by_port: ports
            .into_iter()
            .map(|port| (port, slowdown(Some(port))))
            .collect(),
        by_model: running.is_some(),
    }
}

/// What a flood did: changes of mean slowdown as ratios.
#[derive(Debug)]
struct Harm {
    /// Of all honest messages while it lasted.
    under: f64,
    /// The same for the cycle that fared worst.
    worst_cycle: f64,
    /// The honest service that fared worst, on average over the flood.
    worst_service: f64,
    /// Cycles after its end from which on all are within 2 % again.
    recovered_after: Option<usize>,
    /// By cycle: `m` where a model acted, `a` where aging did.
    acted: String,
}

fn harm(without: &[Felt], with: &[Felt], flood: &Flood) -> Harm {
    let ratio = |cycle: usize| with[cycle].slowdown / without[cycle].slowdown;
    // The training after the first flooded cycle is the first to see it.
    let under: Vec<usize> = (QUIET..QUIET + flood.cycles).collect();
    let mean =
        |of: &dyn Fn(usize) -> f64| under.iter().map(|c| of(*c)).sum::<f64>() / under.len() as f64;
    let worst_service = (without[QUIET].by_port.keys())
        .map(|port| {
            mean(&|cycle: usize| {
                let of = |felt: &[Felt]| felt[cycle].by_port.get(port).copied();
                of(with)
                    .zip(of(without))
                    .map_or(1.0, |(with, without)| with / without)
            })
        })
        .fold(0.0, f64::max);
    let after = QUIET + flood.cycles..with.len();
    Harm {
        under: mean(&ratio),
        worst_cycle: under.iter().map(|c| ratio(*c)).fold(0.0, f64::max),
        worst_service,
        recovered_after: (after.clone())
            .find(|from| (*from..after.end).all(|cycle| ratio(cycle) < 1.02))
            .map(|from| from - after.start),
        acted: with
            .iter()
            .map(|felt| if felt.by_model { 'm' } else { 'a' })
            .collect(),
    }
}

fn table(name: &str) -> Cdf {
    Cdf::published(name).unwrap_or_else(|| Cdf::pareto(0.3, (5_000.0, 30e6)))
}

/// `cargo test --release -p treeline --lib -- --ignored --nocapture the_flood_s_table`
#[test]
#[ignore = "prints the flood's table for docs/learning.md"]
fn the_flood_s_table() {
    let hosts = [
        ("websearch_dctcp", Hangs::Service),
        ("facebook_cache_follower", Hangs::Request),
        ("websearch_dctcp", Hangs::History),
    ];
    for (name, hangs) in hosts {
        let cdf = table(name);
        let without = play(&cdf, hangs, None, 1);
        println!(
            "{name} by {hangs:?}, no flood: {}",
            without
                .iter()
                .map(|felt| format!(
                    "{:.2}{} ",
                    felt.slowdown,
                    if felt.by_model { 'm' } else { 'a' }
                ))
                .collect::<String>()
        );
        for lie in [Lie::BulkAsShort, Lie::ShortAsBulk] {
            for networks in [1, 256] {
                for ports in [1, 64] {
                    for times in [1, 10, 100] {
                        let flood = Flood {
                            lie,
                            networks,
                            ports,
                            times,
                            cycles: FLOODED,
                        };
                        let with = play(&cdf, hangs, Some(&flood), 1);
                        let harm = harm(&without, &with, &flood);
                        println!(
                            "{lie:?} networks {networks} ports {ports} {times}x: {:.3} worst cycle {:.3} worst service {:.3} recovered {:?} {}",
                            harm.under,
                            harm.worst_cycle,
                            harm.worst_service,
                            harm.recovered_after,
                            harm.acted
                        );
                    }
                }
            }
        }
    }
}
