//! What was measured, as text and as JSON.

use std::{
    fmt::{self, Display},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde::Serialize;

/// All measurements.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Version of scikit-learn.
    scikit_learn: String,
    pub(crate) lines: Vec<Line>,
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
    pub(crate) const fn new(scikit_learn: String, lines: Vec<Line>) -> Self {
        Self {
            scikit_learn,
            lines,
        }
    }

    pub(crate) fn save(&self, out: &Path) -> Result<()> {
        let path = out.join("learning.json");
        fs::write(&path, serde_json::to_string_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:8} {:>9}  {:>9}  {:>13}  {:>6}  {:>6} {:>6}  {:>7}",
            "trainer",
            "rows",
            "treeline",
            format!("sklearn {}", self.scikit_learn),
            "ratio",
            "R²",
            "theirs",
            "nodes"
        )?;
        for line in &self.lines {
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
}
