//! Better parameters by cross-validation that never looks ahead.
//!
//! Rolling origin (Tashman, International Journal of Forecasting 16, 2000): the window is cut in time, each part
//! is foretold from all before it. A flow is a session: one that taught does not judge.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{TrainError, catalog::choice, evaluate::evaluate, parameters::Parameters};
use crate::dataset::Row;

/// A trainer with parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Name of the trainer, as in [`super::TRAINERS`].
    pub trainer: String,
    /// What it is told.
    pub parameters: Parameters,
}

/// What to try, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchPlan {
    /// Simplest first: of two that are equally good the earlier is taken.
    pub candidates: Vec<Candidate>,
    /// Parts that are foretold, one after another.
    pub folds: usize,
    /// Held-out rows below which a part is left out.
    pub min_held_out: usize,
    /// Error relative to the best's up to which a simpler one is as good.
    pub tolerance: f64,
}

impl Default for SearchPlan {
    /// A small grid over all trainers but the rivals that know nothing.
    fn default() -> Self {
        let grid = [
            ("tree", [6, 8, 10], [10, 20, 50]),
            ("forest", [8, 10, 12], [3, 5, 10]),
            ("extra", [8, 10, 12], [3, 5, 10]),
            ("boosted", [4, 5, 6], [5, 10, 20]),
        ];
        let mut candidates = Vec::new();
        for (trainer, splits, leaves) in grid {
            let Some(choice) = choice(trainer) else {
                continue;
            };
            for splits in splits {
                candidates.extend(leaves.iter().rev().map(|min_leaf_rows| Candidate {
                    trainer: trainer.to_owned(),
                    parameters: Parameters {
                        splits,
                        min_leaf_rows: *min_leaf_rows,
                        ..choice.defaults
                    },
                }));
            }
        }
        Self {
            candidates,
            folds: 4,
            min_held_out: 50,
            tolerance: 1.005,
        }
    }
}

/// One part of the window, foretold from what came before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fold {
    /// First moment of the part.
    pub from_ns: u64,
    /// Rows before it.
    pub train_rows: usize,
    /// Rows of it, of flows that were not among those.
    pub held_out_rows: usize,
}

/// How a candidate did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CandidateScore {
    /// Who.
    #[serde(flatten)]
    pub candidate: Candidate,
    /// Root mean square error over all parts, log2 units; none if it could not be trained.
    pub rmse_log2: Option<f64>,
    /// Explained share of the variance, part by part.
    pub r2: Vec<f64>,
    /// Why it could not be trained.
    pub error: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SearchReport {
    /// Rows of the window.
    pub rows: usize,
    /// The parts.
    pub folds: Vec<Fold>,
    /// Every candidate, in the plan's order.
    pub scores: Vec<CandidateScore>,
    /// Index of the one to take.
    pub best: usize,
}

impl SearchReport {
    /// The one to take.
    pub fn winner(&self) -> &Candidate {
        &self.scores[self.best].candidate
    }
}

/// A step of the search, for whoever waits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchProgress<'a> {
    /// Candidates done, this one included.
    pub done: usize,
    /// Candidates in all.
    pub of: usize,
    /// How the latest did.
    pub latest: &'a CandidateScore,
}

