//! What the agent has seen and makes of it; no kernel is touched.

use std::sync::Arc;

use scheduler_common::sample::Hook;

use super::{
    cycle::{Cycle, Outcome, Trained, Work},
    number,
};
use crate::{
    canary::{Canary, Readiness},
    dataset::{Row, Window, WindowLimits},
    drift::{Alarm, Drift, ERROR},
    model::Model,
    training::{TrainError, Verdict},
};

/// How much traffic it takes before something is decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// Labelled rows below which nothing is trained.
    pub(crate) min_samples: usize,
    /// Fresh rows on which a candidate is watched.
    pub(crate) canary_rows: usize,
}

/// The window, the models in question, and the eye for changes.
pub(crate) struct Mind {
    pub(crate) window: Window,
    /// What acts; aging where there is none.
    pub(crate) running: Option<Arc<Model>>,
    pub(crate) canary: Option<Canary>,
    pub(crate) needs: Needs,
    drift: Drift,
    /// A cycle is wanted before it is due.
    is_urgent: bool,
}

/// A change of the traffic, and what was forgotten because of it.
pub(crate) struct Change {
    pub(crate) alarm: Alarm,
    pub(crate) forgotten: u64,
}

/// What is to be done after a cycle.
pub(crate) enum Step {
    /// Nothing with a candidate.
    Rest,
    /// Nothing, for there is none.
    Untrained(TrainError),
    /// The candidate may not even be watched, for this reason.
    Refuse(Box<Trained>, String),
    /// Watch it.
    Shadow(Box<Trained>),
    /// Put the one in the shadow to work.
    Promote(Box<Verdict>),
    /// Take the one in the shadow out.
    Drop(Box<Verdict>),
}

impl Mind {
    pub(crate) fn new(limits: WindowLimits, needs: Needs, running: Option<Model>) -> Self {
        Self {
            window: Window::new(limits, rand::random()),
            running: running.map(Arc::new),
            canary: None,
            needs,
            drift: Drift::default(),
            is_urgent: false,
        }
    }

    /// Takes in labelled rows, those of one message together; returns the changes that they tell of.
    ///
    /// Where the acting model errs more than it did, what was before is forgotten, so that the next candidate learns from what
    /// came after; only that of one network where it errs on that one alone. Traffic of another kind alone makes nothing false that was learned. Either way the next candidate need not
    /// wait for the cycle.
    pub(crate) fn see(&mut self, rows: &[Row]) -> Vec<Change> {
        let message = |row: &Row| (row.flow_hash, row.half, row.message, row.hook as u8);
        let messages = rows.chunk_by(|a, b| message(a) == message(b));
        messages.filter_map(|rows| self.see_message(rows)).collect()
    }

    fn see_message(&mut self, rows: &[Row]) -> Option<Change> {
        for row in rows {
            self.window.push(*row);
            if let Some(canary) = &mut self.canary {
                canary.see(row);
            }
        }
        // Models judge what is sent.
        if rows.iter().any(|row| row.hook != Hook::Egress) {
            return None;
        }
        // A crowd of strangers is no change of what the others do.
        if self.window.is_newcomer(rows.first()?.network_hash) {
            return None;
        }
        let acting = number(self.running.as_deref()).unwrap_or(0);
        let alarm = self.drift.see(rows, acting)?;
        let mut forgotten = 0;
        if alarm.of == ERROR {
            // Nobody makes it forget what all others taught.
            let (since_ns, of) = (alarm.since_ns, alarm.owed_to);
            forgotten = self.window.forget_before(since_ns, of) as u64;
            if let Some(canary) = &mut self.canary {
                canary.forget_before(since_ns, of);
            }
        }
        self.is_urgent = true;
        Some(Change { alarm, forgotten })
    }

    /// Whether a cycle can't wait and could come to something.
    pub(crate) fn hurries(&self) -> bool {
        self.is_urgent && self.window.len() >= self.needs.min_samples
    }

    /// Lets a cycle pass for the candidate in the shadow, if there is one.
    pub(crate) fn pass_cycle(&mut self) -> Option<Readiness> {
        self.canary.as_mut().map(Canary::pass_cycle)
    }

    /// What the cycle that begins has to work out; `is_ready` tells whether the candidate in the shadow can be tried.
    ///
    /// `None` if there is nothing to do.
    pub(crate) fn next(&mut self, is_ready: bool) -> Option<Work> {
        self.is_urgent = false;
        match &mut self.canary {
            Some(canary) if is_ready => {
                let fresh = canary.model().generation;
                let mut earlier = self.window.heeded().into_rows();
                earlier.retain(|row| row.shadow_generation != fresh);
                Some(Work::Try(Box::new(
                    canary.trial(earlier).bounded_by(&self.window),
                )))
            }
            None if self.window.len() >= self.needs.min_samples => Some(Work::Train),
            _ => self.running.is_some().then_some(Work::Watch),
        }
    }

    /// Whether what acts is still what the cycle judged against.
    pub(crate) fn is_current(&self, cycle: &Cycle) -> bool {
        number(self.running.as_deref()) == cycle.against
    }

    /// What follows from a cycle for its candidate; one that did not meet what acts now is not heeded.
    pub(crate) fn after(outcome: Outcome, is_current: bool) -> Step {
        match outcome {
            Outcome::Trained(Err(error)) => Step::Untrained(error),
            Outcome::Trained(Ok(trained)) if !is_current => {
                let why = "another model was put to work while this one was trained";
                Step::Refuse(trained, why.to_owned())
            }
            Outcome::Trained(Ok(trained)) if !trained.verdict.accepted => {
                let why = trained.verdict.reason.clone();
                Step::Refuse(trained, why)
            }
            Outcome::Trained(Ok(trained)) => Step::Shadow(trained),
            Outcome::Tried(Some(verdict)) if is_current && verdict.accepted => {
                Step::Promote(verdict)
            }
            Outcome::Tried(Some(verdict)) if is_current => Step::Drop(verdict),
            Outcome::Tried(_) | Outcome::Watched => Step::Rest,
        }
    }
}
