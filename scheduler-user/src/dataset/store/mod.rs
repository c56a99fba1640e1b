//! Datasets on disk: Parquet, one column a field.
//!
//! `docs/dataset.md` lists the columns; [`SCHEMA`] changes with their meaning.

mod columns;
mod read;
mod write;

#[cfg(test)]
mod tests;

use std::{io, path::PathBuf};

use parquet::errors::ParquetError;

pub use self::{
    columns::{Column, Kind, columns, documentation},
    read::{Dataset, read},
    write::Writer,
};

/// Version of the files.
pub const SCHEMA: u32 = 1;

/// Key of the version in the file's metadata.
const SCHEMA_KEY: &str = "treeline.schema";
/// Key of the sessions' names, a JSON array.
const SESSIONS_KEY: &str = "treeline.sessions";

/// Why a dataset could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file can't be made; one that is there is never overwritten.
    #[error("cannot create {}; name a new file in a directory that is there", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Rows can't be written.
    #[error("cannot write {}; what was recorded before may be unreadable", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ParquetError,
    },
    /// The file can't be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no Parquet file, or a part of one.
    #[error(
        "{} is not a whole Parquet file: it was cut off, or its recording was killed before it could write the end",
        path.display()
    )]
    NotWhole {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        source: ParquetError,
    },
    /// Its inside contradicts itself so badly that the library gave up.
    #[error("{} is damaged: its columns are not where it says", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// It is a Parquet file of somebody else.
    #[error("{} was not written by treeline: its metadata has no {SCHEMA_KEY}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Another version wrote it.
    #[error(
        "{} has dataset schema {found:?}, this treeline reads {SCHEMA}: record it anew, or use the version that wrote it",
        path.display()
    )]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// A column is absent.
    #[error("{} has no column {column:?}: it was written by another version of treeline, record it anew", path.display())]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
    },
    /// A column has another type.
    #[error("column {column:?} of {} is not stored as {expected}", path.display())]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// How it should be.
        expected: &'static str,
    },
    /// A column is shorter than the file says.
    #[error("column {column:?} of {} ends early: the file is damaged", path.display())]
    ShortColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
    },
}
