//! Model → the integer table that the kernel walks.

use scheduler_common::tree::{
    Leaf, MAX_BLOCKS, MAX_DEPTH, MAX_TREES, Node, PackError, Table, TableError,
};

use super::{Model, ModelError, Split, Tree, TreeNode, combine::STEPS};

/// Why a model does not become a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The model itself is at fault.
    #[error("the model can't be used: {0}")]
    Model(#[from] ModelError),
    /// More trees than the table holds.
    #[error("{trees} trees, the table holds {MAX_TREES}: train a smaller model")]
    TooManyTrees {
        /// Trees of the model.
        trees: usize,
    },
    /// More blocks than the table holds.
    #[error(
        "its {nodes} nodes don't fit the table's {MAX_BLOCKS} blocks: \
         train fewer or flatter trees, or larger leaves"
    )]
    TooManyBlocks {
        /// Splits and leaves of all trees.
        nodes: usize,
    },
    /// A path that the kernel would not walk to its end.
    #[error(
        "tree {tree} is {depth} splits deep, the kernel walks {MAX_DEPTH}: train a flatter one"
    )]
    TooDeep {
        /// Index of the tree.
        tree: usize,
        /// Its depth.
        depth: u32,
    },
    /// The finished table does not pass the kernel's own check.
    #[error("the compiled table is at fault: {0:?}")]
    Table(TableError),
}

/// The table of a model, of the model's generation; oblivious if each of its trees asks one question a level.
///
/// # Errors
/// The model is faulty, or too large for the table.
pub fn compile(model: &Model) -> Result<Box<Table>, CompileError> {
    model.check()?;
    let bias_q8 = bias_q8(model);
    let quantised = |node: &TreeNode| quantised(model, bias_q8, node);
    let trees = model.trees.iter();
    let trees = trees.map(|tree| whole_numbers(tree, quantised));
    let trees = trees.collect::<Result<Vec<_>, _>>()?;
    let mut table = Table::pack(model.generation, &trees)?;
    table.bias_q8 = u32::from(bias_q8);
    table.check().map_err(CompileError::Table)?;
    Ok(table)
}

impl From<PackError> for CompileError {
    fn from(error: PackError) -> Self {
        match error {
            PackError::TooManyTrees { trees } => Self::TooManyTrees { trees },
            PackError::TooManyBlocks { nodes } => Self::TooManyBlocks { nodes },
            PackError::TooDeep { tree, depth } => Self::TooDeep { tree, depth },
            PackError::Malformed { tree } => Self::Model(ModelError::Tree {
                tree,
                node: 0,
                fault: "it is no tree",
            }),
        }
    }
}

/// Prediction and spread of a leaf as the kernel holds them.
fn quantised(model: &Model, bias_q8: u16, node: &TreeNode) -> Leaf {
    let bounded = |steps: f64| steps.clamp(0.0, f64::from(u16::MAX)) as u16;
    Leaf {
        log2_q8: bounded(steps(model, node) + f64::from(bias_q8)),
        sigma_q8: bounded((node.sigma * STEPS).round()),
    }
}

/// What a leaf adds to the mean of all trees, in steps of the table.
fn steps(model: &Model, node: &TreeNode) -> f64 {
    (model.combine.whole(node.output, model.trees.len()) * STEPS).round()
}

/// As much as lifts every leaf to 0: corrections may be negative, leaves of a table may not.
///
/// A mean needs none, for no tree of it predicts less than nothing; and a single tree takes none.
fn bias_q8(model: &Model) -> u16 {
    if model.combine.is_mean() || model.trees.len() <= 1 {
        return 0;
    }
    let nodes = model.trees.iter().flat_map(|tree| &tree.nodes);
    let leaves = nodes.filter(|node| node.split.is_none());
    let least = leaves.map(|node| steps(model, node)).fold(0.0, f64::min);
    (-least).min(f64::from(u16::MAX)) as u16
}

/// The tree as the kernel's whole numbers see it, breadth first.
///
/// Nodes that several splits lead to become several, which ends where no table could hold them.
fn whole_numbers(
    tree: &Tree,
    quantised: impl Fn(&TreeNode) -> Leaf,
) -> Result<Vec<Node>, CompileError> {
    let mut from = vec![0];
    let mut nodes = Vec::new();
    while let Some(&index) = from.get(nodes.len()) {
        let node = &tree.nodes[settled(tree, index)];
        nodes.push(match node.split {
            None => Node::Leaf(quantised(node)),
            Some(split) => {
                if from.len() > 2 * MAX_BLOCKS {
                    return Err(CompileError::TooManyBlocks { nodes: from.len() });
                }
                let at_most = from.len() as u32;
                from.extend([split.at_most as usize, split.above as usize]);
                Node::Split {
                    feature: split.feature,
                    // For whole numbers, at most 4.5 is at most 4.
                    threshold: split.value.floor() as u32,
                    at_most,
                    above: at_most + 1,
                }
            }
        });
    }
    Ok(nodes)
}

