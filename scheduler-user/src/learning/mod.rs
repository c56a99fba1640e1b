//! Samples → window → model → shadow → work: one cycle after another.

mod advising;
mod asked;
mod background;
pub(crate) mod cycle;
pub(crate) mod mind;
mod pressure;
mod watching;

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use scheduler_common::sample::Sample;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::asked::{Ask, Began};
use self::{
    background::in_background,
    cycle::{Cycle, Outcome, Trained},
    mind::{Mind, Needs, Step as Next},
    pressure::Pressure,
};
use crate::{
    agent::Options,
    canary::Canary,
    datapath::{Datapath, DatapathError},
    dataset::{Row, store::StoreError},
    handover::{Handover, HandoverError},
    instance::Instance,
    journal::decisions::{Actor, Decision, Step},
    metrics::Meters,
    model::Model,
    record::Labels,
};

/// How often the learner looks whether it has been taken down.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Why learning ended for good.
#[derive(Debug, thiserror::Error)]
pub enum LearningError {
    /// The kernel programs can't be reached.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// Rows can't be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The training thread broke off.
    #[error("training broke off")]
    Broken(#[source] io::Error),
    /// Aging can't be made to rule.
    #[error(transparent)]
    Handover(#[from] HandoverError),
}

/// How the agent hears of what changes while it runs.
#[derive(Debug)]
pub struct Wires {
    /// How to sample and learn from now on.
    pub changes: watch::Receiver<Options>,
    /// What others ask.
    pub asked: mpsc::Receiver<Ask>,
    /// Where it is counted what the agent does.
    pub meters: Meters,
}

/// The window, the running model, and the cycle that replaces it.
pub struct Learner {
    instance: Instance,
    handover: Handover,
    options: Options,
    labels: Labels,
    mind: Mind,
    working: Option<JoinHandle<Cycle>>,
    meters: Meters,
    pressure: Pressure,
}

impl Learner {
    /// A learner with an empty window; `running` is the model that acts now.
    pub fn new(
        instance: &Instance,
        options: Options,
        running: Option<Model>,
        meters: Meters,
    ) -> Self {
        meters.acts(running.as_ref());
        Self {
            instance: instance.clone(),
            handover: Handover::new(instance).counted_by(meters.clone()),
            mind: Mind::new(
                options.window,
                Needs {
                    min_samples: options.min_samples,
                    canary_rows: options.canary_rows,
                },
                running,
            ),
            options,
            labels: Labels::new(None),
            working: None,
            meters,
            pressure: Pressure::new(Instant::now()),
        }
    }

    /// Learns until `stop`, or until the programs are taken down.
    ///
    /// # Errors
    /// If the kernel programs can't be reached or training broke off.
    pub async fn run(
        mut self,
        datapath: Datapath,
        batches: mpsc::Receiver<Vec<Sample>>,
        wires: Wires,
        stop: CancellationToken,
    ) -> Result<(), LearningError> {
        if let Some(recording) = &self.options.record {
            self.labels = Labels::new(Some(recording.create()?));
        }
        let learned = self.learn(&datapath, batches, wires, stop).await;
        let closed = self.labels.close(&datapath);
        learned?;
        let closed = closed?;
        if let Some(recording) = &self.options.record {
            info!(file = %recording.path.display(), rows = closed.rows, "recorded");
        }
        Ok(())
    }

    async fn learn(
        &mut self,
        datapath: &Datapath,
        mut batches: mpsc::Receiver<Vec<Sample>>,
        Wires {
            mut changes,
            mut asked,
            meters: _,
        }: Wires,
        stop: CancellationToken,
    ) -> Result<(), LearningError> {
        let mut cycle = tokio::time::interval(self.options.train_every);
        cycle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        cycle.tick().await;
        let mut watch = tokio::time::interval(WATCH_EVERY);
        self.clear_left_over(datapath)?;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                batch = batches.recv() => match batch {
                    Some(batch) => {
                        self.take(&batch);
                        if self.working.is_none() && self.mind.hurries() {
                            cycle.reset();
                            self.begin_cycle(datapath)?;
                        }
                    }
                    None => break,
                },
                Ok(()) = changes.changed() => {
                    let options = changes.borrow_and_update().clone();
                    self.take_over(datapath, options)?;
                    cycle = tokio::time::interval(self.options.train_every);
                    cycle.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    cycle.tick().await;
                }
                Some(ask) = asked.recv() => {
                    if self.answer(datapath, ask)? {
                        cycle.reset();
                    }
                }
                _ = cycle.tick() => {
                    self.follow(datapath)?;
                    self.begin_cycle(datapath)?;
                }
                done = finished(&mut self.working) => {
                    self.working = None;
                    let done = done
                        .map_err(|error| LearningError::Broken(io::Error::other(error)))?;
                    self.end_cycle(datapath, done)?;
                }
                _ = watch.tick() => {
                    if !datapath.is_pinned() {
                        return Ok(());
                    }
                    let rows = self.labels.look_if_due(datapath)?;
                    self.take_rows(&rows);
                    self.feel_pressure(datapath);
                }
            }
        }
        if self.options.observe.is_some() {
            self.advise_at_last(datapath).await?;
        }
        // Nobody would judge it.
        if datapath.is_pinned() {
            self.drop_canary(datapath, "the agent that watches it ends")?;
        }
        Ok(())
    }

