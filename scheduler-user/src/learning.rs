//! Samples → window → model → deploy: one cycle after another.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, UNIX_EPOCH},
};

use scheduler_common::sample::Sample;
use tokio::{sync::mpsc, task::JoinHandle, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    agent::Options,
    datapath::{Datapath, DatapathError},
    dataset::{Row, Window, WindowLimits, store::StoreError},
    handover::{Handover, HandoverError},
    instance::Instance,
    journal::decisions::{Actor, Decision, Step},
    model::{Model, Provenance, Thresholds},
    record::Labels,
    simulate::Within,
    training::{
        DecisionTree, JudgeLimits, Retirement, TrainError, Trainer as _, Verdict, judge, retire,
        split,
    },
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

/// What the training thread brings back.
struct Trained {
    candidate: Model,
    verdict: Verdict,
    retirement: Option<Retirement>,
    /// The model that ran when it was judged.
    against: Option<u32>,
    train_ms: u64,
}

/// The window, the running model, and the cycle that replaces it.
pub struct Learner {
    instance: Instance,
    handover: Handover,
    options: Options,
    labels: Labels,
    window: Window,
    running: Option<Arc<Model>>,
    training: Option<JoinHandle<Result<Trained, TrainError>>>,
}

impl Learner {
    /// A learner with an empty window; `running` is the model that acts now.
    pub fn new(instance: &Instance, options: Options, running: Option<Model>) -> Self {
        Self {
            instance: instance.clone(),
            handover: Handover::new(instance),
            options,
            labels: Labels::new(None),
            window: Window::new(WindowLimits::default(), rand::random()),
            running: running.map(Arc::new),
            training: None,
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
        stop: CancellationToken,
    ) -> Result<(), LearningError> {
        if let Some(recording) = &self.options.record {
            self.labels = Labels::new(Some(recording.create()?));
        }
        let learned = self.learn(&datapath, batches, stop).await;
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
        stop: CancellationToken,
    ) -> Result<(), LearningError> {
        let mut cycle = tokio::time::interval(self.options.train_every);
        cycle.set_missed_tick_behavior(MissedTickBehavior::Delay);
        cycle.tick().await;
        let mut watch = tokio::time::interval(WATCH_EVERY);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                batch = batches.recv() => match batch {
                    Some(batch) => self.take(&batch),
                    None => return Ok(()),
                },
                _ = cycle.tick() => {
                    self.follow(&datapath);
                    self.begin_cycle();
                }
                trained = finished(&mut self.training) => {
                    self.training = None;
                    let trained = trained
                        .map_err(|error| LearningError::Broken(io::Error::other(error)))?;
                    self.end_cycle(datapath, trained)?;
                }
                _ = watch.tick() => {
                    if !datapath.is_pinned() {
                        return Ok(());
                    }
                    for row in self.labels.look_if_due(datapath)? {
                        self.window.push(row);
                    }
                }
            }
        }
    }

    fn take(&mut self, batch: &[Sample]) {
        for row in self.labels.take(batch) {
            self.window.push(row);
        }
    }

    /// Takes for the running model what acts by now.
    ///
    /// A person may have pushed a model or rolled one back. The next candidate has to beat it like any other.
    fn follow(&mut self, datapath: &Datapath) {
        let active = match datapath.active() {
            Ok(active) => active.map(|active| active.generation),
            Err(error) => {
                // The pins may be going at this moment; the next look at them ends the agent.
                debug!(%error, "no telling which model acts");
                return;
            }
        };
        let before = number(self.running.as_deref());
        if active == before {
            return;
        }
        self.running =
            active.and_then(
                |generation| match self.handover.registry().load(generation) {
                    Ok(model) => Some(Arc::new(model)),
                    Err(error) => {
                        warn!(generation, %error, "the acting model can't be judged");
                        None
                    }
                },
            );
        info!(
            generation = active.unwrap_or(0),
            before = before.unwrap_or(0),
            why = "pushed or rolled back",
            "another model acts"
        );
    }

    fn begin_cycle(&mut self) {
        let (rows, needed) = (self.window.len(), self.options.min_samples);
        let counts = self.labels.counts();
        if self.training.is_some() {
            info!(
                rows,
                what = "no new cycle",
                why = "training is still under way",
                "cycle"
            );
            return;
        }
        if rows < needed {
            info!(
                rows,
                needed,
                decisions = counts.decisions,
                labelled = counts.labelled,
                what = "nothing trained",
                why = "too few labelled samples yet",
                "cycle"
            );
            return;
        }
        debug!(rows, services = self.window.services(), "training");
        let rows = self.window.rows();
        let running = self.running.clone();
        let limits = limits(&self.instance);
        self.training = Some(tokio::task::spawn_blocking(move || {
            train(&rows, running.as_deref(), &limits)
        }));
    }

    fn end_cycle(
        &mut self,
        datapath: &Datapath,
        trained: Result<Trained, TrainError>,
    ) -> Result<(), LearningError> {
        let Trained {
            candidate,
            verdict,
            retirement,
            against,
            train_ms,
        } = match trained {
            Ok(trained) => trained,
            Err(error) => {
                info!(what = "nothing trained", why = %error, "cycle");
                return Ok(());
            }
        };
        let lock = self.handover.registry().lock();
        if let Err(error) = &lock {
            // A disk that refuses hinders no fall back.
            warn!(%error, "the registry can't be locked");
        }
        self.follow(datapath);
        let acting = number(self.running.as_deref());
        let rows = candidate.trained_on_samples;
        let nodes = candidate.summary().nodes as u64;
        let handover = self.handover.clone();
        let note = |step, why: &str| {
            handover.note(&Decision::now(Actor::Agent, step, acting, why));
        };
        note(
            Step::Trained {
                rows,
                nodes,
                train_ms,
            },
            "a cycle was due",
        );
        if acting != against {
            let why = "another model was put to work while this one was trained";
            note(Step::Refused { rows }, why);
            info!(rows, train_ms, what = "candidate refused", why, "cycle");
            return Ok(());
        }
        if !verdict.accepted {
            note(Step::Refused { rows }, &verdict.reason);
            info!(
                rows,
                train_ms,
                what = "candidate refused",
                why = verdict.reason,
                running = acting.unwrap_or(0),
                "cycle"
            );
            return self.reconsider(datapath, retirement);
        }
        match self.adopt(datapath, candidate, verdict, train_ms) {
            Ok(model) => self.running = Some(Arc::new(model)),
            Err(error) => warn!(
                what = "the model before goes on",
                why = &error as &dyn std::error::Error,
                "cycle: candidate could not be deployed"
            ),
        }
        Ok(())
    }

    /// Falls back to aging if the running model has lost its worth.
    fn reconsider(
        &mut self,
        datapath: &Datapath,
        retirement: Option<Retirement>,
    ) -> Result<(), LearningError> {
        let Some(retirement) = retirement.filter(|retirement| retirement.retire) else {
            return Ok(());
        };
        let generation = self.running.take().map_or(0, |model| model.generation);
        let change = self
            .handover
            .fall_back(datapath, generation, &retirement.reason)?;
        warn!(
            generation,
            what = "model taken out, aging rules",
            why = retirement.reason,
            undo = change.undo,
            "fall back"
        );
        Ok(())
    }

    /// Numbers, saves and deploys an accepted candidate.
    fn adopt(
        &self,
        datapath: &Datapath,
        candidate: Model,
        verdict: Verdict,
        train_ms: u64,
    ) -> Result<Model, HandoverError> {
        let candidate = Model {
            thresholds: Thresholds::from(&datapath.settings()?),
            ..candidate.stamped(Provenance {
                // Both come with its deployment.
                generation: 0,
                parent_generation: None,
                created_unix_s: unix_now_s(),
                train_ms,
                scores: verdict.scores,
            })
        };
        let (model, file, change) = self.handover.deploy(datapath, candidate, &verdict.reason)?;
        let summary = model.summary();
        info!(
            generation = summary.generation,
            nodes = summary.nodes,
            depth = summary.depth,
            rows = summary.trained_on_samples,
            train_ms,
            flip_us = change.flip.as_micros() as u64,
            file = %file.display(),
            what = "model deployed",
            why = verdict.reason,
            undo = change.undo,
            "cycle"
        );
        Ok(model)
    }
}

