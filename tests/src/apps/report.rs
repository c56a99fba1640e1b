//! The figures of all runs, paired by round, as JSON and as tables.

use std::{
    collections::BTreeMap,
    fmt::{self, Display},
};

use bed::machine::Disturbance;
use serde::Serialize;
use serde_json::Value;

use crate::{
    background::PARTS,
    catalog::{App, Role},
    figure::{Better, Figure, median},
    rival::Rival,
};

/// Version of apps.json.
const SCHEMA: u32 = 1;
/// Two runs of one scheme differ by more than this; less is not called worse.
const TOLERANCE: f64 = 1.05;
/// Whom nobody interactive may be worse off than under.
const BAR: [Rival; 3] = [Rival::Fifo, Rival::ShortFifo, Rival::FqCodel];

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    schema: u32,
    setting: Setting,
    apps: Vec<Judged>,
    runs: Vec<RunRecord>,
}

/// How it was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
    pub(crate) kernel: String,
    pub(crate) rate_bps: u64,
    pub(crate) rounds: u32,
    pub(crate) slot_s: u64,
    pub(crate) quick: bool,
    pub(crate) gso_max_bytes: u32,
    /// Applications that are not installed, and the packages to install.
    pub(crate) left_out: Vec<(String, String)>,
    /// The model after learning; absent if the judge let none act.
    pub(crate) learned: Option<Value>,
}

/// One run of one scheme.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunRecord {
    pub(crate) round: u32,
    pub(crate) scheme: Rival,
    pub(crate) samples: Vec<Sample>,
    pub(crate) packets_per_band: Vec<u64>,
    pub(crate) drops: u64,
    pub(crate) retransmitted: u64,
    /// The model that acted at the end, by `treeline status`; null while aging ruled.
    pub(crate) model: Value,
    pub(crate) machine: Disturbance,
}

/// What one application reported in one run, and what the uplink carried meanwhile, background included.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    pub(crate) app: &'static str,
    pub(crate) figures: Vec<Figure>,
    pub(crate) packets_per_band: Vec<u64>,
    pub(crate) drops: u64,
    pub(crate) backlog_bytes: u64,
    /// What somebody who typed meanwhile felt.
    pub(crate) keys: Vec<Figure>,
}

impl Sample {
    pub(crate) const fn of_background(app: &'static str, figures: Vec<Figure>) -> Self {
        Self {
            app,
            figures,
            packets_per_band: Vec::new(),
            drops: 0,
            backlog_bytes: 0,
            keys: Vec::new(),
        }
    }
}

impl Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<13}", self.app)?;
        for figure in &self.figures {
            write!(f, " {} {:.2}", figure.name, figure.value)?;
        }
        if !self.packets_per_band.is_empty() {
            write!(
                f,
                "  bands {:?} drops {}",
                self.packets_per_band, self.drops
            )?;
        }
        if let [_, p99, most, _count] = self.keys.as_slice() {
            write!(f, " keys p99 {:.1} max {:.1}", p99.value, most.value)?;
        }
        Ok(())
    }
}

/// An application over all rounds.
#[derive(Clone, Debug, Serialize)]
struct Judged {
    app: &'static str,
    what: &'static str,
    role: Role,
    /// The figure that decides.
    headline: &'static str,
    /// Each figure under each scheme.
    figures: BTreeMap<&'static str, BTreeMap<Rival, Spread>>,
    /// Headline under treeline over that under another, paired by round; below 1 is better, also for rates.
    ratios: BTreeMap<Rival, Spread>,
    /// Whether no scheme of the bar serves it better; absent for bulk, which pays.
    bar_met: Option<bool>,
}

/// Middle, least and most over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(values: &[f64]) -> Option<Self> {
        Some(Self {
            median: median(values)?,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

impl Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, min, max } = self;
        let digits = if *median < 10.0 { 2 } else { 0 };
        f.pad(&format!(
            "{median:.digits$} [{min:.digits$}..{max:.digits$}]"
        ))
    }
}

impl Report {
    pub(crate) fn new(
        setting: Setting,
        apps: &[App],
        schemes: &[Rival],
        runs: Vec<RunRecord>,
    ) -> Self {
        let parts = PARTS.iter().map(|part| (part.name, part.what, part.role));
        let judged = apps
            .iter()
            .map(|app| (app.name, app.what, app.role))
            .chain(parts)
            .filter_map(|app| judge(app, schemes, &runs))
            .collect();
        Self {
            schema: SCHEMA,
            setting,
            apps: judged,
            runs,
        }
    }
}

impl Display for Report {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Setting {
            kernel,
            rate_bps,
            rounds,
            slot_s,
            quick: _,
            gso_max_bytes: _,
            left_out,
            learned,
        } = &self.setting;
        writeln!(
            text,
            "{} Mbit/s, {rounds} rounds, {slot_s} s an application, kernel {kernel}; median [least..most]",
            rate_bps / 1_000_000
        )?;
        if learned.is_none() && self.runs.iter().any(|run| run.scheme == Rival::Treeline) {
            writeln!(
                text,
                "the judge let no model act after learning: treeline began as aging"
            )?;
        }
        for judged in &self.apps {
            write_app(text, judged)?;
        }
        for (app, packages) in left_out {
            writeln!(text, "{app} was left out: install {packages}")?;
        }
        let worse: Vec<_> = (self.apps.iter())
            .filter(|judged| judged.bar_met == Some(false))
            .map(|judged| judged.app)
            .collect();
        if worse.is_empty() {
            writeln!(
                text,
                "no interactive application is worse off under treeline"
            )?;
        } else {
            writeln!(text, "WORSE under treeline: {}", worse.join(", "))?;
        }
        let disturbed = self.runs.iter().filter(|run| run.machine.is_disturbed());
        match disturbed.count() {
            0 => Ok(()),
            count => writeln!(text, "{count} of {} runs were disturbed", self.runs.len()),
        }
    }
}

