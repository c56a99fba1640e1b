//! Samples → labelled rows, with the flow table's help, and to a file if asked for.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use scheduler_common::sample::Sample;
use tracing::{info, warn};

use crate::{
    datapath::{Datapath, DatapathError},
    dataset::{
        JoinCounts, Joiner, Row,
        store::{StoreError, Writer},
    },
};

/// Time between looks at the flow table, at least.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A look may take one part in so many of the time: a large table is looked at less often.
const LOOK_SHARE: u32 = 500;

/// The joiner, its looks at the flow table, and the file.
#[derive(Debug)]
pub struct Labels {
    joiner: Joiner,
    file: Option<Writer>,
    next_look: Instant,
    failed: Option<StoreError>,
}

impl Labels {
    /// Labels that also go to `file`.
    pub fn new(file: Option<Writer>) -> Self {
        Self {
            joiner: Joiner::default(),
            file,
            next_look: Instant::now() + LOOK_EVERY,
            failed: None,
        }
    }

    /// Takes samples in; returns the rows whose labels became known.
    pub fn take(&mut self, samples: &[Sample]) -> Vec<Row> {
        let rows: Vec<Row> = samples
            .iter()
            .flat_map(|sample| self.joiner.push(sample))
            .collect();
        self.deliver(rows)
    }

    /// Looks at the flow table, if it is time to and something waits; returns rows as [`Self::take`] does.
    ///
    /// # Errors
    /// If the table can't be read.
    pub fn look_if_due(&mut self, datapath: &Datapath) -> Result<Vec<Row>, DatapathError> {
        if Instant::now() < self.next_look || self.joiner.pending() == 0 {
            return Ok(Vec::new());
        }
        self.look(datapath)
    }

    /// Takes a last look, and ends the file; what still waits is in it, censored.
    ///
    /// # Errors
    /// If the file is not whole. A table that is gone is none.
    pub fn close(mut self, datapath: &Datapath) -> Result<Closed, StoreError> {
        if self.joiner.pending() > 0
            && let Err(error) = self.look(datapath)
        {
            info!(why = %error, "no last look at the flow table");
        }
        let rows = self.joiner.finish();
        self.deliver(rows);
        if let Some(error) = self.failed {
            return Err(error);
        }
        let rows = match self.file {
            Some(file) => file.close()?,
            None => 0,
        };
        Ok(Closed {
            rows,
            join: self.joiner.counts(),
        })
    }

    /// Whether the file takes no more: it is full, or its disk.
    pub fn is_done(&self) -> bool {
        self.failed.is_some() || self.file.as_ref().is_some_and(Writer::is_full)
    }

    /// What became of the samples.
    pub const fn counts(&self) -> JoinCounts {
        self.joiner.counts()
    }

    fn look(&mut self, datapath: &Datapath) -> Result<Vec<Row>, DatapathError> {
        let started = Instant::now();
        let readings = datapath.readings(monotonic_ns())?;
        let rows = self.joiner.read(&readings);
        self.next_look = Instant::now() + LOOK_EVERY.max(started.elapsed() * LOOK_SHARE);
        Ok(self.deliver(rows))
    }

    /// Writes all rows down; hands on those whose label is no lower bound.
    fn deliver(&mut self, mut rows: Vec<Row>) -> Vec<Row> {
        if let Some(file) = &mut self.file
            && let Err(error) = file.write(&rows)
        {
            warn!(
                why = &error as &dyn std::error::Error,
                what = "no more is recorded",
                "recording"
            );
            self.failed = Some(error);
            self.file = None;
        }
        rows.retain(|row| !row.censored);
        rows
    }
}

/// What a recording came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Rows in the file.
    pub rows: u64,
    /// What became of the samples.
    pub join: JoinCounts,
}

/// The programs' clock.
fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock");
    now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned()
}
