//! Cost-complexity pruning, until a model fits the table.
//!
//! Weakest link first (Breiman, Friedman, Olshen, Stone, Classification and Regression Trees, 1984,
//! §3.3): the split whose whole branch explains least for each of its leaves becomes a leaf.

use std::{cmp::Reverse, collections::BinaryHeap};

use scheduler_common::tree::{MAX_DEPTH, MAX_TREES};

use super::{TrainError, evaluate::evaluate};
use crate::{
    dataset::Row,
    model::{CompileError, Model, Pruned, Tree, compile},
};

/// The model, pruned as little as makes it fit; its nodes must count the training rows.
pub(super) fn to_fit(model: Model, rows: &[Row]) -> Result<Model, TrainError> {
    if fits(&model)? {
        return Ok(model);
    }
    let before = model.clone();
    let mut model = model;
    let dropped_trees = model.trees.len().saturating_sub(MAX_TREES);
    model.trees.truncate(MAX_TREES);
    model.trees.iter_mut().for_each(cut_depth);
    let links = links(&model.trees);
    // More links cut never make it larger.
    let (mut too_few, mut enough) = (0, links.len());
    if !fits(&without(&model, &links))? {
        return Err(TrainError::Table(
            CompileError::TooManyBlocks {
                nodes: count(&model),
            }
            .to_string(),
        ));
    }
    if fits(&without(&model, &[]))? {
        enough = 0;
    }
    while too_few + 1 < enough {
        let middle = usize::midpoint(too_few, enough);
        if fits(&without(&model, &links[..middle]))? {
            enough = middle;
        } else {
            too_few = middle;
        }
    }
    let mut model = without(&model, &links[..enough]);
    let moved = |row: &&Row| {
        let pairs = before.trees.iter().zip(&model.trees);
        let mut leaves = pairs.map(|(a, b)| (a.leaf(&row.features), b.leaf(&row.features)));
        leaves.any(|(before, after)| {
            before.rows != after.rows || before.output.total_cmp(&after.output).is_ne()
        })
    };
    model.pruned = Some(Pruned {
        from_nodes: count(&before) as u64,
        to_nodes: count(&model) as u64,
        dropped_trees: dropped_trees as u64,
        moved_rows: rows.iter().filter(moved).count() as u64,
        r2_before: evaluate(&before, rows).all.r2,
        r2_after: evaluate(&model, rows).all.r2,
    });
    Ok(model)
}

fn count(model: &Model) -> usize {
    model.trees.iter().map(|tree| tree.nodes.len()).sum()
}

fn fits(model: &Model) -> Result<bool, TrainError> {
    match compile(model) {
        Ok(_table) => Ok(true),
        Err(
            CompileError::TooManyTrees { .. }
            | CompileError::TooManyBlocks { .. }
            | CompileError::TooDeep { .. },
        ) => Ok(false),
        Err(error) => Err(TrainError::Table(error.to_string())),
    }
}

/// Splits below the kernel's reach become leaves.
fn cut_depth(tree: &mut Tree) {
    let mut depths = vec![0; tree.nodes.len()];
    for index in 0..tree.nodes.len() {
        let Some(split) = tree.nodes[index].split else {
            continue;
        };
        if depths[index] >= MAX_DEPTH {
            tree.nodes[index].split = None;
            continue;
        }
        for child in [split.at_most, split.above] {
            depths[child as usize] = depths[index] + 1;
        }
    }
    *tree = tree.reachable();
}

/// A split of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Link {
    tree: usize,
    node: usize,
}

/// What the branch below a split is worth.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Branch {
    leaves: u64,
    /// Squared error that the branch takes away, in rows times log2 squared.
    explained: f64,
}

/// Something to sort by that no two numbers compare oddly in.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Strength(f64);

impl Eq for Strength {}

