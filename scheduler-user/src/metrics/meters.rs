//! What the agent measures about itself, kept from scrape to scrape.

use std::{
    sync::{Arc, Mutex, atomic::AtomicU64},
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use scheduler_common::sample::Hook;

use super::catalog;
use crate::{
    dataset::{JoinCounts, Row},
    journal::decisions::Step,
    model::Model,
    training::Advantage,
};

/// A gauge of a fraction.
pub(super) type Level = Gauge<f64, AtomicU64>;
type Histograms<Labels> = Family<Labels, Histogram, fn() -> Histogram>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct OfBand {
    pub(super) interface: String,
    pub(super) band: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfStep {
    step: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfWork {
    work: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfRival {
    over: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfLabel {
    label: &'static str,
}

/// The agent's own measures; a clone is another hand on the same ones.
#[derive(Clone, Debug)]
pub struct Meters {
    prediction_ratio: Histogram,
    training: Histogram,
    cycles: Histograms<OfWork>,
    band_delay: Histograms<OfBand>,
    decisions: Family<OfStep, Counter>,
    gain: Family<OfRival, Level>,
    gain_error: Family<OfRival, Level>,
    accepted_gain: Family<OfRival, Level>,
    window: Gauge,
    shadow: Gauge,
    waiting: Gauge,
    joined: Arc<Mutex<JoinCounts>>,
}

impl Default for Meters {
    fn default() -> Self {
        let decisions = Family::default();
        for step in Step::NAMES {
            // What has not happened yet stands at 0, so that its first time is an increase.
            let _at_zero: Counter = decisions.get_or_create_owned(&OfStep { step });
        }
        Self {
            // From a thousandth to a thousand times as much.
            prediction_ratio: Histogram::new(exponential_buckets(1.0 / 1024.0, 2.0, 21)),
            training: durations(),
            cycles: Family::new_with_constructor(durations),
            band_delay: Family::new_with_constructor(delays),
            decisions,
            gain: Family::default(),
            gain_error: Family::default(),
            accepted_gain: Family::default(),
            window: Gauge::default(),
            shadow: Gauge::default(),
            waiting: Gauge::default(),
            joined: Arc::default(),
        }
    }
}

/// 4 ms to a minute.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(1.0 / 256.0, 2.0, 15))
}

/// Half a millisecond, which a look at the queues can't resolve, to 8 s.
fn delays() -> Histogram {
    Histogram::new(exponential_buckets(1.0 / 2048.0, 2.0, 15))
}

impl Meters {
    /// Takes in rows with labels, those of one message together.
    pub(crate) fn saw(&self, rows: &[Row]) {
        let message = |row: &Row| (row.flow_hash, row.half, row.message, row.hook as u8);
        for rows in rows.chunk_by(|a, b| message(a) == message(b)) {
            let predicted = |row: &&Row| row.hook == Hook::Egress && row.generation != 0;
            if let Some(first) = rows.iter().find(predicted) {
                let log2 = f64::from(first.predicted_log2_q8) / 256.0 - first.target();
                self.prediction_ratio.observe(log2.exp2());
            }
        }
    }

    /// Notes what has become of the samples so far, and how many wait.
    pub(crate) fn joined(&self, counts: JoinCounts, waiting: usize) {
        *self
            .joined
            .lock()
            .unwrap_or_else(|broken| broken.into_inner()) = counts;
        self.waiting.set(whole(waiting as u64));
    }

    /// Rows that there are to learn from.
    pub(crate) fn held(&self) -> u64 {
        u64::try_from(self.window.get()).unwrap_or(0)
    }

    /// Notes how many rows there are to learn from, and to try the candidate in the shadow on.
    pub(crate) fn holds(&self, window: usize, shadow: usize) {
        self.window.set(whole(window as u64));
        self.shadow.set(whole(shadow as u64));
    }

    /// Notes how long learning took.
    pub(crate) fn trained(&self, train_ms: u64) {
        self.training.observe(train_ms as f64 / 1000.0);
    }

    /// Notes how long a cycle took.
    pub(crate) fn cycled(&self, work: &'static str, took: Duration) {
        let cycles = self.cycles.get_or_create(&OfWork { work });
        cycles.observe(took.as_secs_f64());
    }

    /// Counts a step about models.
    pub(crate) fn decided(&self, step: &Step) {
        let step = step.name();
        self.decisions.get_or_create(&OfStep { step }).inc();
    }

    /// Notes which model acts, and that nothing fresh is known of it.
    pub(crate) fn acts(&self, model: Option<&Model>) {
        for family in [&self.gain, &self.gain_error, &self.accepted_gain] {
            family.clear();
        }
        let scores = model.and_then(|model| model.scores.as_ref());
        for (over, advantage) in scores.iter().flat_map(|scores| &scores.advantages) {
            let over = over.clone();
            let gain = self.accepted_gain.get_or_create_owned(&OfRival { over });
            gain.set(advantage.gain.exp_m1());
        }
    }

    /// Notes what the acting model still wins over aging.
    pub(crate) fn gains(&self, advantage: &Advantage) {
        let of = OfRival {
            over: "aging".to_owned(),
        };
        let (gain, error) = (advantage.gain.exp_m1(), advantage.standard_error.exp_m1());
        self.gain.get_or_create(&of).set(gain);
        self.gain_error.get_or_create(&of).set(error);
    }

    /// Notes how long a packet had to wait in a band.
    pub(super) fn waited(&self, interface: &str, band: u8, wait: Duration) {
        let of = OfBand {
            interface: interface.to_owned(),
            band: band.into(),
        };
        self.band_delay
            .get_or_create(&of)
            .observe(wait.as_secs_f64());
    }

    /// Adds all of it to what is written.
    pub(super) fn register(&self, registry: &mut Registry) {
        catalog::PREDICTION_RATIO.register(registry, self.prediction_ratio.clone());
        catalog::TRAINING.register(registry, self.training.clone());
        catalog::CYCLE.register(registry, self.cycles.clone());
        catalog::BAND_DELAY.register(registry, self.band_delay.clone());
        catalog::DECISIONS.register(registry, self.decisions.clone());
        catalog::MODEL_GAIN.register(registry, self.gain.clone());
        catalog::MODEL_GAIN_ERROR.register(registry, self.gain_error.clone());
        catalog::MODEL_ACCEPTED_GAIN.register(registry, self.accepted_gain.clone());
        catalog::WINDOW.register(registry, self.window.clone());
        catalog::SHADOW_ROWS.register(registry, self.shadow.clone());
        catalog::WAITING.register(registry, self.waiting.clone());
        let JoinCounts {
            labelled,
            labelled_by_table,
            censored_full,
            censored_old,
            censored_restarted,
            censored_last,
            ..
        } = self.join_counts();
        let rows = Family::<OfLabel, Counter>::default();
        let censored = censored_full + censored_old + censored_restarted + censored_last;
        for (label, count) in [
            ("ended", labelled.saturating_sub(labelled_by_table)),
            ("read_in_table", labelled_by_table),
            ("censored", censored),
        ] {
            rows.get_or_create(&OfLabel { label }).inc_by(count);
        }
        catalog::ROWS.register(registry, rows);
    }

    /// What has become of the samples so far.
    pub(super) fn join_counts(&self) -> JoinCounts {
        *self
            .joined
            .lock()
            .unwrap_or_else(|broken| broken.into_inner())
    }
}

pub(super) fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;
    use crate::dataset::samples;

    fn written(meters: &Meters) -> String {
        let mut registry = Registry::default();
        meters.register(&mut registry);
        let mut body = String::new();
        text::encode(&mut body, &registry).unwrap();
        body
    }

    /// A row of a message of `total` bytes, predicted to have `to_come` still to come.
    fn row(message: u32, bytes_at: u64, total: u64, to_come: f64) -> Row {
        Row {
            message,
            bytes_at,
            total_bytes: total,
            remaining_bytes: total - bytes_at,
            generation: 3,
            predicted_log2_q8: ((to_come + 4096.0).log2() * 256.0).round() as u32,
            ..samples::row(7, bytes_at, 443)
        }
    }

    #[test]
    fn a_message_counts_once_where_it_was_first_predicted() {
        let meters = Meters::default();
        let unpredicted = Row {
            generation: 0,
            ..row(1, 1000, 1_000_000, 0.0)
        };
        meters.saw(&[
            unpredicted,
            // Twice what came.
            row(1, 4000, 1_000_000, 2_000_000.0),
            row(1, 8000, 1_000_000, 1_000_000.0),
            // A quarter of what came.
            row(2, 2000, 1_000_000, 250_000.0),
            Row {
                hook: Hook::Ingress,
                ..row(3, 2000, 1_000_000, 1.0)
            },
        ]);
        let text = written(&meters);
        for line in [
            "treeline_prediction_ratio_count 2",
            "treeline_prediction_ratio_bucket{le=\"0.125\"} 0",
            "treeline_prediction_ratio_bucket{le=\"0.5\"} 1",
            "treeline_prediction_ratio_bucket{le=\"1.0\"} 1",
            "treeline_prediction_ratio_bucket{le=\"4.0\"} 2",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}:\n{text}");
        }
    }

    #[test]
    fn gains_are_those_of_what_acts() {
        let meters = Meters::default();
        let advantage = |gain| Advantage {
            gain,
            standard_error: 0.01,
            ..Advantage::default()
        };
        meters.gains(&advantage(0.1));
        assert!(written(&meters).contains("treeline_model_gain_ratio{over=\"aging\"} 0.10517"));
        meters.acts(None);
        assert!(!written(&meters).contains("treeline_model_gain_ratio{"));
        meters.decided(&Step::Refused { rows: 4 });
        let text = written(&meters);
        assert!(text.contains("treeline_decisions_total{step=\"refused\"} 1"));
        assert!(text.contains("treeline_decisions_total{step=\"promoted\"} 0"));
    }
}
