//! What smartcore grows, read back; the only file that names it.

use scheduler_common::features::Feature;
use serde::Deserialize;
use smartcore::{
    ensemble::{
        extra_trees_regressor::{ExtraTreesRegressor, ExtraTreesRegressorParameters},
        random_forest_regressor::{RandomForestRegressor, RandomForestRegressorParameters},
    },
    error::Failed,
    linalg::basic::matrix::DenseMatrix,
    numbers::basenum::Number,
    tree::decision_tree_regressor::{DecisionTreeRegressor, DecisionTreeRegressorParameters},
};

use super::{TrainError, parameters::Parameters};
use crate::{
    dataset::Row,
    model::{Split, Tree, TreeNode},
};

type LibraryTree = DecisionTreeRegressor<u32, f64, DenseMatrix<u32>, Vec<f64>>;
type Bagged = RandomForestRegressor<f64, f64, DenseMatrix<f64>, Vec<f64>>;
type Extra = ExtraTreesRegressor<f64, f64, DenseMatrix<f64>, Vec<f64>>;

/// The features column by column, the layout that the library scans.
pub(super) struct Columns<T: Number>(DenseMatrix<T>);

impl Columns<u32> {
    /// Whole numbers, as single trees take them: half the memory, and sorted faster.
    pub(super) fn of(rows: &[Row]) -> Result<Self, TrainError> {
        Self::only(rows, Feature::ALL)
    }

    /// The same with all other features blotted out.
    pub(super) fn only(rows: &[Row], features: &[Feature]) -> Result<Self, TrainError> {
        columns(rows, |row, feature| {
            if features.contains(&feature) {
                row.feature(feature)
            } else {
                0
            }
        })
    }

    /// One tree; rows of weight 0 are left out.
    pub(super) fn tree(
        &self,
        targets: &Vec<f64>,
        weights: Option<&[f64]>,
        parameters: &Parameters,
    ) -> Result<Tree, TrainError> {
        let fitted = self.fit(targets, weights, parameters)?;
        let serialised: SerialisedFit = read(&fitted)?;
        read_nodes(&serialised.tree_regressor)
    }

    fn fit(
        &self,
        targets: &Vec<f64>,
        weights: Option<&[f64]>,
        parameters: &Parameters,
    ) -> Result<LibraryTree, TrainError> {
        let min_samples_leaf = parameters.min_leaf_rows.max(1);
        let growth = DecisionTreeRegressorParameters {
            max_depth: Some(levels(parameters)),
            min_samples_leaf,
            min_samples_split: 2 * min_samples_leaf,
            seed: Some(parameters.seed),
        };
        match weights {
            Some(weights) => LibraryTree::fit_with_weights(&self.0, targets, weights, growth),
            None => LibraryTree::fit(&self.0, targets, growth),
        }
        .map_err(failed)
    }
}

impl Columns<f64> {
    /// Floating point, which forests insist on; it holds every whole number of 32 bits.
    pub(super) fn of(rows: &[Row]) -> Result<Self, TrainError> {
        columns(rows, |row, feature| f64::from(row.feature(feature)))
    }

    /// Trees on resampled rows, each split chosen among a few features drawn at random.
    pub(super) fn bagged(
        &self,
        targets: &Vec<f64>,
        weights: Option<&[f64]>,
        parameters: &Parameters,
    ) -> Result<Vec<Tree>, TrainError> {
        let min_samples_leaf = parameters.min_leaf_rows.max(1);
        let growth = RandomForestRegressorParameters {
            max_depth: Some(levels(parameters)),
            min_samples_leaf,
            min_samples_split: 2 * min_samples_leaf,
            n_trees: parameters.trees,
            m: Some(parameters.features_a_split),
            keep_samples: false,
            seed: parameters.seed,
        };
        let fitted = match weights {
            Some(weights) => Bagged::fit_with_weights(&self.0, targets, weights, growth),
            None => Bagged::fit(&self.0, targets, growth),
        };
        forest(&fitted.map_err(failed)?)
    }