fn write_app(text: &mut fmt::Formatter<'_>, judged: &Judged) -> fmt::Result {
    writeln!(text, "\n{} ({})", judged.app, judged.what)?;
    for (name, by_scheme) in &judged.figures {
        write!(text, "  {name:<14}")?;
        for (scheme, spread) in by_scheme {
            write!(text, " {scheme} {spread}  ")?;
        }
        writeln!(text)?;
    }
    if !judged.ratios.is_empty() {
        write!(text, "  treeline's {} over", judged.headline)?;
        for (scheme, spread) in &judged.ratios {
            write!(text, " {scheme}'s {spread}  ")?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn judge(
    (app, what, role): (&'static str, &'static str, Role),
    schemes: &[Rival],
    runs: &[RunRecord],
) -> Option<Judged> {
    let figures_of = |run: &RunRecord| {
        let sample = run.samples.iter().find(|sample| sample.app == app);
        sample
            .map(|sample| sample.figures.clone())
            .unwrap_or_default()
    };
    let mut values: BTreeMap<&str, BTreeMap<Rival, Vec<(u32, Figure)>>> = BTreeMap::new();
    for run in runs {
        for figure in figures_of(run) {
            let by_scheme = values.entry(figure.name).or_default();
            let rounds = by_scheme.entry(run.scheme).or_default();
            rounds.push((run.round, figure));
        }
    }
    let headline = role
        .headlines()
        .iter()
        .copied()
        .find(|name| values.contains_key(name))?;
    let decisive = &values[headline];
    let ours = decisive.get(&Rival::Treeline);
    let mut ratios = BTreeMap::new();
    for scheme in schemes.iter().filter(|scheme| **scheme != Rival::Treeline) {
        let pairs = ours
            .zip(decisive.get(scheme))
            .map(|(ours, theirs)| paired(ours, theirs));
        if let Some(spread) = pairs.and_then(|pairs| Spread::of(&pairs)) {
            ratios.insert(*scheme, spread);
        }
    }
    let held: Vec<bool> = BAR
        .iter()
        .filter_map(|rival| ratios.get(rival))
        .map(|spread| spread.median <= TOLERANCE)
        .collect();
    let bar_met =
        (role == Role::Interactive && !held.is_empty()).then(|| held.iter().all(|held| *held));
    let spreads = |by_scheme: &BTreeMap<Rival, Vec<(u32, Figure)>>| {
        let spread = |rounds: &Vec<(u32, Figure)>| {
            let values: Vec<f64> = rounds.iter().map(|(_, figure)| figure.value).collect();
            Spread::of(&values)
        };
        by_scheme
            .iter()
            .filter_map(|(scheme, rounds)| Some((*scheme, spread(rounds)?)))
            .collect()
    };
    Some(Judged {
        app,
        what,
        role,
        headline,
        figures: values
            .iter()
            .map(|(name, by_scheme)| (*name, spreads(by_scheme)))
            .collect(),
        ratios,
        bar_met,
    })
}

/// Ours over theirs of the same round; the other way round where more is better.
fn paired(ours: &[(u32, Figure)], theirs: &[(u32, Figure)]) -> Vec<f64> {
    let of_round = |round: u32| theirs.iter().find(|(theirs, _)| *theirs == round);
    let ratio = |ours: &Figure, theirs: &Figure| match ours.better {
        Better::Lower => ours.value / theirs.value,
        Better::Higher => theirs.value / ours.value,
    };
    ours.iter()
        .filter_map(|(round, ours)| Some(ratio(ours, &of_round(*round)?.1)))
        .filter(|ratio| ratio.is_finite())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(round: u32, scheme: Rival, p99_ms: f64, mbit_s: f64) -> RunRecord {
        let sample = |app, figure| Sample::of_background(app, vec![figure]);
        RunRecord {
            round,
            scheme,
            samples: vec![
                sample("dns", Figure::low("p99_ms", p99_ms)),
                sample("iperf3", Figure::high("mbit_s", mbit_s)),
            ],
            packets_per_band: Vec::new(),
            drops: 0,
            retransmitted: 0,
            model: Value::Null,
            machine: Disturbance::default(),
        }
    }

    #[test]
    fn rounds_are_paired_and_bulk_is_not_held_to_the_bar() {
        let runs = [
            run(0, Rival::Fifo, 100.0, 40.0),
            run(0, Rival::Treeline, 10.0, 20.0),
            run(1, Rival::Fifo, 10.0, 40.0),
            run(1, Rival::Treeline, 20.0, 20.0),
            run(2, Rival::Fifo, 10.0, 40.0),
            run(2, Rival::Treeline, 11.0, 20.0),
        ];
        let schemes = [Rival::Fifo, Rival::Treeline];
        let dns = judge(("dns", "", Role::Interactive), &schemes, &runs).unwrap();
        assert_eq!(dns.ratios[&Rival::Fifo].median.to_bits(), 1.1f64.to_bits());
        assert_eq!(dns.bar_met, Some(false));
        let bulk = judge(("iperf3", "", Role::Bulk), &schemes, &runs).unwrap();
        assert_eq!(bulk.ratios[&Rival::Fifo].median.to_bits(), 2f64.to_bits());
        assert_eq!(bulk.bar_met, None);
        assert!(judge(("redis", "", Role::Interactive), &schemes, &runs).is_none());
    }
}
