//! What a cycle works out on a thread of its own.

use std::time::Instant;

use scheduler_common::features::Feature;

use crate::{
    advice::Advice,
    canary::Trial,
    dataset::{Heeded, Row},
    model::Model,
    training::{
        DecisionTree, JudgeLimits, Parameters, Recut, Retirement, TrainError, Trainer as _,
        Verdict, fit_cuts, judge, rank_leaves, recut, retire, split,
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
    heeded: &Heeded,
    running: Option<&Model>,
    limits: &JudgeLimits,
) -> Cycle {
    let outcome = match work {
        Work::Train => Outcome::Trained(train(heeded, running, limits).map(Box::new)),
        Work::Try(trial) => Outcome::Tried(trial.judge(running, limits).map(Box::new)),
        Work::Watch => Outcome::Watched,
    };
    let judging = heeded.judging(heeded.rows());
    Cycle {
        outcome,
        retirement: running.map(|running| retire(running, &judging, limits)),
        against: running.map(|running| running.generation),
        advice: None,
    }
}

fn train(
    heeded: &Heeded,
    running: Option<&Model>,
    limits: &JudgeLimits,
) -> Result<Trained, TrainError> {
    let mut parts = split(heeded.rows(), limits);
    parts.held_out = heeded.judging(&parts.held_out);
    let started = Instant::now();
    let taught = without_hearsay(&parts.train);
    let candidate = DecisionTree(Parameters::tree_of(taught.len())).train(&taught)?;
    let candidate = rank_leaves(candidate, &taught);
    let train_ms = started.elapsed().as_millis() as u64;
    // Cuts are searched in a replay, where who may not judge could outvote the rest. A candidate that does not fit the table
    // is refused by the judge, who says why.
    let cut_by = heeded.judging(&parts.train);
    let candidate = fit_cuts(candidate.clone(), &cut_by, limits).unwrap_or(candidate);
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

    /// `cargo test --release -p treeline --lib -- --ignored --nocapture where_a_cycle_s_time_goes`
    #[test]
    #[ignore = "prints how long the parts of a cycle take"]
    fn where_a_cycle_s_time_goes() {
        use crate::{
            simulate::cdf::Cdf,
            training::mixes::{Hangs, host},
        };
        let cdf = Cdf::pareto(0.3, (5_000.0, 30e6));
        let mut rows = host(&cdf, Hangs::Request, (11_000, 0.05, 1));
        rows.truncate(100_000);
        let limits = JudgeLimits::of_rate(200_000_000);
        let mut parts_ms: [Vec<f64>; 5] = Default::default();
        for _ in 0..10 {
            let mut clock = Instant::now();
            let mut lap = |part: usize| {
                let passed = std::mem::replace(&mut clock, Instant::now()).elapsed();
                parts_ms[part].push(passed.as_secs_f64() * 1e3);
            };
            let parts = split(&rows, &limits);
            lap(0);
            let taught = without_hearsay(&parts.train);
            let parameters = Parameters::tree_of(taught.len());
            let candidate = DecisionTree(parameters).train(&taught).unwrap();
            let candidate = rank_leaves(candidate, &taught);
            lap(1);
            let candidate = fit_cuts(candidate, &parts.train, &limits).unwrap();
            lap(2);
            let verdict = judge(&candidate, None, &parts, &limits);
            lap(3);
            retire(&candidate, &rows, &limits);
            lap(4);
            assert!(verdict.accepted, "{}", verdict.reason);
        }
        for (name, ms) in ["split", "train", "cuts", "judge", "watch"]
            .iter()
            .zip(&mut parts_ms)
        {
            ms.sort_by(f64::total_cmp);
            println!(
                "{name}: least {:.0} ms, median {:.0} ms",
                ms[0],
                ms[ms.len() / 2]
            );
        }
        println!("{} rows", rows.len());
    }

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
        let trained = train(&rows.into(), None, &JudgeLimits::default()).unwrap();
        assert_eq!(trained.candidate.summary().nodes, 1);
    }
}
