//! Where bands are cut, as a model's file and people see it.

use scheduler_common::{
    class::{BANDS, Cuts},
    settings::Settings,
};
use serde::{Deserialize, Serialize};

/// What turns a predicted size into a band.
///
/// The programs go by what stands in `SETTINGS`. A model brings its own, for which it was judged, and those of aging, which
/// come back when it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// The largest message of each band but the last, ascending.
    pub cuts_bytes: [u32; BANDS - 1],
    /// Bytes of a message that stay in the top band, whatever the prediction.
    pub first_bytes: u32,
}

impl Thresholds {
    /// Band of a message of `bytes` bytes, the first bytes aside.
    pub fn band_of(&self, bytes: f64) -> u8 {
        // A float beyond the range becomes its end.
        self.cuts().band_of(bytes as u64)
    }

    /// As the programs hold them.
    pub const fn cuts(&self) -> Cuts {
        Cuts {
            bytes: self.cuts_bytes,
            _pad: 0,
        }
    }

    /// The settings with these cuts and first bytes.
    pub const fn within(&self, settings: Settings) -> Settings {
        Settings {
            cuts: self.cuts(),
            first_bytes: self.first_bytes,
            ..settings
        }
    }

    pub(super) fn ascend(&self) -> bool {
        self.cuts_bytes.is_sorted()
    }
}

impl From<&Settings> for Thresholds {
    fn from(settings: &Settings) -> Self {
        Self {
            cuts_bytes: settings.cuts.bytes,
            first_bytes: settings.first_bytes,
        }
    }
}

impl Default for Thresholds {
    fn default() -> Self {
        Self::from(&Settings::default())
    }
}
