//! What is to be reached, and by how much it was met or missed.

use std::fmt::Write as _;

use bed::stats::Class;
use serde::Serialize;

use crate::{
    change::Change,
    figures::Spread,
    options::BedKind,
    report::{Cell, Ratios, Report},
    scheme::Scheme,
};

/// The load at which rounds are held against the bars.
const LOAD: f64 = 0.8;
const BACK_WITHIN_S: f64 = 60.0;

/// One figure held against what is to be reached.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Bar {
    /// Which figure, and where.
    pub(crate) what: String,
    /// What was measured; none where the figure does not exist.
    pub(crate) figure: Option<f64>,
    pub(crate) bar: f64,
    /// Whether the figure should be at least the bar, or at most.
    pub(crate) at_least: bool,
    pub(crate) met: bool,
}

impl Bar {
    fn new(what: String, figure: Option<f64>, (at_least, bar): (bool, f64)) -> Self {
        let met = figure.is_some_and(|figure| {
            if at_least {
                figure >= bar
            } else {
                figure <= bar
            }
        });
        Self {
            what,
            figure,
            bar,
            at_least,
            met,
        }
    }
}

const fn at_least(bar: f64) -> (bool, f64) {
    (true, bar)
}

const fn at_most(bar: f64) -> (bool, f64) {
    (false, bar)
}

/// Holds a report against every bar that its parts allow.
pub(crate) fn judge(report: &Report) -> Vec<Bar> {
    let cells: Vec<&Cell> = report
        .cells
        .iter()
        .filter(|cell| (cell.load - LOAD).abs() < 1e-9)
        .collect();
    let mut bars: Vec<Bar> = cells.iter().flat_map(|cell| judge_cell(cell)).collect();
    bars.extend(cells.iter().flat_map(|cell| judge_peers(cell)));
    for bed in [BedKind::Host, BedKind::Router] {
        bars.extend(best_mix(&cells, bed));
    }
    bars.extend(report.changes.iter().flat_map(judge_change));
    for saturation in &report.saturation {
        for filled in &saturation.schemes {
            if matches!(filled.name, Scheme::Aging | Scheme::Treeline) {
                let what = format!(
                    "full link, {} bed: goodput of {} over fifo",
                    saturation.bed.name(),
                    filled.name.name()
                );
                let figure = filled.to_fifo.map(|spread| spread.median);
                bars.push(Bar::new(what, figure, at_least(0.98)));
            }
        }
    }
    bars
}

fn judge_cell(cell: &Cell) -> Vec<Bar> {
    let Some(ours) = cell.scheme(Scheme::Treeline) else {
        return Vec::new();
    };
    let Some(ratios) = ours.to_aging else {
        return Vec::new();
    };
    let named = |what: &str| {
        format!(
            "({}) {}, {} bed: {what}",
            cell.group,
            cell.workload,
            cell.bed.name()
        )
    };
    let ratio = |what: &str, value: fn(&Ratios) -> f64, bar| {
        Bar::new(named(what), Some(value(&ratios)), at_most(bar))
    };
    let mut bars = Vec::new();
    if cell.group == "b" {
        let gap = |spread: Option<Spread>| spread.map(|spread| spread.median);
        for (what, figure) in [
            (
                "share of the gap closed in mean slowdown",
                gap(cell.gap_closed.slowdown_mean),
            ),
            (
                "share of the gap closed in mean completion time",
                gap(cell.gap_closed.fct_mean),
            ),
        ] {
            bars.push(Bar::new(named(what), figure, at_least(0.5)));
        }
        bars.push(ratio(
            "small messages over aging, mean",
            |r| r.small_fct_mean.median,
            1.05,
        ));
    } else {
        bars.push(ratio(
            "mean completion time over aging",
            |r| r.fct_mean.median,
            1.03,
        ));
        bars.push(ratio(
            "small p99 over aging",
            |r| r.small_fct_p99.median,
            1.10,
        ));
    }
    if cell.bed == BedKind::Router {
        bars.push(ratio(
            "retransmissions over aging",
            |r| r.retransmitted.median,
            1.2,
        ));
    }
    bars
}

/// What is to be reached beside the kernel's fair queues, and beside an administrator's rules.
fn judge_peers(cell: &Cell) -> Vec<Bar> {
    let Some(ours) = cell.scheme(Scheme::Treeline) else {
        return Vec::new();
    };
    let mut bars = Vec::new();
    for theirs in &cell.schemes {
        let to_peer = ours.ratios(theirs);
        let bar = |what: &str, figure: Spread, bar| {
            let what = format!(
                "({}) {}, {} bed: {what} {}",
                cell.group,
                cell.workload,
                cell.bed.name(),
                theirs.name.name()
            );
            Bar::new(what, Some(figure.median), bar)
        };
        match theirs.name {
            Scheme::FqCodel | Scheme::CakeBesteffort | Scheme::CakeDiffserv4
                if cell.group == "b" =>
            {
                // At least 1.3 times better.
                bars.push(bar(
                    "mean completion time over",
                    to_peer.fct_mean,
                    at_most(1.0 / 1.3),
                ));
                bars.push(bar("small p99 over", to_peer.small_fct_p99, at_most(1.0)));
                bars.push(bar(
                    "large messages over",
                    to_peer.large_fct_mean,
                    at_most(1.5),
                ));
            }
            Scheme::PortRules => {
                bars.push(bar(
                    "mean completion time over",
                    to_peer.fct_mean,
                    at_most(1.0),
                ));
                bars.push(bar(
                    "mean slowdown over",
                    to_peer.slowdown_mean,
                    at_most(1.0),
                ));
            }
            _ => {}
        }
    }
    bars
}

