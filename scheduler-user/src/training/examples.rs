//! Rows that can be learned from, with targets and weights.

use scheduler_common::{class::DEFAULT_CUTS_BYTES, features::Feature};

use super::{TrainError, parameters::Parameters};
use crate::{
    dataset::Row,
    model::{Combine, DataWindow, Model, Tree},
};

/// Messages with at most so much to come are short: the end of the third band.
pub const SHORT_BYTES: u64 = DEFAULT_CUTS_BYTES[2] as u64;

/// What a trainer learns from.
pub(super) struct Examples {
    pub(super) rows: Vec<Row>,
    pub(super) targets: Vec<f64>,
    /// By row; none if all weigh the same.
    pub(super) weights: Option<Vec<f64>>,
}

impl Examples {
    /// The rows that say something, of which there must be at least `needed`.
    pub(super) fn of(
        rows: &[Row],
        parameters: &Parameters,
        needed: usize,
    ) -> Result<Self, TrainError> {
        let rows = tell_something(rows);
        if rows.len() < needed {
            return Err(TrainError::TooFewRows {
                rows: rows.len(),
                needed,
            });
        }
        let weighted = (parameters.short_weight - 1.0).abs() > f64::EPSILON;
        Ok(Self {
            targets: rows.iter().map(Row::target).collect(),
            weights: weighted.then(|| short_weights(&rows, parameters.short_weight)),
            rows,
        })
    }

    /// Weighted mean of the targets.
    pub(super) fn mean(&self) -> f64 {
        let weight = |index: usize| self.weights.as_ref().map_or(1.0, |weights| weights[index]);
        let (sum, mass) = self
            .targets
            .iter()
            .enumerate()
            .fold((0.0, 0.0), |(sum, mass), (index, target)| {
                (sum + weight(index) * target, mass + weight(index))
            });
        sum / mass
    }

    /// The model that these trees make: counted, on the table's grid, small enough, and checked.
    pub(super) fn model(
        &self,
        name: &str,
        trees: Vec<Tree>,
        combine: Combine,
    ) -> Result<Model, TrainError> {
        let mut model = Model::new(name, self.window(), trees);
        model.combine = combine;
        self.fill_in_rows_and_spread(&mut model);
        let mut model = super::prune::to_fit(model, &self.rows)?.on_grid();
        if model.pruned.is_some() {
            self.fill_in_rows_and_spread(&mut model);
        }
        model
            .check()
            .map_err(|error| TrainError::Shape(error.to_string()))?;
        Ok(model)
    }

    /// Counts the training rows of every node, and how far from the model's word those of a leaf lie.
    fn fill_in_rows_and_spread(&self, model: &mut Model) {
        // Of a sum no tree says the target; the error is that of all of them.
        let sums: Option<Vec<f64>> = (!model.combine.is_mean()).then(|| {
            let rows = self.rows.iter();
            rows.map(|row| model.predict(&row.features)).collect()
        });
        let spread = |tree: &Tree| {
            let mut found = vec![(0, 0.0); tree.nodes.len()];
            for (index, (row, target)) in self.rows.iter().zip(&self.targets).enumerate() {
                let mut last = 0;
                for node in tree.path(&row.features) {
                    found[node].0 += 1;
                    last = node;
                }
                let said = sums
                    .as_ref()
                    .map_or(tree.nodes[last].output, |all| all[index]);
                found[last].1 += (target - said).powi(2);
            }
            found
        };
        let spreads: Vec<Vec<(u64, f64)>> = model.trees.iter().map(spread).collect();
        for (tree, found) in model.trees.iter_mut().zip(spreads) {
            for (node, (rows, squares)) in tree.nodes.iter_mut().zip(found) {
                node.rows = rows;
                node.sigma = if rows > 0 && node.split.is_none() {
                    (squares / rows as f64).sqrt()
                } else {
                    0.0
                };
            }
        }
    }

    fn window(&self) -> DataWindow {
        let rows = &self.rows;
        let mut services: Vec<u32> = rows
            .iter()
            .map(|row| row.feature(Feature::ServicePort))
            .collect();
        services.sort_unstable();
        services.dedup();
        DataWindow {
            from_ns: rows.iter().map(|row| row.time_ns).min().unwrap_or(0),
            to_ns: rows.iter().map(|row| row.time_ns).max().unwrap_or(0),
            rows: rows.len() as u64,
            services: services.len() as u64,
        }
    }
}

