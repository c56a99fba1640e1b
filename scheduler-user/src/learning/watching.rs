//! From the shadow to work or to nothing; what follows a change of the traffic.

use tracing::{info, warn};

use super::{Learner, LearningError, cycle::Trained, mind::Change, number, unix_now_s};
use crate::{
    canary::{Canary, Readiness},
    datapath::Datapath,
    handover::HandoverError,
    journal::decisions::Step,
    model::{Model, Provenance},
    training::{Recut, Retirement, Verdict},
};

impl Learner {
    /// Writes down that the traffic has changed.
    pub(super) fn drifted(&self, Change { alarm, forgotten }: &Change) {
        let step = Step::Drifted {
            of: alarm.of.to_owned(),
            forgotten: *forgotten,
        };
        self.note(step, &alarm.reason);
        warn!(
            of = alarm.of,
            forgotten,
            rows = self.mind.window.len(),
            what = "a cycle comes as soon as there are rows enough",
            why = alarm.reason,
            "drift"
        );
    }

    /// Lets a cycle pass for the candidate in the shadow; whether it is to be judged now.
    pub(super) fn pass_cycle(&mut self, datapath: &Datapath) -> Result<bool, LearningError> {
        let readiness = self.mind.pass_cycle();
        let (Some(canary), Some(readiness)) = (&self.mind.canary, readiness) else {
            return Ok(false);
        };
        let (generation, rows) = (canary.model().generation, canary.rows());
        match readiness {
            Readiness::Ready => Ok(true),
            Readiness::Waits => {
                info!(
                    generation,
                    rows,
                    needed = self.options.canary_rows,
                    what = "the candidate stays in the shadow",
                    why = "too few fresh labelled samples yet",
                    "cycle"
                );
                Ok(false)
            }
            Readiness::Stale => {
                self.drop_canary(datapath, "too little fresh traffic to try it on")?;
                Ok(false)
            }
        }
    }

    /// Numbers, saves and shadows an accepted candidate.
    pub(super) fn shadow(
        &mut self,
        datapath: &Datapath,
        trained: Trained,
    ) -> Result<(), HandoverError> {
        let Trained {
            candidate,
            verdict,
            train_ms,
            recut: _,
        } = trained;
        let candidate = candidate.stamped(Provenance {
            // Both come with its number.
            generation: 0,
            parent_generation: None,
            created_unix_s: unix_now_s(),
            train_ms,
            scores: verdict.scores,
        });
        let (model, file) = self.handover.shadow(datapath, candidate, &verdict.reason)?;
        let summary = model.summary();
        let generation = model.generation;
        self.mind.canary = match Canary::new(model, self.mind.needs.canary_rows) {
            Ok(canary) => Some(canary),
            Err(source) => {
                return Err(HandoverError::Compile { path: file, source });
            }
        };
        info!(
            generation,
            nodes = summary.nodes,
            depth = summary.depth,
            rows = summary.trained_on_samples,
            train_ms,
            file = %file.display(),
            what = "candidate in the shadow: watched, not acting",
            why = verdict.reason,
            undo = "none needed",
            "cycle"
        );
        Ok(())
    }

    /// Puts the candidate in the shadow to work.
    pub(super) fn promote(
        &mut self,
        datapath: &Datapath,
        verdict: &Verdict,
    ) -> Result<(), LearningError> {
        let Some(canary) = self.mind.canary.take() else {
            return Ok(());
        };
        let rows = canary.rows();
        let model = Model::clone(canary.model());
        let generation = model.generation;
        let (model, file, change) = match self.handover.promote(datapath, model, &verdict.reason) {
            Ok(done) => done,
            Err(error) => {
                warn!(
                    generation,
                    what = "the model before goes on",
                    why = &error as &dyn std::error::Error,
                    "cycle: candidate could not be deployed"
                );
                datapath.watch_none()?;
                return Ok(());
            }
        };
        info!(
            generation,
            rows,
            flip_us = change.flip.as_micros() as u64,
            file = %file.display(),
            what = if self.options.observe.is_some() {
                "model deployed: asked, and no packet goes by it"
            } else {
                "model deployed"
            },
            why = verdict.reason,
            undo = change.undo,
            "cycle"
        );
        self.meters.acts(Some(&model));
        self.mind.running = Some(model.into());
        Ok(())
    }

    /// Takes the candidate out of the shadow; it has never acted.
    pub(super) fn drop_canary(
        &mut self,
        datapath: &Datapath,
        why: &str,
    ) -> Result<(), LearningError> {
        let Some(canary) = self.mind.canary.take() else {
            return Ok(());
        };
        let (generation, rows) = (canary.model().generation, canary.rows());
        self.handover
            .drop_shadow(datapath, (generation, rows as u64), why)?;
        info!(
            generation,
            rows,
            what = "candidate dropped from the shadow",
            why,
            running = number(self.mind.running.as_deref()).unwrap_or(0),
            undo = self.handover.command_for(Some(generation)),
            "cycle"
        );
        Ok(())
    }

    /// Cuts the bands of aging where that gains.
    pub(super) fn recut(
        &self,
        datapath: &Datapath,
        Recut {
            thresholds,
            advantage,
        }: &Recut,
    ) -> Result<(), LearningError> {
        let percent = |log_ratio: f64| log_ratio.exp_m1() * 100.0;
        let why = format!(
            "aging gains {:.1} % ± {:.1} % in replayed mean slowdown and completion time",
            percent(advantage.gain),
            percent(advantage.standard_error)
        );
        self.handover.recut(datapath, thresholds, &why)?;
        info!(
            cuts_bytes = ?thresholds.cuts_bytes,
            what = "bands are cut elsewhere",
            why,
            undo = self.handover.undo_recut(),
            "cycle"
        );
        Ok(())
    }

    /// Takes out what an agent that was killed has left in the shadow: its rows are gone.
    pub(super) fn clear_left_over(&self, datapath: &Datapath) -> Result<(), LearningError> {
        if let Some(left) = datapath.watched()? {
            let why = "the agent that watched it has ended";
            self.handover
                .drop_shadow(datapath, (left.generation, 0), why)?;
        }
        Ok(())
    }

    /// Falls back to aging if the running model has lost its worth.
    pub(super) fn reconsider(
        &mut self,
        datapath: &Datapath,
        retirement: Option<Retirement>,
    ) -> Result<(), LearningError> {
        let Some(retirement) = retirement.filter(|retirement| retirement.retire) else {
            return Ok(());
        };
        let generation = self.mind.running.take().map_or(0, |model| model.generation);
        let change = self
            .handover
            .fall_back(datapath, generation, &retirement.reason)?;
        self.meters.acts(None);
        warn!(
            generation,
            what = "model taken out, aging rules; another one comes back only through the shadow",
            why = retirement.reason,
            undo = change.undo,
            "fall back"
        );
        Ok(())
    }
}
