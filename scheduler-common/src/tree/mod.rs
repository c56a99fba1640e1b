//! The tree table and its walk, the same code on both sides.
//!
//! A model is one map value: a header, a line of tests for each oblivious tree, and an array of 16-byte blocks. There
//! are two forms, and both are walked without a branch on data; a bad table can at worst give a wrong number, for
//! indices are masked and the number of steps is bounded.
//!
//! [`form::BLOCKS`], for any tree: a block holds a split and the two below it, so one step goes down two levels: the
//! three comparisons stand side by side, and their outcome picks one of four neighbouring blocks, or in the last step
//! one of the four leaves in a single block. A leaf further up is a block whose comparisons can't come out true and
//! whose child is itself, so a walk that has arrived stays, and one number of steps does for all paths. The trees
//! of a forest are walked four at a time, a step of each in turn: they wait for memory and for their own arithmetic at
//! the same time.
//!
//! [`form::OBLIVIOUS`], for trees that ask one question a level: the outcomes are the number of the leaf, so
//! nothing waits for a step above it.

mod check;
#[cfg(any(test, feature = "user"))]
mod oblivious;
#[cfg(any(test, feature = "user"))]
mod pack;
mod walk;

pub use check::TableError;
#[cfg(any(test, feature = "user"))]
pub use pack::{Node, PackError};

use crate::{
    ABI_VERSION,
    features::{SLOTS, ZERO_SLOT},
};

/// Blocks in a table: a power of two, so that an index is bounded by a mask.
///
/// A full tree of depth 12 takes 2389. Half as many cost a forest of sixteen trees two hundredths of what it tells of
/// first packets on real captures.
pub const MAX_BLOCKS: usize = 8192;
/// Trees in a table.
pub const MAX_TREES: usize = 16;
/// Splits on a path.
pub const MAX_DEPTH: u32 = 12;
/// Blocks on a path above its leaf: two splits each.
pub const MAX_STEPS: u32 = MAX_DEPTH / 2;
/// Words of the blocks, each of which can be a leaf.
pub const MAX_WORDS: usize = BLOCK_WORDS * MAX_BLOCKS;
/// Questions of an oblivious tree that a step answers.
pub const GROUP_TESTS: usize = 4;
/// Steps of an oblivious tree.
pub const GROUPS: usize = MAX_DEPTH as usize / GROUP_TESTS;

/// Values of [`Table::form`].
pub mod form {
    /// Blocks of two levels.
    pub const BLOCKS: u32 = 0;
    /// One test a level.
    pub const OBLIVIOUS: u32 = 1;
}

/// Trees that are walked side by side.
const LANES: usize = 4;
/// Blocks in a group: where a step can lead.
const CHILDREN: usize = 4;
const BLOCK_WORDS: usize = size_of::<Block>() / size_of::<u32>();

/// Added to the bytes to come before the logarithm is taken.
///
/// To a scheduler whose top band takes the first 15 000 bytes of every message, 1 byte and 1 kB to come
/// are the same; without the floor most of a tree would be spent on telling them apart.
pub const TARGET_FLOOR_BYTES: u32 = 4096;

/// A split and the two below it, a leaf, or the four leaves that a last step leads to.
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
    /// Of splits: the largest values that go left at the upper one, the left one below it, the right one below it,
    /// [`u32::MAX`] where there is no split; then the features of the three in 5 bits each, lowest first, and above them
    /// the index of the first of four neighbouring children, or of the one block of leaves.
    /// Of a leaf: itself packed, and the rest as if it were a split on nothing whose child is itself.
    /// Of four leaves: these, packed.
    pub words: [u32; 4],
}

const _: () = assert!(size_of::<Block>() == 16 && align_of::<Block>() == 4);

/// Width of a feature's number in a block's last word.
const FEATURE_BITS: u32 = SLOTS.trailing_zeros();
/// Where the child's number begins there.
const CHILD_SHIFT: u32 = 3 * FEATURE_BITS;

const _: () = assert!(MAX_BLOCKS.is_power_of_two() && SLOTS.is_power_of_two());
const _: () = assert!(MAX_BLOCKS <= 1 << (u32::BITS - CHILD_SHIFT));
const _: () = assert!(MAX_TREES.is_multiple_of(CHILDREN) && MAX_TREES.is_multiple_of(LANES));

