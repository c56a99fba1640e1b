//! Samples → labelled rows, with the flow table's help, and to a file if asked for.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

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

/// Time between looks at the flow table, where it holds what waits.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Sets at a look, of which each is a call of the kernel: some milliseconds, in which no sample is read. Where more are waited for, they take turns.
const MOST_SETS: usize = 4096;

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

    /// Looks at what waits in the flow table, if it is time to; returns rows as [`Self::take`] does.
    ///
    /// # Errors
    /// If the table can't be read.
    pub fn look_if_due(&mut self, datapath: &Datapath) -> Result<Vec<Row>, DatapathError> {
        if Instant::now() < self.next_look || self.joiner.pending() == 0 {
            return Ok(Vec::new());
        }
        self.next_look = Instant::now() + LOOK_EVERY;
        let sets = turn(&self.joiner.flow_sets(), self.next_set);
        self.next_set = sets.last().map_or(0, |last| last.saturating_add(1));
        self.look(datapath, sets)
    }

    /// Takes a last look, and ends the file; what still waits is in it, censored.
    ///
    /// # Errors
    /// If the file is not whole. A table that is gone is none.
    pub fn close(mut self, datapath: &Datapath) -> Result<Closed, StoreError> {
        if self.joiner.pending() > 0
            && let Err(error) = self.look(datapath, self.joiner.flow_sets())
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

    fn look(
        &mut self,
        datapath: &Datapath,
        sets: impl IntoIterator<Item = u32>,
    ) -> Result<Vec<Row>, DatapathError> {
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

/// The next of `sets` that are looked at together: from `next` on, and around.
fn turn(sets: &BTreeSet<u32>, next: u32) -> Vec<u32> {
    (sets.range(next..).chain(sets.range(..next)))
        .take(MOST_SETS)
        .copied()
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_which_more_wait_than_a_look_takes_come_in_turn() {
        let few = BTreeSet::from([3, 7, 9]);
        assert_eq!(turn(&few, 0), [3, 7, 9]);
        assert_eq!(turn(&few, 8), [9, 3, 7]);
        let count = MOST_SETS as u32 * 5 / 2;
        let many: BTreeSet<u32> = (0..count).map(|set| set * 3).collect();
        let (mut seen, mut next) = (BTreeSet::new(), 0);
        for _ in 0..3 {
            let sets = turn(&many, next);
            assert_eq!(sets.len(), MOST_SETS);
            next = sets.last().unwrap() + 1;
            seen.extend(sets);
        }
        assert_eq!(seen, many);
    }
}
