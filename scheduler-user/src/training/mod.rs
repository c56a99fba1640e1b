//! Rows → model, and the judgement whether it may act.

mod advantage;
mod catalog;
mod cuts;
mod decision_tree;
mod ensemble;
mod evaluate;
mod examples;
mod forecast;
mod insight;
mod judge;
mod library;
mod measures;
mod oblivious;
mod parameters;
mod parts;
mod prune;
mod rank;
mod search;
mod simple;
mod sway;

#[cfg(test)]
mod end_to_end;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod honesty;
#[cfg(test)]
mod made_up;
#[cfg(test)]
pub(crate) mod mixes;
#[cfg(test)]
mod sureness;

use crate::{dataset::Row, model::Model};

pub use advantage::Advantage;
pub use catalog::{Choice, TRAINERS, choice, trainer};
pub use cuts::{Recut, fit_cuts, recut};
pub use decision_tree::DecisionTree;
pub use ensemble::{Boosted, Forest, Variety};
pub use evaluate::{Accuracy, PredictorScores, Scores};
pub use examples::{SHORT_BYTES, short_weights};
pub use forecast::{Closed, Gains, LOADS, LoadGains, forecast};
pub use insight::{Dependence, DependencePoint, Importance, importances, partial_dependence};
pub(crate) use judge::is_undecided;
pub use judge::{JudgeLimits, Retirement, Verdict, judge, retire};
pub use measures::{BULK_BYTES, Bulk, Calibration, Lean};
pub use oblivious::Oblivious;
pub use parameters::Parameters;
pub use parts::{Parts, split};
pub use rank::rank_leaves;
pub use search::{
    Candidate, CandidateScore, Fold, SearchPlan, SearchProgress, SearchReport, search,
};
pub use simple::{Constant, PortOnly};

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
    /// The model is too large, and even its stumps are.
    #[error("the model can't be made to fit the table: {0}")]
    Table(String),
    /// Rows enough, but the later ones are of the same flows as the earlier.
    #[error(
        "too few of {rows} rows are of flows that were not seen before, so nothing can be foretold of them: \
         record for longer, or train without --search"
    )]
    TooFewFlows {
        /// Rows there are.
        rows: usize,
    },
    /// The learning library failed.
    #[error("the learning library failed: {0}")]
    Library(String),
    /// Its result does not have the shape that was tested.
    #[error("the learning library's tree has an unknown shape ({0}): pin its tested version")]
    Shape(String),
}
