//! The demo's steps: bed, learning, measured rounds, report.

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    agent::{Running, Treeline},
    machine::Awake,
    mix::{self, Arrival, Plan},
    netns::{Bed, SERVER_V4},
    options::{Format, Options},
    page,
    played::{self, Played},
    report::{Measured, Report, Setting},
    scheme::{self, Scheme, Shaper},
    stats::{Figures, Observation, millis},
    traffic::{self, Base, Marking, Play},
    wait, words,
};

/// Arrivals before this time fill the link and are not judged.
const WARM_UP: Duration = Duration::from_millis(500);
const TRAIN_EVERY: Duration = Duration::from_secs(4);
const MODEL_LIMIT: Duration = Duration::from_secs(20);
/// Added to the seed while learning, so that no measured arrival is learned by heart.
const LEARNING_SEED: u64 = 0x6c65_6172_6e00;

/// Runs the demo and writes its reports.
///
/// # Errors
///
/// When a step fails; everything that was set up is removed all the same.
pub fn demo(options: &Options) -> Result<()> {
    ensure!(
        options.load > 0.0 && options.load < 1.0,
        "--load must lie between 0 and 1"
    );
    wait::catch_interrupts()?;
    let _awake = Awake::keep();
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let bed = Bed::host()?;
    bed.limit_super_packets(options.gso_max_bytes)?;
    let mut stage = Stage::new(options, &bed)?;
    stage.learn()?;
    for round in 0..stage.rounds {
        stage.round(round)?;
    }
    let report = Report::new(&stage.measured, stage.model.take(), stage.setting()?);
    let json = serde_json::to_string_pretty(&report)?;
    write(&options.out.join("report.json"), &json)?;
    write(
        &options.out.join("report.html"),
        &page::render(&report, &stage.measured)?,
    )?;
    let result = match options.format {
        Format::Text => report.to_text(),
        Format::Json => json,
    };
    #[expect(clippy::print_stdout, reason = "the result is what the command is for")]
    {
        println!("{result}");
    }
    stage.say(&format!(
        "done; see {}",
        options.out.join("report.html").display()
    ));
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The binary that was built together with this one.
fn beside_this_one() -> Result<PathBuf> {
    let path = env::current_exe()?.with_file_name("treeline");
    ensure!(
        path.exists(),
        "there is no {}; build it with `cargo build`, or name it with --treeline",
        path.display()
    );
    Ok(path)
}

struct Stage<'a> {
    options: &'a Options,
    bed: &'a Bed,
    /// Absent when no scheme that was asked for needs it.
    treeline: Option<Treeline<'a>>,
    started: Instant,
    base: Base,
    rounds: u32,
    log: PathBuf,
    measured: Vec<Measured>,
    model: Option<Value>,
}

impl<'a> Stage<'a> {
    fn new(options: &'a Options, bed: &'a Bed) -> Result<Self> {
        let started = Instant::now();
        let asked = |scheme: &Scheme| options.schemes.contains(scheme);
        let treeline = if asked(&Scheme::Aging) || asked(&Scheme::Treeline) {
            Some(Treeline {
                binary: options.treeline.clone().map_or_else(beside_this_one, Ok)?,
                instance: format!("demo-{}", std::process::id()),
                namespace: &bed.server,
                rate_bps: options.rate,
            })
        } else {
            None
        };
        let log = options.out.join("agent.log");
        write(&log, "")?;
        let stage = Self {
            options,
            bed,
            treeline,
            started,
            base: traffic::measure_base(bed)?,
            rounds: options.rounds.unwrap_or(if options.quick { 1 } else { 4 }),
            log,
            measured: Scheme::ALL
                .into_iter()
                .filter(asked)
                .map(Measured::new)
                .collect(),
            model: None,
        };
        stage.say(&format!(
            "two namespaces joined; on the idle link a tiny message takes {:.2} ms, with a \
             handshake {:.2} ms",
            millis(stage.base.kept),
            millis(stage.base.fresh)
        ));
        Ok(stage)
    }

    #[expect(clippy::print_stderr, reason = "progress is for the person who waits")]
    fn say(&self, what: &str) {
        eprintln!("[{:6.1} s] {what}", self.started.elapsed().as_secs_f64());
    }

    fn learning_time(&self) -> Duration {
        Duration::from_secs(if self.options.quick { 12 } else { 30 })
    }

    fn run_time(&self) -> Duration {
        Duration::from_secs(if self.options.quick { 8 } else { 15 })
    }

    fn plan(&self, length: Duration) -> Plan {
        Plan {
            rate_bps: self.options.rate,
            load: self.options.load,
            length,
            shrink: if self.options.quick { 2.0 } else { 1.0 },
        }
    }

