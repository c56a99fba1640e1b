//! What the trees say together, to the kernel's precision.

use scheduler_common::{class::Cuts, features::Features, tree::Leaf};
use serde::{Deserialize, Serialize};

use super::Model;

/// How the trees' predictions become one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Combine {
    /// Each predicts the whole; their mean counts.
    #[default]
    Mean,
    /// Each corrects those before it; their sum counts.
    Sum {
        /// Where the sum begins.
        base: f64,
    },
}

impl Combine {
    /// Whether the mean counts.
    pub const fn is_mean(&self) -> bool {
        matches!(self, Self::Mean)
    }

    /// What a leaf of one of `trees` trees stands for, so that the mean of all is what they predict.
    pub(super) fn whole(self, output: f64, trees: usize) -> f64 {
        match self {
            Self::Mean => output,
            Self::Sum { base } => base + trees as f64 * output,
        }
    }

    /// The inverse of [`Combine::whole`].
    fn part(self, whole: f64, trees: usize) -> f64 {
        match self {
            Self::Mean => whole,
            Self::Sum { base } => (whole - base) / trees.max(1) as f64,
        }
    }

    /// Predicted log2(floor + bytes to come) from what the trees say.
    pub(super) fn combined(self, outputs: impl Iterator<Item = f64>, trees: usize) -> f64 {
        let sum: f64 = outputs.sum();
        match self {
            Self::Mean => sum / trees.max(1) as f64,
            Self::Sum { base } => base + sum,
        }
    }
}

/// Steps of the table in one unit of log2.
pub(super) const STEPS: f64 = 256.0;

/// Far below a step divided among the most trees, far above the error of adding so many numbers.
const ADDING_ERROR_STEPS: f64 = 1e-6;

impl Model {
    /// The same model with leaves that the kernel's table holds exactly.
    ///
    /// A leaf moves by at most half a step of the table. From then on the table predicts what the model does,
    /// cut off to whole steps: see [`Model::log2_q8`].
    #[must_use]
    pub fn on_grid(mut self) -> Self {
        let trees = self.trees.len();
        if let Combine::Sum { base } = &mut self.combine {
            *base = (*base * STEPS).round() / STEPS;
        }
        let combine = self.combine;
        for node in self.trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
            if node.split.is_none() {
                let steps = (combine.whole(node.output, trees) * STEPS).round();
                let steps = match combine {
                    Combine::Mean => steps.clamp(0.0, f64::from(u16::MAX)),
                    Combine::Sum { .. } => steps,
                };
                node.output = combine.part(steps / STEPS, trees);
            }
        }
        self
    }

    /// The prediction in whole steps of the table, 1/256 of a unit of log2; what lies beyond a step is cut off.
    pub fn log2_q8(&self, features: &Features) -> u16 {
        let steps = (self.predict(features) * STEPS + ADDING_ERROR_STEPS).floor();
        steps.clamp(0.0, f64::from(u16::MAX)) as u16
    }

    /// The band of a message of which `bytes_so_far` were sent, first bytes and aging aside.
    ///
    /// It is cut from the prediction in whole steps, here as in the kernel. So for a model that is
    /// [on the grid](Model::on_grid), as every trainer's is, both give the same band on every row.
    pub fn band(&self, features: &Features, bytes_so_far: u64, cuts: &Cuts) -> u8 {
        let leaf = Leaf {
            log2_q8: self.log2_q8(features),
            sigma_q8: 0,
        };
        cuts.band_of(bytes_so_far.saturating_add(leaf.bytes_to_come()))
    }
}