    fn take(&mut self, batch: &[Sample]) {
        let rows = self.labels.take(batch);
        self.take_rows(&rows);
    }

    fn take_rows(&mut self, rows: &[Row]) {
        self.meters.saw(rows);
        self.meters
            .joined(self.labels.counts(), self.labels.waiting());
        for change in self.mind.see(rows) {
            self.drifted(&change);
        }
        let shadow = self.mind.canary.as_ref().map_or(0, Canary::rows);
        self.meters.holds(self.mind.window.len(), shadow);
    }

    /// Takes for the running model what acts by now.
    ///
    /// A person may have pushed a model or rolled one back. The next candidate has to beat it like any other.
    fn follow(&mut self, datapath: &Datapath) -> Result<(), LearningError> {
        let active = match datapath.active() {
            Ok(active) => active.map(|active| active.generation),
            Err(error) => {
                // The pins may be going at this moment; the next look at them ends the agent.
                debug!(%error, "no telling which model acts");
                return Ok(());
            }
        };
        let before = number(self.mind.running.as_deref());
        if active == before {
            return Ok(());
        }
        self.mind.running =
            active.and_then(
                |generation| match self.handover.registry().load(generation) {
                    Ok(model) => Some(Arc::new(model)),
                    Err(error) => {
                        warn!(generation, %error, "the acting model can't be judged");
                        None
                    }
                },
            );
        self.meters.acts(self.mind.running.as_deref());
        info!(
            generation = active.unwrap_or(0),
            before = before.unwrap_or(0),
            why = "pushed or rolled back",
            "another model acts"
        );
        // It won against another one.
        self.drop_canary(datapath, "another model was put to work meanwhile")
    }

    fn begin_cycle(&mut self, datapath: &Datapath) -> Result<(), LearningError> {
        let (rows, needed) = (self.mind.window.len(), self.options.min_samples);
        if self.working.is_some() {
            info!(
                rows,
                what = "no new cycle",
                why = "training is still under way",
                "cycle"
            );
            return Ok(());
        }
        let is_ready = self.pass_cycle(datapath)?;
        if self.mind.canary.is_none() && rows < needed {
            let counts = self.labels.counts();
            info!(
                rows,
                needed,
                decisions = counts.decisions,
                labelled = counts.labelled,
                what = "nothing trained",
                why = "too few labelled samples yet",
                "cycle"
            );
        }
        let Some(work) = self.mind.next(is_ready) else {
            return Ok(());
        };
        let window = &self.mind.window;
        let heeded = window.heeded();
        info!(
            held = rows,
            heeded = heeded.rows().len(),
            of_newcomers = window.of_newcomers(heeded.rows()),
            services = window.services(),
            networks = window.networks(),
            "window"
        );
        let running = self.mind.running.clone();
        let limits = self.limits(datapath)?;
        let acting = self.observed_model();
        let meters = self.meters.clone();
        self.working = Some(tokio::task::spawn_blocking(move || {
            let (name, started) = (work.name(), Instant::now());
            in_background(|| {
                let mut cycle = cycle::work(work, &heeded, running.as_deref(), &limits);
                meters.cycled(name, started.elapsed());
                cycle.advise(heeded.rows(), acting.as_deref(), &limits);
                cycle
            })
        }));
        Ok(())
    }

