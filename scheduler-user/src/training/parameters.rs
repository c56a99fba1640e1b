//! The knobs of all trainers.

use serde::{Deserialize, Serialize};

/// What a trainer may be told; each heeds what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parameters {
    /// Splits on a path at most.
    pub splits: u16,
    /// Training rows in a leaf at least.
    pub min_leaf_rows: usize,
    /// Trees at most.
    pub trees: usize,
    /// Features that a split of a forest may choose from.
    pub features_a_split: usize,
    /// Features, drawn at random, that a boosted tree sees.
    pub features_a_tree: usize,
    /// Share of what a boosted tree finds that is taken over.
    pub learning_rate: f64,
    /// Share of the rows that a boosted tree sees.
    pub row_share: f64,
    /// Weight of a short message's row where a long one's is 1 ([`super::short_weights`]).
    pub short_weight: f64,
    /// Decides between splits that are equally good, and what is drawn at random.
    pub seed: u64,
}

impl Parameters {
    /// Defaults of the single tree.
    pub const TREE: Self = Self {
        splits: 8,
        min_leaf_rows: 20,
        trees: 1,
        features_a_split: 20,
        features_a_tree: 20,
        learning_rate: 1.0,
        row_share: 1.0,
        short_weight: 1.0,
        seed: 0,
    };
    /// Defaults of the single tree on so many rows: a leaf holds one in 400 at least. Smaller ones fit noise, and each
    /// decision point is another chance for it to send a message down, from where nothing brings it back.
    pub fn tree_of(rows: usize) -> Self {
        Self {
            min_leaf_rows: Self::TREE.min_leaf_rows.max(rows / 400),
            ..Self::TREE
        }
    }

    /// Defaults of the bagged forest.
    pub const FOREST: Self = Self {
        splits: 12,
        min_leaf_rows: 5,
        trees: 16,
        features_a_split: 14,
        ..Self::TREE
    };
    /// Defaults of the forest with random thresholds.
    pub const EXTRA: Self = Self {
        features_a_split: 12,
        ..Self::FOREST
    };
    /// Defaults of the boosted ensemble.
    pub const BOOSTED: Self = Self {
        splits: 6,
        min_leaf_rows: 10,
        trees: 16,
        learning_rate: 0.3,
        row_share: 0.5,
        ..Self::TREE
    };
}

impl Default for Parameters {
    fn default() -> Self {
        Self::TREE
    }
}
