//! What was learned in a period, what it changed, and what it was worth: gathered, told, drawn.
//!
//! Everything comes from what an instance keeps: the registry, the journal of decisions, the latest replay of what was seen
//! (`advice.json`), and the kernel's own counters where they can be read. Nothing needs an agent.

mod described;
mod html;
mod plots;
mod times;
mod words;
mod worth;

use std::{fs, io};

use serde::Serialize;

pub use self::{
    described::Described,
    html::render,
    times::Period,
    worth::{Source, Worth},
};
use crate::{
    advice::Advice,
    instance::Instance,
    journal::decisions::{Decision, Decisions, Step},
    model::{Entry, LoadError, Registry},
    status::{self, Status},
};

/// Version of the JSON.
pub const SCHEMA: u32 = 1;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The registry can't be read.
    #[error(transparent)]
    Registry(#[from] LoadError),
    /// A file can't be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// A period of an instance.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of treeline.
    pub version: &'static str,
    /// Name of the host.
    pub host: String,
    /// Name of the instance.
    pub instance: String,
    /// What is told of.
    #[serde(flatten)]
    pub period: Period,
    /// The whole in a sentence or two.
    pub headline: String,
    /// What a person may do next.
    pub next: Vec<Advised>,
    /// How often what was decided.
    pub steps: Steps,
    /// Models that were kept in the period, oldest first.
    pub models: Vec<Learned>,
    /// The model that acts, or that acted last; absent where there is none.
    pub model: Option<Described>,
    /// What the messages met, or would have; absent where too little is known.
    pub worth: Option<Worth>,
    /// What was decided in the period, oldest first.
    pub decisions: Vec<Decision>,
    /// Lines of the journal, and files of the registry, that can't be read.
    pub unreadable: usize,
    /// What stands now; absent where it can't be read.
    pub now: Option<Status>,
    /// Why not.
    pub now_unknown: Option<String>,
}

/// A command, and what it is for.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Advised {
    /// The command.
    pub command: String,
    /// What it does.
    pub does: &'static str,
}

/// How often what was decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Steps {
    /// Candidates trained.
    pub trained: u64,
    /// Candidates that the judge refused.
    pub refused: u64,
    /// Candidates that came into the shadow.
    pub shadowed: u64,
    /// Candidates that left it without having acted.
    pub dropped: u64,
    /// Candidates put to work.
    pub promoted: u64,
    /// Models taken out because they had lost their worth.
    pub fell_back: u64,
    /// Changes of the traffic that were noticed.
    pub drifted: u64,
    /// Changes that a person has made.
    pub by_hand: u64,
}

/// A model of the period.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Learned {
    /// Its number.
    pub generation: u32,
    /// When it was made, seconds since 1970.
    pub created_unix_s: u64,
    /// Rows that it learned from.
    pub trained_on_samples: u64,
    /// Mean completion time of the messages that it was judged on, relative to aging less 1; negative is a gain.
    pub change_to_aging: Option<f64>,
    /// Whether it acts now, or acted last.
    pub acts: bool,
    /// What became of it, as the journal's last step of it is called; absent where the journal does not say.
    pub became: Option<&'static str>,
}

/// Gathers what is known of `period`.
///
/// # Errors
/// A file is there and can't be read. Damaged models, and a kernel that can't be asked, are told in the report.
pub async fn gather(instance: &Instance, period: Period) -> Result<Report, ReportError> {
    let tail = read(&instance.decisions(), |path| {
        Decisions::new(path.to_owned()).tail(usize::MAX)
    })?;
    let mut decisions = tail.decisions;
    decisions.retain(|decision| period.holds(decision.unix_ms / 1000));
    let (entries, skipped) = Registry::new(instance.models()).list()?;
    let (now, now_unknown) = match status::gather(instance).await {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(format!("{:#}", anyhow::Error::new(error)))),
    };
    let acting = match &now {
        Some(status) if !status.interfaces.is_empty() => {
            status.model.as_ref().map(|it| it.generation)
        }
        _ => Registry::new(instance.models()).acted_last(),
    };
    let model = described::of(instance, acting);
    let advice = read(&instance.advice(), Advice::load)?;
    let worth = worth::of(advice, model.as_ref(), (acting, now.as_ref()), &period);
    let mut report = Report {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        host: host(),
        instance: instance.name().to_owned(),
        headline: String::new(),
        next: Vec::new(),
        steps: Steps::of(&decisions),
        models: (entries.iter())
            .filter(|entry| period.holds(entry.created_unix_s))
            .map(|entry| Learned::of(entry, acting, &decisions))
            .collect(),
        model,
        worth,
        decisions,
        unreadable: tail.unreadable + skipped.len(),
        now,
        now_unknown,
        period,
    };
    report.headline = words::headline(&report);
    report.next = words::next(&report);
    Ok(report)
}

fn read<T>(
    path: &std::path::Path,
    how: impl FnOnce(&std::path::Path) -> io::Result<T>,
) -> Result<T, ReportError> {
    how(path).map_err(|source| ReportError::Read {
        path: path.display().to_string(),
        source,
    })
}

fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

impl Steps {
    fn of(decisions: &[Decision]) -> Self {
        let mut steps = Self::default();
        for decision in decisions {
            *match &decision.step {
                Step::Trained { .. } => &mut steps.trained,
                Step::Refused { .. } => &mut steps.refused,
                Step::Shadowed { .. } => &mut steps.shadowed,
                Step::Dropped { .. } => &mut steps.dropped,
                Step::Promoted { .. } => &mut steps.promoted,
                Step::FellBack { .. } => &mut steps.fell_back,
                Step::Drifted { .. } => &mut steps.drifted,
                Step::Pushed { .. }
                | Step::RolledBack { .. }
                | Step::Imported { .. }
                | Step::TakenOut => &mut steps.by_hand,
                Step::Recut { .. } => continue,
            } += 1;
        }
        steps
    }
}

impl Learned {
    fn of(entry: &Entry, acting: Option<u32>, decisions: &[Decision]) -> Self {
        let gains = entry
            .scores
            .as_ref()
            .and_then(|scores| scores.gains.as_ref());
        let change = gains.and_then(|gains| {
            let load = gains.loads.get(gains.loads.len() / 2)?;
            let model = load.candidate.or(load.running)?.all.mean_fct_ms;
            let aging = load.aging.all.mean_fct_ms;
            (aging > 0.0).then(|| model / aging - 1.0)
        });
        let of_it = |decision: &&Decision| generation_of(&decision.step) == Some(entry.generation);
        Self {
            generation: entry.generation,
            created_unix_s: entry.created_unix_s,
            trained_on_samples: entry.trained_on_samples,
            change_to_aging: change,
            acts: acting == Some(entry.generation),
            became: decisions
                .iter()
                .rev()
                .find(of_it)
                .map(|decision| decision.step.name()),
        }
    }
}

/// The model that a step is about.
const fn generation_of(step: &Step) -> Option<u32> {
    match step {
        Step::Shadowed { generation, .. }
        | Step::Dropped { generation, .. }
        | Step::Promoted { generation, .. }
        | Step::FellBack { generation }
        | Step::Pushed { generation, .. }
        | Step::Imported { generation, .. } => Some(*generation),
        Step::RolledBack { generation } => *generation,
        Step::Trained { .. }
        | Step::Refused { .. }
        | Step::Drifted { .. }
        | Step::Recut { .. }
        | Step::TakenOut => None,
    }
}
