//! Samples → labelled rows, with the flow table's help, and to a file if asked for.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use scheduler_common::{flow::WAYS, sample::Sample};
use tracing::{info, warn};

use crate::{
    datapath::{Datapath, DatapathError},
    dataset::{
        JoinCounts, Joiner, Row,
        store::{StoreError, Writer},
    },
};

/// Time between looks at the flow table, of a part of it each.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Sets of a part: some milliseconds, in which no sample is read.
const PART_SETS: u32 = 4096;
/// Parts of a table that is so large that they would take longer than a minute.
const MOST_PARTS: u32 = 60;

/// The joiner, its looks at the flow table, and the file.
#[derive(Debug)]
pub struct Labels {
    joiner: Joiner,
    file: Option<Writer>,
    next_look: Instant,
    next_set: u32,
    failed: Option<StoreError>,
}

impl Labels {
    /// Labels that also go to `file`.
    pub fn new(file: Option<Writer>) -> Self {
        Self {
            joiner: Joiner::default(),
            file,
            next_look: Instant::now() + LOOK_EVERY,
            next_set: 0,
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

    /// Looks at a part of the flow table, if it is time to and something waits; returns rows as [`Self::take`] does.
    ///
    /// # Errors
    /// If the table can't be read.
    pub fn look_if_due(&mut self, datapath: &Datapath) -> Result<Vec<Row>, DatapathError> {
        if Instant::now() < self.next_look || self.joiner.pending() == 0 {
            return Ok(Vec::new());
        }
        self.next_look = Instant::now() + LOOK_EVERY;
        let sets = datapath.flow_entries()? / WAYS as u32;
        let part = PART_SETS.max(sets.div_ceil(MOST_PARTS));
        let from = self.next_set;
        let to = from.saturating_add(part).min(sets);
        self.next_set = if to == sets { 0 } else { to };
        self.look(datapath, from..to)
    }

    /// Takes a last look, and ends the file; what still waits is in it, censored.
    ///
    /// # Errors
    /// If the file is not whole. A table that is gone is none.
    pub fn close(mut self, datapath: &Datapath) -> Result<Closed, StoreError> {
        if self.joiner.pending() > 0
            && let Err(error) = self.look_at_all(datapath)
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

    /// Decision points that wait for the end of their message.
    pub fn waiting(&self) -> usize {
        self.joiner.pending()
    }

    fn look_at_all(&mut self, datapath: &Datapath) -> Result<Vec<Row>, DatapathError> {
        let sets = datapath.flow_entries()? / WAYS as u32;
        self.look(datapath, 0..sets)
    }

    fn look(&mut self, datapath: &Datapath, sets: Range<u32>) -> Result<Vec<Row>, DatapathError> {
        let readings = datapath.readings(self.joiner.flows(), sets, monotonic_ns())?;
        let rows = self.joiner.read(&readings);
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
