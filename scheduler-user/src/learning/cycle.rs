//! What a cycle works out on a thread of its own.

use std::time::Instant;

use crate::{
    advice::Advice,
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
    /// What acting would be worth, where nothing is to act.
    pub(crate) advice: Option<Advice>,
}

impl Cycle {
    /// Adds what the candidate would be worth if it may act, else `acting`, else aging.
    pub(crate) fn advise(&mut self, rows: &[Row], acting: Option<&Model>, limits: &JudgeLimits) {
        let fresh = match &self.outcome {
            Outcome::Trained(Ok(trained)) if acting.is_none() => {
                let Trained {
                    candidate, verdict, ..
                } = &**trained;
                let may_act = verdict.accepted.then_some(candidate);
                Advice::of(rows, may_act, limits)
                    .map(|advice| advice.because(verdict.accepted, &verdict.reason))
            }
            _ => Advice::of(rows, acting, limits).map(|advice| {
                let accepted = acting.is_some();
                let reason = match acting {
                    Some(model) => {
                        format!("the judge has accepted generation {}", model.generation)
                    }
                    None => "too little was seen to learn from".to_owned(),
                };
                advice.because(accepted, &reason)
            }),
        };
        self.advice = fresh;
    }
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
        advice: None,
    }
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
    Ok(Trained {
        candidate,
        verdict,
        train_ms,
    })
}
