//! One regression tree; the only file that names smartcore.

use scheduler_common::features::Feature;
use serde::Deserialize;
use smartcore::{
    linalg::basic::matrix::DenseMatrix,
    tree::decision_tree_regressor::{DecisionTreeRegressor, DecisionTreeRegressorParameters},
};

use super::{TrainError, Trainer};
use crate::{
    dataset::Row,
    model::{DataWindow, Model, Split, Tree, TreeNode},
};

type Library = DecisionTreeRegressor<f64, f64, DenseMatrix<f64>, Vec<f64>>;

/// Parameters of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecisionTree {
    /// Splits on a path at most.
    pub splits: u16,
    /// Training rows in a leaf at least.
    pub min_leaf_rows: usize,
    /// Decides between splits that are equally good.
    pub seed: u64,
}

impl Default for DecisionTree {
    fn default() -> Self {
        Self {
            splits: 8,
            min_leaf_rows: 20,
            seed: 0,
        }
    }
}

impl Trainer for DecisionTree {
    fn name(&self) -> &'static str {
        "decision_tree"
    }

    fn train(&self, rows: &[Row]) -> Result<Model, TrainError> {
        let needed = 2 * self.min_leaf_rows.max(1);
        if rows.len() < needed {
            return Err(TrainError::TooFewRows {
                rows: rows.len(),
                needed,
            });
        }
        let targets: Vec<f64> = rows.iter().map(Row::target).collect();
        let fitted = self.fit(rows, &targets)?;
        let mut tree = read_nodes(&fitted)?;
        fill_in_spread(&mut tree, rows, &targets);
        let model = Model::new(self.name(), data_window(rows), vec![tree]);
        model
            .check()
            .map_err(|error| TrainError::Shape(error.to_string()))?;
        Ok(model)
    }
}

impl DecisionTree {
    fn fit(&self, rows: &[Row], targets: &Vec<f64>) -> Result<Library, TrainError> {
        let failed = |error: smartcore::error::Failed| TrainError::Library(error.to_string());
        let parameters = DecisionTreeRegressorParameters {
            // The library counts levels, of which the last holds leaves only.
            max_depth: Some(self.splits.saturating_add(1)),
            min_samples_leaf: self.min_leaf_rows.max(1),
            min_samples_split: 2 * self.min_leaf_rows.max(1),
            seed: Some(self.seed),
        };
        Library::fit(&matrix(rows).map_err(failed)?, targets, parameters).map_err(failed)
    }
}

/// The features column by column, the layout that the library scans.
fn matrix(rows: &[Row]) -> Result<DenseMatrix<f64>, smartcore::error::Failed> {
    let columns = Feature::ALL.len();
    let mut values = Vec::with_capacity(rows.len() * columns);
    for column in 0..columns {
        values.extend(rows.iter().map(|row| f64::from(row.features[column])));
    }
    DenseMatrix::new(rows.len(), columns, values, true)
}

