//! What others may ask of the learner while it runs.

use tokio::sync::oneshot;

use super::{Learner, LearningError, number};
use crate::{
    canary::Canary,
    datapath::Datapath,
    dataset::services::{self, Services, services},
};

/// A question or a wish, and where the answer goes.
#[derive(Debug)]
pub enum Ask {
    /// Begin a cycle now.
    Train(oneshot::Sender<Began>),
    /// Tell of the services that were seen.
    Services(oneshot::Sender<Services>),
}

/// What came of asking for a cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Began {
    /// It has begun, on so many rows.
    Now {
        /// Labelled rows in the window.
        rows: usize,
    },
    /// It has not, for this reason.
    Not {
        /// Why, and what to do about it.
        why: String,
    },
}

impl Learner {
    /// Answers; whether a cycle has begun.
    pub(super) fn answer(&mut self, datapath: &Datapath, ask: Ask) -> Result<bool, LearningError> {
        match ask {
            Ask::Services(answer) => {
                // Who has gone away needs no answer; here and below.
                let _gone = answer.send(self.services()).is_err();
                Ok(false)
            }
            Ask::Train(answer) => {
                let began = self.train_now(datapath)?;
                let has_begun = matches!(began, Began::Now { .. });
                let _gone = answer.send(began).is_err();
                Ok(has_begun)
            }
        }
    }

    fn services(&self) -> Services {
        let window = &self.mind.window;
        let held = || window.held();
        let oldest_ns = held().map(|row| row.time_ns).min().unwrap_or(0);
        let newest_ns = held().map(|row| row.time_ns).max().unwrap_or(0);
        let shadow = self.mind.canary.as_ref().map(Canary::model);
        Services {
            schema: services::SCHEMA,
            rows: window.len() as u64,
            needed_rows: self.options.min_samples as u64,
            window_ms: (newest_ns - oldest_ns) / 1_000_000,
            sample_one_in: self.options.sample_one_in,
            acting: number(self.mind.running.as_deref()),
            shadow: shadow.map(|model| model.generation),
            services: services(held()),
        }
    }

    /// Begins a cycle that trains, unless that would cut short what is under way.
    fn train_now(&mut self, datapath: &Datapath) -> Result<Began, LearningError> {
        let (rows, needed) = (self.mind.window.len(), self.options.min_samples);
        let not = |why: String| Ok(Began::Not { why });
        if self.working.is_some() {
            return not(
                "a cycle is under way already; `treeline logs` shows what comes of it".to_owned(),
            );
        }
        self.follow(datapath)?;
        if let Some(canary) = &self.mind.canary {
            // A cycle that passes counts for its trial.
            return not(format!(
                "model {} is watched in the shadow, on {} fresh rows so far: it is judged at the end of a cycle that finds {} \
                 of them, and the next one is trained after that",
                canary.model().generation,
                canary.rows(),
                self.options.canary_rows
            ));
        }
        if rows < needed {
            return not(format!(
                "too few labelled samples yet: {rows} of {needed}; wait for more traffic, or lower min-samples"
            ));
        }
        self.begin_cycle(datapath)?;
        Ok(Began::Now { rows })
    }
}
