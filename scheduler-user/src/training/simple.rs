//! Rivals that know next to nothing: a constant, and the service port.

use scheduler_common::features::Feature;

use super::{TrainError, Trainer, examples::Examples, library::Columns, parameters::Parameters};
use crate::{
    dataset::Row,
    model::{Combine, Model, Tree, TreeNode},
};

/// The mean of the training rows, always.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Constant(pub Parameters);

impl Trainer for Constant {
    fn name(&self) -> &'static str {
        "constant"
    }

    fn train(&self, rows: &[Row]) -> Result<Model, TrainError> {
        let examples = Examples::of(rows, &self.0, 1)?;
        let leaf = TreeNode {
            output: examples.mean(),
            ..TreeNode::default()
        };
        let tree = Tree { nodes: vec![leaf] };
        examples.model(self.name(), vec![tree], Combine::Mean)
    }
}

/// A tree that sees the service's port and which side sends, nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PortOnly(pub Parameters);

impl Trainer for PortOnly {
    fn name(&self) -> &'static str {
        "port"
    }

    fn train(&self, rows: &[Row]) -> Result<Model, TrainError> {
        let examples = Examples::of(rows, &self.0, 2 * self.0.min_leaf_rows.max(1))?;
        let seen = [Feature::ServicePort, Feature::FromService];
        let columns = Columns::only(&examples.rows, &seen)?;
        let tree = columns.tree(&examples.targets, examples.weights.as_deref(), &self.0)?;
        examples.model(self.name(), vec![tree], Combine::Mean)
    }
}
