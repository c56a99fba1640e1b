//! Whether the kernel may be given a table.

use super::{
    BLOCK_WORDS, Block, CHILDREN, GROUPS, Head, Leaf, MAX_BLOCKS, MAX_DEPTH, MAX_STEPS, MAX_TREES,
    Table, form, mean_factor,
};
use crate::{
    ABI_VERSION,
    features::{Feature, SLOTS},
};

/// Why a table must not be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// Made for another ABI version.
    AbiVersion(u32),
    /// Neither of the forms.
    Form(u32),
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
    /// Two paths lead to a block, or one leads round in a circle.
    Shared {
        /// The block.
        at: u32,
    },
    /// No path leads to a block in use: there are too few steps.
    Unreached {
        /// The block.
        at: u32,
    },
    /// A split tests a slot that holds no feature.
    BadFeature {
        /// The split's block.
        at: u32,
    },
    /// An oblivious tree tests a slot that holds no feature.
    BadTest {
        /// The tree.
        tree: u32,
        /// The test's level.
        level: u32,
    },
    /// An oblivious tree has leaves outside the blocks in use.
    Leaves {
        /// The tree.
        tree: u32,
    },
}

impl Table {
    /// Whether the kernel may be given this table.
    ///
    /// # Errors
    /// The first fault found: version, form, size, bias, a test of no feature, a child or leaves out of range,
    /// a block that two paths lead to or none.
    pub fn check(&self) -> Result<(), TableError> {
        if self.abi_version != ABI_VERSION {
            return Err(TableError::AbiVersion(self.abi_version));
        }
        let most_steps = match self.form {
            form::BLOCKS => MAX_STEPS,
            form::OBLIVIOUS => GROUPS as u32,
            other => return Err(TableError::Form(other)),
        };
        if self.trees as usize > MAX_TREES
            || self.block_count as usize > MAX_BLOCKS
            || self.depth > MAX_DEPTH
            || self.steps > most_steps
        {
            return Err(TableError::TooLarge);
        }
        if self.mean_factor != mean_factor(self.trees) {
            return Err(TableError::MeanFactor(self.mean_factor));
        }
        if self.bias_q8 > u32::from(u16::MAX) || self.bias_q8 > 0 && self.trees <= 1 {
            return Err(TableError::Bias(self.bias_q8));
        }
        if self.form == form::OBLIVIOUS {
            (0..self.trees)
                .zip(&self.heads)
                .try_for_each(|(tree, head)| self.check_head(tree, head))
        } else if self.trees > 0 {
            self.check_roots()?;
            self.check_blocks()
        } else {
            Ok(())
        }
    }

    fn check_head(&self, tree: u32, head: &Head) -> Result<(), TableError> {
        let mut last = u64::from(head.leaves);
        let groups = head.tests.iter().take(self.steps.max(1) as usize);
        let tests = groups.flat_map(|group| {
            group
                .features
                .to_le_bytes()
                .into_iter()
                .zip(group.thresholds)
        });
        for ((feature, threshold), level) in tests.zip(0..) {
            let most = if threshold == u32::MAX {
                // Nothing is above it: no test, whatever the slot.
                SLOTS
            } else {
                last += 1 << level;
                Feature::ALL.len()
            };
            if usize::from(feature) >= most {
                return Err(TableError::BadTest { tree, level });
            }
        }
        let words = u64::from(self.block_count) * BLOCK_WORDS as u64;
        if last >= words {
            return Err(TableError::Leaves { tree });
        }
        Ok(())
    }

    fn check_roots(&self) -> Result<(), TableError> {
        let blocks = &self.blocks[..self.block_count as usize];
        for tree in 0..MAX_TREES as u32 {
            let root = blocks.get(tree as usize);
            let nothing = Block::leaf(tree, Leaf::unpack(0));
            if root.is_none() || tree >= self.trees && root != Some(&nothing) {
                return Err(TableError::Root { tree });
            }
        }
        Ok(())
    }

    /// Step by step the blocks that walks can be at.
    fn check_blocks(&self) -> Result<(), TableError> {
        let blocks = &self.blocks[..self.block_count as usize];
        let last = self.steps.max(1);
        // The step that meets a block; leaves of last steps are met after them.
        let mut met = [0; MAX_BLOCKS];
        met[..MAX_TREES].fill(1);
        for step in 1..=last {
            for (at, block) in (0..).zip(blocks) {
                if met[at as usize] != step || block.is_leaf(at) {
                    continue;
                }
                let places = if step == last { 1 } else { CHILDREN };
                check_split(block, at, (places, blocks.len()))?;
                let child = block.child();
                for (at, met) in (child..).zip(&mut met[child as usize..][..places]) {
                    if *met > 0 {
                        return Err(TableError::Shared { at });
                    }
                    *met = step + 1;
                }
            }
        }
        match met[..blocks.len()].iter().position(|step| *step == 0) {
            Some(at) => Err(TableError::Unreached { at: at as u32 }),
            None => Ok(()),
        }
    }
}

fn check_split(block: &Block, at: u32, (places, blocks): (usize, usize)) -> Result<(), TableError> {
    let tests = block.features().into_iter().zip(block.thresholds());
    // All are at most `u32::MAX`: no test, whatever the feature.
    let mut real = tests.filter(|(_, threshold)| *threshold != u32::MAX);
    if real.any(|(feature, _)| usize::from(feature) >= Feature::ALL.len()) {
        return Err(TableError::BadFeature { at });
    }
    let child = block.child() as usize;
    if child + places > blocks {
        return Err(TableError::OutOfRange { at });
    }
    if !child.is_multiple_of(places) {
        return Err(TableError::Unaligned { at });
    }
    Ok(())
}
