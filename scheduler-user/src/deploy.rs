//! A model becomes what the kernel walks, and its cuts what it goes by.

use scheduler_common::tree::Table;

use crate::{
    datapath::{Datapath, DatapathError},
    model::{CompileError, Model, Thresholds, compile},
};

/// Why a model could not be put to work; what ran before goes on.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// It does not fit the kernel's table.
    #[error("model {generation} does not fit the kernel's table")]
    Compile {
        /// The model.
        generation: u32,
        /// What does not fit.
        source: CompileError,
    },
    /// The kernel refused it.
    #[error("model {generation} could not be handed to the kernel")]
    Activate {
        /// The model.
        generation: u32,
        /// Why.
        source: DatapathError,
    },
}

/// Compiles a model, checks its table, and makes it the active one with its own cuts.
///
/// Cuts and table are two maps, written one right behind the other. A packet that comes in between meets the cuts of the one
/// and the guess of the other. That harms nothing: a guess is a size in bytes, which knows of no cuts, and any cuts give it
/// some band. Nor does half a set of cuts, for each is written as a whole: a band is the number of cuts that a size exceeds,
/// and one that ends too early is settled again at the next packet. A message under way keeps what it has until its next
/// decision point and then only falls, to where those that begin now go.
///
/// # Errors
/// If it does not fit or the kernel refuses; the model before it goes on then, with its cuts.
pub fn deploy(datapath: &Datapath, model: &Model) -> Result<(), DeployError> {
    hand_over(model, |table| {
        let staged = datapath.stage(table)?;
        let before = datapath.cut_at(&model.thresholds)?;
        staged.flip().or_else(|error| {
            datapath.cut_at(&before)?;
            Err(error)
        })
    })
}

/// Takes the model out: aging rules, with these cuts.
///
/// # Errors
/// If a map can't be written.
pub fn rule_by_aging(datapath: &Datapath, thresholds: &Thresholds) -> Result<(), DatapathError> {
    datapath.cut_at(thresholds)?;
    datapath.deactivate()
}

/// Compiles a model, checks its table and lets the kernel ask it beside what acts.
///
/// # Errors
/// As [`deploy`]; nothing changes then.
pub fn watch(datapath: &Datapath, model: &Model) -> Result<(), DeployError> {
    hand_over(model, |table| datapath.watch(table))
}

fn hand_over(
    model: &Model,
    put: impl FnOnce(&Table) -> Result<(), DatapathError>,
) -> Result<(), DeployError> {
    let generation = model.generation;
    let table = compile(model).map_err(|source| DeployError::Compile { generation, source })?;
    put(&table).map_err(|source| DeployError::Activate { generation, source })
}
