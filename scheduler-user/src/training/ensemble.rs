//! Several trees: forests, whose mean counts, and a boosted sum.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use scheduler_common::features::Feature;

use super::{TrainError, Trainer, examples::Examples, library::Columns, parameters::Parameters};
use crate::{
    dataset::Row,
    model::{Combine, Model},
};

/// How the trees of a forest come to differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variety {
    /// Resampled rows (Breiman, Machine Learning 45, 2001).
    Bagged,
    /// Thresholds drawn at random (Geurts, Ernst, Wehenkel, Machine Learning 63, 2006).
    Extra,
}

/// A forest: the mean of trees that differ by chance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forest {
    /// How they differ.
    pub variety: Variety,
    /// The knobs.
    pub parameters: Parameters,
}

impl Trainer for Forest {
    fn name(&self) -> &'static str {
        match self.variety {
            Variety::Bagged => "forest",
            Variety::Extra => "extra",
        }
    }

    fn train(&self, rows: &[Row]) -> Result<Model, TrainError> {
        let Self {
            variety,
            parameters,
        } = self;
        let examples = Examples::of(rows, parameters, 2 * parameters.min_leaf_rows.max(1))?;
        let columns = Columns::<f64>::of(&examples.rows)?;
        let weights = examples.weights.as_deref();
        let trees = match variety {
            Variety::Bagged => columns.bagged(&examples.targets, weights, parameters)?,
            Variety::Extra => columns.extra(&examples.targets, weights, parameters)?,
        };
        examples.model(self.name(), trees, Combine::Mean)
    }
}

/// A sum: each tree learns what those before it got wrong (Friedman, Computational Statistics & Data
/// Analysis 38, 2002).
///
/// smartcore has a boosted regressor too, but it takes no weights and sorts the rows again at every node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Boosted(pub Parameters);

impl Trainer for Boosted {
    fn name(&self) -> &'static str {
        "boosted"
    }

    fn train(&self, rows: &[Row]) -> Result<Model, TrainError> {
        let parameters = &self.0;
        let examples = Examples::of(rows, parameters, 4 * parameters.min_leaf_rows.max(1))?;
        let base = examples.mean();
        let mut random = StdRng::seed_from_u64(parameters.seed);
        let mut wrong: Vec<f64> = examples.targets.iter().map(|it| it - base).collect();
        let mut trees = Vec::new();
        for _ in 0..parameters.trees {
            let weights = drawn(&examples, parameters.row_share, &mut random);
            let mut features = Feature::ALL.to_vec();
            features.shuffle(&mut random);
            features.truncate(parameters.features_a_tree.max(1));
            let columns = Columns::only(&examples.rows, &features)?;
            let mut tree = columns.tree(&wrong, weights.as_deref(), parameters)?;
            for node in &mut tree.nodes {
                node.output *= parameters.learning_rate;
            }
            for (row, wrong) in examples.rows.iter().zip(&mut wrong) {
                *wrong -= tree.leaf(&row.features).output;
            }
            trees.push(tree);
        }
        examples.model(self.name(), trees, Combine::Sum { base })
    }
}

/// Weights of the rows that a tree sees; those that it does not see weigh nothing.
fn drawn(examples: &Examples, row_share: f64, random: &mut StdRng) -> Option<Vec<f64>> {
    if row_share >= 1.0 {
        return examples.weights.clone();
    }
    let weight = |index: usize| {
        examples
            .weights
            .as_ref()
            .map_or(1.0, |weights| weights[index])
    };
    let mut weights: Vec<f64> = (0..examples.rows.len())
        .map(|index| {
            let seen = random.random_bool(row_share.max(0.0));
            weight(index) * f64::from(u8::from(seen))
        })
        .collect();
    // The library refuses rows that weigh nothing together.
    if weights.iter().all(|weight| *weight <= 0.0) {
        weights = (0..examples.rows.len()).map(weight).collect();
    }
    Some(weights)
}
