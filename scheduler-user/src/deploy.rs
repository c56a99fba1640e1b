//! A model becomes what the kernel walks.

use scheduler_common::tree::Table;

use crate::{
    datapath::{Datapath, DatapathError},
    model::{CompileError, Model, compile},
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

/// Compiles a model, checks its table and makes it the active one.
///
/// # Errors
/// If it does not fit or the kernel refuses; the model before it goes on then.
pub fn deploy(datapath: &Datapath, model: &Model) -> Result<(), DeployError> {
    hand_over(model, |table| datapath.activate(table))
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
