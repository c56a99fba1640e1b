//! What a mean error hides: bulk that is missed, guesses that lean.

use std::collections::BTreeMap;

use scheduler_common::features::Feature;
use serde::{Deserialize, Serialize};

use super::evaluate::mean;
use crate::dataset::Row;

/// Sizes from which a message counts as bulk, one measure each.
pub const BULK_BYTES: [u64; 3] = [100_000, 1_000_000, 10_000_000];

/// How well messages above a size are told from the others, one guess a message.
///
/// Recall alone can be bought by calling everything bulk, so it stands beside the share that is called so
/// (Jurkiewicz et al. 2024 compare at equal share).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Bulk {
    /// Larger messages are bulk.
    pub over_bytes: u64,
    /// Messages that are.
    pub messages: u64,
    /// Probability that one that is was guessed larger than one that is not; absent where one kind is missing.
    pub auc: Option<f64>,
    /// Share of the bulk's bytes that lies in messages guessed to be bulk; absent where there is none.
    pub byte_recall: Option<f64>,
    /// Share of all messages guessed to be bulk.
    pub flagged: f64,
}

/// Whether guesses are right on average, and as sure as they say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Share of the rows whose real value lies within the guess's own standard deviation (68 % if errors were
    /// normal); absent where the predictor names none.
    pub within_sigma: Option<f64>,
    /// By guess.
    pub buckets: Vec<Lean>,
}

/// Rows with about the same guess.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lean {
    /// The guess, rounded down, log2 of floor and bytes to come.
    pub predicted_log2: u32,
    /// Rows.
    pub rows: u64,
    /// Mean of guess less real value, log2.
    pub bias_log2: f64,
}

impl Bulk {
    pub(super) fn measure(guesses: &[(&Row, f64)], over_bytes: u64) -> Self {
        let guessed: Vec<(f64, u64)> = guesses
            .iter()
            .map(|(row, log2)| (row.bytes_at as f64 + bytes_of(*log2), row.total_bytes))
            .collect();
        let is_bulk = |bytes: u64| bytes > over_bytes;
        let bulk = guessed.iter().filter(|(_, bytes)| is_bulk(*bytes));
        let (messages, bytes) = bulk.clone().fold((0, 0.0), |(messages, sum), (_, bytes)| {
            (messages + 1, sum + *bytes as f64)
        });
        let flagged = |guess: f64| guess > over_bytes as f64;
        let caught: f64 = bulk
            .filter(|(guess, _)| flagged(*guess))
            .map(|(_, bytes)| *bytes as f64)
            .sum();
        Self {
            over_bytes,
            messages,
            auc: auc(guessed
                .iter()
                .map(|(guess, bytes)| (*guess, is_bulk(*bytes)))),
            byte_recall: (bytes > 0.0).then_some(caught / bytes),
            flagged: mean(
                guessed
                    .iter()
                    .map(|(guess, _)| f64::from(u8::from(flagged(*guess)))),
            ),
        }
    }
}

impl Calibration {
    pub(super) fn measure(seen: &[(&Row, f64)], sigma: impl Fn(&Row) -> Option<f64>) -> Self {
        let mut sums: BTreeMap<u32, (u64, f64)> = BTreeMap::new();
        for (row, guess) in seen {
            let (rows, sum) = sums.entry(guess.max(0.0) as u32).or_default();
            *rows += 1;
            *sum += guess - row.target();
        }
        let within: Option<Vec<f64>> = seen
            .iter()
            .map(|(row, guess)| {
                let inside = (guess - row.target()).abs() <= sigma(row)?;
                Some(f64::from(u8::from(inside)))
            })
            .collect();
        Self {
            within_sigma: within
                .filter(|within| !within.is_empty())
                .map(|within| mean(within.into_iter())),
            buckets: sums
                .into_iter()
                .map(|(predicted_log2, (rows, sum))| Lean {
                    predicted_log2,
                    rows,
                    bias_log2: sum / rows as f64,
                })
                .collect(),
        }
    }
}

/// Of each message the latest decision point up to `packet`.
pub(super) fn latest_by<'a>(seen: &[(&'a Row, f64)], packet: u32) -> Vec<(&'a Row, f64)> {
    let mut latest = BTreeMap::new();
    for (row, guess) in seen {
        if row.feature(Feature::MessagePackets) <= packet || row.is_first_packet() {
            let key = (row.flow_hash, row.half, row.message, row.total_bytes);
            let kept = latest.entry(key).or_insert((*row, *guess));
            if kept.0.bytes_at <= row.bytes_at {
                *kept = (*row, *guess);
            }
        }
    }
    latest.into_values().collect()
}

/// The same, of messages that have more packets: decision points lie at powers of two.
pub(super) fn in_force_at<'a>(seen: &[(&'a Row, f64)], packet: u32) -> Vec<(&'a Row, f64)> {
    let mut latest = latest_by(seen, packet);
    latest.retain(|(row, _)| {
        2 * row.feature(Feature::MessagePackets) > packet && row.remaining_bytes > 0
    });
    latest
}