impl Block {
    /// The block that tests `features` against `thresholds` and leads to one of the four at `child`.
    pub const fn split(thresholds: [u32; 3], features: [u8; 3], child: u32) -> Self {
        let [a, b, c] = features;
        let packed = a as u32 | (b as u32) << FEATURE_BITS | (c as u32) << (2 * FEATURE_BITS);
        let [upper, left, right] = thresholds;
        Self {
            words: [upper, left, right, packed | child << CHILD_SHIFT],
        }
    }

    /// The block at `index` that ends a path with `leaf`.
    pub const fn leaf(index: u32, leaf: Leaf) -> Self {
        // Nothing is less than 0, whatever the threshold, so the first can be the leaf.
        let thresholds = [leaf.pack(), u32::MAX, u32::MAX];
        Self::split(thresholds, [ZERO_SLOT; 3], index)
    }

    /// The four leaves that a last step leads to.
    pub fn leaves(leaves: [Leaf; CHILDREN]) -> Self {
        Self {
            words: leaves.map(Leaf::pack),
        }
    }

    /// Largest values that go left.
    pub const fn thresholds(&self) -> [u32; 3] {
        let [upper, left, right, _link] = self.words;
        [upper, left, right]
    }

    /// Index of the first of the four children.
    pub const fn child(&self) -> u32 {
        self.words[3] >> CHILD_SHIFT
    }

    /// Features of the upper split, the left one below it and the right one below it.
    pub const fn features(&self) -> [u8; 3] {
        const MASK: u32 = SLOTS as u32 - 1;
        let link = self.words[3];
        [
            (link & MASK) as u8,
            (link >> FEATURE_BITS & MASK) as u8,
            (link >> (2 * FEATURE_BITS) & MASK) as u8,
        ]
    }

    /// Whether the block at `index` ends a path.
    pub const fn is_leaf(&self, index: u32) -> bool {
        let on_nothing = Self::split([0; 3], [ZERO_SLOT; 3], index);
        self.words[3] == on_nothing.words[3]
    }
}

/// Four questions of an oblivious tree.
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
pub struct Tests {
    /// The features in 8 bits each, lowest first.
    pub features: u32,
    /// The largest value that answers no; [`u32::MAX`] where there is no question.
    pub thresholds: [u32; GROUP_TESTS],
}

/// An oblivious tree but for its leaves: a cache line.
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
pub struct Head {
    /// Index of its first leaf among the words of the blocks.
    ///
    /// The leaf's number is the answers, that of the first question in the lowest place.
    pub leaves: u32,
    /// Its questions from the root on.
    pub tests: [Tests; GROUPS],
}

const _: () = assert!(size_of::<Head>() == 64 && align_of::<Head>() == 4);

impl Head {
    /// A tree that asks nothing.
    pub const EMPTY: Self = Self {
        leaves: 0,
        tests: [Tests {
            features: ZERO_SLOT as u32 * 0x0101_0101,
            thresholds: [u32::MAX; GROUP_TESTS],
        }; GROUPS],
    };
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
    /// Steps to the deepest leaf: blocks to pass, at least one, or groups of tests.
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
    /// Which of the forms it has: a value of [`form`].
    pub form: u32,
    /// Explicit padding: heads and groups of four blocks begin at multiples of 64 bytes.
    pub _pad: [u32; 6],
    /// Oblivious trees; [`Head::EMPTY`] in the other form.
    pub heads: [Head; MAX_TREES],
    /// First the root of each tree, a leaf of nothing where there is no tree; then groups of four, then leaves by fours.
    /// In the oblivious form leaves alone.
    pub blocks: [Block; MAX_BLOCKS],
}

const _: () = assert!(core::mem::offset_of!(Table, heads) == 64);
const _: () = assert!(core::mem::offset_of!(Table, blocks) == 64 * (1 + MAX_TREES));
const _: () = assert!(size_of::<Table>() == 64 * (1 + MAX_TREES) + 16 * MAX_BLOCKS);

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
        form: form::BLOCKS,
        _pad: [0; 6],
        heads: [Head::EMPTY; MAX_TREES],
        blocks: [Block { words: [0; 4] }; MAX_BLOCKS],
    };

    /// [`Table::EMPTY`] on the heap: a table is 130 kB, too much to hand around.
    #[cfg(any(test, feature = "user"))]
    #[inline(never)]
    pub fn empty() -> Box<Self> {
        Box::new(Self::EMPTY)
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
mod properties;
#[cfg(test)]
mod tests;
