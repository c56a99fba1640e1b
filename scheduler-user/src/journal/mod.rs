//! Logs: to people on stderr or to systemd's journal, and as JSON lines to a bounded file.

pub mod decisions;
pub mod kernel;
pub mod records;
mod systemd;
pub(crate) mod terminal;
mod told;
mod troubles;

use std::{
    io::{self, IsTerminal as _},
    path::Path,
    sync::Mutex,
};

pub use self::troubles::troubles;
use file_rotate::{ContentLimit, FileRotate, compression::Compression, suffix::AppendCount};
use tracing_subscriber::{
    EnvFilter, Layer as _, filter::LevelFilter, fmt, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// The journal turns over at this size.
const MAX_BYTES: usize = 4 << 20;
/// Files kept beside the current one.
const KEPT: usize = 2;

/// Starts logging to stderr, and to `journal` if the process is an agent.
///
/// A service of systemd's, whose stderr is a stream of the journal, writes fields there instead of lines. The environment variable `TREELINE_LOG` filters stderr (`debug`, `treeline=trace`, …).
pub fn start(default_level: &str, journal: Option<&Path>) {
    let filter = || {
        EnvFilter::try_from_env("TREELINE_LOG")
            .unwrap_or_else(|_unset| EnvFilter::new(default_level))
    };
    let systemd = systemd::layer().map(|layer| layer.with_filter(filter()));
    let stderr = systemd.is_none().then(|| {
        fmt::layer()
            .with_writer(terminal::Lines)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
            .with_filter(filter())
    });
    let file = journal.map(|path| {
        let rotate = FileRotate::new(
            path,
            AppendCount::new(KEPT),
            ContentLimit::BytesSurpassed(MAX_BYTES),
            Compression::None,
            None,
        );
        fmt::layer()
            .json()
            .with_writer(Mutex::new(rotate))
            .with_filter(EnvFilter::new("info"))
    });
    // A second start in one process would be a mistake of ours, and harmless.
    let _already = tracing_subscriber::registry()
        .with(troubles::Count.with_filter(LevelFilter::WARN))
        .with(systemd)
        .with(stderr)
        .with(file)
        .try_init()
        .is_err();
}
