//! The columns of a dataset file, listed once.

use parquet::errors::ParquetError;
use parquet::schema::{parser::parse_message_type, types::Type};
use scheduler_common::{features::Feature, sample::Hook};

use super::super::Row;

/// How a column is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `INT64` with `UINT_64`.
    U64,
    /// `INT32` with `UINT_32`.
    U32,
    /// `INT32` with `UINT_8`.
    U8,
    /// `BOOLEAN`.
    Bool,
}

/// What a column holds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holds {
    /// Which of the file's sessions the row is of.
    Session,
    /// A field of the row: how it is read, and how it is set.
    Field(fn(&Row) -> u64, fn(&mut Row, u64)),
    /// A feature.
    Feature(Feature),
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// How it is stored.
    pub kind: Kind,
    /// Unit of the value; empty for codes and counts without one.
    pub unit: &'static str,
    /// What it says, in one sentence.
    pub help: &'static str,
    pub(super) holds: Holds,
}

impl Kind {
    /// Its name in the documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U64 => "UINT_64",
            Self::U32 => "UINT_32",
            Self::U8 => "UINT_8",
            Self::Bool => "BOOLEAN",
        }
    }

    const fn declaration(self) -> (&'static str, &'static str) {
        match self {
            Self::U64 => ("int64", " (INTEGER(64,false))"),
            Self::U32 => ("int32", " (INTEGER(32,false))"),
            Self::U8 => ("int32", " (INTEGER(8,false))"),
            Self::Bool => ("boolean", ""),
        }
    }
}

macro_rules! field {
    ($name:literal, U64, $unit:literal, $field:ident, $help:literal) => {
        field!($name, U64, $unit, $help, |row| row.$field, |row, value| {
            row.$field = value
        })
    };
    ($name:literal, $kind:ident, $unit:literal, $field:ident, $help:literal) => {
        field!(
            $name,
            $kind,
            $unit,
            $help,
            |row| u64::from(row.$field),
            |row, value| row.$field = value as _
        )
    };
    ($name:literal, $kind:ident, $unit:literal, $help:literal, $get:expr, $set:expr) => {
        Column {
            name: $name,
            kind: Kind::$kind,
            unit: $unit,
            help: $help,
            holds: Holds::Field($get, $set),
        }
    };
}

const OF_THE_ROW: [Column; 15] = [
    Column {
        name: "session",
        kind: Kind::U32,
        unit: "",
        help: "Number of the recording or capture in the file, from 0: index in the metadata `treeline.sessions`.",
        holds: Holds::Session,
    },
    field!(
        "time_ns",
        U64,
        "ns",
        time_ns,
        "When the packet passed: monotonic clock of the host, or clock of the capture."
    ),
    field!(
        "flow_hash",
        U64,
        "",
        flow_hash,
        "Keyed hash of the flow; the key is thrown away with every load of the programs."
    ),
    field!(
        "network_hash",
        U32,
        "",
        network_hash,
        "Keyed hash of the far end's network, a /24 or a /48."
    ),
    field!(
        "message",
        U32,
        "",
        message,
        "Number of the message in its direction of the flow, from 1."
    ),
    field!("half", U8, "", half, "Direction in the flow: 0 or 1."),
    Column {
        name: "hook",
        kind: Kind::U8,
        unit: "",
        help: "Who saw the packet: 0 the egress program, 1 the ingress program.",
        holds: Holds::Field(
            |row| row.hook as u64,
            |row, value| {
                row.hook = if value == Hook::Egress as u64 {
                    Hook::Egress
                } else {
                    Hook::Ingress
                }
            },
        ),
    },
    field!(
        "bytes_at",
        U64,
        "bytes",
        bytes_at,
        "Payload of the message up to and with this packet."
    ),
    field!(
        "remaining_bytes",
        U64,
        "bytes",
        remaining_bytes,
        "The label: payload of the message after this packet."
    ),
    field!(
        "total_bytes",
        U64,
        "bytes",
        total_bytes,
        "Payload of the whole message."
    ),
    Column {
        name: "censored",
        kind: Kind::Bool,
        unit: "",
        help: "Whether the message was still under way when it was last seen: label and total are lower bounds then.",
        holds: Holds::Field(
            |row| row.censored as u64,
            |row, value| row.censored = value != 0,
        ),
    },
    field!(
        "generation",
        U32,
        "",
        generation,
        "Generation of the model that acted; 0 = none."
    ),
    field!(
        "predicted_log2_q8",
        U32,
        "log2(bytes) / 256",
        predicted_log2_q8,
        "What it predicted; meaningful if `generation` is not 0."
    ),
    field!(
        "shadow_generation",
        U32,
        "",
        shadow_generation,
        "Generation of the model that was only watched; 0 = none."
    ),
    field!(
        "shadow_log2_q8",
        U32,
        "log2(bytes) / 256",
        shadow_log2_q8,
        "What that one predicted; meaningful if `shadow_generation` is not 0."
    ),
];

/// All columns in the order of the file: those of the row, then the features.
pub fn columns() -> Vec<Column> {
    let features = Feature::ALL.iter().map(|feature| Column {
        name: feature.name(),
        kind: Kind::U32,
        unit: feature.unit(),
        help: feature.help().trim(),
        holds: Holds::Feature(*feature),
    });
    OF_THE_ROW.into_iter().chain(features).collect()
}

/// The schema that Parquet is told.
pub(super) fn schema() -> Result<Type, ParquetError> {
    let lines: Vec<String> = columns()
        .iter()
        .map(|column| {
            let (physical, logical) = column.kind.declaration();
            format!("required {physical} {}{logical};", column.name)
        })
        .collect();
    parse_message_type(&format!("message treeline {{ {} }}", lines.join(" ")))
}

/// The columns as a table of `docs/dataset.md`.
pub fn documentation() -> String {
    let mut lines = vec![
        "| column | type | unit | what |".to_owned(),
        "|---|---|---|---|".to_owned(),
    ];
    lines.extend(columns().iter().map(|column| {
        format!(
            "| `{}` | {} | {} | {} |",
            column.name,
            column.kind.name(),
            column.unit,
            column.help
        )
    }));
    lines.join("\n")
}