impl Ord for Strength {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Strength {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// All splits, weakest first, each as weak as it is once those before it are cut.
fn links(trees: &[Tree]) -> Vec<Link> {
    let parents: Vec<Vec<usize>> = trees.iter().map(parents).collect();
    let mut branches: Vec<Vec<Branch>> = trees.iter().map(branches).collect();
    let mut cut: Vec<Vec<bool>> = trees.iter().map(|it| vec![false; it.nodes.len()]).collect();
    let strength =
        |branch: Branch| Strength(branch.explained / (branch.leaves as f64 - 1.0).max(1.0));
    let mut waiting = BinaryHeap::new();
    for (tree, it) in trees.iter().enumerate() {
        for node in (0..it.nodes.len()).filter(|node| it.nodes[*node].split.is_some()) {
            waiting.push(Reverse((
                strength(branches[tree][node]),
                Link { tree, node },
            )));
        }
    }
    let mut links = Vec::new();
    while let Some(Reverse((weakness, link))) = waiting.pop() {
        let Link { tree, node } = link;
        let branch = branches[tree][node];
        // An entry from before a branch below was cut: a newer one is there.
        let stale = strength(branch) != weakness;
        if stale || branch.leaves <= 1 || below_a_cut(&parents[tree], &cut[tree], node) {
            continue;
        }
        links.push(link);
        cut[tree][node] = true;
        let mut at = node;
        loop {
            let above = &mut branches[tree][at];
            above.leaves -= branch.leaves - 1;
            above.explained -= branch.explained;
            if at != node {
                waiting.push(Reverse((strength(*above), Link { tree, node: at })));
            }
            if at == 0 {
                break;
            }
            at = parents[tree][at];
        }
    }
    links
}

fn below_a_cut(parents: &[usize], cut: &[bool], node: usize) -> bool {
    let above = std::iter::successors(Some(node), |at| (*at != 0).then(|| parents[*at]));
    above.into_iter().any(|at| cut[at])
}

fn parents(tree: &Tree) -> Vec<usize> {
    let mut parents = vec![0; tree.nodes.len()];
    for (index, node) in tree.nodes.iter().enumerate() {
        if let Some(split) = node.split {
            parents[split.at_most as usize] = index;
            parents[split.above as usize] = index;
        }
    }
    parents
}

/// The squared error between a node's output and its leaves', which is what its branch takes away.
fn branches(tree: &Tree) -> Vec<Branch> {
    // Of the leaves below: rows, sum and sum of squares of outputs.
    let mut sums = vec![(0.0, 0.0, 0.0); tree.nodes.len()];
    let mut branches = vec![Branch::default(); tree.nodes.len()];
    for (index, node) in tree.nodes.iter().enumerate().rev() {
        let Some(split) = node.split else {
            let rows = node.rows as f64;
            sums[index] = (rows, rows * node.output, rows * node.output.powi(2));
            branches[index].leaves = 1;
            continue;
        };
        let (a, b) = (split.at_most as usize, split.above as usize);
        let (rows, sum, squares) = (
            sums[a].0 + sums[b].0,
            sums[a].1 + sums[b].1,
            sums[a].2 + sums[b].2,
        );
        sums[index] = (rows, sum, squares);
        let mean = if rows > 0.0 { sum / rows } else { node.output };
        let explained = (squares - rows * mean.powi(2)).max(0.0);
        branches[index] = Branch {
            leaves: branches[a].leaves + branches[b].leaves,
            explained,
        };
    }
    branches
}

fn without(model: &Model, links: &[Link]) -> Model {
    let mut model = model.clone();
    for Link { tree, node } in links {
        model.trees[*tree].nodes[*node].split = None;
    }
    for tree in &mut model.trees {
        *tree = tree.reachable();
    }
    model
}

#[cfg(test)]
mod tests {
    use scheduler_common::tree::MAX_BLOCKS;

    use super::{
        super::{DecisionTree, Forest, Parameters, Trainer as _, Variety, made_up::random_rows},
        *,
    };
    use crate::model::{DataWindow, Split, TreeNode};

    fn node(output: f64, rows: u64, split: Option<(u8, u32)>) -> TreeNode {
        TreeNode {
            output,
            sigma: 0.0,
            rows,
            split: split.map(|(feature, child)| Split {
                feature,
                value: 9.5,
                at_most: child,
                above: child + 1,
            }),
        }
    }

    /// Two branches: one that tells 10 from 11 among 10 rows, one that tells 20 from 24 among 20.
    fn two_branches() -> Tree {
        Tree {
            nodes: vec![
                node(18.0, 30, Some((0, 1))),
                node(10.5, 10, Some((1, 3))),
                node(22.0, 20, Some((2, 5))),
                node(10.0, 5, None),
                node(11.0, 5, None),
                node(20.0, 10, None),
                node(24.0, 10, None),
            ],
        }
    }

    #[test]
    fn the_weakest_link_goes_first() {
        let order: Vec<usize> = links(&[two_branches()]).iter().map(|it| it.node).collect();
        assert_eq!(order, [1, 2, 0]);
        let branches = branches(&two_branches());
        assert!((branches[1].explained - 2.5).abs() < 1e-9);
        assert!((branches[2].explained - 80.0).abs() < 1e-9);
    }

    #[test]
    fn a_branch_goes_whole_where_its_parts_are_stronger() {
        // The upper split tells nothing apart, what stands below it little, all of it less than the rest.
        let mut tree = two_branches();
        for (leaf, output) in [(5, 21.9), (6, 22.1)] {
            tree.nodes[leaf].output = output;
        }
        let order: Vec<usize> = links(&[tree]).iter().map(|it| it.node).collect();
        assert_eq!(order, [2, 1, 0]);
    }

    #[test]
    fn what_fits_is_left_alone() {
        let model = DecisionTree::default()
            .train(&random_rows(500, 9, 1))
            .unwrap();
        assert_eq!(model.pruned, None);
        let again = to_fit(model.clone(), &[]).unwrap();
        assert_eq!(again, model);
    }

    #[test]
    fn a_forest_too_large_is_pruned_until_it_fits_and_says_what_it_lost() {
        let rows = random_rows(6000, 400, 7);
        let parameters = Parameters {
            splits: 15,
            min_leaf_rows: 1,
            trees: 20,
            ..Parameters::FOREST
        };
        let forest = Forest {
            variety: Variety::Bagged,
            parameters,
        };
        let model = forest.train(&rows).unwrap();
        let table = compile(&model).unwrap();
        let pruned = model.pruned.unwrap();
        assert_eq!(pruned.dropped_trees, 4);
        assert!(pruned.to_nodes < pruned.from_nodes && pruned.moved_rows > 0);
        assert!(
            pruned.r2_after < pruned.r2_before && pruned.r2_after > 0.5,
            "{pruned:?}"
        );
        // As little as possible: hardly a block is left over.
        assert!(
            table.block_count as usize > MAX_BLOCKS - 100,
            "{}",
            table.block_count
        );
    }

    #[test]
    fn a_stump_that_does_not_fit_is_an_error_only_if_it_is_no_model() {
        let empty = Model::new("made up", DataWindow::default(), Vec::new());
        assert!(matches!(to_fit(empty, &[]), Err(TrainError::Table(_))));
    }
}