    fn end_cycle(&mut self, datapath: &Datapath, cycle: Cycle) -> Result<(), LearningError> {
        let mut advice = cycle.advice.clone();
        let lock = self.handover.registry().lock();
        if let Err(error) = &lock {
            // A disk that refuses hinders no fall back.
            warn!(%error, "the registry can't be locked");
        }
        self.follow(datapath)?;
        let is_current = self.mind.is_current(&cycle);
        if is_current
            && self.options.observe.is_none()
            && let Outcome::Trained(Ok(trained)) = &cycle.outcome
            && let Some(recut) = &trained.recut
        {
            self.recut(datapath, recut)?;
        }
        match Mind::after(cycle.outcome, is_current) {
            Next::Rest => {}
            Next::Untrained(error) => info!(what = "nothing trained", why = %error, "cycle"),
            Next::Refuse(trained, why) => self.refuse(&trained, &why),
            Next::Shadow(trained) => self.try_shadow(datapath, *trained),
            Next::Promote(verdict) => self.promote(datapath, &verdict)?,
            Next::Drop(verdict) => self.drop_canary(datapath, &verdict.reason)?,
        }
        // A candidate that has just taken its place was judged against aging, too.
        if is_current && number(self.mind.running.as_deref()) == cycle.against {
            let latest = cycle.retirement.as_ref();
            if let Some(advantage) = latest.and_then(|it| it.advantage.as_ref()) {
                self.meters.gains(advantage);
            }
            self.reconsider(datapath, cycle.retirement)?;
        }
        if let Some(advice) = advice.as_mut().filter(|advice| advice.accepted) {
            // A candidate that was just accepted got its number only now.
            let watched = self.mind.canary.as_ref().map(|it| it.model().generation);
            advice.generation = advice.generation.or(watched);
        }
        self.tell_advice(advice.as_ref());
        Ok(())
    }

    fn note_training(&self, trained: &Trained) {
        let step = Step::Trained {
            rows: trained.candidate.trained_on_samples,
            nodes: trained.candidate.summary().nodes as u64,
            train_ms: trained.train_ms,
        };
        self.meters.trained(trained.train_ms);
        self.note(step, "a cycle was due");
    }

    fn refuse(&self, trained: &Trained, why: &str) {
        self.note_training(trained);
        let rows = trained.candidate.trained_on_samples;
        self.note(Step::Refused { rows }, why);
        info!(
            rows,
            train_ms = trained.train_ms,
            what = "candidate refused",
            why,
            running = number(self.mind.running.as_deref()).unwrap_or(0),
            "cycle"
        );
    }

    /// Shadows a candidate that the judge accepts.
    fn try_shadow(&mut self, datapath: &Datapath, trained: Trained) {
        self.note_training(&trained);
        if let Err(error) = self.shadow(datapath, trained) {
            warn!(
                what = "what acts goes on",
                why = &error as &dyn std::error::Error,
                "cycle: candidate could not be put in the shadow"
            );
        }
    }

    /// Writes a step of the agent's into the journal.
    fn note(&self, step: Step, why: &str) {
        let acting = number(self.mind.running.as_deref());
        self.handover
            .note(&Decision::now(Actor::Agent, step, acting, why));
    }
}

/// Waits for the working thread; for ever while there is none.
async fn finished(
    working: &mut Option<JoinHandle<Cycle>>,
) -> Result<Cycle, tokio::task::JoinError> {
    match working {
        Some(handle) => handle.await,
        None => std::future::pending().await,
    }
}

fn number(model: Option<&Model>) -> Option<u32> {
    model.map(|model| model.generation)
}

pub(crate) fn unix_now_s() -> u64 {
    // A clock before 1970 is no reason to lose a model.
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}
