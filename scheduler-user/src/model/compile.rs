//! Model → the integer table that the kernel walks.

use std::collections::VecDeque;

use scheduler_common::tree::{Leaf, MAX_DEPTH, MAX_NODES, MAX_TREES, Node, Table, TableError};

use super::{Model, ModelError, Split, Tree, TreeNode};

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
    /// More nodes than the table holds.
    #[error("more than {MAX_NODES} nodes: train a smaller model")]
    TooManyNodes,
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

/// The table of a model, of the model's generation.
///
/// # Errors
/// The model is faulty, or too large for the table.
pub fn compile(model: &Model) -> Result<Box<Table>, CompileError> {
    model.check()?;
    if model.trees.len() > MAX_TREES {
        return Err(CompileError::TooManyTrees {
            trees: model.trees.len(),
        });
    }
    let mut table = Box::new(Table::EMPTY);
    table.generation = model.generation;
    let mut used = 0;
    for (index, tree) in model.trees.iter().enumerate() {
        table.roots[index] = used as u16;
        let depth = place(tree, &mut table, &mut used)?;
        if depth > MAX_DEPTH {
            return Err(CompileError::TooDeep { tree: index, depth });
        }
        table.depth = table.depth.max(depth);
    }
    table.trees = model.trees.len() as u32;
    table.node_count = used as u32;
    table.check().map_err(CompileError::Table)?;
    Ok(table)
}

/// Prediction and spread of a leaf as the kernel holds them.
pub(super) fn quantised(node: &TreeNode) -> Leaf {
    Leaf {
        log2_q8: q8(node.output),
        sigma_q8: q8(node.sigma),
    }
}

fn q8(log2: f64) -> u16 {
    (log2 * 256.0).round().clamp(0.0, f64::from(u16::MAX)) as u16
}

/// Lays a tree out breadth first, which puts children side by side and behind their parents.
fn place(tree: &Tree, table: &mut Table, used: &mut usize) -> Result<u32, CompileError> {
    let mut deepest = 0;
    let mut waiting = VecDeque::from([(0usize, reserve(used, 1)?, 0u32)]);
    while let Some((from, at, depth)) = waiting.pop_front() {
        deepest = deepest.max(depth);
        let node = &tree.nodes[settled(tree, from)];
        table.nodes[usize::from(at)] = match node.split {
            None => Node::leaf(at, quantised(node)),
            Some(split) => {
                let child = reserve(used, 2)?;
                waiting.push_back((split.at_most as usize, child, depth + 1));
                waiting.push_back((split.above as usize, child + 1, depth + 1));
                // For whole numbers, at most 4.5 is at most 4.
                let threshold = split.value.floor() as u32;
                Node {
                    threshold,
                    child,
                    feature: split.feature,
                    _pad: 0,
                }
            }
        };
    }
    Ok(deepest)
}

fn reserve(used: &mut usize, nodes: usize) -> Result<u16, CompileError> {
    let first = *used;
    *used += nodes;
    if *used > MAX_NODES {
        Err(CompileError::TooManyNodes)
    } else {
        Ok(first as u16)
    }
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
    use scheduler_common::features::Features;

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
            assert_eq!(table.walk(&[value; 16]).unwrap().log2_q8, 256);
        }
    }

    #[test]
    fn outputs_outside_the_table_s_range_are_clamped() {
        let table = compile(&of_trees(vec![Tree {
            nodes: vec![leaf(-1.0)],
        }]))
        .unwrap();
        assert_eq!(table.walk(&[0; 16]).unwrap().log2_q8, 0);
        let table = compile(&of_trees(vec![Tree {
            nodes: vec![leaf(1e9)],
        }]))
        .unwrap();
        assert_eq!(table.walk(&[0; 16]).unwrap().log2_q8, u16::MAX);
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
            compile(&of_trees(vec![comb(2100)])).unwrap_err(),
            CompileError::TooManyNodes
        );
        assert_eq!(
            compile(&of_trees(vec![])).unwrap_err(),
            CompileError::Model(ModelError::Empty)
        );
    }

    proptest! {
        #[test]
        fn the_table_predicts_what_the_model_does(
            model in arbitrary::model(),
            rows in proptest::collection::vec(arbitrary::features(), 20),
        ) {
            let table = compile(&model).unwrap();
            let trees = model.trees.len() as u32;
            for features in rows {
                let leaves = model.trees.iter().map(|tree| quantised(&tree.leaf(&features)));
                let (log2, sigma) = leaves.fold((0, 0), |(log2, sigma), leaf| {
                    (log2 + u32::from(leaf.log2_q8), sigma + u32::from(leaf.sigma_q8))
                });
                let walked = table.walk(&features).unwrap();
                prop_assert_eq!(u32::from(walked.log2_q8), log2 / trees);
                prop_assert_eq!(u32::from(walked.sigma_q8), sigma / trees);
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
