//! Steps in words.

use std::fmt::{self, Display};

use super::decisions::Step;
use crate::model::human_bytes;

impl Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trained {
                rows,
                nodes,
                train_ms,
            } => write!(f, "{nodes} nodes from {rows} rows in {train_ms} ms"),
            Self::Refused { rows } => write!(f, "a candidate from {rows} rows"),
            Self::Shadowed { generation, .. } => write!(f, "model {generation} is watched"),
            Self::Dropped { generation, rows } => {
                write!(f, "model {generation} after {rows} fresh rows")
            }
            Self::Drifted { of, forgotten } => write!(f, "{of}, {forgotten} rows forgotten"),
            Self::Promoted {
                generation,
                flip_us,
                ..
            } => write!(f, "model {generation}, flip {flip_us} us"),
            Self::Recut { cuts_bytes } => {
                let cuts = cuts_bytes.map(|cut| human_bytes(f64::from(cut)));
                write!(f, "bands of aging are cut at {}", cuts.join(", "))
            }
            Self::TakenOut => f.write_str("no model"),
            Self::FellBack { generation } => write!(f, "model {generation} taken out"),
            Self::Pushed {
                generation, file, ..
            } => write!(f, "{} as model {generation}", file.display()),
            Self::RolledBack {
                generation: Some(generation),
            } => write!(f, "to model {generation}"),
            Self::RolledBack { generation: None } => f.write_str("to aging"),
            Self::Imported {
                generation, file, ..
            } => write!(
                f,
                "{} as model {generation}, not put to work",
                file.display()
            ),
        }
    }
}
