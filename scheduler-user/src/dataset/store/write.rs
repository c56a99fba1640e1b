//! Rows → file, a group of rows at a time.

use std::{
    fs::{File, OpenOptions},
    path::{Path, PathBuf},
    sync::Arc,
};

use parquet::{
    basic::Compression,
    data_type::{BoolType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::WriterProperties,
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
};

use super::{
    super::Row,
    SCHEMA, SCHEMA_KEY, SESSIONS_KEY, StoreError,
    columns::{Column, Holds, Kind, columns, schema},
};

/// Rows of a group: what waits in memory, and what a reader decompresses at once.
const GROUP_ROWS: usize = 16_384;

/// Writes a dataset; it is readable once [`Writer::close`] has returned.
pub struct Writer {
    path: PathBuf,
    file: SerializedFileWriter<File>,
    columns: Vec<Column>,
    waiting: Vec<(u32, Row)>,
    sessions: Vec<String>,
    rows: u64,
    max_rows: u64,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, rows, .. } = self;
        f.debug_struct("Writer")
            .field("path", path)
            .field("rows", rows)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// A new file with room for `max_rows` rows.
    ///
    /// # Errors
    /// The file is there already, or can't be made.
    pub fn create(path: &Path, max_rows: u64) -> Result<Self, StoreError> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(path)
            .map_err(|source| StoreError::Create {
                path: path.to_owned(),
                source,
            })?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_created_by(format!("treeline {}", env!("CARGO_PKG_VERSION")))
            .set_key_value_metadata(Some(vec![KeyValue::new(
                SCHEMA_KEY.to_owned(),
                SCHEMA.to_string(),
            )]))
            .build();
        let file = schema()
            .and_then(|schema| {
                SerializedFileWriter::new(file, Arc::new(schema), Arc::new(properties))
            })
            .map_err(|source| StoreError::Write {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            columns: columns(),
            waiting: Vec::new(),
            sessions: Vec::new(),
            rows: 0,
            max_rows,
        })
    }

    /// Begins a session: the rows from here on belong to it.
    pub fn begin(&mut self, session: &str) {
        self.sessions.push(session.to_owned());
    }

    /// Adds rows while there is room.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn write(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        let session = self.sessions.len().saturating_sub(1) as u32;
        let room = self.max_rows.saturating_sub(self.rows);
        let fitting = &rows[..rows.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        self.rows += fitting.len() as u64;
        for part in fitting.chunks(GROUP_ROWS) {
            self.waiting.extend(part.iter().map(|row| (session, *row)));
            if self.waiting.len() >= GROUP_ROWS {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Rows written.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether there is no room for more.
    pub const fn is_full(&self) -> bool {
        self.rows >= self.max_rows
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the end, without which a file is unreadable; returns the number of rows.
    ///
    /// # Errors
    /// The disk refuses.
    pub fn close(mut self) -> Result<u64, StoreError> {
        if !self.waiting.is_empty() {
            self.flush()?;
        }
        let names = serde_json::Value::from(self.sessions).to_string();
        self.file
            .append_key_value_metadata(KeyValue::new(SESSIONS_KEY.to_owned(), names));
        self.file.close().map_err(|source| StoreError::Write {
            path: self.path,
            source,
        })?;
        Ok(self.rows)
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        let Self {
            path,
            file,
            columns,
            waiting,
            ..
        } = self;
        let written = write_group(file, columns, waiting);
        waiting.clear();
        written.map_err(|source| StoreError::Write {
            path: path.clone(),
            source,
        })
    }
}

fn write_group(
    file: &mut SerializedFileWriter<File>,
    columns: &[Column],
    rows: &[(u32, Row)],
) -> Result<(), ParquetError> {
    let mut group = file.next_row_group()?;
    let mut remaining = columns.iter();
    while let Some(mut writer) = group.next_column()? {
        let column = remaining
            .next()
            .expect("the schema was made of these columns");
        let values = rows
            .iter()
            .map(|(session, row)| value(column.holds, *session, row));
        write_column(&mut writer, column.kind, values)?;
        writer.close()?;
    }
    group.close()?;
    Ok(())
}

fn write_column(
    writer: &mut SerializedColumnWriter<'_>,
    kind: Kind,
    values: impl Iterator<Item = u64>,
) -> Result<usize, ParquetError> {
    match kind {
        Kind::U64 => {
            let values: Vec<i64> = values.map(u64::cast_signed).collect();
            writer.typed::<Int64Type>().write_batch(&values, None, None)
        }
        Kind::U32 | Kind::U8 => {
            let values: Vec<i32> = values.map(|value| (value as u32).cast_signed()).collect();
            writer.typed::<Int32Type>().write_batch(&values, None, None)
        }
        Kind::Bool => {
            let values: Vec<bool> = values.map(|value| value != 0).collect();
            writer.typed::<BoolType>().write_batch(&values, None, None)
        }
    }
}

fn value(holds: Holds, session: u32, row: &Row) -> u64 {
    match holds {
        Holds::Session => u64::from(session),
        Holds::Field(get, _) => get(row),
        Holds::Feature(feature) => u64::from(row.feature(feature)),
    }
}