/// The library's tree as its serialised form shows it; its nodes are private otherwise.
#[derive(Deserialize)]
struct Serialised {
    tree_regressor: SerialisedTree,
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

fn read_nodes(fitted: &Library) -> Result<Tree, TrainError> {
    let shape = |error: serde_json::Error| TrainError::Shape(error.to_string());
    let value = serde_json::to_value(fitted).map_err(shape)?;
    let serialised: Serialised = serde_json::from_value(value).map_err(shape)?;
    let nodes = serialised.tree_regressor.nodes.iter().map(read_node);
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
    reachable(&tree)
}

/// The nodes that the root leads to, breadth first.
fn reachable(tree: &Tree) -> Tree {
    let mut from: Vec<u32> = vec![0];
    let mut nodes = Vec::new();
    while let Some(node) = from
        .get(nodes.len())
        .and_then(|index| tree.nodes.get(*index as usize))
    {
        let split = node.split.map(|split| {
            let at_most = from.len() as u32;
            from.extend([split.at_most, split.above]);
            Split {
                at_most,
                above: at_most + 1,
                ..split
            }
        });
        nodes.push(TreeNode { split, ..*node });
    }
    Tree { nodes }
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

/// Counts the training rows of every leaf and how far they lie from its output.
fn fill_in_spread(tree: &mut Tree, rows: &[Row], targets: &[f64]) {
    let mut squares = vec![0.0; tree.nodes.len()];
    for (row, target) in rows.iter().zip(targets) {
        let Some(index) = tree.leaf_index(&row.features) else {
            continue;
        };
        let node = &mut tree.nodes[index];
        node.rows += 1;
        squares[index] += (target - node.output).powi(2);
    }
    for (node, sum) in tree.nodes.iter_mut().zip(squares) {
        if node.rows > 0 {
            node.sigma = (sum / node.rows as f64).sqrt();
        }
    }
}

pub(super) fn data_window(rows: &[Row]) -> DataWindow {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::{dataset::samples, model::compile};

    /// Rows whose features repeat (`kinds` values each, some of them huge) and whose size hangs on
    /// two of them.
    fn random_rows(count: usize, kinds: u32, seed: u64) -> Vec<Row> {
        let mut random = StdRng::seed_from_u64(seed);
        (0..count as u64)
            .map(|time| {
                let mut row = samples::row(time, time, 443);
                for value in &mut row.features[..Feature::ALL.len()] {
                    *value = random.random_range(0..kinds);
                }
                row.features[14] = row.features[14].wrapping_mul(0x3fff_fff1);
                let log2 = row.features[2] % 7 + row.features[14] % 5;
                row.remaining_bytes = (1 << log2) + random.random_range(0..3u64);
                row
            })
            .collect()
    }

    #[test]
    fn the_serialised_tree_has_the_shape_that_is_read() {
        let mut rows = random_rows(100, 2, 1);
        for row in &mut rows {
            row.remaining_bytes = if row.features[3] == 0 { 0 } else { 4096 };
        }
        let targets: Vec<f64> = rows.iter().map(Row::target).collect();
        let fitted = DecisionTree::default().fit(&rows, &targets).unwrap();
        let value = serde_json::to_value(&fitted).unwrap();
        let root = &value["tree_regressor"]["nodes"][0];
        assert_eq!(root["split_feature"], 3);
        assert_eq!(root["split_value"], 0.5);
        let at_most = root["true_child"].as_u64().unwrap() as usize;
        assert_eq!(value["tree_regressor"]["nodes"][at_most]["output"], 12.0);
        assert!(root["false_child"].is_u64());

        let tree = read_nodes(&fitted).unwrap();
        assert_eq!(
            tree.nodes
                .iter()
                .map(|node| node.output)
                .collect::<Vec<_>>()[1..],
            [12.0, 13.0]
        );
    }

    #[test]
    fn no_path_is_longer_and_no_leaf_smaller_than_asked() {
        let trainer = DecisionTree {
            splits: 3,
            min_leaf_rows: 7,
            seed: 1,
        };
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
    fn the_same_rows_and_seed_give_the_same_model() {
        let rows = random_rows(3000, 9, 4);
        let train = || DecisionTree::default().train(&rows).unwrap().sha256();
        assert_eq!(train(), train());
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_table_predicts_what_the_library_does(
            seed in any::<u64>(),
            kinds in prop_oneof![2u32..30, Just(u32::MAX)],
        ) {
            let rows = random_rows(600, kinds, seed);
            let trainer = DecisionTree { min_leaf_rows: 5, seed, ..DecisionTree::default() };
            let table = compile(&trainer.train(&rows).unwrap()).unwrap();
            let targets = rows.iter().map(Row::target).collect();
            let fitted = trainer.fit(&rows, &targets).unwrap();
            let unseen = random_rows(300, kinds, !seed);
            for rows in [rows, unseen] {
                let predicted = fitted.predict(&matrix(&rows).unwrap()).unwrap();
                for (row, predicted) in rows.iter().zip(predicted) {
                    let walked = f64::from(table.walk(&row.features).unwrap().log2_q8) / 256.0;
                    prop_assert!((walked - predicted).abs() <= 0.5 / 256.0 + 1e-9);
                }
            }
        }
    }
}
