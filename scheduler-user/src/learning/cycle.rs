//! What a cycle works out on a thread of its own.

use std::time::Instant;

use crate::{
    canary::Trial,
    dataset::Row,
    model::Model,
    training::{
        DecisionTree, JudgeLimits, Parameters, Recut, Retirement, TrainError, Trainer as _,
        Verdict, fit_cuts, judge, recut, retire, split,
    },
};

/// What is to be worked out.
pub(super) enum Work {
    /// Train a candidate on the window, and judge it.
    Train,
    /// Judge the candidate in the shadow on what it was watched on.
    Try(Box<Trial>),
    /// Only judge what acts.
    Watch,
}

/// What came of it.
pub(super) enum Outcome {
    Trained(Result<Box<Trained>, TrainError>),
    /// Nothing, where there was too little to judge by.
    Tried(Option<Box<Verdict>>),
    Watched,
}

/// A candidate and what the judge says.
pub(super) struct Trained {
    pub(super) candidate: Model,
    pub(super) verdict: Verdict,
    /// Other cuts for aging, where that rules and gains by them.
    pub(super) recut: Option<Recut>,
    pub(super) train_ms: u64,
}

/// What the thread brings back.
pub(super) struct Cycle {
    pub(super) outcome: Outcome,
    pub(super) retirement: Option<Retirement>,
    /// The model that ran when it was judged.
    pub(super) against: Option<u32>,
}

/// Does the work on the window's rows, and judges the running model on the later of them.
pub(super) fn work(
    work: Work,
    rows: &[Row],
    running: Option<&Model>,
    limits: &JudgeLimits,
) -> Cycle {
    let outcome = match work {
        Work::Train => Outcome::Trained(train(rows, running, limits).map(Box::new)),
        Work::Try(trial) => Outcome::Tried(trial.judge(running, limits).map(Box::new)),
        Work::Watch => Outcome::Watched,
    };
    Cycle {
        outcome,
        retirement: running.map(|running| retire(running, rows, limits)),
        against: running.map(|running| running.generation),
    }
}

fn train(
    rows: &[Row],
    running: Option<&Model>,
    limits: &JudgeLimits,
) -> Result<Trained, TrainError> {
    let parts = split(rows, limits);
    let started = Instant::now();
    let parameters = Parameters::tree_of(parts.train.len());
    let candidate = DecisionTree(parameters).train(&parts.train)?;
    let train_ms = started.elapsed().as_millis() as u64;
    // One that does not fit the table is refused by the judge, who says why.
    let candidate = fit_cuts(candidate.clone(), &parts.train, limits).unwrap_or(candidate);
    let verdict = judge(&candidate, running, &parts, limits);
    let for_aging = candidate.aging_thresholds.filter(|_| running.is_none());
    let recut = for_aging.and_then(|cuts| recut(cuts, &parts.held_out, limits));
    Ok(Trained {
        candidate,
        verdict,
        recut,
        train_ms,
    })
}
