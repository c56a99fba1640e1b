//! A feature as a model's file names it.

use std::fmt::{self, Display};

use scheduler_common::features::Feature;
use serde::{Deserialize, Serialize};

/// A feature by name and unit, so that a file says itself what its splits ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedFeature {
    /// See [`Feature::name`].
    pub name: String,
    /// See [`Feature::unit`].
    pub unit: String,
}

impl NamedFeature {
    /// The feature as this treeline names it.
    pub fn of(feature: Feature) -> Self {
        Self {
            name: feature.name().to_owned(),
            unit: feature.unit().to_owned(),
        }
    }
}

impl Display for NamedFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, unit } = self;
        f.write_str(name)?;
        if unit.is_empty() {
            return Ok(());
        }
        write!(f, " in {unit}")
    }
}
