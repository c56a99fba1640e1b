//! treeline's own model: versioned, checked, and independent of its trainer.

#[cfg(test)]
pub(crate) mod arbitrary;
mod combine;
mod compile;
mod diff;
mod gain;
mod importance;
mod named;
mod registry;
mod render;
pub mod rules;
mod svg;
mod thresholds;

use scheduler_common::{
    ABI_VERSION,
    features::{Feature, Features},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::training::Scores;

pub use combine::Combine;
pub use compile::{CompileError, compile};
pub use diff::{Diff, diff};
pub use gain::Gain;
pub use importance::Importance;
pub use named::NamedFeature;
pub use registry::{Entry, KEPT, LoadError, MAX_FILE_BYTES, Registry, SaveError, Skipped};
pub use render::{Summary, human_bytes};
pub(crate) use rules::bytes_of as bytes_to_come;
pub use svg::svg;
pub use thresholds::Thresholds;

/// Version of the file format.
pub const SCHEMA: u32 = 2;

/// A predictor of log2(floor + bytes to come): the mean of its trees, or their sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// [`SCHEMA`] of who wrote it.
    pub schema: u32,
    /// [`ABI_VERSION`] of who wrote it.
    pub abi_version: u32,
    /// The features by index, as in [`Feature::ALL`].
    pub features: Vec<NamedFeature>,
    /// Number of this model on this host; 0 = not numbered yet.
    pub generation: u32,
    /// The model that ran when this one was accepted.
    pub parent_generation: Option<u32>,
    /// When it was made, seconds since 1970.
    pub created_unix_s: u64,
    /// Name of the trainer.
    pub trainer: String,
    /// Rows it was trained on.
    pub trained_on_samples: u64,
    /// How long training took.
    pub train_ms: u64,
    /// Where those rows came from.
    pub data: DataWindow,
    /// How it did on rows that it had not seen; absent if it was never judged.
    pub scores: Option<Scores>,
    /// How the trees' predictions become one.
    #[serde(default, skip_serializing_if = "Combine::is_mean")]
    pub combine: Combine,
    /// What it lost to fit the table; absent if it fitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pruned: Option<Pruned>,
    /// Where bands are cut while it acts.
    pub thresholds: Thresholds,
    /// Where they are cut when aging takes over from it; absent in files from before there was a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aging_thresholds: Option<Thresholds>,
    /// The trees.
    pub trees: Vec<Tree>,
}

/// The rows behind a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DataWindow {
    /// First row, monotonic clock.
    pub from_ns: u64,
    /// Last row, monotonic clock.
    pub to_ns: u64,
    /// Number of rows.
    pub rows: u64,
    /// Number of service ports among them.
    pub services: u64,
}

/// What pruning took from a model so that it fits the table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Pruned {
    /// Nodes of all trees before.
    pub from_nodes: u64,
    /// Nodes that are left.
    pub to_nodes: u64,
    /// Trees left out, because there were more than the table holds.
    pub dropped_trees: u64,
    /// Training rows that now meet another leaf.
    pub moved_rows: u64,
    /// Share of the training rows' variance that was explained before.
    pub r2_before: f64,
    /// The same now.
    pub r2_after: f64,
}

/// What is known about a model only once it is accepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Provenance {
    /// Its number on this host.
    pub generation: u32,
    /// The model that ran before.
    pub parent_generation: Option<u32>,
    /// Seconds since 1970.
    pub created_unix_s: u64,
    /// How long training took.
    pub train_ms: u64,
    /// What the judge found.
    pub scores: Scores,
}

/// A regression tree; the root stands first, children behind their parents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// Its nodes.
    pub nodes: Vec<TreeNode>,
}

/// A node: a leaf if it has no split.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TreeNode {
    /// Mean log2(floor + bytes to come) of the training rows here.
    pub output: f64,
    /// Standard deviation of the same.
    pub sigma: f64,
    /// Number of training rows here.
    pub rows: u64,
    /// How the rows are divided further.
    pub split: Option<Split>,
}

/// A question about one feature.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// Index of the feature.
    pub feature: u8,
    /// Rows whose feature is at most this go to `at_most`, the others to `above`.
    pub value: f64,
    /// Index of a node.
    pub at_most: u32,
    /// Index of a node.
    pub above: u32,
}

/// Why a model is no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// Another file format.
    #[error("its format is version {found}, this treeline reads version {SCHEMA}")]
    Schema {
        /// The version found.
        found: u32,
    },
    /// Made for other kernel programs.
    #[error("it was made for ABI version {found}, the programs have version {ABI_VERSION}")]
    AbiVersion {
        /// The version found.
        found: u32,
    },
    /// Made for another feature list.
    #[error("its feature {index} is `{found}`, here it is `{ours}`")]
    Features {
        /// First index that differs.
        index: usize,
        /// Name and unit in the model; empty if it has fewer features.
        found: String,
        /// Name and unit here; empty if there are fewer features.
        ours: String,
    },
    /// A tree that can't be walked.
    #[error("node {node} of tree {tree}: {fault}")]
    Tree {
        /// Index of the tree.
        tree: usize,
        /// Index of the node.
        node: usize,
        /// What is wrong.
        fault: &'static str,
    },
    /// A sum that begins nowhere.
    #[error("the base of its sum is not finite")]
    Base,
    /// No tree at all.
    #[error("it has no trees")]
    Empty,
    /// Bands that are no bands.
    #[error("its cut points between bands do not ascend")]
    Thresholds,
}

