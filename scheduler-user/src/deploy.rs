//! A model becomes what the kernel walks.

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
    let generation = model.generation;
    let table = compile(model).map_err(|source| DeployError::Compile { generation, source })?;
    datapath
        .activate(&table)
        .map_err(|source| DeployError::Activate { generation, source })
}
