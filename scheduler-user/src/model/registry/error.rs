//! What can be wrong with a file of the registry.

use std::{io, path::PathBuf};

use crate::model::ModelError;

/// Why a file is no usable model; each message names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file can't be read.
    #[error("cannot read model {}: check that it exists and may be read", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The registry has no such model.
    #[error("there is no model {generation} ({} is not there); {}", path.display(), offer(known))]
    NoSuch {
        /// Its number.
        generation: u32,
        /// Where it would be.
        path: PathBuf,
        /// Those that there are, oldest first.
        known: Vec<u32>,
    },
    /// What was written is neither a number nor a file.
    #[error(
        "{name:?} is neither a model's number nor a model file; {}",
        offer(known)
    )]
    NoSuchName {
        /// What was written.
        name: String,
        /// Numbers that there are, oldest first.
        known: Vec<u32>,
    },
    /// Far too large.
    #[error("model {} is too large ({size_bytes} bytes): it is not a model; remove it", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        size_bytes: u64,
    },
    /// Not JSON: truncated or overwritten.
    #[error("model {} is not JSON ({reason}): remove it or restore a copy", path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// JSON of another kind.
    #[error("model {} lacks what a model has ({reason}): remove it or restore a copy", path.display())]
    NotAModel {
        /// The file.
        path: PathBuf,
        /// The first fault.
        reason: String,
    },
    /// Changed since it was written.
    #[error("model {} was changed after it was written (hash mismatch): remove it or restore a copy", path.display())]
    Hash {
        /// The file.
        path: PathBuf,
    },
    /// Made by, or for, another treeline.
    #[error("model {} can't be used: {fault}; remove it, treeline learns a new one", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        fault: ModelError,
    },
    /// The name says another generation.
    #[error("model {} holds generation {found}: rename the file to {found:06}.json", path.display())]
    WrongName {
        /// The file.
        path: PathBuf,
        /// The generation inside.
        found: u32,
    },
}

/// The models that may have been meant.
fn offer(known: &[u32]) -> String {
    /// A registry that is old has hundreds.
    const NAMED: usize = 5;
    let newest = known.iter().rev().take(NAMED).map(u32::to_string);
    let newest: Vec<String> = newest.collect();
    match newest.as_slice() {
        [] => "there are none yet: `treeline run` learns them from traffic".to_owned(),
        all if known.len() <= NAMED => format!("there are: {}", all.join(", ")),
        some => format!("the newest are {}: `treeline model list`", some.join(", ")),
    }
}

/// Why a model was not written.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The model itself is at fault.
    #[error("the model is not written, because it can't be used: {0}")]
    Model(#[from] ModelError),
    /// The disk.
    #[error("cannot write {}: check that the directory may be written and has space", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
