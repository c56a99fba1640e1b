//! The loop of learning while somebody floods it with made-up flows.

use std::collections::{BTreeMap, BTreeSet};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::{features::Feature, tree::Table};

use super::{
    JudgeLimits,
    forecast::Arena,
    mixes::{Hangs, Sent, decision_points, rows, sent_by_host},
};
use crate::{
    canary::{Canary, Readiness},
    dataset::{Row, WindowLimits},
    learning::{
        cycle,
        mind::{Mind, Needs, Step},
    },
    model::{Model, compile},
    simulate::{Paths, Replay, Traffic, cdf::Cdf},
};

const RATE_BPS: u64 = 200_000_000;
/// Honest messages between two trainings; at 2 ms each a cycle takes 0.8 s.
const CYCLE_MESSAGES: u64 = 400;
const CYCLE_NS: u64 = CYCLE_MESSAGES * 2_000_000;
/// Cycles before the flood, under it, and in all.
const QUIET: usize = 10;
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

/// What honest messages met in one cycle.
#[derive(Clone, Debug, Default)]
struct Felt {
    slowdown: f64,
    /// The same had aging ruled.
    aging: f64,
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
    let mut rows = rows(&sent, seed);
    Agent::new(seed).live(&mut rows);
    let limits = JudgeLimits::of_rate(RATE_BPS);
    (rows.chunk_by(|a, b| a.time_ns / CYCLE_NS == b.time_ns / CYCLE_NS))
        .take(CYCLES - 1)
        .map(|rows| feel(rows, &limits))
        .collect()
}

/// The agent's own decisions, with the kernel's part played here: who is asked, and what acts.
struct Agent {
    mind: Mind,
    limits: JudgeLimits,
    generation: u32,
    due_ns: u64,
    acting: Option<(u32, Box<Table>)>,
    watched: Option<(u32, Box<Table>)>,
    frozen: bool,
}

impl Agent {
    fn new(_seed: u64) -> Self {
        let needs = Needs {
            min_samples: 500,
            canary_rows: 300,
        };
        Self {
            mind: Mind::new(WINDOW, needs, None),
            limits: JudgeLimits::of_rate(RATE_BPS),
            generation: 0,
            due_ns: CYCLE_NS,
            acting: None,
            watched: None,
            frozen: std::env::var("FROZEN").is_ok(),
        }
    }

    /// Lives through the rows in the order of time, and notes in them what the kernel would have been told.
    fn live(&mut self, rows: &mut [Row]) {
        let mut open: BTreeMap<(u64, u32), Vec<Row>> = BTreeMap::new();
        for row in rows {
            while row.time_ns >= self.due_ns {
                self.due_ns += CYCLE_NS;
                self.cycle();
            }
            if let Some((generation, table)) = &self.acting {
                row.generation = *generation;
                row.predicted_log2_q8 = said(table, row);
            }
            if let Some((generation, table)) = &self.watched {
                row.shadow_generation = *generation;
                row.shadow_log2_q8 = said(table, row);
            }
            let message = (row.flow_hash, row.message);
            open.entry(message).or_default().push(*row);
            if row.remaining_bytes == 0 {
                let whole = open.remove(&message).unwrap();
                if std::env::var("HONEST").is_ok() && !is_honest(&whole[0]) {
                    continue;
                }
                if self.frozen && row.time_ns > QUIET as u64 * CYCLE_NS {
                    continue;
                }
                for change in self.mind.see(&whole) {
                    if std::env::var("VERBOSE").is_ok() {
                        println!("   {} drift {} forgot {}", row.time_ns as f64 / CYCLE_NS as f64, change.alarm.reason, change.forgotten);
                    }
                }
                if self.mind.hurries() {
                    self.due_ns = row.time_ns + CYCLE_NS;
                    self.cycle();
                }
            }
        }
    }

