//! Whether what goes to stderr goes to systemd's journal, which takes fields instead of a line.

use std::{env, ffi::OsStr, fs, os::unix::fs::MetadataExt as _};

use tracing_journald::Layer;

/// What systemd sets to the device and the inode of the stream that it gives a service.
const VARIABLE: &str = "JOURNAL_STREAM";

/// A layer that writes fields to the journal: `TREELINE_WHAT`, `TREELINE_INTERFACE`, `TREELINE_GENERATION` and so on.
///
/// `None` where stderr is no stream of the journal's, or nothing listens there.
pub(super) fn layer() -> Option<Layer> {
    let stderr = fs::metadata("/proc/self/fd/2").ok()?;
    let named = env::var_os(VARIABLE)?;
    if !is_stream(&named, (stderr.dev(), stderr.ino())) {
        return None;
    }
    let layer = Layer::new().ok()?;
    Some(
        layer
            .with_field_prefix(Some("TREELINE".to_owned()))
            .with_syslog_identifier("treeline".to_owned()),
    )
}

/// Whether the variable, as in `9:65321`, names this file. A child with a stderr of its own inherits the variable all the same.
fn is_stream(named: &OsStr, (device, inode): (u64, u64)) -> bool {
    let numbers = named.to_str().and_then(|text| text.split_once(':'));
    let parsed = numbers.and_then(|(device, inode)| {
        Some((device.parse::<u64>().ok()?, inode.parse::<u64>().ok()?))
    });
    parsed == Some((device, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_stream_that_systemd_names_is_the_journal() {
        assert!(is_stream(OsStr::new("9:65321"), (9, 65_321)));
        for named in [
            "9:65322",
            "8:65321",
            "9",
            "",
            "9:",
            "nine:65321",
            "9:65321:1",
        ] {
            assert!(!is_stream(OsStr::new(named), (9, 65_321)), "{named}");
        }
    }
}
