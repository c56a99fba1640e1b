//! What a cycle works out on a thread of its own.

use std::time::Instant;

use scheduler_common::features::Feature;

use crate::{
    advice::Advice,
    canary::Trial,
    dataset::Row,
    model::Model,
    training::{
        DecisionTree, JudgeLimits, Parameters, Recut, Retirement, TrainError, Trainer as _,
        Verdict, fit_cuts, judge, recut, retire, split,
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

impl Work {
    /// Its name in metrics.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Try(_) => "try",
            Self::Watch => "watch",
        }
    }
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
    /// Other cuts for aging, where that rules and gains by them.
    pub(crate) recut: Option<Recut>,
    pub(crate) train_ms: u64,
}

/// What the thread brings back.
pub(crate) struct Cycle {
    pub(crate) outcome: Outcome,
    pub(crate) retirement: Option<Retirement>,
    /// The model that ran when it was judged.
    pub(crate) against: Option<u32>,
    /// What acting is worth, or would be.
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
    let taught = without_hearsay(&parts.train);
    let candidate = DecisionTree(Parameters::tree_of(taught.len())).train(&taught)?;
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

/// The rows without what all who use a service move together, so that no tree asks for it.
///
/// Whoever talks to a service shifts the mean of its messages within eight of them, and with it the answer that everybody
/// else gets from a model that was learned before: no care in what is learned from helps against that. The port tells
/// services apart as well, and what a network's own messages were no other network can reach.
fn without_hearsay(rows: &[Row]) -> Vec<Row> {
    let mut rows = rows.to_vec();
    for row in &mut rows {
        row.features[Feature::ServiceLog2Q8 as usize] = 0;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::samples;

    #[test]
    fn no_candidate_asks_for_what_strangers_move() {
        // Nothing but the service's mean tells the sizes apart.
        let rows: Vec<Row> = (0..2000)
            .map(|time| {
                let mut row = samples::row(time, time, 443);
                let is_long = time % 3 == 0;
                row.features[Feature::ServiceLog2Q8 as usize] = if is_long { 5000 } else { 2500 };
                row.remaining_bytes = if is_long { 3_000_000 } else { 20_000 };
                row.total_bytes = row.remaining_bytes + row.bytes_at;
                row
            })
            .collect();
        let trained = train(&rows, None, &JudgeLimits::default()).unwrap();
        assert_eq!(trained.candidate.summary().nodes, 1);
    }
}
