//! The tree table and its walk, the same code on both sides.
//!
//! A model is one map value: a header and an array of 8-byte nodes. A node sends a packet to
//! `child` if its feature is at most `threshold` and to `child + 1` otherwise. A leaf points to
//! itself and tests [`ZERO_SLOT`], which is always zero, so a walk that has arrived stays; its
//! `threshold` field then carries the [`Leaf`]. There is no branch on data in a step, and a bad
//! table can at worst give a wrong number: indices are masked and the number of steps is bounded.

use crate::{
    ABI_VERSION,
    features::{Features, SLOTS, ZERO_SLOT},
};

/// Nodes in a table: a power of two, so that an index is bounded by a mask.
pub const MAX_NODES: usize = 4096;
/// Trees in a table.
pub const MAX_TREES: usize = 16;
/// Splits on a path.
pub const MAX_DEPTH: u32 = 12;

/// Added to the bytes to come before the logarithm is taken.
///
/// To a scheduler whose top band takes the first 15 000 bytes of every message, 1 byte and 1 kB to come
/// are the same; without the floor most of a tree would be spent on telling them apart.
pub const TARGET_FLOOR_BYTES: u32 = 4096;

/// One node of a tree.
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
pub struct Node {
    /// Largest value that goes to `child`; in a leaf, the packed [`Leaf`].
    pub threshold: u32,
    /// Index of the first of two neighbouring children; in a leaf, of the node itself.
    pub child: u16,
    /// Feature that is tested; [`ZERO_SLOT`] in a leaf.
    pub feature: u8,
    /// Explicit padding.
    pub _pad: u8,
}

const _: () = assert!(size_of::<Node>() == 8 && align_of::<Node>() == 4);

impl Node {
    /// The node at `index` that ends a path with `leaf`.
    pub const fn leaf(index: u16, leaf: Leaf) -> Self {
        Self {
            threshold: leaf.pack(),
            child: index,
            feature: ZERO_SLOT,
            _pad: 0,
        }
    }

    /// Whether the node at `index` ends a path.
    pub const fn is_leaf(&self, index: u16) -> bool {
        self.feature == ZERO_SLOT && self.child == index
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
    /// Trees in use; their predictions are averaged. 0 = no model.
    pub trees: u32,
    /// Splits on the longest path.
    pub depth: u32,
    /// Nodes in use.
    pub node_count: u32,
    /// Explicit padding.
    pub _pad: u32,
    /// Index of each tree's root.
    pub roots: [u16; MAX_TREES],
    /// Nodes of all trees.
    pub nodes: [Node; MAX_NODES],
}

const _: () = assert!(size_of::<Table>() == 24 + 2 * MAX_TREES + 8 * MAX_NODES);
const _: () = assert!(MAX_NODES.is_power_of_two() && SLOTS.is_power_of_two());

/// Why a table must not be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// Made for another ABI version.
    AbiVersion(u32),
    /// Too many trees, nodes or levels for the kernel program.
    TooLarge,
    /// A root or child points outside the nodes in use.
    OutOfRange {
        /// The node that points, or the tree whose root does.
        at: u32,
    },
    /// A child stands at or before its parent: a cycle.
    Backwards {
        /// The parent.
        at: u32,
    },
    /// A split tests a slot that holds no feature.
    BadFeature {
        /// The split.
        at: u32,
    },
    /// A path is longer than the table's depth.
    TooDeep {
        /// The tree.
        tree: u32,
    },
}

impl Table {
    /// A table that predicts nothing: aging rules.
    pub const EMPTY: Self = Self {
        abi_version: ABI_VERSION,
        generation: 0,
        trees: 0,
        depth: 0,
        node_count: 0,
        _pad: 0,
        roots: [0; MAX_TREES],
        nodes: [Node {
            threshold: 0,
            child: 0,
            feature: ZERO_SLOT,
            _pad: 0,
        }; MAX_NODES],
    };

    /// Mean prediction of the trees; `None` for a table without trees.
    #[inline(always)]
    pub fn walk(&self, features: &Features) -> Option<Leaf> {
        let mut log2_sum = 0u32;
        let mut sigma_sum = 0u32;
        for tree in 0..MAX_TREES {
            if tree as u32 >= self.trees {
                break;
            }
            let leaf = Leaf::unpack(self.walk_from(self.roots[tree & (MAX_TREES - 1)], features));
            log2_sum += u32::from(leaf.log2_q8);
            sigma_sum += u32::from(leaf.sigma_q8);
        }
        Some(Leaf {
            log2_q8: log2_sum.checked_div(self.trees)? as u16,
            sigma_q8: sigma_sum.checked_div(self.trees)? as u16,
        })
    }

    #[inline(always)]
    fn walk_from(&self, root: u16, features: &Features) -> u32 {
        let mut index = u32::from(root);
        for step in 0..MAX_DEPTH {
            if step >= self.depth {
                break;
            }
            let node = &self.nodes[index as usize & (MAX_NODES - 1)];
            let value = features[node.feature as usize & (SLOTS - 1)];
            // The sign bit of a 64-bit difference is the comparison; LLVM keeps this form
            // without a branch.
            let greater = (u64::from(node.threshold).wrapping_sub(u64::from(value)) >> 32) & 1;
            index = u32::from(node.child) + greater as u32;
        }
        self.nodes[index as usize & (MAX_NODES - 1)].threshold
    }

