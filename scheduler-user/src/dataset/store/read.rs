//! File → rows; what is not as expected is an error that says so.

use std::{fs::File, panic, path::Path};

use parquet::{
    column::reader::ColumnReader,
    errors::ParquetError,
    file::{
        reader::{FileReader as _, RowGroupReader},
        serialized_reader::SerializedFileReader,
    },
};
use scheduler_common::{features::SLOTS, sample::Hook};

use super::{
    super::Row,
    SCHEMA, SCHEMA_KEY, SESSIONS_KEY, StoreError,
    columns::{Column, Holds, Kind, columns},
};

/// Rows of a file, and what they were recorded from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dataset {
    /// The rows as they were written: in the order in which their labels became known.
    pub rows: Vec<Row>,
    /// Session of each row.
    pub session_of: Vec<u32>,
    /// Names of the sessions: interfaces, or captures.
    pub sessions: Vec<String>,
}

impl Dataset {
    /// The rows of each session in order of time.
    pub fn by_session(&self) -> Vec<Vec<Row>> {
        let sessions = self.session_of.iter().max().map_or(0, |last| last + 1);
        let mut parts = vec![Vec::new(); sessions as usize];
        for (row, session) in self.rows.iter().zip(&self.session_of) {
            parts[*session as usize].push(*row);
        }
        for part in &mut parts {
            part.sort_by_key(|row: &Row| (row.time_ns, row.flow_hash, row.message, row.bytes_at));
        }
        parts
    }
}

const BLANK: Row = Row {
    features: [0; SLOTS],
    bytes_at: 0,
    remaining_bytes: 0,
    total_bytes: 0,
    time_ns: 0,
    flow_hash: 0,
    message: 0,
    half: 0,
    hook: Hook::Egress,
    generation: 0,
    predicted_log2_q8: 0,
    network_hash: 0,
    censored: false,
    shadow_generation: 0,
    shadow_log2_q8: 0,
};

/// Reads a whole dataset.
///
/// # Errors
/// See [`StoreError`].
pub fn read(path: &Path) -> Result<Dataset, StoreError> {
    // The library asserts what a whole file holds; a file with flipped bits is no reason to die.
    panic::catch_unwind(|| read_checked(path)).unwrap_or_else(|_panic| {
        Err(StoreError::Damaged {
            path: path.to_owned(),
        })
    })
}

fn read_checked(path: &Path) -> Result<Dataset, StoreError> {
    let file = File::open(path).map_err(|source| StoreError::Open {
        path: path.to_owned(),
        source,
    })?;
    let damaged = |source| StoreError::NotWhole {
        path: path.to_owned(),
        source,
    };
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    check_schema(path, &reader)?;
    let mut dataset = Dataset {
        sessions: metadata(&reader, SESSIONS_KEY)
            .and_then(|names| serde_json::from_str(&names).ok())
            .unwrap_or_default(),
        ..Dataset::default()
    };
    let places = places(path, &reader)?;
    for index in 0..reader.num_row_groups() {
        let group = reader.get_row_group(index).map_err(damaged)?;
        read_group(path, group.as_ref(), &places, &mut dataset)?;
    }
    Ok(dataset)
}

fn metadata(reader: &SerializedFileReader<File>, key: &str) -> Option<String> {
    let all = reader.metadata().file_metadata().key_value_metadata()?;
    all.iter().find(|of| of.key == key)?.value.clone()
}

fn check_schema(path: &Path, reader: &SerializedFileReader<File>) -> Result<(), StoreError> {
    let Some(found) = metadata(reader, SCHEMA_KEY) else {
        return Err(StoreError::Foreign {
            path: path.to_owned(),
        });
    };
    if found != SCHEMA.to_string() {
        return Err(StoreError::Schema {
            path: path.to_owned(),
            found,
        });
    }
    Ok(())
}

/// Where each column is; those that this version does not know are left aside.
fn places(
    path: &Path,
    reader: &SerializedFileReader<File>,
) -> Result<Vec<(usize, Column)>, StoreError> {
    let present = reader.metadata().file_metadata().schema_descr();
    columns()
        .into_iter()
        .map(|column| {
            (0..present.num_columns())
                .find(|place| present.column(*place).name() == column.name)
                .map(|place| (place, column))
                .ok_or_else(|| StoreError::MissingColumn {
                    path: path.to_owned(),
                    column: column.name,
                })
        })
        .collect()
}

fn read_group(
    path: &Path,
    group: &dyn RowGroupReader,
    places: &[(usize, Column)],
    dataset: &mut Dataset,
) -> Result<(), StoreError> {
    let damaged = |source| StoreError::NotWhole {
        path: path.to_owned(),
        source,
    };
    let mut rows: Option<(Vec<Row>, Vec<u32>)> = None;
    for (place, column) in places {
        let reader = group.get_column_reader(*place).map_err(damaged)?;
        let wanted = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        let Some(values) = read_column(reader, column.kind, wanted).map_err(damaged)? else {
            return Err(StoreError::ColumnType {
                path: path.to_owned(),
                column: column.name,
                expected: column.kind.name(),
            });
        };
        // The length is that of the first column, not of the metadata, which nobody has checked.
        let (rows, sessions) =
            rows.get_or_insert_with(|| (vec![BLANK; values.len()], vec![0; values.len()]));
        if values.len() != wanted || rows.len() != wanted {
            return Err(StoreError::ShortColumn {
                path: path.to_owned(),
                column: column.name,
            });
        }
        match column.holds {
            Holds::Session => {
                for (session, value) in sessions.iter_mut().zip(values) {
                    // More sessions than names there can't be.
                    *session = (value as u32).min(dataset.sessions.len().saturating_sub(1) as u32);
                }
            }
            Holds::Field(_, set) => {
                for (row, value) in rows.iter_mut().zip(values) {
                    set(row, value);
                }
            }
            Holds::Feature(feature) => {
                for (row, value) in rows.iter_mut().zip(values) {
                    row.features[feature as usize] = value as u32;
                }
            }
        }
    }
    if let Some((rows, sessions)) = rows {
        dataset.rows.extend(rows);
        dataset.session_of.extend(sessions);
    }
    Ok(())
}

/// Values of a column; `None` if it is of another type.
fn read_column(
    reader: ColumnReader,
    kind: Kind,
    rows: usize,
) -> Result<Option<Vec<u64>>, ParquetError> {
    Ok(match (reader, kind) {
        (ColumnReader::Int64ColumnReader(mut reader), Kind::U64) => {
            let mut values = Vec::new();
            reader.read_records(rows, None, None, &mut values)?;
            Some(values.into_iter().map(i64::cast_unsigned).collect())
        }
        (ColumnReader::Int32ColumnReader(mut reader), Kind::U32 | Kind::U8) => {
            let mut values = Vec::new();
            reader.read_records(rows, None, None, &mut values)?;
            let unsigned = values
                .into_iter()
                .map(|value| u64::from(value.cast_unsigned()));
            Some(unsigned.collect())
        }
        (ColumnReader::BoolColumnReader(mut reader), Kind::Bool) => {
            let mut values = Vec::new();
            reader.read_records(rows, None, None, &mut values)?;
            Some(values.into_iter().map(u64::from).collect())
        }
        _ => None,
    })
}
