//! A candidate in the shadow: watched on fresh traffic before it may act.

use std::sync::Arc;

use scheduler_common::tree::Table;

use crate::{
    dataset::{Row, Window},
    model::{CompileError, Model, compile},
    training::{JudgeLimits, Parts, Verdict, is_undecided, judge},
};

/// Fresh rows that are kept at most, the first ones: what a trial needs, and bounded memory.
const MOST_ROWS: usize = 100_000;

/// Cycles after which a candidate that met too little traffic is given up, so that a fresh one gets its turn.
const PATIENCE_CYCLES: u32 = 20;

/// A candidate that the kernel asks beside what acts.
#[derive(Debug)]
pub struct Canary {
    model: Arc<Model>,
    table: Box<Table>,
    rows_needed: usize,
    rows: Vec<Row>,
    cycles: u32,
    misread: Option<Row>,
}

/// Whether there is something to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Enough fresh rows: judge it.
    Ready,
    /// Too few as yet.
    Waits,
    /// Too few for too long.
    Stale,
}

impl Canary {
    /// A candidate that was put in the shadow, and is tried on `rows_needed` rows and a cycle at least.
    ///
    /// # Errors
    /// If it does not fit the kernel's table.
    pub fn new(model: Model, rows_needed: usize) -> Result<Self, CompileError> {
        Ok(Self {
            table: compile(&model)?,
            model: Arc::new(model),
            rows_needed,
            rows: Vec::new(),
            cycles: 0,
            misread: None,
        })
    }

    /// The candidate.
    pub const fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Fresh rows so far.
    pub const fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Takes in a row, if the kernel asked the candidate for it.
    pub fn see(&mut self, row: &Row) {
        if row.shadow_generation != self.model.generation {
            return;
        }
        let own = self.table.walk(&row.features);
        if own.map(|leaf| u32::from(leaf.log2_q8)) != Some(row.shadow_log2_q8) {
            self.misread.get_or_insert(*row);
        }
        if self.rows.len() < MOST_ROWS {
            self.rows.push(*row);
        }
    }

    /// Forgets what was before a change of the traffic: all of it, or what is `of` one far network.
    pub fn forget_before(&mut self, time_ns: u64, of: Option<u32>) {
        (self.rows)
            .retain(|row| row.time_ns >= time_ns || of.is_some_and(|of| of != row.network_hash));
    }

    /// Lets a cycle pass.
    pub const fn pass_cycle(&mut self) -> Readiness {
        self.cycles += 1;
        if self.cycles > PATIENCE_CYCLES {
            Readiness::Stale
        } else if self.rows.len() >= self.rows_needed {
            Readiness::Ready
        } else {
            Readiness::Waits
        }
    }

    /// What a trial needs, to be judged on another thread.
    ///
    /// Should it not decide, the next one waits for as many rows again: who looks often enough sees a gain by chance.
    pub fn trial(&mut self, earlier: Vec<Row>) -> Trial {
        self.rows_needed = (2 * self.rows.len()).min(MOST_ROWS);
        Trial {
            model: Arc::clone(&self.model),
            parts: Parts {
                train: earlier,
                held_out: self.rows.clone(),
            },
            misread: self.misread,
            is_last: self.rows.len() >= MOST_ROWS,
        }
    }
}

/// A candidate and the fresh rows that decide on it.
#[derive(Debug)]
pub struct Trial {
    model: Arc<Model>,
    parts: Parts,
    misread: Option<Row>,
    /// No more rows will be kept.
    is_last: bool,
}

impl Trial {
    /// Lets those rows judge that `window` would let: no crowd of newcomers outvotes the rest.
    #[must_use]
    pub fn bounded_by(mut self, window: &Window) -> Self {
        let heeded = window.heeded_of(self.parts.held_out);
        self.parts.held_out = heeded.judging(heeded.rows());
        self
    }