/// Leaves out what would teach a wrong size: the one place where rows are refused.
///
/// A message that went on after what is known of it is longer than its label. Where the known part alone
/// is long, the label is wrong by little to a scheduler, and dropping it would teach that nothing is long;
/// where it is short, nothing is known.
pub(super) fn tell_something(rows: &[Row]) -> Vec<Row> {
    let known = |row: &&Row| !row.censored || row.remaining_bytes > SHORT_BYTES;
    rows.iter().filter(known).copied().collect()
}

/// Weights that make "wrongly bulk" dearer than "wrongly short": a row with at most [`SHORT_BYTES`] to
/// come weighs `short_weight`, another 1.
///
/// A leaf that both kinds share then predicts less, and a split that parts them gains more.
pub fn short_weights(rows: &[Row], short_weight: f64) -> Vec<f64> {
    rows.iter()
        .map(|row| {
            if row.remaining_bytes <= SHORT_BYTES {
                short_weight
            } else {
                1.0
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
    use scheduler_common::tree::TARGET_FLOOR_BYTES;

    use super::{
        super::{choice, trainer},
        *,
    };
    use crate::dataset::samples;

    /// A service whose messages are short or long, and one feature that tells which four times in five.
    fn doubtful_rows(count: usize, seed: u64) -> Vec<Row> {
        let mut random = StdRng::seed_from_u64(seed);
        (0..count as u64)
            .map(|time| {
                let mut row = samples::row(time, time, 443);
                let long = random.random_bool(0.4);
                let told = random.random_bool(0.8) == long;
                row.features[Feature::RequestBytes as usize] =
                    random.random_range(0..500) + 500 * u32::from(told);
                row.features[Feature::GapUs as usize] = random.random_range(0..1000);
                row.remaining_bytes = if long { 3_000_000 } else { 2_000 };
                row
            })
            .collect()
    }

    /// Shares of the short messages called bulk, and of the long ones called short.
    fn wrong(model: &Model, rows: &[Row]) -> [f64; 2] {
        [false, true].map(|long| {
            let of_kind: Vec<&Row> = rows
                .iter()
                .filter(|row| (row.remaining_bytes > SHORT_BYTES) == long)
                .collect();
            let bulk = |row: &&&Row| {
                let bytes = (SHORT_BYTES as f64 + f64::from(TARGET_FLOOR_BYTES)).log2();
                model.predict(&row.features) > bytes
            };
            let wrong = of_kind.iter().filter(|row| bulk(row) != long).count();
            wrong as f64 / of_kind.len() as f64
        })
    }

    #[test]
    fn weights_make_short_messages_called_bulk_rarer() {
        let (train, later) = (doubtful_rows(4000, 1), doubtful_rows(4000, 2));
        for name in ["tree", "forest", "extra", "boosted"] {
            let choice = choice(name).unwrap();
            let wrong_at = |short_weight| {
                let parameters = Parameters {
                    short_weight,
                    ..choice.defaults
                };
                wrong(&choice.with(parameters).train(&train).unwrap(), &later)
            };
            let [even, dear] = [1.0, 4.0].map(wrong_at);
            // Fewer of one mistake are bought with more of the other.
            assert!(
                even[0] > 0.1 && dear[0] < 0.6 * even[0],
                "{name}: {even:?}, {dear:?}"
            );
            assert!(dear[1] > even[1], "{name}: {even:?}, {dear:?}");
        }
    }

    #[test]
    fn rows_whose_end_is_unknown_teach_only_where_they_are_long() {
        let mut rows = doubtful_rows(400, 3);
        for row in rows
            .iter_mut()
            .filter(|row| row.remaining_bytes <= SHORT_BYTES)
        {
            row.censored = true;
        }
        rows[0].censored = true;
        let model = trainer("constant").unwrap().train(&rows).unwrap();
        let long = rows.iter().filter(|row| row.remaining_bytes > SHORT_BYTES);
        assert_eq!(model.data.rows, long.count() as u64);
    }
}