/// Bytes to come of a guess.
fn bytes_of(log2: f64) -> f64 {
    (log2.exp2() - f64::from(scheduler_common::tree::TARGET_FLOOR_BYTES)).max(0.0)
}

/// Area under the curve of true over false positives, by ranks (Mann and Whitney 1947); equal guesses share their rank.
fn auc(guesses: impl Iterator<Item = (f64, bool)>) -> Option<f64> {
    let mut guesses: Vec<(f64, bool)> = guesses.collect();
    guesses.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positive = guesses.iter().filter(|(_, bulk)| *bulk).count() as f64;
    let negative = guesses.len() as f64 - positive;
    let mut below = 0.0;
    let mut ranks = 0.0;
    for equal in guesses.chunk_by(|a, b| a.0 == b.0) {
        let positives = equal.iter().filter(|(_, bulk)| *bulk).count() as f64;
        ranks += positives * (below + (equal.len() as f64 + 1.0) / 2.0);
        below += equal.len() as f64;
    }
    (positive > 0.0 && negative > 0.0)
        .then(|| (ranks - positive * (positive + 1.0) / 2.0) / (positive * negative))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::samples;

    /// A message of `total` bytes at its `packets`th packet of 1000 bytes.
    fn row(flow: u64, packets: u32, total: u64) -> Row {
        let bytes_at = u64::from(packets) * 1000;
        let mut row = Row {
            bytes_at,
            total_bytes: total,
            remaining_bytes: total - bytes_at,
            ..samples::row(flow, u64::from(packets), 443)
        };
        row.features[Feature::MessagePackets as usize] = packets;
        row.features[Feature::MessageBytes as usize] = bytes_at as u32;
        row.features[Feature::PacketBytes as usize] = 1000;
        row
    }

    #[test]
    fn area_under_the_curve_counts_pairs_in_order() {
        let area = |guesses: &[(f64, bool)]| auc(guesses.iter().copied());
        assert_eq!(area(&[(1.0, false), (2.0, true)]), Some(1.0));
        assert_eq!(area(&[(1.0, true), (2.0, false)]), Some(0.0));
        assert_eq!(area(&[(1.0, true), (1.0, false)]), Some(0.5));
        let mixed = [(1.0, false), (2.0, true), (3.0, false), (4.0, true)];
        assert_eq!(area(&mixed), Some(0.75));
        assert_eq!(area(&[(1.0, true)]), None);
    }

    #[test]
    fn recall_counts_bytes_and_names_its_price() {
        let rows = [row(1, 1, 50_000), row(2, 1, 300_000), row(3, 1, 700_000)];
        let seen: Vec<(&Row, f64)> = rows.iter().zip([20.0, 14.0, 20.0]).collect();
        let bulk = Bulk::measure(&seen, 100_000);
        assert_eq!(bulk.messages, 2);
        assert!((bulk.byte_recall.unwrap() - 0.7).abs() < 1e-9, "{bulk:?}");
        assert!((bulk.flagged - 2.0 / 3.0).abs() < 1e-9);
        assert_eq!(Bulk::measure(&seen, 10_000_000).byte_recall, None);
    }

    #[test]
    fn the_guess_in_force_is_the_latest_up_to_the_packet() {
        let rows = [
            row(1, 1, 90_000),
            row(1, 2, 90_000),
            row(1, 4, 90_000),
            row(1, 8, 90_000),
            row(1, 16, 90_000),
            row(2, 1, 1000),
            row(3, 2, 2000),
        ];
        let seen: Vec<(&Row, f64)> = rows.iter().map(|row| (row, 1.0)).collect();
        let packets = |rows: Vec<(&Row, f64)>| -> Vec<u32> {
            let packets = |(row, _): &(&Row, f64)| row.feature(Feature::MessagePackets);
            rows.iter().map(packets).collect()
        };
        assert_eq!(packets(in_force_at(&seen, 3)), [2]);
        assert_eq!(packets(in_force_at(&seen, 10)), [8]);
        assert_eq!(packets(latest_by(&seen, 10)), [8, 1, 2]);
    }

    #[test]
    fn guesses_that_lean_are_told_by_bucket() {
        let rows = [row(1, 1, 61_440 + 1000), row(2, 1, 61_440 + 1000)];
        let seen: Vec<(&Row, f64)> = rows.iter().zip([15.0, 16.5]).collect();
        let calibration = Calibration::measure(&seen, |_| Some(0.75));
        let leans: Vec<(u32, f64)> = (calibration.buckets.iter())
            .map(|lean| (lean.predicted_log2, lean.bias_log2))
            .collect();
        assert_eq!(leans, [(15, -1.0), (16, 0.5)]);
        assert_eq!(calibration.within_sigma, Some(0.5));
        assert_eq!(Calibration::measure(&seen, |_| None).within_sigma, None);
    }
}
