//! One regression tree.

use super::{TrainError, Trainer, examples::Examples, library::Columns, parameters::Parameters};
use crate::{
    dataset::Row,
    model::{Combine, Model},
};

/// A tree that splits where most of the squared error goes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DecisionTree(pub Parameters);

impl Trainer for DecisionTree {
    fn name(&self) -> &'static str {
        "tree"
    }

    fn train(&self, rows: &[Row]) -> Result<Model, TrainError> {
        let examples = Examples::of(rows, &self.0, 2 * self.0.min_leaf_rows.max(1))?;
        let columns = Columns::<u32>::of(&examples.rows)?;
        let tree = columns.tree(&examples.targets, examples.weights.as_deref(), &self.0)?;
        examples.model(self.name(), vec![tree], Combine::Mean)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::made_up::random_rows, *};

    #[test]
    fn no_path_is_longer_and_no_leaf_smaller_than_asked() {
        let trainer = DecisionTree(Parameters {
            splits: 3,
            min_leaf_rows: 7,
            seed: 1,
            ..Parameters::TREE
        });
        let model = trainer.train(&random_rows(2000, 50, 2)).unwrap();
        assert_eq!(model.summary().depth, 3);
        let leaves = model.trees[0]
            .nodes
            .iter()
            .filter(|node| node.split.is_none());
        assert!(leaves.clone().all(|leaf| leaf.rows >= 7));
        assert_eq!(leaves.map(|leaf| leaf.rows).sum::<u64>(), 2000);
        assert_eq!(
            DecisionTree::default()
                .train(&random_rows(5000, 200, 3))
                .unwrap()
                .summary()
                .depth,
            8
        );
    }

    #[test]
    fn the_spread_of_a_leaf_is_that_of_its_rows() {
        let mut rows = random_rows(200, 1, 3);
        for (index, row) in rows.iter_mut().enumerate() {
            row.remaining_bytes = if index % 2 == 0 {
                (1 << 13) - 4096
            } else {
                (1 << 17) - 4096
            };
        }
        let model = DecisionTree::default().train(&rows).unwrap();
        let leaf = model.trees[0].nodes[0];
        assert!((leaf.output - 15.0).abs() < 1e-9 && (leaf.sigma - 2.0).abs() < 1e-9);
    }

    #[test]
    fn too_few_rows_are_an_error() {
        let error = DecisionTree::default()
            .train(&random_rows(39, 9, 4))
            .unwrap_err();
        assert_eq!(
            error,
            TrainError::TooFewRows {
                rows: 39,
                needed: 40
            }
        );
    }
}