impl Model {
    /// An unnumbered model as a trainer hands it over.
    pub fn new(trainer: &str, data: DataWindow, trees: Vec<Tree>) -> Self {
        Self {
            schema: SCHEMA,
            abi_version: ABI_VERSION,
            features: Feature::ALL.iter().copied().map(NamedFeature::of).collect(),
            generation: 0,
            parent_generation: None,
            created_unix_s: 0,
            trainer: trainer.to_owned(),
            trained_on_samples: data.rows,
            train_ms: 0,
            data,
            scores: None,
            combine: Combine::Mean,
            pruned: None,
            thresholds: Thresholds::default(),
            aging_thresholds: None,
            trees,
        }
    }

    /// The same model with its number and history.
    #[must_use]
    pub fn stamped(self, provenance: Provenance) -> Self {
        Self {
            generation: provenance.generation,
            parent_generation: provenance.parent_generation,
            created_unix_s: provenance.created_unix_s,
            train_ms: provenance.train_ms,
            scores: Some(provenance.scores),
            ..self
        }
    }

    /// The same without what the host gave it when it took it in.
    #[must_use]
    pub fn unnumbered(&self) -> Self {
        Self {
            generation: 0,
            parent_generation: None,
            ..self.clone()
        }
    }

    /// Predicted log2(floor + bytes to come).
    pub fn predict(&self, features: &Features) -> f64 {
        let outputs = self.trees.iter().map(|tree| tree.leaf(features).output);
        self.combine.combined(outputs, self.trees.len())
    }

    /// SHA-256 of the content, in hexadecimal.
    pub fn sha256(&self) -> String {
        let canonical = serde_json::to_vec(self).expect("a model has no map with odd keys");
        Sha256::digest(canonical)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Whether this treeline can use the model.
    ///
    /// # Errors
    /// The first fault found: format, ABI version, feature list, or a tree that can't be walked.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.schema != SCHEMA {
            return Err(ModelError::Schema { found: self.schema });
        }
        if self.abi_version != ABI_VERSION {
            return Err(ModelError::AbiVersion {
                found: self.abi_version,
            });
        }
        for index in 0..self.features.len().max(Feature::ALL.len()) {
            let found = self.features.get(index);
            let ours = Feature::ALL.get(index).copied();
            if found != ours.map(NamedFeature::of).as_ref() {
                return Err(ModelError::Features {
                    index,
                    found: found.map(NamedFeature::to_string).unwrap_or_default(),
                    ours: ours
                        .map(|ours| NamedFeature::of(ours).to_string())
                        .unwrap_or_default(),
                });
            }
        }
        let cuts = [Some(&self.thresholds), self.aging_thresholds.as_ref()];
        if !cuts.into_iter().flatten().all(Thresholds::ascend) {
            return Err(ModelError::Thresholds);
        }
        if self.trees.is_empty() {
            return Err(ModelError::Empty);
        }
        if let Combine::Sum { base } = self.combine
            && !base.is_finite()
        {
            return Err(ModelError::Base);
        }
        for (tree, it) in self.trees.iter().enumerate() {
            it.check()
                .map_err(|(node, fault)| ModelError::Tree { tree, node, fault })?;
        }
        Ok(())
    }
}

impl Tree {
    /// The leaf that these features lead to; a default one if the tree has no nodes.
    pub fn leaf(&self, features: &Features) -> TreeNode {
        self.leaf_index(features)
            .map_or_else(TreeNode::default, |index| self.nodes[index])
    }

    /// Index of that leaf.
    pub fn leaf_index(&self, features: &Features) -> Option<usize> {
        let last = self.path(features).last()?;
        self.nodes[last].split.is_none().then_some(last)
    }

    /// Indices of the nodes from the root to the leaf that these features lead to.
    pub fn path(&self, features: &Features) -> impl Iterator<Item = usize> {
        let first = (!self.nodes.is_empty()).then_some(0);
        let next = move |index: &usize| {
            let split = self.nodes[*index].split?;
            let value = features
                .get(usize::from(split.feature))
                .copied()
                .unwrap_or(0);
            let child = if f64::from(value) <= split.value {
                split.at_most
            } else {
                split.above
            } as usize;
            (child < self.nodes.len()).then_some(child)
        };
        // Bounded, so that even an unchecked tree with a cycle ends.
        std::iter::successors(first, next).take(self.nodes.len())
    }

