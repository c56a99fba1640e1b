//! The tree table and its walk, the same code on both sides.
//!
//! A model is one map value: a header of 64 bytes and an array of 16-byte blocks. A block holds a split and
//! the two below it, so one step goes down two levels: the three comparisons stand side by side, and their
//! outcome picks one of four neighbouring blocks. A leaf is a block whose comparisons can't come out true and
//! whose child is itself, so a walk that has arrived stays, and one number of steps does for all paths.
//! There is no branch on data in a step, and a bad table can at worst give a wrong number: indices are
//! masked and the number of steps is bounded.
//!
//! The trees of a forest are walked four at a time, a step of each in turn: they wait for memory and for their
//! own arithmetic at the same time.

mod check;
#[cfg(any(test, feature = "user"))]
mod pack;

pub use check::TableError;
#[cfg(any(test, feature = "user"))]
pub use pack::{Node, PackError};

use crate::{
    ABI_VERSION,
    features::{Features, SLOTS, ZERO_SLOT},
};

/// Blocks in a table: a power of two, so that an index is bounded by a mask.
pub const MAX_BLOCKS: usize = 16384;
/// Trees in a table.
pub const MAX_TREES: usize = 16;
/// Splits on a path.
pub const MAX_DEPTH: u32 = 12;
/// Blocks on a path above its leaf: two splits each.
pub const MAX_STEPS: u32 = MAX_DEPTH / 2;

/// Trees that are walked side by side.
const LANES: usize = 4;
/// Blocks in a group: where a step can lead.
const CHILDREN: usize = 4;

/// Added to the bytes to come before the logarithm is taken.
///
/// To a scheduler whose top band takes the first 15 000 bytes of every message, 1 byte and 1 kB to come
/// are the same; without the floor most of a tree would be spent on telling them apart.
pub const TARGET_FLOOR_BYTES: u32 = 4096;

/// A split and the two below it, or a leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct Block {
    /// Largest values that go left at: the upper split, the left one below it, the right one below it.
    /// [`u32::MAX`] where there is no split: all go left. In a leaf the third is the packed [`Leaf`].
    pub thresholds: [u32; 3],
    /// Features of the three splits in 5 bits each, lowest first; above them the index of the first of four
    /// neighbouring children; in a leaf, of the block itself.
    pub link: u32,
}

const _: () = assert!(size_of::<Block>() == 16 && align_of::<Block>() == 4);

/// Width of a feature's number in [`Block::link`].
const FEATURE_BITS: u32 = SLOTS.trailing_zeros();
/// Where the child's number begins in [`Block::link`].
const CHILD_SHIFT: u32 = 3 * FEATURE_BITS;

const _: () = assert!(MAX_BLOCKS.is_power_of_two() && SLOTS.is_power_of_two());
const _: () = assert!(MAX_BLOCKS <= 1 << (u32::BITS - CHILD_SHIFT));
const _: () = assert!(MAX_TREES.is_multiple_of(CHILDREN) && MAX_TREES.is_multiple_of(LANES));

impl Block {
    /// The block that tests `features` against `thresholds` and leads to one of the four at `child`.
    pub const fn split(thresholds: [u32; 3], features: [u8; 3], child: u32) -> Self {
        let [a, b, c] = features;
        let packed = a as u32 | (b as u32) << FEATURE_BITS | (c as u32) << (2 * FEATURE_BITS);
        Self {
            thresholds,
            link: packed | child << CHILD_SHIFT,
        }
    }

    /// The block at `index` that ends a path with `leaf`.
    pub const fn leaf(index: u32, leaf: Leaf) -> Self {
        let thresholds = [u32::MAX, u32::MAX, leaf.pack()];
        Self::split(thresholds, [ZERO_SLOT; 3], index)
    }

    /// Index of the first of the four children.
    pub const fn child(&self) -> u32 {
        self.link >> CHILD_SHIFT
    }