    fn cycle(&mut self) {
        if self.frozen && self.due_ns > (QUIET + 1) as u64 * CYCLE_NS {
            return;
        }
        let verbose = |what: &str, why: &str| if std::env::var("VERBOSE").is_ok() {
            println!("   {} {what}: {why}", self.due_ns as f64 / CYCLE_NS as f64);
        };
        let readiness = self.mind.pass_cycle();
        if readiness == Some(Readiness::Stale) {
            self.mind.canary = None;
        }
        let Some(work) = self.mind.next(readiness == Some(Readiness::Ready)) else {
            return;
        };
        let rows = self.mind.window.rows();
        let cycle = cycle::work(work, &rows, self.mind.running.as_deref(), &self.limits);
        let mut promoted = false;
        match Mind::after(cycle.outcome, true) {
            Step::Rest | Step::Untrained(_) => {}
            Step::Refuse(_, why) => verbose("refuse", &why),
            Step::Shadow(trained) => {
                verbose("shadow", &trained.verdict.reason);
                self.generation += 1;
                let mut model = trained.candidate;
                model.generation = self.generation;
                self.mind.canary = Some(Canary::new(model, self.mind.needs.canary_rows).unwrap());
            }
            Step::Promote(verdict) => {
                verbose("promote", &verdict.reason);
                promoted = true;
                self.mind.running = self.mind.canary.take().map(|canary| canary.model().clone());
            }
            Step::Drop(verdict) => {
                verbose("drop", &verdict.reason);
                self.mind.canary = None;
            }
        }
        if let Some(retirement) = cycle.retirement.filter(|it| it.retire && !promoted) {
            verbose("fall back", &retirement.reason);
            self.mind.running = None;
        }
        let table = |model: &Model| (model.generation, compile(model).unwrap());
        self.acting = self.mind.running.as_deref().map(table);
        self.watched = self.mind.canary.as_ref().map(|canary| table(canary.model()));
    }
}

fn said(table: &Table, row: &Row) -> u32 {
    u32::from(table.walk(&row.features).unwrap().log2_q8)
}

/// Mean slowdown of the honest messages alone: what the flood does by teaching, not by filling the link.
fn feel(rows: &[Row], limits: &JudgeLimits) -> Felt {
    let honest: Vec<Row> = rows.iter().filter(|row| is_honest(row)).copied().collect();
    let arena = Arena::new(Traffic::of(&honest), limits.link);
    let jobs = arena.traffic.jobs(LOAD);
    let guess = |row: &Row| {
        let bytes = (f64::from(row.predicted_log2_q8) / 256.0).exp2() - 4096.0;
        (row.generation != 0).then_some(bytes.max(0.0) as u64)
    };
    let sized = arena.traffic.sized();
    let took = arena.took(&jobs, &Paths::of_verdicts(&sized, &limits.link.settings, guess));
    let slowdown = |took: &[f64], port: Option<u32>| {
        let of_port =
            |rows: &[Row]| port.is_none_or(|port| rows[0].feature(Feature::ServicePort) == port);
        let chosen = sized.iter().map(|(_, rows)| of_port(rows));
        let (jobs, took): (Vec<_>, Vec<f64>) = (jobs.iter().zip(took).zip(chosen))
            .filter(|(_, chosen)| *chosen)
            .map(|((job, took), _)| (*job, *took))
            .unzip();
        Replay::of(&jobs, &took, &limits.link).all.mean_slowdown
    };
    let ports: BTreeSet<u32> = (honest.iter())
        .map(|row| row.feature(Feature::ServicePort))
        .collect();
    Felt {
        slowdown: slowdown(&took, None),
        aging: slowdown(&arena.took(&jobs, &arena.aging), None),
        by_port: ports
            .into_iter()
            .map(|port| (port, slowdown(&took, Some(port))))
            .collect(),
        by_model: honest.iter().filter(|row| row.generation != 0).count() * 2 > honest.len(),
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

fn numbers(name: &str, default: &[u64]) -> Vec<u64> {
    std::env::var(name).map_or_else(|_| default.to_vec(), |text| text.split(',').map(|n| n.parse().unwrap()).collect())
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
                    "{:.2}/{:.2}{} ",
                    felt.slowdown,
                    felt.aging,
                    if felt.by_model { 'm' } else { 'a' }
                ))
                .collect::<String>()
        );
        for lie in [Lie::BulkAsShort, Lie::ShortAsBulk] {
            for networks in numbers("NETWORKS", &[1, 256]) {
                for ports in numbers("PORTS", &[1, 64]) {
                    for times in numbers("TIMES", &[10]) {
                        let flood = Flood {
                            lie,
                            networks,
                            ports: ports as u32,
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
