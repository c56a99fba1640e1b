//! Servers, learning, rounds of all schemes.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bed::{
    agent::{Running, Treeline},
    machine::Watch,
    netns::UPLINK,
    scheme, wait,
};
use serde_json::Value;

use crate::{
    background::{self, Background, SETTLE},
    catalog::App,
    figure::{Figure, of_times},
    options::Options,
    report::{LeftOut, Report, RunRecord, Sample, Setting},
    rival::{Queue, Rival},
    say,
    site::{Process, Site},
};

/// While learning, long enough for some large transfers to end in it, as a candidate's trial lasts a cycle; the rounds have the
/// agent's default, lest a row of applications in turn look like one change after another.
const LEARN_EVERY: Duration = Duration::from_secs(20);
const TRAIN_EVERY: Duration = Duration::from_secs(60);
/// Slots' time that a pass of learning takes.
const LEARN_SLOTS: u32 = 24;
/// What the kernel's history of services is made from before anything counts; the same for all schemes.
const WARM_UP: Duration = Duration::from_secs(1);

/// All that a bench needs while it runs.
pub(crate) struct Stage<'a> {
    options: &'a Options,
    site: &'a Site<'a>,
    apps: &'a [App],
    servers: Vec<Process>,
    treeline: Option<Treeline<'a>>,
    log: PathBuf,
    began: Instant,
    learned: Option<Value>,
    runs: Vec<RunRecord>,
}

/// What stands on the uplink during a run.
enum Standing<'a> {
    Kernel(#[expect(dead_code, reason = "held until the run is over")] Queue<'a>),
    Ours,
    Agent(Running),
}

impl<'a> Stage<'a> {
    pub(crate) fn new(options: &'a Options, site: &'a Site<'a>, apps: &'a [App]) -> Result<Self> {
        let treeline = if options.schemes.iter().any(|rival| rival.is_ours()) {
            Some(Treeline {
                binary: options.treeline.clone().map_or_else(beside_this_one, Ok)?,
                instance: format!("apps-{}", std::process::id()),
                namespace: &site.bed.server,
                rate_bps: options.rate,
            })
        } else {
            None
        };
        let log = options.out.join("apps-agent.log");
        fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
        let wanted: BTreeSet<_> = apps
            .iter()
            .flat_map(|app| app.servers)
            .copied()
            .chain(background::servers())
            .collect();
        let mut servers = Vec::new();
        for server in wanted {
            let started = server.start(site);
            servers.extend(started.with_context(|| format!("cannot start {server:?}"))?);
        }
        Ok(Self {
            options,
            site,
            apps,
            servers,
            treeline,
            log,
            began: Instant::now(),
            learned: None,
            runs: Vec::new(),
        })
    }

    fn say(&self, what: &str) {
        say(&format!(
            "[{:6.1} s] {what}",
            self.began.elapsed().as_secs_f64()
        ));
    }

    fn slot(&self) -> Duration {
        Duration::from_secs(self.options.seconds())
    }

