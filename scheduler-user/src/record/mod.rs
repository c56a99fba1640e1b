//! Recording: labelled rows to a file, with or without learning.

mod labels;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use scheduler_common::settings::SAMPLES_PER_WINDOW;
use tokio_util::sync::CancellationToken;
use tracing::info;

pub use self::labels::{Closed, Labels};
use crate::{
    agent::set_sampling,
    datapath::{Datapath, DatapathError},
    dataset::store::{StoreError, Writer},
    sampling,
};

/// Rows that a file takes unless asked otherwise: about 30 MB on the disk.
pub const DEFAULT_MAX_ROWS: u64 = 1_000_000;

/// How often the ring is emptied: it has room for what two CPUs may emit in three times as long.
const EMPTY_EVERY: Duration = Duration::from_millis(40);

/// A file to record to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recording {
    /// Where.
    pub path: PathBuf,
    /// Rows at most.
    pub max_rows: u64,
    /// Name of the session: the interfaces.
    pub session: String,
}

impl Recording {
    /// The file, begun.
    ///
    /// # Errors
    /// It is there already, or can't be made.
    pub fn create(&self) -> Result<Writer, StoreError> {
        let mut writer = Writer::create(&self.path, self.max_rows)?;
        writer.begin(&self.session);
        Ok(writer)
    }
}

/// Why a recording failed.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The kernel programs can't be reached.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The file.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Records until `stop`, until `length` is over, the file is full, or the programs are taken down.
///
/// # Errors
/// See [`RecordError`].
pub async fn record(
    datapath: &Datapath,
    recording: &Recording,
    (sample_one_in, length): (u32, Option<Duration>),
    stop: CancellationToken,
) -> Result<Closed, RecordError> {
    let writer = recording.create()?;
    let mut ring = datapath.samples()?;
    let mut refused = 0;
    // What nobody has read before is of another time.
    while !sampling::drain(&mut ring, &mut refused).is_empty() {}
    set_sampling(datapath, sample_one_in, SAMPLES_PER_WINDOW)?;
    let started = Instant::now();
    let mut labels = Labels::new(Some(writer));
    info!(interfaces = recording.session, file = %recording.path.display(), "recording");
    let mut tick = tokio::time::interval(EMPTY_EVERY);
    loop {
        let stopped = tokio::select! {
            () = stop.cancelled() => true,
            _ = tick.tick() => false,
        };
        let over = length.is_some_and(|length| started.elapsed() >= length);
        let ending = stopped || over || labels.is_done() || !datapath.is_pinned();
        if ending && datapath.is_pinned() {
            set_sampling(datapath, sample_one_in, 0)?;
        }
        loop {
            let batch = sampling::drain(&mut ring, &mut refused);
            if batch.is_empty() {
                break;
            }
            labels.take(&batch);
        }
        if ending {
            return Ok(labels.close(datapath)?);
        }
        labels.look_if_due(datapath)?;
    }
}
