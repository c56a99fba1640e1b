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
/// What the honest host sends a message in, on average.
const MESSAGE_NS: u64 = 2_000_000;
/// At which the honest messages are replayed.
const LOAD: f64 = 0.8;
/// Networks from here up are the attacker's.
const FOREIGN: u64 = 1_000_000;
/// What the attacker's messages are where they are bulk, and where they are short.
const BULK: u64 = 3_000_000;
const SHORT: u64 = 1000;
/// Harm that does not count: another draw of the training rows does as much.
const HARMLESS: f64 = 1.10;

/// How much is played. The agent's own times and sizes are kept in proportion: ten cycles are the window's age, and five
/// make a network known.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Honest messages in a cycle.
    messages: u64,
    /// Cycles before the flood, under it, and after it.
    quiet: usize,
    flooded: usize,
    after: usize,
    window_rows: usize,
}

/// For the table: the agent's own window.
const FULL: Scale = Scale {
    messages: 400,
    quiet: 10,
    flooded: 5,
    after: 8,
    window_rows: 50_000,
};

/// For the test: a quarter of it.
const SMALL: Scale = Scale {
    messages: 100,
    quiet: 8,
    flooded: 3,
    after: 3,
    window_rows: 12_500,
};

impl Scale {
    const fn cycle_ns(&self) -> u64 {
        self.messages * MESSAGE_NS
    }

    const fn cycles(&self) -> usize {
        self.quiet + self.flooded + self.after
    }

