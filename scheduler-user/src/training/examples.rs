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
        let whole = !model.combine.is_mean();
        let Model { trees, .. } = &*model;
        let spreads: Vec<Vec<(u64, f64)>> = trees
            .iter()
            .map(|tree| {
                let mut found = vec![(0, 0.0); tree.nodes.len()];
                for (row, target) in self.rows.iter().zip(&self.targets) {
                    // Of a sum no tree says the target; the error is that of all of them.
                    let said = whole.then(|| model.predict(&row.features));
                    let mut last = 0;
                    for index in tree.path(&row.features) {
                        found[index].0 += 1;
                        last = index;
                    }
                    let said = said.unwrap_or(tree.nodes[last].output);
                    found[last].1 += (target - said).powi(2);
                }
                found
            })
            .collect();
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
fn tell_something(rows: &[Row]) -> Vec<Row> {
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