    /// Whether the kernel may be given this table.
    ///
    /// # Errors
    /// The first fault found: version, size, a child out of range or not behind its parent, a split
    /// on no feature, a path that does not end within `depth`.
    pub fn check(&self) -> Result<(), TableError> {
        if self.abi_version != ABI_VERSION {
            return Err(TableError::AbiVersion(self.abi_version));
        }
        if self.trees as usize > MAX_TREES
            || self.node_count as usize > MAX_NODES
            || self.depth > MAX_DEPTH
        {
            return Err(TableError::TooLarge);
        }
        let nodes = &self.nodes[..self.node_count as usize];
        let mut depth_of = [0u8; MAX_NODES];
        for (index, node) in nodes.iter().enumerate() {
            let at = index as u32;
            if node.is_leaf(index as u16) {
                continue;
            }
            if node.feature >= ZERO_SLOT {
                return Err(TableError::BadFeature { at });
            }
            let child = node.child as usize;
            if child <= index {
                return Err(TableError::Backwards { at });
            }
            if child + 1 >= nodes.len() {
                return Err(TableError::OutOfRange { at });
            }
            // Parents stand before children, so one pass finds every depth.
            let below = depth_of[index].saturating_add(1);
            depth_of[child] = depth_of[child].max(below);
            depth_of[child + 1] = depth_of[child + 1].max(below);
        }
        for (tree, root) in self.roots.iter().take(self.trees as usize).enumerate() {
            if *root as usize >= nodes.len() {
                return Err(TableError::OutOfRange { at: tree as u32 });
            }
        }
        match depth_of.iter().max() {
            Some(deepest) if u32::from(*deepest) > self.depth => {
                Err(TableError::TooDeep { tree: 0 })
            }
            _ => Ok(()),
        }
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn boxed_empty() -> Box<Table> {
        Box::new(Table { ..Table::EMPTY })
    }

    fn stump() -> Box<Table> {
        let mut table = boxed_empty();
        table.trees = 1;
        table.depth = 1;
        table.node_count = 3;
        table.nodes[0] = Node {
            threshold: 10,
            child: 1,
            feature: 3,
            _pad: 0,
        };
        table.nodes[1] = Node::leaf(
            1,
            Leaf {
                log2_q8: 100,
                sigma_q8: 1,
            },
        );
        table.nodes[2] = Node::leaf(
            2,
            Leaf {
                log2_q8: 200,
                sigma_q8: 2,
            },
        );
        table
    }

    #[test]
    fn equal_goes_left_and_greater_right() {
        let table = stump();
        table.check().unwrap();
        let mut features = [0; SLOTS];
        for (value, expected) in [(0, 100), (10, 100), (11, 200), (u32::MAX, 200)] {
            features[3] = value;
            assert_eq!(table.walk(&features).unwrap().log2_q8, expected);
        }
    }

    #[test]
    fn an_empty_table_predicts_nothing() {
        assert_eq!(Table::EMPTY.walk(&[0; SLOTS]), None);
        Table::EMPTY.check().unwrap();
    }

    #[test]
    fn a_walk_that_has_arrived_stays() {
        let mut table = stump();
        table.depth = MAX_DEPTH;
        assert_eq!(
            table.walk(&[5; SLOTS].map(|v: u32| v)).unwrap().log2_q8,
            100
        );
    }

    #[test]
    fn faults_are_found() {
        let fault = |change: fn(&mut Table)| {
            let mut table = stump();
            change(&mut table);
            table.check().unwrap_err()
        };
        assert_eq!(fault(|t| t.abi_version = 99), TableError::AbiVersion(99));
        assert_eq!(fault(|t| t.depth = 13), TableError::TooLarge);
        assert_eq!(
            fault(|t| t.nodes[0].child = 0),
            TableError::Backwards { at: 0 }
        );
        assert_eq!(
            fault(|t| t.nodes[0].child = 2),
            TableError::OutOfRange { at: 0 }
        );
        assert_eq!(
            fault(|t| t.nodes[0].feature = 15),
            TableError::BadFeature { at: 0 }
        );
        assert_eq!(fault(|t| t.roots[0] = 3), TableError::OutOfRange { at: 0 });
        assert_eq!(fault(|t| t.depth = 0), TableError::TooDeep { tree: 0 });
    }

    #[test]
    fn the_floor_is_taken_off_again() {
        let to_come = |log2_q8| {
            Leaf {
                log2_q8,
                sigma_q8: 0,
            }
            .bytes_to_come()
        };
        assert_eq!(to_come(20 << 8), (1 << 20) - 4096);
        assert_eq!(to_come(12 << 8), 0);
        assert_eq!(to_come(0), 0);
    }

    #[test]
    fn exp2_is_exact_at_powers_and_near_between() {
        assert_eq!(exp2_q8(0), 1);
        assert_eq!(exp2_q8(20 << 8), 1 << 20);
        assert_eq!(exp2_q8(u16::MAX), 1 << 48);
        for q8 in (4 << 8)..(40 << 8) {
            let exact = (f64::from(q8) / 256.0).exp2();
            let ratio = exp2_q8(q8) as f64 / exact;
            assert!((0.93..1.07).contains(&ratio), "{q8}: {ratio}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_table_holds_a_walk_ends(
            words in proptest::collection::vec(any::<(u32, u16, u8)>(), 64),
            roots in any::<[u16; MAX_TREES]>(),
            trees in 0u32..40,
            depth in any::<u32>(),
            features in any::<Features>(),
        ) {
            let mut table = boxed_empty();
            table.trees = trees;
            table.depth = depth;
            table.roots = roots;
            for (index, (threshold, child, feature)) in words.into_iter().enumerate() {
                table.nodes[index] = Node { threshold, child, feature, _pad: 0 };
            }
            prop_assert_eq!(table.walk(&features).is_some(), trees > 0);
        }
    }
}
