//! Whether the kernel may be given a table.

use super::{
    Block, CHILDREN, Leaf, MAX_BLOCKS, MAX_DEPTH, MAX_STEPS, MAX_TREES, Table, mean_factor,
};
use crate::{ABI_VERSION, features::Feature};

/// Why a table must not be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// Made for another ABI version.
    AbiVersion(u32),
    /// Too many trees, blocks or levels for the kernel program.
    TooLarge,
    /// The factor is not that of the number of trees.
    MeanFactor(u32),
    /// More than any leaf holds, or not 0 though there is but one tree.
    Bias(u32),
    /// The roots are not all among the blocks in use, or one without a tree is no leaf of nothing.
    Root {
        /// The tree.
        tree: u32,
    },
    /// A child points outside the blocks in use.
    OutOfRange {
        /// The block that points.
        at: u32,
    },
    /// The children are no group of four.
    Unaligned {
        /// The parent.
        at: u32,
    },
    /// A child stands at or before its parent: a cycle.
    Backwards {
        /// The parent.
        at: u32,
    },
    /// A split tests a slot that holds no feature.
    BadFeature {
        /// The split's block.
        at: u32,
    },
    /// A path is longer than the kernel walks.
    TooDeep {
        /// The tree.
        tree: u32,
    },
}

impl Table {
    /// Whether the kernel may be given this table.
    ///
    /// # Errors
    /// The first fault found: version, size, bias, a child out of range or not behind its parent, a split
    /// on no feature, a path that does not end within the number of steps.
    pub fn check(&self) -> Result<(), TableError> {
        if self.abi_version != ABI_VERSION {
            return Err(TableError::AbiVersion(self.abi_version));
        }
        if self.trees as usize > MAX_TREES
            || self.block_count as usize > MAX_BLOCKS
            || self.depth > MAX_DEPTH
            || self.steps > MAX_STEPS
        {
            return Err(TableError::TooLarge);
        }
        if self.mean_factor != mean_factor(self.trees) {
            return Err(TableError::MeanFactor(self.mean_factor));
        }
        if self.bias_q8 > u32::from(u16::MAX) || self.bias_q8 > 0 && self.trees <= 1 {
            return Err(TableError::Bias(self.bias_q8));
        }
        if self.trees == 0 {
            return Ok(());
        }
        let blocks = &self.blocks[..self.block_count as usize];
        for tree in 0..MAX_TREES as u32 {
            let root = blocks.get(tree as usize);
            let nothing = Block::leaf(tree, Leaf::unpack(0));
            if root.is_none() || tree >= self.trees && root != Some(&nothing) {
                return Err(TableError::Root { tree });
            }
        }
        self.check_heights(blocks)
    }

    fn check_heights(&self, blocks: &[Block]) -> Result<(), TableError> {
        let mut heights = [0u8; MAX_BLOCKS];
        // Children stand behind parents, so one pass from the end finds every height.
        for (index, block) in blocks.iter().enumerate().rev() {
            let at = index as u32;
            if block.is_leaf(at) {
                continue;
            }
            check_split(block, at, blocks.len())?;
            let child = block.child() as usize;
            let below = heights[child..child + CHILDREN].iter().max();
            heights[index] = below.map_or(0, |height| height.saturating_add(1));
        }
        for tree in 0..self.trees {
            if u32::from(heights[tree as usize]) > self.steps {
                return Err(TableError::TooDeep { tree });
            }
        }
        Ok(())
    }
}

fn check_split(block: &Block, at: u32, blocks: usize) -> Result<(), TableError> {
    let tests = block.features().into_iter().zip(block.thresholds);
    // All are at most `u32::MAX`: no test, whatever the feature.
    let mut real = tests.filter(|(_, threshold)| *threshold != u32::MAX);
    if real.any(|(feature, _)| usize::from(feature) >= Feature::ALL.len()) {
        return Err(TableError::BadFeature { at });
    }
    let child = block.child();
    if child <= at {
        return Err(TableError::Backwards { at });
    }
    if child as usize + CHILDREN > blocks {
        return Err(TableError::OutOfRange { at });
    }
    if !(child as usize).is_multiple_of(CHILDREN) {
        return Err(TableError::Unaligned { at });
    }
    Ok(())
}