/// Follows splits that no `u32` can tell apart.
fn settled(tree: &Tree, from: usize) -> usize {
    let mut index = from;
    while let Some(Split {
        value,
        at_most,
        above,
        ..
    }) = tree.nodes[index].split
    {
        index = if value < 0.0 {
            above as usize
        } else if value >= f64::from(u32::MAX) {
            at_most as usize
        } else {
            break;
        };
    }
    index
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use scheduler_common::{
        class::Cuts,
        features::{Features, SLOTS},
        tree::form,
    };

    use super::{
        super::{DataWindow, arbitrary},
        *,
    };

    fn of_trees(trees: Vec<Tree>) -> Model {
        Model::new("made up", DataWindow::default(), trees)
    }

    fn leaf(output: f64) -> TreeNode {
        TreeNode {
            output,
            ..TreeNode::default()
        }
    }

    /// A comb: every split has a leaf on one side.
    fn comb(splits: u32) -> Tree {
        let mut nodes = Vec::new();
        for step in 0..splits {
            let (at_most, above) = (2 * step + 1, 2 * step + 2);
            let split = Split {
                feature: 0,
                value: f64::from(step) + 0.5,
                at_most,
                above,
            };
            nodes.push(TreeNode {
                split: Some(split),
                ..leaf(0.0)
            });
            nodes.push(leaf(f64::from(step)));
        }
        nodes.push(leaf(f64::from(splits)));
        // Node 2k is split k, node 2k + 1 its leaf, node 2k + 2 the next split.
        Tree { nodes }
    }

    /// Every leaf at the same depth.
    fn full(depth: u32) -> Tree {
        let nodes = (0..(2 << depth) - 1).map(|index| TreeNode {
            split: (index < (1 << depth) - 1).then_some(Split {
                feature: 0,
                value: f64::from(index),
                at_most: 2 * index + 1,
                above: 2 * index + 2,
            }),
            ..leaf(0.0)
        });
        Tree {
            nodes: nodes.collect(),
        }
    }

    #[test]
    fn values_at_a_threshold_go_the_same_way_in_both() {
        let model = of_trees(vec![comb(5)]);
        let table = compile(&model).unwrap();
        for value in 0..8 {
            let mut features = Features::default();
            features[0] = value;
            let expected = model.predict(&features) * 256.0;
            assert_eq!(f64::from(table.walk(&features).unwrap().log2_q8), expected);
        }
        assert_eq!((table.depth, table.node_count), (5, 11));
        assert_eq!((table.form, table.steps), (form::OBLIVIOUS, 2));
    }

    #[test]
    fn splits_outside_the_range_of_a_feature_vanish() {
        let mut tree = comb(3);
        for (node, value) in [(0, -0.5), (2, f64::from(u32::MAX))] {
            tree.nodes[node].split.as_mut().unwrap().value = value;
        }
        let table = compile(&of_trees(vec![tree])).unwrap();
        assert_eq!((table.node_count, table.depth), (1, 0));
        for value in [0, 1, u32::MAX] {
            assert_eq!(table.walk(&[value; SLOTS]).unwrap().log2_q8, 256);
        }
    }

    #[test]
    fn outputs_outside_the_table_s_range_are_clamped() {
        let table = compile(&of_trees(vec![Tree {
            nodes: vec![leaf(-1.0)],
        }]))
        .unwrap();
        assert_eq!(table.walk(&[0; SLOTS]).unwrap().log2_q8, 0);
        let table = compile(&of_trees(vec![Tree {
            nodes: vec![leaf(1e9)],
        }]))
        .unwrap();
        assert_eq!(table.walk(&[0; SLOTS]).unwrap().log2_q8, u16::MAX);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        compile(&of_trees(vec![comb(MAX_DEPTH)])).unwrap();
        assert_eq!(
            compile(&of_trees(vec![comb(2), comb(MAX_DEPTH + 1)])).unwrap_err(),
            CompileError::TooDeep {
                tree: 1,
                depth: MAX_DEPTH + 1
            }
        );
        assert_eq!(
            compile(&of_trees(vec![comb(1); MAX_TREES + 1])).unwrap_err(),
            CompileError::TooManyTrees {
                trees: MAX_TREES + 1
            }
        );
        assert_eq!(
            compile(&of_trees(vec![full(12); 4])).map(drop).unwrap_err(),
            CompileError::TooManyBlocks { nodes: 4 * 8191 }
        );
        assert_eq!(
            compile(&of_trees(vec![])).unwrap_err(),
            CompileError::Model(ModelError::Empty)
        );
    }

    proptest! {
        #[test]
        fn the_table_predicts_what_a_model_on_the_grid_does(
            model in arbitrary::model(),
            rows in proptest::collection::vec((arbitrary::features(), any::<u32>()), 20),
        ) {
            let exact = model.clone();
            let model = model.on_grid();
            let table = compile(&model).unwrap();
            let cuts = Cuts::default();
            for (features, bytes) in rows {
                let walked = table.walk(&features).unwrap();
                prop_assert_eq!(walked.log2_q8, model.log2_q8(&features));
                let bytes = u64::from(bytes);
                let band = cuts.band_of(bytes + walked.bytes_to_come());
                prop_assert_eq!(band, model.band(&features, bytes, &cuts));
                // Half a step of a leaf, and what the division cuts off; the kernel knows no less than nothing.
                let lost = (exact.predict(&features) - f64::from(walked.log2_q8) / STEPS).abs();
                let bounded = model.combine.is_mean() && model.trees.len() > 1;
                prop_assert!(lost <= 2.0 / STEPS || exact.predict(&features) < 0.0 || bounded);
            }
        }

        #[test]
        fn one_tree_loses_no_more_than_half_a_step(
            tree in arbitrary::tree(),
            features in arbitrary::features(),
        ) {
            let model = of_trees(vec![tree]);
            let walked = compile(&model).unwrap().walk(&features).unwrap();
            let exact = model.predict(&features).max(0.0) * 256.0;
            prop_assert!((f64::from(walked.log2_q8) - exact).abs() <= 0.5);
        }
    }
}
