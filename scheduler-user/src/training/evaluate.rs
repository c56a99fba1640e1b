//! How near predictions come, beside what needs no learning.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
};

use scheduler_common::{
    features::Features,
    tree::{Leaf, TARGET_FLOOR_BYTES, Table},
};
use serde::{Deserialize, Serialize};

use super::{
    advantage::Advantage,
    forecast::Gains,
    measures::{self, BULK_BYTES, Bulk, Calibration},
};
use crate::{dataset::Row, model::Model};

/// Nearness of predicted to real log2(floor + bytes to come).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// Rows it was measured on; with 0 the rest says nothing.
    pub rows: u64,
    /// Root of the mean square error, log2 units.
    pub rmse_log2: f64,
    /// Share of the variance that is explained; negative if worse than the rows' own mean.
    pub r2: f64,
}

/// One predictor on the rows that none has seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PredictorScores {
    /// At every decision point.
    pub all: Accuracy,
    /// At the first packet of a message, where bytes so far say nothing yet.
    pub first_packet: Accuracy,
    /// At the third packet, of messages that have more: by the latest decision point up to there, which is what a
    /// packet is served by.
    pub third_packet: Accuracy,
    /// The same at the tenth.
    pub tenth_packet: Accuracy,
    /// How well messages above [`super::BULK_BYTES`] are told by the tenth packet.
    pub bulk: [Bulk; BULK_BYTES.len()],
    /// Whether guesses are right on average and as sure as they say.
    pub calibration: Calibration,
}

/// A candidate beside its rivals, all on the same rows that none of them has seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// The model on trial.
    pub candidate: PredictorScores,
    /// The mean of the training rows, always.
    pub constant: PredictorScores,
    /// The mean of the training rows with as many bytes so far.
    pub bytes_so_far: PredictorScores,
    /// The model that ran at the time.
    pub running: Option<PredictorScores>,
    /// What scheduling by each would have meant; absent where there was too little to replay.
    pub gains: Option<Gains>,
    /// What the candidate wins over each rival, with its error, by the rival's name as in [`super::LoadGains`].
    pub advantages: BTreeMap<String, Advantage>,
}

impl Display for Scores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PredictorScores {
            all, first_packet, ..
        } = &self.candidate;
        write!(
            f,
            "held-out error {:.2} (R² {:.2}) on {} rows, {:.2} (R² {:.2}) on {} first packets; \
             constant {:.2}, bytes so far {:.2}",
            all.rmse_log2,
            all.r2,
            all.rows,
            first_packet.rmse_log2,
            first_packet.r2,
            first_packet.rows,
            self.constant.all.rmse_log2,
            self.bytes_so_far.all.rmse_log2,
        )?;
        if let Some(running) = &self.running {
            write!(f, ", model before {:.2}", running.all.rmse_log2)?;
        }
        match &self.gains {
            Some(gains) => write!(f, "; {gains}"),
            None => Ok(()),
        }
    }
}

/// The mean target of the rows it has seen, always.
pub(super) struct Constant(f64);

impl Constant {
    pub(super) fn learn(train: &[Row]) -> Self {
        Self(mean(train.iter().map(Row::target)))
    }
}

/// The mean target of the rows with as many bytes so far, to a power of two: what aging knows.
pub(super) struct BytesSoFar([f64; 65]);

impl BytesSoFar {
    pub(super) fn learn(train: &[Row]) -> Self {
        let overall = mean(train.iter().map(Row::target));
        let mut sums = [(0.0, 0u32); 65];
        for row in train {
            let (sum, count) = &mut sums[bucket(row.bytes_at)];
            *sum += row.target();
            *count += 1;
        }
        Self(sums.map(|(sum, count)| {
            if count == 0 {
                overall
            } else {
                sum / f64::from(count)
            }
        }))
    }
}

/// Bit length: 0 for 0, 1 for 1, 2 for 2 and 3, and so on.
const fn bucket(bytes: u64) -> usize {
    (u64::BITS - bytes.leading_zeros()) as usize
}

/// Anything that predicts the target of a row.
pub(super) trait Predictor {
    /// log2(floor + bytes to come).
    fn predict(&self, row: &Row) -> f64;

    /// Standard deviation of the same, where it is known.
    fn sigma(&self, _row: &Row) -> Option<f64> {
        None
    }

    /// Bytes to come.
    fn bytes_to_come(&self, row: &Row) -> u64 {
        (self.predict(row).exp2() - f64::from(TARGET_FLOOR_BYTES)).max(0.0) as u64
    }
}

/// A model as the kernel program walks it.
pub(super) struct InKernel(pub(super) Box<Table>);

impl InKernel {
    fn leaf(&self, row: &Row) -> Leaf {
        self.0.walk(&row.features).unwrap_or_default()
    }
}

