//! From rows in the window to a generation that classifies packets.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bed::{agent::Treeline, netns::Bed};
use scheduler_common::settings::Settings;
use treeline::{
    datapath::{Datapath, Staged},
    dataset::{Row, Window, WindowLimits},
    instance::Instance,
    model::{Model, Provenance, Registry, compile},
    training::{JudgeLimits, Trainer, choice, fit_cuts, judge, rank_leaves, retire, split},
};

use crate::{
    packets::{Egress, datagram},
    report::{EndToEnd, Outcome, Parts},
    rows, treeline_binary,
};

const RATE_BPS: u64 = 100_000_000;
/// Until the new generation must have classified a packet.
const FLIP_LIMIT: Duration = Duration::from_secs(5);

/// Does the agent's whole cycle `rounds` times on programs that stand on a link.
///
/// # Errors
///
/// When the kernel refuses something.
pub(crate) fn measure(count: usize, rounds: u32) -> Result<Vec<EndToEnd>> {
    let bed = Bed::host()?;
    let site = Treeline {
        binary: treeline_binary()?,
        instance: format!("cycle-{}", std::process::id()),
        namespace: &bed.server,
        rate_bps: RATE_BPS,
    };
    site.up_without_model()?;
    let instance = Instance::new(&site.instance)?;
    let cycle = Cycle::new(&instance, count)?;
    let mut generation = 0;
    let mut lines = Vec::new();
    // A poor model that a good one replaces.
    let poor = choice("port").context("the trainer is in the catalog")?;
    let poor = poor.with(poor.defaults).train(&rows::messages(20_000, 3))?;
    for running in [None, Some(&poor)] {
        let mut parts = Vec::new();
        for _ in 0..rounds.max(1) {
            generation += 1;
            parts.push(cycle.turn(running, generation)?);
        }
        lines.extend(EndToEnd::of(count, running.is_some(), parts));
    }
    Ok(lines)
}

struct Cycle {
    datapath: Datapath,
    egress: Egress,
    registry: Registry,
    window: Window,
    trainer: Box<dyn Trainer>,
}

impl Cycle {
    fn new(instance: &Instance, count: usize) -> Result<Self> {
        let datapath = Datapath::open(instance)?.context("the programs are not pinned")?;
        // The model is asked from the first packet of a flow.
        datapath.set_settings(&Settings {
            first_bytes: 0,
            ..datapath.settings()?
        })?;
        let limits = WindowLimits {
            rows: count,
            ..WindowLimits::default()
        };
        let mut window = Window::new(limits, 1);
        for row in rows::messages(count, 1) {
            window.push(row);
        }
        ensure!(window.len() == count, "the window does not hold all rows");
        let default = choice("tree").context("the trainer is in the catalog")?;
        Ok(Self {
            datapath,
            egress: Egress::open(instance)?,
            registry: Registry::new(instance.models()),
            window,
            trainer: default.with(default.defaults),
        })
    }

    /// What the agent's learner does, step by step; here a refused candidate is flipped too, and the report says so.
    fn turn(&self, running: Option<&Model>, generation: u32) -> Result<(Parts<Duration>, Outcome)> {
        let limits = JudgeLimits::of_rate(RATE_BPS);
        let mut clock = Instant::now();
        let mut lap = || std::mem::replace(&mut clock, Instant::now()).elapsed();
        let rows: Vec<Row> = self.window.rows();
        let parts = split(&rows, &limits);
        let take = lap();
        let candidate = rank_leaves(self.trainer.train(&parts.train)?, &parts.train);
        let train = lap();
        let candidate = fit_cuts(candidate, &parts.train, &limits)?;
        let verdict = judge(&candidate, running, &parts, &limits);
        let retirement = running.map(|running| retire(running, &rows, &limits));
        let judged = lap();
        drop(retirement);
        let outcome = Outcome {
            refused: (!verdict.accepted).then_some(verdict.reason),
            judged_messages: verdict.scores.gains.as_ref().map_or(0, |it| it.messages),
        };
        let model = candidate.stamped(Provenance {
            generation,
            parent_generation: None,
            created_unix_s: 0,
            train_ms: train.as_millis() as u64,
            scores: verdict.scores,
        });
        lap();
        self.registry.save(&model)?;
        let save = lap();
        let table = compile(&model)?;
        let compiled = lap();
        let staged = self.datapath.stage(&table)?;
        let stage = lap();
        let (classifies, returns) = self.flip(staged, generation)?;
        let parts = Parts {
            take_ms: take,
            train_ms: train,
            judge_ms: judged,
            save_ms: save,
            compile_ms: compiled,
            stage_ms: stage,
            flip_classifies_ms: classifies,
            flip_returns_ms: returns,
            total_ms: take + train + judged + save + compiled + stage + returns,
        };
        Ok((parts, outcome))
    }

    /// How long until a packet on another CPU meets the new table, and until the call returns.
    fn flip(&self, staged: Staged, generation: u32) -> Result<(Duration, Duration)> {
        let (ready, over) = (AtomicBool::new(false), AtomicBool::new(false));
        thread::scope(|scope| {
            let probe = scope.spawn(|| self.probe(generation, &ready, &over));
            while !ready.load(Ordering::Acquire) && !probe.is_finished() {
                thread::yield_now();
            }
            let began = Instant::now();
            let flipped = staged.flip();
            let returned = began.elapsed();
            if flipped.is_err() {
                over.store(true, Ordering::Relaxed);
            }
            let seen = probe.join().expect("the probe has no reason to panic");
            flipped?;
            let classifies = (seen?.checked_duration_since(began))
                .context("a packet was counted for the generation before its flip")?;
            Ok((classifies, returned))
        })
    }

    /// Opens flow after flow; answers when the first met the new generation, or rather when that was counted.
    fn probe(&self, generation: u32, ready: &AtomicBool, over: &AtomicBool) -> Result<Instant> {
        let began = Instant::now();
        let mut flow = generation << 16;
        while began.elapsed() < FLIP_LIMIT && !over.load(Ordering::Relaxed) {
            // Too large for a stream on probation, of which no model is asked.
            self.egress.push(&datagram(flow, 1000))?;
            let now = Instant::now();
            if self.datapath.packets_of(generation)? > 0 {
                return Ok(now);
            }
            ready.store(true, Ordering::Release);
            flow += 1;
        }
        bail!("no packet met generation {generation} after the flip")
    }
}
