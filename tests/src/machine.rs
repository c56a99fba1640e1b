//! Whether the machine was busy with something else during a run.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// Above these shares of stolen CPU time a run counts as disturbed.
const STEAL_MEAN_LIMIT: f64 = 0.01;
const STEAL_PEAK_LIMIT: f64 = 0.08;
/// Above this share of busy CPU time the machine, not the link, may be what is measured.
const BUSY_LIMIT: f64 = 0.85;

/// How busy and how disturbed the machine was.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Disturbance {
    /// Share of CPU time taken by other guests, on average.
    pub steal_mean: f64,
    /// The same in the worst second.
    pub steal_peak: f64,
    /// Share of CPU time not idle, all processes counted.
    pub busy: f64,
}

impl Disturbance {
    /// Whether other guests took much of the processor.
    #[must_use]
    pub fn is_stolen_from(&self) -> bool {
        self.steal_mean > STEAL_MEAN_LIMIT || self.steal_peak > STEAL_PEAK_LIMIT
    }

    /// Whether figures of this run deserve doubt.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        self.is_stolen_from() || self.busy > BUSY_LIMIT
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Ticks {
    total: u64,
    idle: u64,
    steal: u64,
}

impl Ticks {
    fn read() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        Self::parse(&stat).context("/proc/stat has no line of all CPUs")
    }

    /// Columns: user nice system idle iowait irq softirq steal; guest time is within user.
    fn parse(stat: &str) -> Option<Self> {
        let line = stat.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line
            .split_whitespace()
            .take(8)
            .map_while(|word| word.parse().ok())
            .collect();
        let [_, _, _, idle, wait, _, _, steal] = *ticks.as_slice() else {
            return None;
        };
        Some(Self {
            total: ticks.iter().sum(),
            idle: idle + wait,
            steal,
        })
    }

    fn shares_since(&self, earlier: &Self) -> (f64, f64) {
        let total = self.total.saturating_sub(earlier.total).max(1) as f64;
        let steal = self.steal.saturating_sub(earlier.steal) as f64;
        let idle = self.idle.saturating_sub(earlier.idle) as f64;
        (steal / total, 1.0 - idle / total)
    }
}

/// Whether this process runs under a real-time policy, as `chrt --rr` gives it.
///
/// # Errors
///
/// When /proc/self/stat can't be read.
pub fn is_real_time() -> Result<bool> {
    const FIFO_OR_ROUND_ROBIN: [&str; 2] = ["1", "2"];
    // Column 41 of proc_pid_stat(5), counted behind the name, which may hold blanks.
    const POLICY: usize = 41 - 3;
    let stat = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
    let behind_the_name = stat.rsplit(')').next().unwrap_or("");
    let policy = behind_the_name.split_whitespace().nth(POLICY);
    Ok(policy.is_some_and(|policy| FIFO_OR_ROUND_ROBIN.contains(&policy)))
}

/// While this lives, a processor with nothing to do waits instead of halting: to wake a halted virtual processor takes
/// as long as a small message on an idle link, now more and now less of it.
#[derive(Debug)]
pub struct Awake(Option<File>);

impl Awake {
    /// Asks for it as PM QoS has it (Documentation/power/pm_qos_interface.rst in Linux): a file that is held open.
    #[must_use]
    pub fn keep() -> Self {
        Self(Self::ask(Path::new("/dev/cpu_dma_latency")).ok())
    }

    fn ask(device: &Path) -> io::Result<File> {
        const NO_LATENCY_US: i32 = 0;
        let mut file = OpenOptions::new().write(true).open(device)?;
        file.write_all(&NO_LATENCY_US.to_ne_bytes())?;
        Ok(file)
    }

    /// Whether the kernel took it.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }
}

/// Follows /proc/stat while a run lasts.
#[derive(Debug)]
pub struct Watch {
    first: Ticks,
    last: Ticks,
    looked: Instant,
    peak: f64,
}

impl Watch {
    /// Begins to watch.
    ///
    /// # Errors
    ///
    /// When /proc/stat can't be read.
    pub fn start() -> Result<Self> {
        let first = Ticks::read()?;
        Ok(Self {
            first,
            last: first,
            looked: Instant::now(),
            peak: 0.0,
        })
    }

    /// To be called often; measures once a second.
    ///
    /// # Errors
    ///
    /// As for [`Self::start`].
    pub fn look(&mut self) -> Result<()> {
        if self.looked.elapsed() >= Duration::from_secs(1) {
            let now = Ticks::read()?;
            self.peak = self.peak.max(now.shares_since(&self.last).0);
            self.last = now;
            self.looked = Instant::now();
        }
        Ok(())
    }

    /// What it came to.
    ///
    /// # Errors
    ///
    /// As for [`Self::start`].
    pub fn finish(self) -> Result<Disturbance> {
        let (steal_mean, busy) = Ticks::read()?.shares_since(&self.first);
        Ok(Disturbance {
            steal_mean,
            steal_peak: self.peak,
            busy,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_come_from_the_difference_of_two_looks() {
        let first = Ticks::parse("cpu  10 0 10 80 0 0 0 0 0 0\n").unwrap();
        let later = Ticks::parse("cpu  30 0 20 140 0 0 0 10 0 0\ncpu0 1 2\n").unwrap();
        let (steal, busy) = later.shares_since(&first);
        assert!(
            (steal - 0.1).abs() < 1e-9 && (busy - 0.4).abs() < 1e-9,
            "{steal} {busy}"
        );
    }
}