    fn window(&self) -> WindowLimits {
        WindowLimits {
            rows: self.window_rows,
            age_ns: 10 * self.cycle_ns(),
            undisputed_rows: self.window_rows / 10,
            newcomer_ns: 5 * self.cycle_ns(),
            ..WindowLimits::default()
        }
    }
}

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
    /// Whether its networks have been there from the start, with a few messages that are no lies, so that they have standing.
    patient: bool,
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
    /// Its messages beside the honest ones.
    fn sent(&self, hangs: Hangs, honest: &[Sent], scale: &Scale, seed: u64) -> Vec<Sent> {
        let mut random = StdRng::seed_from_u64(seed);
        let (port, request) = dress(hangs, self.lie);
        let bytes = match self.lie {
            Lie::BulkAsShort => BULK,
            Lie::ShortAsBulk => SHORT,
        };
        let lasts_ns = scale.flooded as u64 * scale.cycle_ns();
        let honest_rows: u64 = (honest.iter().filter(|sent| sent.at_ns < lasts_ns))
            .map(|sent| decision_points(sent.bytes).len() as u64)
            .sum();
        let count = honest_rows * self.times / decision_points(bytes).len() as u64;
        let from_ns = scale.quiet as u64 * scale.cycle_ns();
        let every_ns = lasts_ns as f64 / count as f64;
        let mut sent: Vec<Sent> = (0..count)
            .map(|number| Sent {
                at_ns: from_ns + (number as f64 * every_ns) as u64,
                flow: FOREIGN * 1000 + number,
                port: port + random.random_range(0..self.ports),
                network: FOREIGN + random.random_range(0..self.networks),
                request_bytes: request + random.random_range(0..100),
                bytes: bytes + random.random_range(0..bytes / 10),
            })
            .collect();
        if self.patient {
            // One like another's in each cycle.
            let per_cycle = (0..scale.quiet as u64)
                .flat_map(|cycle| (0..self.networks).map(move |network| (cycle, network)));
            sent.extend(per_cycle.map(|(cycle, network)| Sent {
                at_ns: cycle * scale.cycle_ns() + scale.cycle_ns() / 2,
                flow: FOREIGN * 2000 + cycle * self.networks + network,
                network: FOREIGN + network,
                ..honest[(cycle * 31 + network) as usize % honest.len()]
            }));
        }
        sent
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
fn play((cdf, hangs): (&Cdf, Hangs), flood: Option<&Flood>, scale: &Scale, seed: u64) -> Vec<Felt> {
    let count = scale.messages * scale.cycles() as u64;
    let mut sent = sent_by_host(cdf, hangs, (count, 0.05, seed));
    if let Some(flood) = flood {
        let lies = flood.sent(hangs, &sent, scale, seed);
        sent.extend(lies);
        sent.sort_by_key(|sent| sent.at_ns);
    }
    let mut rows = rows(&sent, seed);
    tell_pauses(&mut rows);
    let mut agent = Agent::new(scale);
    agent.live(&mut rows);
    let cycle_ns = scale.cycle_ns();
    (rows.chunk_by(|a, b| a.time_ns / cycle_ns == b.time_ns / cycle_ns))
        .take(scale.cycles())
        .map(|rows| feel(rows, &agent.limits))
        .collect()
}

/// Draws the pauses of each message by itself, so that an honest one has the same with and without a flood.
fn tell_pauses(rows: &mut [Row]) {
    for row in rows {
        let mut random = StdRng::seed_from_u64(row.flow_hash << 24 ^ u64::from(row.message));
        for feature in [Feature::TurnaroundUs, Feature::GapUs] {
            row.features[feature as usize] = random.random_range(50..5000);
        }
    }
}

/// The agent's own decisions; the kernel's part, who is asked and what acts, is played.
struct Agent {
    mind: Mind,
    limits: JudgeLimits,
    cycle_ns: u64,
    due_ns: u64,
    newest: u32,
    acting: Option<(u32, Box<Table>)>,
    watched: Option<(u32, Box<Table>)>,
}

impl Agent {
    fn new(scale: &Scale) -> Self {
        let needs = Needs {
            min_samples: 500,
            canary_rows: 300,
        };
        Self {
            mind: Mind::new(scale.window(), needs, None),
            limits: JudgeLimits::of_rate(RATE_BPS),
            cycle_ns: scale.cycle_ns(),
            due_ns: scale.cycle_ns(),
            newest: 0,
            acting: None,
            watched: None,
        }
    }

    /// Lives through the rows in the order of time, and notes in them what the kernel would have answered.
    fn live(&mut self, rows: &mut [Row]) {
        let message = |row: &Row| (row.flow_hash, row.message);
        let mut open: BTreeMap<(u64, u32), (usize, Vec<Row>)> = BTreeMap::new();
        for row in &*rows {
            open.entry(message(row)).or_default().0 += 1;
        }
        for row in rows {
            if row.time_ns >= self.due_ns {
                self.cycle(self.due_ns);
            }
            if let Some((generation, table)) = &self.acting {
                (row.generation, row.predicted_log2_q8) = (*generation, said(table, row));
            }
            if let Some((generation, table)) = &self.watched {
                (row.shadow_generation, row.shadow_log2_q8) = (*generation, said(table, row));
            }
            let (left, of_message) = open.get_mut(&message(row)).unwrap();
            of_message.push(*row);
            *left -= 1;
            if *left > 0 {
                continue;
            }
            let whole = std::mem::take(of_message);
            self.mind.see(&whole);
            if self.mind.hurries() {
                self.cycle(row.time_ns);
            }
        }
    }

    fn cycle(&mut self, now_ns: u64) {
        self.due_ns = now_ns + self.cycle_ns;
        let readiness = self.mind.pass_cycle();
        if readiness == Some(Readiness::Stale) {
            self.mind.canary = None;
        }
        let Some(work) = self.mind.next(readiness == Some(Readiness::Ready)) else {
            return;
        };
        let heeded = self.mind.window.heeded();
        let cycle = cycle::work(work, &heeded, self.mind.running.as_deref(), &self.limits);
        let mut retires = cycle.retirement.is_some_and(|it| it.retire);
        match Mind::after(cycle.outcome, true) {
            Step::Rest | Step::Untrained(_) | Step::Refuse(..) => {}
            Step::Shadow(trained) => {
                self.newest += 1;
                let mut model = trained.candidate;
                model.generation = self.newest;
                self.mind.canary = Some(Canary::new(model, self.mind.needs.canary_rows).unwrap());
            }
            Step::Promote(_) => {
                retires = false;
                let canary = self.mind.canary.take();
                self.mind.running = canary.map(|canary| canary.model().clone());
            }
            Step::Drop(_) => self.mind.canary = None,
        }
        if retires {
            self.mind.running = None;
        }
        let table = |model: &Model| (model.generation, compile(model).unwrap());
        self.acting = self.mind.running.as_deref().map(table);
        self.watched = (self.mind.canary.as_ref()).map(|canary| table(canary.model()));
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
    let took = arena.took(
        &jobs,
        &Paths::of_verdicts(&sized, &limits.link.settings, guess),
    );
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
    /// Of all honest messages from two cycles after its end on.
    after: f64,
    /// What aging alone would have meant while it lasted.
    aging: f64,
    /// By cycle: `m` where a model acted, `a` where aging did.
    acted: String,
}

fn harm(without: &[Felt], with: &[Felt], scale: &Scale) -> Harm {
    let flooded = scale.quiet..scale.quiet + scale.flooded;
    let mean = |cycles: std::ops::Range<usize>, of: &dyn Fn(usize) -> f64| {
        cycles.clone().map(of).sum::<f64>() / cycles.len() as f64
    };
    let ratio = |cycle: usize| with[cycle].slowdown / without[cycle].slowdown;
    let worst_service = (without[scale.quiet].by_port.keys())
        .map(|port| {
            mean(flooded.clone(), &|cycle| {
                let of = |felt: &[Felt]| felt[cycle].by_port.get(port).copied();
                of(with)
                    .zip(of(without))
                    .map_or(1.0, |(with, without)| with / without)
            })
        })
        .fold(0.0, f64::max);
    Harm {
        under: mean(flooded.clone(), &ratio),
        worst_cycle: flooded.clone().map(ratio).fold(0.0, f64::max),
        worst_service,
        after: mean(flooded.end + 2..with.len(), &ratio),
        aging: mean(flooded, &|cycle| {
            without[cycle].aging / without[cycle].slowdown
        }),
        acted: (with.iter())
            .map(|felt| if felt.by_model { 'm' } else { 'a' })
            .collect(),
    }
}

/// The made-up hosts: the distribution of sizes, and what they hang on.
const HOSTS: [(&str, Hangs); 3] = [
    ("websearch_dctcp", Hangs::Service),
    ("facebook_cache_follower", Hangs::Request),
    ("websearch_dctcp", Hangs::History),
];

fn table(name: &str) -> Cdf {
    Cdf::published(name).unwrap_or_else(|| Cdf::pareto(0.3, (5_000.0, 30e6)))
}

/// Both lies from one network, from one that has standing, and from 256; to one port and to 64.
fn floods(times: u64) -> Vec<Flood> {
    let mut floods = Vec::new();
    for lie in [Lie::BulkAsShort, Lie::ShortAsBulk] {
        for (networks, patient) in [(1, false), (1, true), (256, false)] {
            for ports in [1, 64] {
                floods.push(Flood {
                    lie,
                    networks,
                    ports,
                    times,
                    patient,
                });
            }
        }
    }
    floods
}

/// What each flood did on one host.
fn harms(
    (name, hangs): (&str, Hangs),
    floods: &[Flood],
    scale: &Scale,
    seed: u64,
) -> Vec<(Flood, Harm)> {
    let cdf = table(name);
    let without = play((&cdf, hangs), None, scale, seed);
    let of = |flood: &Flood| {
        let with = play((&cdf, hangs), Some(flood), scale, seed);
        (*flood, harm(&without, &with, scale))
    };
    floods.iter().map(of).collect()
}

#[test]
fn neither_lie_slows_the_honest_by_a_tenth_or_leaves_a_trace() {
    let mut floods = floods(10);
    // Short messages in the dress of bulk from one network, a new one or one that has standing: these once brought the model down.
    floods.retain(|flood| {
        let networks = match flood.lie {
            Lie::BulkAsShort => 256,
            Lie::ShortAsBulk => 1,
        };
        flood.ports > 1 && flood.networks == networks
    });
    // The host on which a model acts early.
    for (flood, harm) in harms(HOSTS[1], &floods, &SMALL, 1) {
        println!("{flood:?}: {harm:?}");
        let under_flood = &harm.acted[SMALL.quiet..SMALL.quiet + SMALL.flooded];
        assert!(under_flood.contains('m'), "{flood:?}: {harm:?}");
        assert!(harm.under < HARMLESS, "{flood:?}: {harm:?}");
        assert!(harm.after < HARMLESS, "{flood:?}: {harm:?}");
    }
}

/// `cargo test --release -p treeline --lib -- --ignored --nocapture the_flood_s_table`
#[test]
#[ignore = "prints the flood's table for docs/learning.md"]
fn the_flood_s_table() {
    for host in HOSTS {
        for times in [1, 10, 100] {
            for (flood, harm) in harms(host, &floods(times), &FULL, 1) {
                println!(
                    "{host:?} {flood:?}: {:.3} worst cycle {:.3} worst service {:.3} after {:.3} aging {:.3} {}",
                    harm.under,
                    harm.worst_cycle,
                    harm.worst_service,
                    harm.after,
                    harm.aging,
                    harm.acted
                );
            }
        }
    }
}