/// Tries every candidate; the same rows and plan give the same report.
///
/// # Errors
/// The rows are too few, or of too few flows, for even one part; or no candidate could be trained.
pub fn search(
    rows: &[Row],
    plan: &SearchPlan,
    mut progress: impl FnMut(SearchProgress<'_>),
) -> Result<SearchReport, TrainError> {
    let parts = parts(rows, plan);
    let needed = plan.min_held_out * (plan.folds + 1);
    if parts.is_empty() && rows.len() >= needed {
        return Err(TrainError::TooFewFlows { rows: rows.len() });
    }
    if parts.is_empty() {
        return Err(TrainError::TooFewRows {
            rows: rows.len(),
            needed,
        });
    }
    let mut scores = Vec::with_capacity(plan.candidates.len());
    for candidate in &plan.candidates {
        let score = score(candidate, &parts);
        progress(SearchProgress {
            done: scores.len() + 1,
            of: plan.candidates.len(),
            latest: &score,
        });
        scores.push(score);
    }
    let errors = || {
        scores
            .iter()
            .map(|score| score.rmse_log2.unwrap_or(f64::INFINITY))
    };
    let least = errors().fold(f64::INFINITY, f64::min);
    let best = errors().position(|error| error.is_finite() && error <= least * plan.tolerance);
    let Some(best) = best else {
        let why = scores.into_iter().find_map(|score| score.error);
        return Err(TrainError::Library(
            why.unwrap_or_else(|| "nothing to try".to_owned()),
        ));
    };
    Ok(SearchReport {
        rows: rows.len(),
        folds: parts.into_iter().map(|(fold, ..)| fold).collect(),
        scores,
        best,
    })
}

type Part = (Fold, Vec<Row>, Vec<Row>);

/// The parts with their training and held-out rows; those that would judge on too little left out.
fn parts(rows: &[Row], plan: &SearchPlan) -> Vec<Part> {
    let mut ordered = rows.to_vec();
    ordered.sort_by_key(|row| (row.time_ns, row.flow_hash, row.half, row.message));
    let mut parts = Vec::new();
    for fold in 1..=plan.folds {
        let place = |part: usize| ordered.len() * part / (plan.folds + 1);
        let Some(from_ns) = ordered.get(place(fold)).map(|row| row.time_ns) else {
            continue;
        };
        let end_ns = ordered
            .get(place(fold + 1))
            .map_or(u64::MAX, |row| row.time_ns);
        let train: Vec<Row> = before(&ordered, from_ns);
        let taught: HashSet<u64> = train.iter().map(|row| row.flow_hash).collect();
        let judges = |row: &&Row| {
            (from_ns..end_ns).contains(&row.time_ns)
                && !row.censored
                && !taught.contains(&row.flow_hash)
        };
        let held_out: Vec<Row> = ordered.iter().filter(judges).copied().collect();
        if held_out.len() >= plan.min_held_out && !train.is_empty() {
            let fold = Fold {
                from_ns,
                train_rows: train.len(),
                held_out_rows: held_out.len(),
            };
            parts.push((fold, train, held_out));
        }
    }
    parts
}

fn before(ordered: &[Row], from_ns: u64) -> Vec<Row> {
    let end = ordered.partition_point(|row| row.time_ns < from_ns);
    ordered[..end].to_vec()
}

fn score(candidate: &Candidate, parts: &[Part]) -> CandidateScore {
    let mut found = CandidateScore {
        candidate: candidate.clone(),
        rmse_log2: None,
        r2: Vec::new(),
        error: None,
    };
    let Some(choice) = choice(&candidate.trainer) else {
        found.error = Some(format!("there is no trainer `{}`", candidate.trainer));
        return found;
    };
    let trainer = choice.with(candidate.parameters);
    let (mut squares, mut count) = (0.0, 0.0);
    for (_, train, held_out) in parts {
        match trainer.train(train) {
            Ok(model) => {
                let all = evaluate(&model, held_out).all;
                squares += all.rmse_log2.powi(2) * all.rows as f64;
                count += all.rows as f64;
                found.r2.push(all.r2);
            }
            Err(error) => {
                found.error = Some(error.to_string());
                return found;
            }
        }
    }
    found.rmse_log2 = Some((squares / count).sqrt());
    found
}

#[cfg(test)]
mod tests {
    use super::{
        super::end_to_end::{host_rows, ordinary},
        *,
    };

    fn small_plan() -> SearchPlan {
        let candidate = |trainer: &str, splits| Candidate {
            trainer: trainer.to_owned(),
            parameters: Parameters {
                splits,
                ..choice(trainer).unwrap().defaults
            },
        };
        SearchPlan {
            candidates: vec![
                candidate("constant", 1),
                candidate("port", 4),
                candidate("tree", 1),
                candidate("tree", 6),
            ],
            ..SearchPlan::default()
        }
    }

    #[test]
    fn what_foretells_best_is_found_and_told_step_by_step() {
        let rows = host_rows(ordinary, 600, 3);
        let mut told = Vec::new();
        let report = search(&rows, &small_plan(), |step| told.push((step.done, step.of))).unwrap();
        assert_eq!(report.winner(), &small_plan().candidates[3]);
        assert_eq!(told, [(1, 4), (2, 4), (3, 4), (4, 4)]);
        assert_eq!(report, search(&rows, &small_plan(), |_| {}).unwrap());
        assert!(report.scores[3].r2.iter().all(|r2| *r2 > 0.8), "{report:?}");
    }

    #[test]
    fn no_part_knows_its_future_nor_a_flow_of_its_own() {
        let rows = host_rows(ordinary, 300, 5);
        for (fold, train, held_out) in parts(&rows, &small_plan()) {
            assert!(train.iter().all(|row| row.time_ns < fold.from_ns));
            assert!(held_out.iter().all(|row| row.time_ns >= fold.from_ns));
            let taught: HashSet<u64> = train.iter().map(|row| row.flow_hash).collect();
            assert!(held_out.iter().all(|row| !taught.contains(&row.flow_hash)));
        }
        assert_eq!(parts(&rows, &small_plan()).len(), 4);
    }

    #[test]
    fn of_equals_the_simpler_is_taken() {
        let mut plan = small_plan();
        plan.candidates.push(plan.candidates[3].clone());
        plan.candidates[4].parameters.splits = 7;
        let rows = host_rows(ordinary, 600, 3);
        assert_eq!(search(&rows, &plan, |_| {}).unwrap().best, 3);
    }

    #[test]
    fn too_few_rows_are_an_error() {
        let rows = host_rows(ordinary, 5, 3);
        assert!(matches!(
            search(&rows, &small_plan(), |_| {}),
            Err(TrainError::TooFewRows { .. })
        ));
    }
}
