//! What was measured, as text and as JSON.

use std::{
    fmt::{self, Display},
    fs,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result};
use bed::machine::Disturbance;
use serde::Serialize;

/// All measurements; what was not asked for, or needs root, is absent.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// Version of scikit-learn.
    pub(crate) scikit_learn: Option<String>,
    pub(crate) training: Vec<Line>,
    pub(crate) end_to_end: Vec<EndToEnd>,
    pub(crate) agent: Option<Agent>,
    /// The machine over the whole bench, and its load average before and after.
    pub(crate) machine: Disturbance,
    pub(crate) load_average: [f64; 2],
}

/// Least, middle and most of a figure over the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(figures: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = figures.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self {
            min: at(0),
            median: at(sorted.len() / 2),
            max: at(sorted.len().saturating_sub(1)),
        }
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { min, median, max } = self;
        write!(f, "{min:.3} {median:.3} {max:.3}")
    }
}

/// From rows in the window to a generation that classifies packets, milliseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct EndToEnd {
    pub(crate) rows: usize,
    /// Whether a model ran before: it is judged too, against the candidate and for itself.
    pub(crate) running: bool,
    pub(crate) rounds: usize,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    #[serde(flatten)]
    pub(crate) parts: Parts<Spread>,
}

/// What the judge said: the same in all rounds, for the rows are the same.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    /// Why the agent would not have deployed it; absent if it would.
    pub(crate) refused: Option<String>,
    /// Messages that were replayed.
    pub(crate) judged_messages: u64,
}

/// The parts of a cycle; `total` counts the flip until its call returns.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Parts<T> {
    /// The rows are taken out of the window, sorted and cut in two.
    pub(crate) take_ms: T,
    pub(crate) train_ms: T,
    pub(crate) judge_ms: T,
    /// To the disk.
    pub(crate) save_ms: T,
    pub(crate) compile_ms: T,
    /// Into the spare slot.
    pub(crate) stage_ms: T,
    /// From the call to the first packet on another CPU that met the new table.
    pub(crate) flip_classifies_ms: T,
    /// From the call to its return, after a grace period of RCU.
    pub(crate) flip_returns_ms: T,
    pub(crate) total_ms: T,
}

impl Parts<Duration> {
    fn spread(rounds: &[Self]) -> Parts<Spread> {
        let of = |part: fn(&Self) -> Duration| {
            Spread::of(rounds.iter().map(|round| part(round).as_secs_f64() * 1e3))
        };
        Parts {
            take_ms: of(|it| it.take_ms),
            train_ms: of(|it| it.train_ms),
            judge_ms: of(|it| it.judge_ms),
            save_ms: of(|it| it.save_ms),
            compile_ms: of(|it| it.compile_ms),
            stage_ms: of(|it| it.stage_ms),
            flip_classifies_ms: of(|it| it.flip_classifies_ms),
            flip_returns_ms: of(|it| it.flip_returns_ms),
            total_ms: of(|it| it.total_ms),
        }
    }
}

impl EndToEnd {
    /// `None` without a round.
    pub(crate) fn of(
        rows: usize,
        running: bool,
        rounds: Vec<(Parts<Duration>, Outcome)>,
    ) -> Option<Self> {
        let (parts, outcomes): (Vec<_>, Vec<_>) = rounds.into_iter().unzip();
        Some(Self {
            rows,
            running,
            rounds: parts.len(),
            outcome: outcomes.into_iter().next_back()?,
            parts: Parts::spread(&parts),
        })
    }
}

impl Display for EndToEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = if self.running { "a model" } else { "aging" };
        writeln!(
            f,
            "{} rows to an active generation, {before} before; milliseconds, least, middle, most of {}",
            self.rows, self.rounds
        )?;
        let Outcome {
            refused,
            judged_messages,
        } = &self.outcome;
        match refused {
            Some(reason) => writeln!(f, "  {judged_messages} messages judged; refused: {reason}")?,
            None => writeln!(f, "  {judged_messages} messages judged; accepted")?,
        }
        let parts = &self.parts;
        for (name, spread) in [
            ("take", parts.take_ms),
            ("train", parts.train_ms),
            ("judge", parts.judge_ms),
            ("save", parts.save_ms),
            ("compile", parts.compile_ms),
            ("stage", parts.stage_ms),
            ("flip, classifies", parts.flip_classifies_ms),
            ("flip, returns", parts.flip_returns_ms),
            ("total", parts.total_ms),
        ] {
            writeln!(f, "  {name:17} {spread}")?;
        }
        Ok(())
    }
}

/// What a running agent costs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Agent {
    /// Sampling on, no traffic.
    pub(crate) rest: Cost,
    pub(crate) load: Cost,
}

/// CPU time and memory of a process for a while.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    /// Of one core.
    pub(crate) cpu_percent: f64,
    /// Largest resident set since the start, 10^6 bytes.
    pub(crate) peak_mb: f64,
    pub(crate) samples_per_s: f64,
    pub(crate) samples_lost: u64,
    /// Trainings that ended meanwhile.
    pub(crate) trainings: usize,
    pub(crate) machine: Disturbance,
}

impl Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.2} % of a core, {:.0} MB at the peak, {:.0} samples/s ({} lost), {} trainings, {:.0} s",
            self.cpu_percent,
            self.peak_mb,
            self.samples_per_s,
            self.samples_lost,
            self.trainings,
            self.seconds
        )
    }
}

/// One trainer on so many rows.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) trainer: &'static str,
    pub(crate) rows: usize,
    pub(crate) ours_s: f64,
    pub(crate) theirs_s: f64,
    pub(crate) ours_r2: f64,
    pub(crate) theirs_r2: f64,
    /// Nodes of our model.
    pub(crate) nodes: usize,
    /// Nodes before it was pruned to fit the kernel's table, if it was; theirs never is.
    pub(crate) pruned_from: Option<u64>,
}

impl Report {
    pub(crate) fn save(&self, out: &Path) -> Result<()> {
        let path = out.join("learning.json");
        fs::write(&path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(version) = &self.scikit_learn {
            table(f, &self.training, version)?;
        }
        for line in &self.end_to_end {
            write!(f, "{line}")?;
        }
        if let Some(Agent { rest, load }) = &self.agent {
            writeln!(f, "agent at rest: {rest}\nagent at work: {load}")?;
        }
        Ok(())
    }
}

fn table(f: &mut fmt::Formatter<'_>, lines: &[Line], version: &str) -> fmt::Result {
    writeln!(
        f,
        "{:8} {:>9}  {:>9}  {:>13}  {:>6}  {:>6} {:>6}  {:>7}",
        "trainer",
        "rows",
        "treeline",
        format!("sklearn {version}"),
        "ratio",
        "R²",
        "theirs",
        "nodes"
    )?;
    for line in lines {
        let Line {
            trainer,
            rows,
            ours_s,
            theirs_s,
            ours_r2,
            theirs_r2,
            nodes,
            pruned_from,
        } = line;
        write!(
            f,
            "{trainer:8} {rows:>9}  {ours_s:>7.3} s  {theirs_s:>11.3} s  {:>6.2}  {ours_r2:>6.3} {theirs_r2:>6.3}  {nodes:>7}",
            ours_s / theirs_s
        )?;
        match pruned_from {
            Some(from) => writeln!(f, " (pruned from {from})")?,
            None => writeln!(f)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_least_middle_and_most() {
        let spread = Spread::of([3.0, 1.0, 2.0].into_iter());
        let expected = Spread {
            min: 1.0,
            median: 2.0,
            max: 3.0,
        };
        assert_eq!(spread, expected);
    }
}
