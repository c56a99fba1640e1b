//! Rows → model, and the judgement whether it may act.

mod advantage;
mod decision_tree;
mod evaluate;
mod forecast;
mod judge;
mod measures;
mod parts;

#[cfg(test)]
mod end_to_end;
#[cfg(test)]
mod honesty;
#[cfg(test)]
mod mixes;
#[cfg(test)]
mod oblivious;

use crate::{dataset::Row, model::Model};

pub use advantage::Advantage;
pub use decision_tree::DecisionTree;
pub use evaluate::{Accuracy, PredictorScores, Scores};
pub use forecast::{Closed, Gains, LOADS, LoadGains, forecast};
pub use judge::{JudgeLimits, Retirement, Verdict, judge, retire};
pub use measures::{BULK_BYTES, Bulk, Calibration, Lean};
pub use parts::{Parts, split};

/// Something that learns to predict log2(floor + bytes to come).
pub trait Trainer: Send + Sync {
    /// Name in models and logs.
    fn name(&self) -> &'static str;

    /// Learns from `rows`; the same rows in the same order give the same model.
    ///
    /// # Errors
    /// There are too few rows, or the library refuses.
    fn train(&self, rows: &[Row]) -> Result<Model, TrainError>;
}

/// Why there is no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrainError {
    /// Not enough to learn from yet.
    #[error("{rows} rows are too few to train on, {needed} are needed: wait for more traffic")]
    TooFewRows {
        /// Rows there are.
        rows: usize,
        /// Rows needed.
        needed: usize,
    },
    /// The learning library failed.
    #[error("the learning library failed: {0}")]
    Library(String),
    /// Its result does not have the shape that was tested.
    #[error("the learning library's tree has an unknown shape ({0}): pin its tested version")]
    Shape(String),
}