    fn treeline(&self) -> Result<&Treeline<'a>> {
        self.treeline
            .as_ref()
            .context("this scheme needs the treeline binary")
    }

    /// Lets the agent learn from live traffic until it has deployed a model.
    fn learn(&mut self) -> Result<()> {
        if !self.options.schemes.contains(&Scheme::Treeline) {
            return Ok(());
        }
        let length = self.learning_time();
        self.say(&format!(
            "learning from {:.0} s of traffic",
            length.as_secs_f64()
        ));
        let treeline = self.treeline()?;
        let mut agent = treeline.run(&self.log, TRAIN_EVERY)?;
        let seed = self.options.seed.wrapping_add(LEARNING_SEED);
        let arrivals = mix::schedule(&self.plan(length), seed);
        let play = self.play(Scheme::Treeline);
        traffic::run(self.bed, arrivals, play, None, &mut || agent.check())?;
        let model = self.wait_for_model(&mut agent)?;
        agent.stop()?;
        treeline.down()?;
        self.say(&format!("learned: {}", words::model_line(&model)));
        Ok(())
    }

    fn wait_for_model(&self, agent: &mut Running) -> Result<Value> {
        let treeline = self.treeline()?;
        wait::until("a deployed model", MODEL_LIMIT, || {
            agent.check()?;
            treeline.model()
        })
        .with_context(|| format!("no model to measure; see {}", self.log.display()))
    }

    /// Plays the same arrivals under every scheme, in another order each round.
    fn round(&mut self, round: u32) -> Result<()> {
        let plan = self.plan(self.run_time());
        let arrivals = mix::schedule(&plan, self.options.seed.wrapping_add(u64::from(round)));
        self.say(&format!(
            "round {} of {}: {} messages, load {:.2}",
            round + 1,
            self.rounds,
            arrivals.len(),
            mix::offered_load(&arrivals, &plan)
        ));
        let count = self.measured.len();
        for place in 0..count {
            let index = (place + round as usize) % count;
            let scheme = self.measured[index].scheme;
            let played = match scheme {
                Scheme::Fifo => {
                    let _shaper = Shaper::fifo(&self.bed.server, self.options.rate)?;
                    self.measure(scheme, &arrivals, None, &mut || Ok(()))?
                }
                Scheme::Oracle => {
                    let _shaper = Shaper::bands(&self.bed.server, self.options.rate)?;
                    let marking = Some(scheme::oracle_marking());
                    self.measure(scheme, &arrivals, marking, &mut || Ok(()))?
                }
                Scheme::Aging => self.measure_aging(&arrivals)?,
                Scheme::Treeline => self.measure_treeline(&arrivals)?,
            };
            self.take(index, &played);
        }
        Ok(())
    }

    fn measure_aging(&self, arrivals: &[Arrival]) -> Result<Played> {
        let treeline = self.treeline()?;
        treeline.up_without_model()?;
        let played = self.measure(Scheme::Aging, arrivals, None, &mut || Ok(()))?;
        treeline.down()?;
        Ok(played)
    }

    fn measure_treeline(&mut self, arrivals: &[Arrival]) -> Result<Played> {
        let treeline = self.treeline()?;
        let mut agent = treeline.run(&self.log, TRAIN_EVERY)?;
        self.wait_for_model(&mut agent)?;
        let played = self.measure(Scheme::Treeline, arrivals, None, &mut || agent.check())?;
        let model = treeline.model()?;
        agent.stop()?;
        treeline.down()?;
        self.model = model;
        Ok(played)
    }

    fn play(&self, scheme: Scheme) -> Play {
        Play {
            server: SERVER_V4,
            drain: Duration::from_secs(if self.options.quick { 10 } else { 20 }),
            band: (scheme == Scheme::Oracle).then_some(scheme::oracle_band),
        }
    }

    /// One run of one scheme, whose hierarchy stands already.
    fn measure(
        &self,
        scheme: Scheme,
        arrivals: &[Arrival],
        marking: Option<Marking>,
        check: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Played> {
        let play = self.play(scheme);
        played::play(self.bed, arrivals.to_vec(), play, marking, check)
    }

    fn take(&mut self, index: usize, played: &Played) {
        let Played {
            run,
            queues,
            segments,
            backlog_peak_bytes,
        } = played;
        let observations: Vec<Observation> = run
            .outcomes
            .iter()
            .filter(|outcome| outcome.arrival.at >= WARM_UP)
            .filter_map(|outcome| Observation::of(outcome, &self.base, self.options.rate))
            .collect();
        let entry = &mut self.measured[index];
        entry.run.add(run);
        entry.run.drops += queues.drops;
        entry.run.retransmitted += segments.retransmitted;
        entry.run.backlog_peak_bytes = entry.run.backlog_peak_bytes.max(*backlog_peak_bytes);
        entry.packets_per_band.resize(queues.packets.len(), 0);
        for (sum, packets) in entry.packets_per_band.iter_mut().zip(&queues.packets) {
            *sum += packets;
        }
        let times = Figures::of(observations.iter().map(|seen| seen.fct_ms));
        entry.observations.extend(observations);
        self.say(&format!(
            "{:<9} mean {:6.2} ms, p99 {:6.1} ms; backlog up to {} kB, generator {:.1} % of a core",
            self.measured[index].scheme.name(),
            times.mean,
            times.p99,
            backlog_peak_bytes / 1000,
            run.generator_cpu * 100.0
        ));
    }

    fn setting(&self) -> Result<Setting> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?
            .trim()
            .to_owned();
        let learned = self.options.schemes.contains(&Scheme::Treeline);
        Ok(Setting {
            kernel,
            seed: self.options.seed,
            rate_bps: self.options.rate,
            load: self.options.load,
            rounds: self.rounds,
            run_s: self.run_time().as_secs_f64(),
            learning_s: if learned {
                self.learning_time().as_secs_f64()
            } else {
                0.0
            },
            quick: self.options.quick,
            gso_max_bytes: self.options.gso_max_bytes,
            base_kept_ms: millis(self.base.kept),
            base_fresh_ms: millis(self.base.fresh),
        })
    }
}
