//! What a cycle works out on a thread of its own.

use std::time::Instant;

use crate::{
    canary::Trial,
    dataset::Row,
    model::Model,
    training::{
        DecisionTree, JudgeLimits, Retirement, TrainError, Trainer as _, Verdict, judge, retire,
        split,
    },
};

/// What is to be worked out.
pub(crate) enum Work {
    /// Train a candidate on the window, and judge it.
    Train,
    /// Judge the candidate in the shadow on what it was watched on.
    Try(Box<Trial>),
    /// Only judge what acts.
    Watch,
}

/// What came of it.
pub(crate) enum Outcome {
    Trained(Result<Box<Trained>, TrainError>),
    /// Nothing, where there was too little to judge by.
    Tried(Option<Box<Verdict>>),
    Watched,
}

/// A candidate and what the judge says.
pub(crate) struct Trained {
    pub(crate) candidate: Model,
    pub(crate) verdict: Verdict,
    pub(crate) train_ms: u64,
}

/// What the thread brings back.
pub(crate) struct Cycle {
    pub(crate) outcome: Outcome,
    pub(crate) retirement: Option<Retirement>,
    /// The model that ran when it was judged.
    pub(crate) against: Option<u32>,
}

/// Does the work on the window's rows, and judges the running model on the later of them.
pub(crate) fn work(
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
    let mut taught = parts.train.clone();
    for row in &mut taught {
        if std::env::var("NOSVC").is_ok() {
            row.features[scheduler_common::features::Feature::ServiceLog2Q8 as usize] = 0;
        }
        if std::env::var("NOPEER").is_ok() {
            row.features[scheduler_common::features::Feature::PeerLog2Q8 as usize] = 0;
        }
    }
    let candidate = DecisionTree::default().train(&taught)?;
    let train_ms = started.elapsed().as_millis() as u64;
    let verdict = judge(&candidate, running, &parts, limits);
    Ok(Trained {
        candidate,
        verdict,
        train_ms,
    })
}