impl Predictor for InKernel {
    fn predict(&self, row: &Row) -> f64 {
        f64::from(self.leaf(row).log2_q8) / 256.0
    }

    fn sigma(&self, row: &Row) -> Option<f64> {
        Some(f64::from(self.leaf(row).sigma_q8) / 256.0)
    }

    fn bytes_to_come(&self, row: &Row) -> u64 {
        self.leaf(row).bytes_to_come()
    }
}

impl Predictor for Constant {
    fn predict(&self, _row: &Row) -> f64 {
        self.0
    }
}

impl Predictor for BytesSoFar {
    fn predict(&self, row: &Row) -> f64 {
        self.0[bucket(row.bytes_at)]
    }
}

impl Predictor for Model {
    fn predict(&self, row: &Row) -> f64 {
        let features: &Features = &row.features;
        Self::predict(self, features)
    }
}

pub(super) fn evaluate(predictor: &impl Predictor, rows: &[Row]) -> PredictorScores {
    let guesses: Vec<f64> = rows.iter().map(|row| predictor.predict(row)).collect();
    let seen: Vec<(&Row, f64)> = rows.iter().zip(guesses).collect();
    let at = |packet| accuracy(&measures::in_force_at(&seen, packet));
    let first = seen.iter().filter(|(row, _)| row.is_first_packet());
    let by_tenth = measures::latest_by(&seen, 10);
    PredictorScores {
        all: accuracy(&seen),
        first_packet: accuracy(&first.copied().collect::<Vec<_>>()),
        third_packet: at(3),
        tenth_packet: at(10),
        bulk: BULK_BYTES.map(|bytes| Bulk::measure(&by_tenth, bytes)),
        calibration: Calibration::measure(&seen, |row| predictor.sigma(row)),
    }
}

/// Rows with what was guessed for them.
fn accuracy(seen: &[(&Row, f64)]) -> Accuracy {
    if seen.is_empty() {
        return Accuracy::default();
    }
    let centre = mean(seen.iter().map(|(row, _)| row.target()));
    let error = mean(
        seen.iter()
            .map(|(row, guess)| (row.target() - guess).powi(2)),
    );
    let variance = mean(seen.iter().map(|(row, _)| (row.target() - centre).powi(2)));
    // Rows that are all alike leave nothing to explain; a number, because JSON knows no NaN.
    let r2 = if variance > 0.0 {
        1.0 - error / variance
    } else {
        0.0
    };
    Accuracy {
        rows: seen.len() as u64,
        rmse_log2: error.sqrt(),
        r2,
    }
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + value, count + 1));
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use scheduler_common::features::Feature;

    use super::*;
    use crate::dataset::samples;

    /// A row with the given target.
    fn row(bytes_at: u64, target: u32) -> Row {
        let mut row = Row {
            bytes_at,
            remaining_bytes: (1 << target) - u64::from(TARGET_FLOOR_BYTES),
            ..samples::row(1, 1, 443)
        };
        row.features[Feature::MessageBytes as usize] = bytes_at as u32;
        row.features[Feature::PacketBytes as usize] = bytes_at.min(1000) as u32;
        row
    }

    #[test]
    fn error_and_explained_share_are_those_of_the_book() {
        let rows = [row(500, 12), row(500, 16), row(4000, 16), row(4000, 20)];
        let scores = evaluate(&Constant(17.0), &rows);
        // Targets 12, 16, 16, 20: errors 25, 1, 1, 9, variance 8.
        assert!((scores.all.rmse_log2 - 3.0).abs() < 1e-12);
        assert!((scores.all.r2 - (1.0 - 9.0 / 8.0)).abs() < 1e-12);
        assert_eq!((scores.all.rows, scores.first_packet.rows), (4, 2));
        assert!((scores.first_packet.rmse_log2 - 13f64.sqrt()).abs() < 1e-12);
    }

    #[test]
    fn bytes_so_far_knows_the_mean_of_its_bucket_and_else_the_mean() {
        let rows = [row(500, 12), row(400, 16), row(4000, 20)];
        let learned = BytesSoFar::learn(&rows);
        let predicted =
            [300, 5000, 4095, u64::MAX, 0].map(|bytes| learned.predict(&row(bytes, 12)));
        assert_eq!(predicted, [14.0, 16.0, 20.0, 16.0, 16.0]);
        assert_eq!(Constant::learn(&rows).predict(&row(1, 12)), 16.0);
    }

    #[test]
    fn no_rows_and_equal_rows_give_numbers() {
        let none = evaluate(&Constant(1.0), &[]);
        assert_eq!((none.all, none.tenth_packet), Default::default());
        let scores = evaluate(&Constant(16.0), &[row(1, 16), row(1, 16)]);
        assert_eq!((scores.all.rmse_log2, scores.all.r2), (0.0, 0.0));
    }
}