    /// Features of the upper split, the left one below it and the right one below it.
    pub const fn features(&self) -> [u8; 3] {
        const MASK: u32 = SLOTS as u32 - 1;
        [
            (self.link & MASK) as u8,
            (self.link >> FEATURE_BITS & MASK) as u8,
            (self.link >> (2 * FEATURE_BITS) & MASK) as u8,
        ]
    }

    /// Whether the block at `index` ends a path.
    pub const fn is_leaf(&self, index: u32) -> bool {
        let [upper, left, _leaf] = self.thresholds;
        upper == u32::MAX && left == u32::MAX && self.child() == index
    }
}

/// What a path ends in: the prediction and how far to trust it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// Predicted log2 of ([`TARGET_FLOOR_BYTES`] + bytes to come), in 1/256.
    pub log2_q8: u16,
    /// Standard deviation of the same among the training rows of the leaf, in 1/256.
    pub sigma_q8: u16,
}

impl Leaf {
    /// Both halves in one word.
    pub const fn pack(self) -> u32 {
        (self.sigma_q8 as u32) << 16 | self.log2_q8 as u32
    }

    /// The inverse of [`Leaf::pack`].
    pub const fn unpack(word: u32) -> Self {
        Self {
            log2_q8: word as u16,
            sigma_q8: (word >> 16) as u16,
        }
    }
}

/// A whole model as the kernel reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct Table {
    /// [`ABI_VERSION`]; another version is refused and aging rules.
    pub abi_version: u32,
    /// Number of this model on this host; 0 = no model.
    pub generation: u32,
    /// Trees in use; what is predicted is their mean, less the bias. 0 = no model.
    pub trees: u32,
    /// [`mean_factor`] of `trees`, so that the kernel need not divide.
    pub mean_factor: u32,
    /// Blocks to pass on the way to the deepest leaf.
    pub steps: u32,
    /// Splits on the longest path, for people.
    pub depth: u32,
    /// Splits and leaves of all trees, for people.
    pub node_count: u32,
    /// Blocks in use.
    pub block_count: u32,
    /// Taken off the trees' mean, in 1/256; 0 where there is but one tree.
    ///
    /// A sum of trees whose leaves are corrections, some of them negative, is a mean too: of `n` trees each leaf
    /// is packed as the bias plus `n` times its correction.
    pub bias_q8: u32,
    /// Explicit padding: groups of four blocks begin at multiples of 64 bytes.
    pub _pad: [u32; 7],
    /// First the root of each tree, a leaf of nothing where there is no tree; then groups of four.
    pub blocks: [Block; MAX_BLOCKS],
}

const _: () = assert!(core::mem::offset_of!(Table, blocks) == 64);
const _: () = assert!(size_of::<Table>() == 64 + 16 * MAX_BLOCKS);

/// Binary places of [`mean_factor`].
const MEAN_SHIFT: u32 = 24;

/// `sum * mean_factor(trees) >> 24` is `sum / trees` for every sum of so many 16-bit numbers.
///
/// The factor is too large by less than 1 in 2^24, which the product with a sum below 2^20 and the divisor
/// of at most 16 can't carry into the quotient.
pub const fn mean_factor(trees: u32) -> u32 {
    match (1u32 << MEAN_SHIFT).checked_add(trees.saturating_sub(1)) {
        Some(numerator) if trees > 0 => numerator / trees,
        _ => 0,
    }
}

impl Table {
    /// A table that predicts nothing: aging rules.
    pub const EMPTY: Self = Self {
        abi_version: ABI_VERSION,
        generation: 0,
        trees: 0,
        mean_factor: 0,
        steps: 0,
        depth: 0,
        node_count: 0,
        block_count: 0,
        bias_q8: 0,
        _pad: [0; 7],
        blocks: [Block {
            thresholds: [0; 3],
            link: 0,
        }; MAX_BLOCKS],
    };

