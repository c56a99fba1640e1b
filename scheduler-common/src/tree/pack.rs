//! Trees of single splits → a table.

use std::collections::VecDeque;

use super::{
    Block, CHILDREN, Leaf, MAX_BLOCKS, MAX_DEPTH, MAX_TREES, Table, mean_factor,
    oblivious::Oblivious,
};
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
    /// The table of these trees, oblivious where each of them is and their leaves fit.
    ///
    /// # Errors
    /// There are too many of them, they are too large or too deep, or one is no tree.
    pub fn pack(generation: u32, trees: &[Vec<Node>]) -> Result<Box<Self>, PackError> {
        let table = Self::framed(generation, trees)?;
        match Oblivious::of(trees) {
            Some(oblivious) => Ok(oblivious.place(table)),
            None => Self::placed(table, trees),
        }
    }

    /// The table of these trees in blocks, whatever they are.
    ///
    /// # Errors
    /// There are too many of them, they are too large or too deep, or one is no tree.
    pub fn pack_blocks(generation: u32, trees: &[Vec<Node>]) -> Result<Box<Self>, PackError> {
        Self::placed(Self::framed(generation, trees)?, trees)
    }

    /// What a table says of trees of either form.
    fn framed(generation: u32, trees: &[Vec<Node>]) -> Result<Box<Self>, PackError> {
        if trees.len() > MAX_TREES {
            return Err(PackError::TooManyTrees { trees: trees.len() });
        }
        let mut table = Self::empty();
        table.generation = generation;
        table.trees = trees.len() as u32;
        table.mean_factor = mean_factor(table.trees);
        table.node_count = trees.iter().map(Vec::len).sum::<usize>() as u32;
        for (tree, nodes) in trees.iter().enumerate() {
            let depth = depth(nodes).ok_or(PackError::Malformed { tree })?;
            if depth > MAX_DEPTH {
                return Err(PackError::TooDeep { tree, depth });
            }
            table.depth = table.depth.max(depth);
        }
        Ok(table)
    }

    fn placed(mut table: Box<Self>, trees: &[Vec<Node>]) -> Result<Box<Self>, PackError> {
        if trees.is_empty() {
            return Ok(table);
        }
        table.steps = table.depth.div_ceil(2).max(1);
        table.block_count = MAX_TREES as u32;
        for root in 0..MAX_TREES as u32 {
            table.blocks[root as usize] = Block::leaf(root, Leaf::unpack(0));
        }
        let mut last = Vec::new();
        for (tree, nodes) in trees.iter().enumerate() {
            place(&mut table, (tree as u32, nodes), &mut last)?;
        }
        // Behind all groups of four, which begin at multiples of four.
        for (at, split, leaves) in last {
            let child = reserve(&mut table, 1)?;
            table.blocks[child as usize] = Block::leaves(leaves);
            table.blocks[at as usize] = split.block(child);
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

/// A block of the last step, which has no child yet, and its leaves.
type Last = (u32, Pair, [Leaf; CHILDREN]);

/// Lays a tree out breadth first from its root block on, but for the leaves of last steps.
fn place(
    table: &mut Table,
    (tree, nodes): (u32, &[Node]),
    last: &mut Vec<Last>,
) -> Result<(), PackError> {
    let mut waiting = VecDeque::from([(0, tree, 1)]);
    while let Some((from, at, step)) = waiting.pop_front() {
        let split = match nodes[from as usize] {
            Node::Leaf(leaf) => {
                table.blocks[at as usize] = Block::leaf(at, leaf);
                continue;
            }
            Node::Split {
                feature,
                threshold,
                at_most,
                above,
            } => Pair {
                upper: (threshold, feature),
                lower: [lower(nodes, at_most), lower(nodes, above)],
            },
        };
        if let Some(leaves) = split.leaves(nodes).filter(|_| step == table.steps) {
            last.push((at, split, leaves));
            continue;
        }
        let child = reserve(table, CHILDREN)?;
        table.blocks[at as usize] = split.block(child);
        let ends = split.ends().into_iter().zip(child..);
        waiting.extend(ends.map(|(from, at)| (from, at, step + 1)));
    }
    Ok(())
}

/// A split and the two below it.
struct Pair {
    upper: (u32, u8),
    lower: [Lower; 2],
}

impl Pair {
    fn block(&self, child: u32) -> Block {
        let (threshold, feature) = self.upper;
        let [left, right] = &self.lower;
        Block::split(
            [threshold, left.threshold, right.threshold],
            [feature, left.feature, right.feature],
            child,
        )
    }

    const fn ends(&self) -> [u32; CHILDREN] {
        let [[a, b], [c, d]] = [self.lower[0].ends, self.lower[1].ends];
        [a, b, c, d]
    }

    /// The four leaves below; `None` if a path goes on.
    fn leaves(&self, nodes: &[Node]) -> Option<[Leaf; CHILDREN]> {
        let mut leaves = [Leaf::unpack(0); CHILDREN];
        for (leaf, end) in leaves.iter_mut().zip(self.ends()) {
            let Node::Leaf(found) = nodes[end as usize] else {
                return None;
            };
            *leaf = found;
        }
        Some(leaves)
    }
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

/// The index of the first of so many more blocks.
fn reserve(table: &mut Table, blocks: usize) -> Result<u32, PackError> {
    let first = table.block_count;
    if first as usize + blocks > MAX_BLOCKS {
        return Err(PackError::TooManyBlocks {
            nodes: table.node_count as usize,
        });
    }
    table.block_count = first + blocks as u32;
    Ok(first)
}