    /// Judges the candidate on the fresh rows by the judge's own measures, against what acts now.
    ///
    /// It has won once already; what is asked here is whether it goes on winning. So its gain need not be as sure as then,
    /// but where it surely has none the try is its last. `None` while the rows are of too few messages to tell.
    pub fn judge(&self, running: Option<&Model>, limits: &JudgeLimits) -> Option<Verdict> {
        let limits = JudgeLimits {
            sure: limits.still_sure,
            promising: limits.still_sure,
            ..*limits
        };
        let verdict = judge(&self.model, running, &self.parts, &limits);
        match self.misread {
            Some(row) => Some(Verdict {
                accepted: false,
                reason: format!(
                    "the kernel's answer in the shadow, {:.2}, is not that of the model",
                    f64::from(row.shadow_log2_q8) / 256.0
                ),
                ..verdict
            }),
            // Nothing was replayed.
            None if verdict.scores.gains.is_none() => None,
            None if !self.is_last && is_undecided(&verdict, &limits) => None,
            None => Some(verdict),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
    use scheduler_common::features::Feature;

    use super::*;
    use crate::{
        dataset::samples,
        training::{DecisionTree, Trainer as _},
    };

    /// Rows of large replies at one port and small ones at the other, as the kernel reports them beside `model`.
    fn rows(count: u64, large_port: u32, model: Option<&Model>) -> Vec<Row> {
        let table = model.map(|model| (model.generation, compile(model).unwrap()));
        let mut random = StdRng::seed_from_u64(count);
        let mut time_ns = 0;
        let mut rows = Vec::new();
        for flow in 0..count {
            time_ns += random.random_range(0..10_000_000);
            let port = [80, 80, 80, 5201][random.random_range(0..4usize)];
            let total: u64 = if port == large_port {
                3_000_000
            } else {
                400_000
            };
            let mut bytes = 1448;
            while bytes < total {
                let mut row = samples::row(flow, time_ns + bytes, port);
                (row.bytes_at, row.total_bytes) = (bytes, total);
                row.remaining_bytes = total - bytes;
                row.features[Feature::MessageBytes as usize] = bytes as u32;
                row.features[Feature::PacketBytes as usize] = 1448;
                if let Some((generation, table)) = &table {
                    row.shadow_generation = *generation;
                    row.shadow_log2_q8 = u32::from(table.walk(&row.features).unwrap().log2_q8);
                }
                rows.push(row);
                bytes *= 2;
            }
        }
        rows
    }

    fn candidate() -> Model {
        let mut model = DecisionTree::default()
            .train(&rows(800, 5201, None))
            .unwrap();
        model.generation = 9;
        model
    }

    fn tried(large_port: u32) -> Verdict {
        let model = candidate();
        let mut canary = Canary::new(model.clone(), 100).unwrap();
        for row in rows(800, large_port, Some(&model)) {
            canary.see(&row);
        }
        assert_eq!(canary.pass_cycle(), Readiness::Ready);
        let limits = JudgeLimits::of_rate(100_000_000);
        let trial = canary.trial(rows(800, 5201, None));
        trial.judge(None, &limits).unwrap()
    }

    #[test]
    fn it_passes_where_fresh_traffic_is_as_it_was() {
        let verdict = tried(5201);
        assert!(verdict.accepted, "{}", verdict.reason);
    }

    #[test]
    fn it_fails_where_fresh_traffic_has_turned_over() {
        let verdict = tried(80);
        assert!(!verdict.accepted, "{}", verdict.reason);
        assert!(verdict.reason.contains("aging"), "{}", verdict.reason);
    }

    #[test]
    fn rows_of_others_do_not_count_and_patience_ends() {
        let mut canary = Canary::new(candidate(), 10).unwrap();
        for row in rows(10, 5201, None) {
            canary.see(&row);
        }
        assert_eq!(canary.rows(), 0);
        for _ in 0..PATIENCE_CYCLES {
            assert_eq!(canary.pass_cycle(), Readiness::Waits);
        }
        assert_eq!(canary.pass_cycle(), Readiness::Stale);
    }

    #[test]
    fn rows_of_few_messages_are_no_verdict() {
        let model = candidate();
        let mut canary = Canary::new(model.clone(), 10).unwrap();
        for row in rows(20, 5201, Some(&model)) {
            canary.see(&row);
        }
        assert_eq!(canary.pass_cycle(), Readiness::Ready);
        let trial = canary.trial(rows(800, 5201, None));
        assert_eq!(trial.judge(None, &JudgeLimits::default()), None);
    }

    #[test]
    fn rows_before_a_change_are_forgotten() {
        let model = candidate();
        let mut canary = Canary::new(model.clone(), 10).unwrap();
        for row in rows(10, 5201, Some(&model)) {
            canary.see(&row);
        }
        let all = canary.rows();
        canary.forget_before(25_000_000, None);
        assert!(
            (1..all).contains(&canary.rows()),
            "{} of {all}",
            canary.rows()
        );
        assert!(
            canary
                .trial(Vec::new())
                .parts
                .held_out
                .iter()
                .all(|row| row.time_ns >= 25_000_000)
        );
    }

    #[test]
    fn an_answer_of_the_kernel_that_is_not_the_models_ends_it() {
        let model = candidate();
        let mut canary = Canary::new(model.clone(), 10).unwrap();
        let mut fresh = rows(800, 5201, Some(&model));
        fresh[7].shadow_log2_q8 += 1;
        for row in &fresh {
            canary.see(row);
        }
        let limits = JudgeLimits::of_rate(100_000_000);
        let trial = canary.trial(rows(800, 5201, None));
        let verdict = trial.judge(None, &limits).unwrap();
        assert!(!verdict.accepted && verdict.reason.contains("not that of the model"));
    }
}