    /// Mean of the trees less the bias, at least 0; `None` for a table without trees.
    #[inline(always)]
    pub fn walk(&self, features: &Features) -> Option<Leaf> {
        match self.trees {
            0 => None,
            1 => Some(self.walk_one(features)),
            _ => Some(self.walk_all(features)),
        }
    }

    #[inline(always)]
    fn walk_one(&self, features: &Features) -> Leaf {
        let mut at = 0;
        for step in 0..MAX_STEPS {
            if step >= self.steps {
                break;
            }
            at = self.step(at, features);
        }
        self.leaf(at)
    }

    /// The loop ends at what the table says; the verifier joins its ways out, for a place is a number of any size to it.
    #[inline(always)]
    fn walk_all(&self, features: &Features) -> Leaf {
        let (mut log2_sum, mut sigma_sum) = (0u64, 0u64);
        for quad in 0..(MAX_TREES / LANES) {
            let first = quad * LANES;
            if first as u32 >= self.trees {
                break;
            }
            let root = (first * size_of::<Block>()) as u64;
            let [mut a, mut b, mut c, mut d] = [root, root + 16, root + 32, root + 48];
            for step in 0..MAX_STEPS {
                if step >= self.steps {
                    break;
                }
                a = self.step(a, features);
                b = self.step(b, features);
                c = self.step(c, features);
                d = self.step(d, features);
            }
            for at in [a, b, c, d] {
                let leaf = self.leaf(at);
                log2_sum += u64::from(leaf.log2_q8);
                sigma_sum += u64::from(leaf.sigma_q8);
            }
        }
        let mean = |sum: u64| sum.wrapping_mul(u64::from(self.mean_factor)) >> MEAN_SHIFT;
        Leaf {
            log2_q8: mean(log2_sum).saturating_sub(u64::from(self.bias_q8)) as u16,
            sigma_q8: mean(sigma_sum) as u16,
        }
    }

    #[inline(always)]
    const fn leaf(&self, at: u64) -> Leaf {
        Leaf::unpack(self.block(at).thresholds[2])
    }

    /// From the block at byte `at` of the blocks to the one that the features lead to, likewise in bytes.
    #[inline(always)]
    fn step(&self, at: u64, features: &Features) -> u64 {
        let block = self.block(at);
        let link = u64::from(block.link);
        let value = |place: u32| {
            u64::from(features[(link >> (place * FEATURE_BITS)) as usize & (SLOTS - 1)])
        };
        let [upper, left, right] = block.thresholds.map(u64::from);
        // The high half of a 64-bit difference of two 32-bit numbers is all ones if the value is the
        // greater, and zeroes otherwise; LLVM keeps this form without a branch. The shift is a logical one
        // and a shift chooses, for want of a mask: verifiers follow both values of a mask at each `and`.
        let right_of_upper = upper.wrapping_sub(value(0)) >> 32 & 1;
        let left = left.wrapping_sub(value(1)) >> 32 & 16;
        let right = right.wrapping_sub(value(2)) >> 32 & 32;
        let lower = (left | right) >> right_of_upper & 16;
        (link >> CHILD_SHIFT << 4) + (right_of_upper << 5) + lower
    }

    #[inline(always)]
    const fn block(&self, at: u64) -> &Block {
        &self.blocks[(at >> 4) as usize & (MAX_BLOCKS - 1)]
    }
}

impl Leaf {
    /// Bytes to come.
    #[inline(always)]
    pub const fn bytes_to_come(self) -> u64 {
        exp2_q8(self.log2_q8).saturating_sub(TARGET_FLOOR_BYTES as u64)
    }
}

/// 2^(`log2_q8` / 256) in bytes, by straight lines between powers of two (at most 6 % too high).
#[inline(always)]
const fn exp2_q8(log2_q8: u16) -> u64 {
    let whole = log2_q8 >> 8;
    let fraction = (log2_q8 & 0xff) as u64;
    if whole >= 48 {
        return 1 << 48;
    }
    ((256 + fraction) << whole) >> 8
}

#[cfg(test)]
mod tests;
