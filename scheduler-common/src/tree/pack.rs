//! Trees of single splits → the blocks of a table.

use std::collections::VecDeque;

use super::{Block, CHILDREN, Leaf, MAX_BLOCKS, MAX_DEPTH, MAX_TREES, Table, mean_factor};
use crate::features::ZERO_SLOT;

/// A split or a leaf of a tree; the root stands first, children behind their parents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// The end of a path.
    Leaf(Leaf),
    /// A question about one feature.
    Split {
        /// Index of the feature.
        feature: u8,
        /// The largest value that goes to `at_most`.
        threshold: u32,
        /// Index of a node.
        at_most: u32,
        /// Index of a node.
        above: u32,
    },
}

/// Why trees do not become a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackError {
    /// More trees than the table holds.
    TooManyTrees {
        /// Trees there are.
        trees: usize,
    },
    /// More blocks than the table holds.
    TooManyBlocks {
        /// Splits and leaves of all trees.
        nodes: usize,
    },
    /// A path that the kernel would not walk to its end.
    TooDeep {
        /// Index of the tree.
        tree: usize,
        /// Its depth.
        depth: u32,
    },
    /// A tree without nodes, or a child that does not stand behind its parent.
    Malformed {
        /// Index of the tree.
        tree: usize,
    },
}

impl Table {
    /// The table of these trees.
    ///
    /// # Errors
    /// There are too many of them, they are too large or too deep, or one is no tree.
    pub fn pack(generation: u32, trees: &[Vec<Node>]) -> Result<Box<Self>, PackError> {
        if trees.len() > MAX_TREES {
            return Err(PackError::TooManyTrees { trees: trees.len() });
        }
        let mut table = Box::new(Self::EMPTY);
        table.generation = generation;
        if trees.is_empty() {
            return Ok(table);
        }
        table.trees = trees.len() as u32;
        table.mean_factor = mean_factor(table.trees);
        table.block_count = MAX_TREES as u32;
        table.node_count = trees.iter().map(Vec::len).sum::<usize>() as u32;
        for root in 0..MAX_TREES as u32 {
            table.blocks[root as usize] = Block::leaf(root, Leaf::unpack(0));
        }
        for (tree, nodes) in trees.iter().enumerate() {
            let depth = depth(nodes).ok_or(PackError::Malformed { tree })?;
            if depth > MAX_DEPTH {
                return Err(PackError::TooDeep { tree, depth });
            }
            table.depth = table.depth.max(depth);
            table.steps = table.steps.max(depth.div_ceil(2));
            place(&mut table, tree, nodes)?;
        }
        Ok(table)
    }
}

/// Splits on the longest path; `None` if it is no tree.
fn depth(nodes: &[Node]) -> Option<u32> {
    let mut depths = vec![0; nodes.len()];
    for (index, node) in nodes.iter().enumerate() {
        if let Node::Split { at_most, above, .. } = *node {
            for child in [at_most as usize, above as usize] {
                if child <= index {
                    return None;
                }
                let depth = depths[index] + 1;
                let known = depths.get_mut(child)?;
                *known = depth.max(*known);
            }
        }
    }
    depths.into_iter().max()
}

/// Lays a tree out breadth first from its root block on.
fn place(table: &mut Table, tree: usize, nodes: &[Node]) -> Result<(), PackError> {
    let mut waiting = VecDeque::from([(0, tree as u32)]);
    while let Some((from, at)) = waiting.pop_front() {
        table.blocks[at as usize] = match nodes[from as usize] {
            Node::Leaf(leaf) => Block::leaf(at, leaf),
            Node::Split {
                feature,
                threshold,
                at_most,
                above,
            } => {
                let child = reserve(table)?;
                let (left, right) = (lower(nodes, at_most), lower(nodes, above));
                let ends = [left.ends, right.ends].concat();
                waiting.extend(ends.into_iter().zip(child..));
                Block::split(
                    [threshold, left.threshold, right.threshold],
                    [feature, left.feature, right.feature],
                    child,
                )
            }
        };
    }
    Ok(())
}

/// The second test of a block, and the nodes that it leads to.
struct Lower {
    threshold: u32,
    feature: u8,
    ends: [u32; 2],
}

fn lower(nodes: &[Node], index: u32) -> Lower {
    match nodes[index as usize] {
        Node::Split {
            feature,
            threshold,
            at_most,
            above,
        } => Lower {
            threshold,
            feature,
            ends: [at_most, above],
        },
        // A path may end between two blocks: the leaf then fills both places, of which one is met.
        Node::Leaf(_) => Lower {
            threshold: u32::MAX,
            feature: ZERO_SLOT,
            ends: [index; 2],
        },
    }
}

/// The index of four more blocks.
fn reserve(table: &mut Table) -> Result<u32, PackError> {
    let first = table.block_count;
    if first as usize + CHILDREN > MAX_BLOCKS {
        return Err(PackError::TooManyBlocks {
            nodes: table.node_count as usize,
        });
    }
    table.block_count = first + CHILDREN as u32;
    Ok(first)
}
