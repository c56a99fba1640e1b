//! The log of the kernel programs, opened by its pin.

use std::path::PathBuf;

use aya::EbpfLoader;
use aya_log::EbpfLogger;
use log::Log;
use scheduler_common::names;

use super::{Datapath, DatapathError, OBJECT, refused};

/// As aya-log calls its ring buffer.
pub(super) const MAP: &str = "AYA_LOGS";

impl Datapath {
    pub(super) fn log_pin(&self) -> PathBuf {
        self.map_pin(MAP)
    }

    /// Reads what the programs log, into `logger`.
    ///
    /// The logger of aya-log takes its ring out of a loaded object, or finds it by a program's number, which takes CAP_SYS_ADMIN.
    /// So the object's maps are made once more, as small as they can be, with the pinned ring among them, and let go again.
    ///
    /// # Errors
    /// If the kernel refuses, or an earlier version did not pin the ring.
    pub fn log<L: Log>(&self, logger: L) -> Result<EbpfLogger<L>, DatapathError> {
        let path = self.log_pin();
        if !path.exists() {
            return Err(DatapathError::NoLog { path });
        }
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(names::FLOWS, 1)
            .map_max_entries(names::STORIES, 1)
            .map_max_entries(names::CPUS, 1)
            .map_pin_path(MAP, &path)
            .load(OBJECT)
            .map_err(|source| refused(source, 1))?;
        EbpfLogger::init_with_logger(&mut ebpf, logger).map_err(|source| DatapathError::Log {
            path,
            source: Box::new(source),
        })
    }
}