/// One of the learnable mixes is to close more than the others.
fn best_mix(cells: &[&Cell], bed: BedKind) -> Option<Bar> {
    let both = |cell: &Cell| {
        let gap = cell.gap_closed;
        Some(gap.slowdown_mean?.median.min(gap.fct_mean?.median))
    };
    let best = cells
        .iter()
        .filter(|cell| cell.group == "b" && cell.bed == bed)
        .filter_map(|cell| both(cell))
        .max_by(f64::total_cmp)?;
    let what = format!(
        "(b) best mix, {} bed: share of the gap closed in both",
        bed.name()
    );
    Some(Bar::new(what, Some(best), at_least(0.7)))
}

fn judge_change(change: &Change) -> Vec<Bar> {
    let named = |what: &str| format!("(e) {}, {} bed: {what}", change.workload, change.bed.name());
    vec![
        Bar::new(
            named("worst window's mean slowdown over aging"),
            change.worst_to_aging,
            at_most(1.2),
        ),
        Bar::new(
            named("seconds until half of the gain is back"),
            change.back_after_s,
            at_most(BACK_WITHIN_S),
        ),
    ]
}

/// The bars for a terminal, missed ones marked.
pub(crate) fn to_text(bars: &[Bar]) -> String {
    let mut text = String::from("\nBars\n");
    for bar in bars {
        let figure = bar
            .figure
            .map_or_else(|| "none".to_owned(), |figure| format!("{figure:.3}"));
        let by = bar.figure.map_or_else(String::new, |figure| {
            format!(" by {:.3}", (figure - bar.bar).abs())
        });
        let wanted = if bar.at_least { "at least" } else { "at most" };
        let verdict = if bar.met { "met" } else { "MISSED" };
        writeln!(
            text,
            "  {verdict:<6}{by:<10} {figure:>7} ({wanted} {}) {}",
            bar.bar, bar.what
        )
        .expect("writing to a string can't fail");
    }
    text
}

/// Where treeline's mean is above another scheme's in some class: what a reader must not overlook.
pub(crate) fn losses(cell: &Cell) -> Vec<String> {
    let Some(ours) = cell.scheme(Scheme::Treeline) else {
        return Vec::new();
    };
    let others = [Scheme::Fifo, Scheme::Aging]
        .into_iter()
        .filter_map(|name| cell.scheme(name));
    let mut losses = Vec::new();
    for other in others {
        for class in Class::ALL {
            let (mine, theirs) = (ours.times(class), other.times(class));
            for (what, mine, theirs) in [
                ("mean", mine.fct_mean_ms.median, theirs.fct_mean_ms.median),
                ("p99", mine.fct_p99_ms.median, theirs.fct_p99_ms.median),
            ] {
                if theirs > 0.0 && mine > theirs * 1.02 {
                    losses.push(format!(
                        "{} messages take {:.0} % longer than under {} in the {what} ({mine:.2} against {theirs:.2} ms)",
                        class.name(),
                        (mine / theirs - 1.0) * 100.0,
                        other.name.name()
                    ));
                }
            }
        }
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{sample_cell, sample_report};

    #[test]
    fn a_cell_is_held_against_its_group_s_bars() {
        let bars = judge(&sample_report());
        let slowdown = &bars[0];
        assert_eq!((slowdown.figure, slowdown.met), (Some(0.5), true));
        assert!(
            bars.iter()
                .any(|bar| bar.what.contains("best mix") && !bar.met)
        );
        let beside_fair = |what: &str| {
            bars.iter()
                .find(|bar| bar.what.ends_with(&format!("{what} fq-codel")))
                .and_then(|bar| bar.figure)
        };
        assert_eq!(beside_fair("mean completion time over"), Some(0.5));
        assert!(beside_fair("small p99 over").is_some());
        let mut report = sample_report();
        report.cells[0].group = "a";
        let bars = judge(&report);
        assert!(bars[0].what.contains("mean completion time over aging") && bars[0].met);
        assert!(!bars.iter().any(|bar| bar.what.contains("fq-codel")));
        assert!(
            bars.iter()
                .any(|bar| bar.what.ends_with("over port-rules") && bar.met)
        );
        report.cells[0].load = 0.5;
        assert!(judge(&report).is_empty());
    }

    #[test]
    fn text_says_what_is_missed_and_by_how_much() {
        let bars = [
            Bar::new("one".into(), Some(0.4), at_least(0.5)),
            Bar::new("two".into(), None, at_most(1.0)),
            Bar::new("three".into(), Some(0.9), at_most(1.0)),
        ];
        let text = to_text(&bars);
        assert!(text.contains("MISSED by 0.100"), "{text}");
        assert_eq!(text.matches("MISSED").count(), 2);
        assert_eq!(text.matches("met").count(), 1);
    }

    #[test]
    fn losses_are_named() {
        let mut cell = sample_cell();
        assert!(losses(&cell).is_empty());
        let fifo = cell
            .schemes
            .iter_mut()
            .find(|s| s.name == Scheme::Fifo)
            .unwrap();
        for run in &mut fifo.runs {
            for times in run.by_class.values_mut() {
                times.fct_ms.p99 /= 100.0;
            }
        }
        cell.sum_up();
        let losses = losses(&cell);
        assert!(
            losses
                .iter()
                .all(|loss| loss.contains("under fifo in the p99")),
            "{losses:?}"
        );
        assert_eq!(losses.len(), 4);
    }
}