    /// The nodes that the root leads to, breadth first.
    pub(crate) fn reachable(&self) -> Self {
        let mut from: Vec<u32> = vec![0];
        let mut nodes = Vec::new();
        while let Some(node) = from
            .get(nodes.len())
            .and_then(|index| self.nodes.get(*index as usize))
        {
            let split = node.split.map(|split| {
                let at_most = from.len() as u32;
                from.extend([split.at_most, split.above]);
                Split {
                    at_most,
                    above: at_most + 1,
                    ..split
                }
            });
            nodes.push(TreeNode { split, ..*node });
        }
        Self { nodes }
    }

    /// Splits on the longest path; the tree must have passed the check.
    pub fn depth(&self) -> u32 {
        let mut depth_of = vec![0u32; self.nodes.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(split) = node.split else { continue };
            let below = depth_of[index] + 1;
            for child in [split.at_most, split.above] {
                if let Some(depth) = depth_of.get_mut(child as usize) {
                    *depth = below.max(*depth);
                }
            }
        }
        depth_of.into_iter().max().unwrap_or(0)
    }

    fn check(&self) -> Result<(), (usize, &'static str)> {
        if self.nodes.is_empty() {
            return Err((0, "the tree has no nodes"));
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if !(node.output.is_finite() && node.sigma.is_finite()) {
                return Err((index, "a number is not finite"));
            }
            let Some(split) = node.split else { continue };
            if usize::from(split.feature) >= Feature::ALL.len() {
                return Err((index, "it asks for a feature that does not exist"));
            }
            if !split.value.is_finite() {
                return Err((index, "a number is not finite"));
            }
            for child in [split.at_most as usize, split.above as usize] {
                if child <= index || child >= self.nodes.len() {
                    return Err((index, "a child does not stand behind it"));
                }
            }
        }
        Ok(())
    }
}

impl Default for TreeNode {
    fn default() -> Self {
        Self {
            output: 0.0,
            sigma: 0.0,
            rows: 0,
            split: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stump() -> Model {
        let leaf = |output| TreeNode {
            output,
            ..TreeNode::default()
        };
        let split = Split {
            feature: 3,
            value: 10.5,
            at_most: 1,
            above: 2,
        };
        let root = TreeNode {
            split: Some(split),
            ..leaf(5.0)
        };
        Model::new(
            "made up",
            DataWindow::default(),
            vec![Tree {
                nodes: vec![root, leaf(1.0), leaf(9.0)],
            }],
        )
    }

    #[test]
    fn a_prediction_is_the_mean_of_the_trees() {
        let mut model = stump();
        model.trees.push(Tree {
            nodes: vec![TreeNode {
                output: 3.0,
                ..TreeNode::default()
            }],
        });
        let mut features = Features::default();
        assert_eq!(model.predict(&features), 2.0);
        features[3] = 11;
        assert_eq!(model.predict(&features), 6.0);
    }

    #[test]
    fn a_model_for_other_features_or_programs_is_refused() {
        let fault = |change: fn(&mut Model)| {
            let mut model = stump();
            change(&mut model);
            model.check().unwrap_err().to_string()
        };
        stump().check().unwrap();
        assert!(fault(|m| m.features.swap(0, 1)).contains("`from_service`"));
        assert!(fault(|m| m.features.truncate(3)).contains("feature 3"));
        let mut longer = stump();
        longer.features.push(NamedFeature {
            name: "ttl".to_owned(),
            unit: String::new(),
        });
        assert!(longer.check().unwrap_err().to_string().contains("`ttl`"));
        assert!(fault(|m| m.features[3].unit = "kB".to_owned()).contains("in kB"));
        assert!(fault(|m| m.thresholds.cuts_bytes.reverse()).contains("ascend"));
        assert!(fault(|m| m.abi_version = 77).contains("77"));
        assert!(fault(|m| m.schema = 9).contains("version 9"));
        assert!(fault(|m| m.trees.clear()).contains("no trees"));
        assert!(fault(|m| m.trees[0].nodes.truncate(2)).contains("behind"));
        assert!(fault(|m| m.trees[0].nodes[1].output = f64::NAN).contains("finite"));
    }

    #[test]
    fn a_cycle_in_an_unchecked_tree_ends() {
        let mut model = stump();
        model.trees[0].nodes[0].split = Some(Split {
            feature: 0,
            value: 1.0,
            at_most: 0,
            above: 0,
        });
        assert_eq!(model.predict(&Features::default()), 0.0);
    }

    #[test]
    fn the_hash_follows_the_content() {
        let model = stump();
        let mut other = model.clone();
        assert_eq!(model.sha256(), other.sha256());
        other.trees[0].nodes[2].output += 1e-9;
        assert_ne!(model.sha256(), other.sha256());
        assert_eq!(model.sha256().len(), 64);
    }
}