    /// Trees on all rows, each threshold drawn at random and the best of the features taken.
    pub(super) fn extra(
        &self,
        targets: &Vec<f64>,
        weights: Option<&[f64]>,
        parameters: &Parameters,
    ) -> Result<Vec<Tree>, TrainError> {
        let min_samples_leaf = parameters.min_leaf_rows.max(1);
        let growth = ExtraTreesRegressorParameters {
            max_depth: Some(levels(parameters)),
            min_samples_leaf,
            min_samples_split: 2 * min_samples_leaf,
            n_trees: parameters.trees,
            m: Some(parameters.features_a_split),
            keep_samples: false,
            seed: parameters.seed,
        };
        let fitted = match weights {
            Some(weights) => Extra::fit_with_weights(&self.0, targets, weights, growth),
            None => Extra::fit(&self.0, targets, growth),
        };
        forest(&fitted.map_err(failed)?)
    }
}

fn columns<T: Number>(
    rows: &[Row],
    value: impl Fn(&Row, Feature) -> T,
) -> Result<Columns<T>, TrainError> {
    let mut values = Vec::with_capacity(rows.len() * Feature::ALL.len());
    for feature in Feature::ALL {
        values.extend(rows.iter().map(|row| value(row, *feature)));
    }
    DenseMatrix::new(rows.len(), Feature::ALL.len(), values, true)
        .map(Columns)
        .map_err(failed)
}

/// The library counts levels, of which the last holds leaves only.
const fn levels(parameters: &Parameters) -> u16 {
    parameters.splits.saturating_add(1)
}

#[expect(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn failed(error: Failed) -> TrainError {
    TrainError::Library(error.to_string())
}

/// A tree as the library's serialised form shows it; its nodes are private otherwise.
#[derive(Deserialize)]
struct SerialisedFit {
    tree_regressor: SerialisedTree,
}

#[derive(Deserialize)]
struct SerialisedForestFit {
    forest_regressor: SerialisedForest,
}

#[derive(Deserialize)]
struct SerialisedForest {
    trees: Vec<SerialisedTree>,
}

#[derive(Deserialize)]
struct SerialisedTree {
    nodes: Vec<SerialisedNode>,
}

#[derive(Deserialize)]
struct SerialisedNode {
    output: f64,
    split_feature: usize,
    split_value: Option<f64>,
    true_child: Option<u32>,
    false_child: Option<u32>,
}

fn read<T: for<'de> Deserialize<'de>>(fitted: &impl serde::Serialize) -> Result<T, TrainError> {
    let shape = |error: serde_json::Error| TrainError::Shape(error.to_string());
    let value = serde_json::to_value(fitted).map_err(shape)?;
    serde_json::from_value(value).map_err(shape)
}

fn forest(fitted: &impl serde::Serialize) -> Result<Vec<Tree>, TrainError> {
    let serialised: SerialisedForestFit = read(fitted)?;
    let trees = serialised.forest_regressor.trees.iter();
    trees.map(read_nodes).collect()
}

fn read_nodes(serialised: &SerialisedTree) -> Result<Tree, TrainError> {
    let nodes = serialised.nodes.iter().map(read_node);
    let nodes = nodes.collect::<Result<_, _>>()?;
    Ok(without_idle_splits(Tree { nodes }))
}

/// The library goes on splitting where all rows are alike: such splits predict nothing and go.
fn without_idle_splits(mut tree: Tree) -> Tree {
    // Children stand behind parents, so backwards is from the leaves up.
    for index in (0..tree.nodes.len()).rev() {
        let leaf = |child: u32| {
            tree.nodes
                .get(child as usize)
                .filter(|node| node.split.is_none())
        };
        let idle = tree.nodes[index]
            .split
            .and_then(|split| Some((leaf(split.at_most)?, leaf(split.above)?)))
            .is_some_and(|(at_most, above)| (at_most.output - above.output).abs() < 1e-9);
        if idle {
            tree.nodes[index].split = None;
        }
    }
    tree.reachable()
}