/// Waits for the training thread; for ever while there is none.
async fn finished(
    training: &mut Option<JoinHandle<Result<Trained, TrainError>>>,
) -> Result<Result<Trained, TrainError>, tokio::task::JoinError> {
    match training {
        Some(handle) => handle.await,
        None => std::future::pending().await,
    }
}

/// What a model must show on this host: on its slowest link, with the leaves that stand there.
fn limits(instance: &Instance) -> JudgeLimits {
    let records = instance.records().unwrap_or_else(|error| {
        warn!(%error, what = "judged as on a link of the default rate", "cycle");
        Vec::new()
    });
    let shaped = records
        .iter()
        .filter_map(|record| Some((record.rate_bps?, record)));
    let Some((rate_bps, record)) = shaped.min_by_key(|(rate_bps, _)| *rate_bps) else {
        return JudgeLimits::default();
    };
    let mut limits = JudgeLimits::of_rate(rate_bps);
    if record.leaf == "fq_codel" {
        limits.link.within = Within::Fair;
    }
    limits
}

fn train(
    rows: &[Row],
    running: Option<&Model>,
    limits: &JudgeLimits,
) -> Result<Trained, TrainError> {
    let parts = split(rows, limits);
    let started = Instant::now();
    let candidate = DecisionTree::default().train(&parts.train)?;
    let train_ms = started.elapsed().as_millis() as u64;
    let verdict = judge(&candidate, running, &parts, limits);
    let retirement = running.map(|running| retire(running, rows, limits));
    Ok(Trained {
        candidate,
        verdict,
        retirement,
        against: number(running),
        train_ms,
    })
}

fn number(model: Option<&Model>) -> Option<u32> {
    model.map(|model| model.generation)
}

pub(crate) fn unix_now_s() -> u64 {
    // A clock before 1970 is no reason to lose a model.
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs())
}
