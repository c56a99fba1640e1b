//! Records of the kernel programs, in the same stream as the agent's own.

use log::{Level, Log, Metadata, Record};

/// What `origin` says of them.
pub const ORIGIN: &str = "kernel";

/// Takes records of the kernel programs; each says that it is one, and from where.
#[derive(Clone, Copy, Debug)]
pub struct KernelLog;

impl Log for KernelLog {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let message = record.args();
        let place = record.module_path().unwrap_or_default();
        match record.level() {
            Level::Error => tracing::error!(origin = ORIGIN, place, "{message}"),
            Level::Warn => tracing::warn!(origin = ORIGIN, place, "{message}"),
            Level::Info => tracing::info!(origin = ORIGIN, place, "{message}"),
            Level::Debug => tracing::debug!(origin = ORIGIN, place, "{message}"),
            Level::Trace => tracing::trace!(origin = ORIGIN, place, "{message}"),
        }
    }

    fn flush(&self) {}
}