    fn treeline(&self) -> Result<&Treeline<'a>> {
        self.treeline
            .as_ref()
            .context("this scheme needs the treeline binary")
    }

    /// Lets the agent see the same applications, beside the same background, before anything is measured.
    pub(crate) fn learn(&mut self) -> Result<()> {
        let learns = |rival: &Rival| matches!(rival, Rival::Treeline | Rival::Candidate);
        if !self.options.schemes.iter().any(learns) {
            return Ok(());
        }
        let most = self.options.learn();
        self.say(&format!("the agent learns from up to {most} passes"));
        let treeline = self.treeline()?;
        let mut agent = treeline.run(&self.log, LEARN_EVERY)?;
        let mut background = Background::start(self.site)?;
        // A judge that finds nothing to gain deploys nothing, and that is an outcome, too.
        let mut model = None;
        for _ in 0..most {
            self.all_at_once(self.slot() * LEARN_SLOTS)?;
            background.check()?;
            agent.check()?;
            model = treeline.model()?;
            if model.is_some() {
                break;
            }
        }
        background.finish()?;
        agent.stop()?;
        treeline.down()?;
        self.say(&match &model {
            Some(model) => format!("learned: {model}"),
            None => "no model: the judge found no sure gain over aging".to_owned(),
        });
        self.learned = model;
        Ok(())
    }

    /// A host's applications run side by side, and so it learns from them.
    fn all_at_once(&self, length: Duration) -> Result<()> {
        thread::scope(|scope| {
            let chosen = &self.options.learn_apps;
            let named =
                |app: &&App| chosen.is_empty() || chosen.iter().any(|name| name == app.name);
            let started: Vec<_> = (self.apps.iter().filter(named))
                .map(|app| scope.spawn(move || self.slot_of(app, length)))
                .collect();
            for app in started {
                app.join()
                    .map_err(|_panic| anyhow!("an application panicked"))??;
            }
            Ok(())
        })
    }

    /// All schemes, in another order each round.
    pub(crate) fn round(&mut self, round: u32) -> Result<()> {
        let schemes = &self.options.schemes;
        for place in 0..schemes.len() {
            let rival = schemes[(place + round as usize) % schemes.len()];
            self.say(&format!("round {}, {rival}", round + 1));
            if rival == Rival::Candidate && self.candidate()?.is_none() {
                self.say("  left out: the judge found no model worth a look");
                continue;
            }
            let run = self.run(round, rival)?;
            self.runs.push(run);
        }
        Ok(())
    }

    fn run(&mut self, round: u32, rival: Rival) -> Result<RunRecord> {
        for server in &mut self.servers {
            server.check()?;
        }
        let mut standing = self.stand(rival)?;
        let server = &self.site.bed.server;
        let mut background = Background::start(self.site)?;
        thread::sleep(SETTLE);
        let mut watch = Watch::start()?;
        let (first, resent) = (scheme::queues(server)?, server.retransmitted_segments()?);
        if !self.options.quick {
            for app in self.apps {
                self.slot_of(app, WARM_UP)?;
            }
        }
        let mut samples = Vec::new();
        for app in self.apps {
            let (before, began) = (scheme::queues(server)?, Instant::now());
            let figures = self.slot_of(app, self.slot())?;
            let after = scheme::queues(server)?;
            let sample = Sample {
                app: app.name,
                figures,
                packets_per_band: after.since(&before).packets,
                drops: after.since(&before).drops,
                backlog_bytes: after.backlog_bytes,
                keys: of_times(&background.keys_since(began)),
            };
            self.say(&format!("  {sample}"));
            samples.push(sample);
            background.check()?;
            watch.look()?;
            if let Standing::Agent(agent) = &mut standing {
                agent.check()?;
            }
        }
        let status = match standing {
            Standing::Kernel(_) => Value::Null,
            Standing::Ours | Standing::Agent(_) => self.status(round, rival)?,
        };
        for (part, figures) in background.finish()? {
            let sample = Sample::of_background(part.name, figures);
            self.say(&format!("  {sample}"));
            samples.push(sample);
        }
        let counted = scheme::queues(server)?.since(&first);
        let record = RunRecord {
            round,
            scheme: rival,
            samples,
            packets_per_band: counted.packets,
            drops: counted.drops,
            retransmitted: server.retransmitted_segments()?.saturating_sub(resent),
            model: status["model"].clone(),
            machine: watch.finish()?,
        };
        self.clear(standing)?;
        Ok(record)
    }

    fn slot_of(&self, app: &App, length: Duration) -> Result<Vec<Figure>> {
        if wait::interrupted() {
            bail!("interrupted");
        }
        let figures = (app.run)(self.site, length);
        figures.with_context(|| format!("{} gave no figures", app.name))
    }

    fn stand(&self, rival: Rival) -> Result<Standing<'a>> {
        match rival {
            Rival::Aging => {
                self.treeline()?.up_without_model()?;
                Ok(Standing::Ours)
            }
            Rival::Candidate => {
                self.up_with_candidate()?;
                Ok(Standing::Ours)
            }
            Rival::Treeline => {
                let agent = self.treeline()?.run(&self.log, TRAIN_EVERY)?;
                Ok(Standing::Agent(agent))
            }
            other => {
                let queue = Queue::stand(&self.site.bed.server, other, self.options.rate)?;
                Ok(Standing::Kernel(queue))
            }
        }
    }

    /// The file of the newest model, whatever the judge thinks of it.
    fn candidate(&self) -> Result<Option<PathBuf>> {
        let folder = Path::new("/var/lib/treeline").join(&self.treeline()?.instance);
        let models = fs::read_dir(folder.join("models")).ok();
        let paths = models.into_iter().flatten();
        let paths = paths.filter_map(|entry| Some(entry.ok()?.path()));
        // Its lock is there before any model.
        Ok(paths
            .filter(|path| path.extension().is_some_and(|it| it == "json"))
            .max())
    }

    fn up_with_candidate(&self) -> Result<()> {
        let treeline = self.treeline()?;
        let newest = self.candidate()?.context("no model was learned")?;
        let rate = format!("{}bit", self.options.rate);
        let mut command = Command::new(&treeline.binary);
        command
            .args(["--instance", &treeline.instance])
            .args(["up", UPLINK, "--rate", &rate, "--model"])
            .arg(newest);
        treeline.namespace.output(&mut command).map(drop)
    }

    fn clear(&self, standing: Standing<'_>) -> Result<()> {
        match standing {
            Standing::Kernel(_) => Ok(()),
            Standing::Ours => self.treeline()?.down(),
            Standing::Agent(agent) => {
                agent.stop()?;
                self.treeline()?.down()
            }
        }
    }

    /// What treeline says of itself, kept beside the report.
    fn status(&self, round: u32, rival: Rival) -> Result<Value> {
        let status = self.treeline()?.status()?;
        let path = (self.options.out).join(format!("apps-status-{}-{rival}.json", round + 1));
        fs::write(&path, serde_json::to_string_pretty(&status)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(status)
    }

    pub(crate) fn report(&mut self, left_out: Vec<LeftOut>) -> Result<Report> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let setting = Setting {
            kernel: kernel.trim().to_owned(),
            rate_bps: self.options.rate,
            rounds: self.options.rounds(),
            slot_s: self.options.seconds(),
            quick: self.options.quick,
            gso_max_bytes: self.options.gso_max_bytes,
            left_out,
            learned: self.learned.take(),
        };
        Ok(Report::new(
            setting,
            self.apps,
            &self.options.schemes,
            std::mem::take(&mut self.runs),
        ))
    }
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