fn read_node(node: &SerialisedNode) -> Result<TreeNode, TrainError> {
    let split = match (node.true_child, node.false_child, node.split_value) {
        (None, None, _) => None,
        (Some(at_most), Some(above), Some(value)) => {
            let feature = u8::try_from(node.split_feature)
                .map_err(|_too_large| TrainError::Shape("feature index".to_owned()))?;
            Some(Split {
                feature,
                value,
                at_most,
                above,
            })
        }
        _ => return Err(TrainError::Shape("half a split".to_owned())),
    };
    Ok(TreeNode {
        output: node.output,
        sigma: 0.0,
        rows: 0,
        split,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::made_up::random_rows, *};

    fn targets(rows: &[Row]) -> Vec<f64> {
        rows.iter().map(Row::target).collect()
    }

    #[test]
    fn the_serialised_tree_has_the_shape_that_is_read() {
        let mut rows = random_rows(100, 2, 1);
        for row in &mut rows {
            row.remaining_bytes = if row.features[3] == 0 { 0 } else { 4096 };
        }
        let columns = Columns::<u32>::of(&rows).unwrap();
        let fitted = columns
            .fit(&targets(&rows), None, &Parameters::TREE)
            .unwrap();
        let value = serde_json::to_value(&fitted).unwrap();
        let root = &value["tree_regressor"]["nodes"][0];
        assert_eq!(root["split_feature"], 3);
        assert_eq!(root["split_value"], 0.5);
        let at_most = root["true_child"].as_u64().unwrap() as usize;
        assert_eq!(value["tree_regressor"]["nodes"][at_most]["output"], 12.0);
        assert!(root["false_child"].is_u64());

        let tree = columns
            .tree(&targets(&rows), None, &Parameters::TREE)
            .unwrap();
        let outputs: Vec<f64> = tree.nodes.iter().map(|node| node.output).collect();
        assert_eq!(outputs[1..], [12.0, 13.0]);
    }

    #[test]
    fn forests_are_read_tree_by_tree() {
        let rows = random_rows(400, 6, 2);
        let columns = Columns::<f64>::of(&rows).unwrap();
        let parameters = Parameters {
            trees: 5,
            ..Parameters::FOREST
        };
        let targets = targets(&rows);
        for trees in [
            columns.bagged(&targets, None, &parameters).unwrap(),
            columns.extra(&targets, None, &parameters).unwrap(),
        ] {
            assert_eq!(trees.len(), 5);
            assert!(trees.iter().all(|tree| tree.nodes.len() > 3));
            assert_ne!(trees[0], trees[1]);
        }
    }

    /// The least weighted squares that a single split leaves, by trying all.
    fn least_squares(rows: &[Row], targets: &[f64], weights: &[f64], min_leaf: usize) -> f64 {
        let squares = |chosen: &[bool], side: bool| {
            let (mut mass, mut sum, mut square, mut count) = (0.0, 0.0, 0.0, 0);
            for index in 0..rows.len() {
                if chosen[index] == side && weights[index] > 0.0 {
                    mass += weights[index];
                    sum += weights[index] * targets[index];
                    square += weights[index] * targets[index] * targets[index];
                    count += 1;
                }
            }
            (
                count,
                if mass > 0.0 {
                    square - sum * sum / mass
                } else {
                    0.0
                },
            )
        };
        let (_, mut least) = squares(&vec![true; rows.len()], true);
        for feature in 0..Feature::ALL.len() {
            for row in rows {
                let at_most = row.features[feature];
                let left: Vec<bool> = rows
                    .iter()
                    .map(|it| it.features[feature] <= at_most)
                    .collect();
                let ((low, below), (high, above)) = (squares(&left, true), squares(&left, false));
                if low >= min_leaf && high >= min_leaf {
                    least = least.min(below + above);
                }
            }
        }
        least
    }

    fn squares_left(tree: &Tree, rows: &[Row], targets: &[f64], weights: &[f64]) -> f64 {
        let of_row = |((row, target), weight): ((&Row, &f64), &f64)| {
            weight * (target - tree.leaf(&row.features).output).powi(2)
        };
        rows.iter().zip(targets).zip(weights).map(of_row).sum()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn the_first_split_is_the_best_there_is_even_where_values_repeat(
            seed in any::<u64>(),
            kinds in 2u32..6,
            count in 12usize..90,
            min_leaf_rows in 1usize..6,
            weighted in any::<bool>(),
        ) {
            let rows = random_rows(count, kinds, seed);
            let targets: Vec<f64> = targets(&rows);
            let weights: Vec<f64> = rows
                .iter()
                .map(|row| if weighted { f64::from(row.features[5] % 4) } else { 1.0 })
                .collect();
            prop_assume!(weights.iter().any(|weight| *weight > 0.0));
            let parameters = Parameters { splits: 1, min_leaf_rows, seed, ..Parameters::TREE };
            let given = weighted.then_some(weights.as_slice());
            let tree = Columns::<u32>::of(&rows).unwrap().tree(&targets, given, &parameters).unwrap();
            let found = squares_left(&tree, &rows, &targets, &weights);
            let least = least_squares(&rows, &targets, &weights, min_leaf_rows);
            prop_assert!((found - least).abs() < 1e-6 * (1.0 + least), "{found} against {least}");
        }
    }
}
