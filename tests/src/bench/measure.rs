//! Interleaved rounds, and what is made of their figures.

use std::{thread, time::Instant};

use anyhow::Result;
use clap::ValueEnum;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};
use rand::seq::SliceRandom as _;
use serde::Serialize;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Rounds of every variant.
    pub(crate) rounds: u32,
    /// Packets of a run.
    pub(crate) packets: u32,
    /// How time is taken.
    pub(crate) clock: Clock,
}

/// Which time a run takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Clock {
    /// This thread's own CPU time: what other processes take of the CPU does not count.
    Cpu,
    /// Wall time: right on a quiet machine only.
    Wall,
}

impl Clock {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "thread CPU time",
            Self::Wall => "wall time",
        }
    }

    /// Nanoseconds that `run` takes.
    fn time_ns(self, run: impl FnOnce() -> Result<()>) -> Result<f64> {
        match self {
            Self::Wall => {
                let started = Instant::now();
                run()?;
                Ok(started.elapsed().as_secs_f64() * 1e9)
            }
            Self::Cpu => {
                let before = cpu_us()?;
                run()?;
                Ok((cpu_us()? - before) as f64 * 1e3)
            }
        }
    }
}

/// CPU time of this thread so far.
///
/// # Errors
///
/// When the kernel does not tell.
pub(crate) fn cpu_us() -> Result<i64> {
    // The kernel brings the account up to date at its tick, some milliseconds apart, and whenever
    // the thread gives way.
    thread::yield_now();
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds())
}

/// Minimum, median and maximum over the rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one figure.
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            at(middle)
        } else {
            (at(middle.saturating_sub(1)) + at(middle)) / 2.0
        };
        Self {
            min: at(0),
            median,
            max: at(sorted.len().saturating_sub(1)),
        }
    }
}

/// Time a packet: that of a long run less that of a run of one.
///
/// The kernel itself reports whole nanoseconds of wall time only.
///
/// # Errors
///
/// What `run` gives.
pub(crate) fn per_packet_ns(
    clock: Clock,
    packets: u32,
    mut run: impl FnMut(u32) -> Result<()>,
) -> Result<f64> {
    let one_ns = clock.time_ns(|| run(1))?;
    let many_ns = clock.time_ns(|| run(packets))?;
    Ok((many_ns - one_ns) / f64::from(packets - 1))
}

/// Runs every variant once a round, in a new random order each; answers figures by variant.
///
/// # Errors
///
/// What `run` gives.
pub(crate) fn rounds(
    rounds: u32,
    variants: usize,
    mut run: impl FnMut(usize) -> Result<f64>,
) -> Result<Vec<Vec<f64>>> {
    let mut figures = vec![Vec::new(); variants];
    let mut order: Vec<usize> = (0..variants).collect();
    for _ in 0..rounds {
        order.shuffle(&mut rand::rng());
        for &variant in &order {
            figures[variant].push(run(variant)?);
        }
    }
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_two() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0].into_iter());
        assert!((spread.median - 2.5).abs() < 1e-12);
        assert!(spread.min < 1.5 && spread.max > 3.5);
    }

    #[test]
    fn every_round_runs_every_variant() {
        let figures = rounds(3, 4, |variant| Ok(variant as f64)).unwrap();
        assert!(figures.iter().all(|of_variant| of_variant.len() == 3));
        assert!(figures[2].iter().all(|figure| (figure - 2.0).abs() < 1e-12));
    }
}
