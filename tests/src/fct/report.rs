//! The report, as it stands in fct.json (docs/bench-fct.md describes its keys).

use std::collections::BTreeMap;

use bed::stats::{Class, Observation, gap_closed};
use scheduler_common::class::Cuts;
use serde::Serialize;
use serde_json::Value;

use crate::{
    bars::Bar,
    change::Change,
    figures::{RunReport, Spread, SpreadTimes, Times},
    options::{BedKind, TreelineCuts},
    saturation::Saturation,
    scheme::Scheme,
};

/// Version of the keys; a new one where one changes its meaning or goes.
pub(crate) const SCHEMA: u32 = 1;

/// Under which conditions the figures were taken.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
    pub(crate) command: String,
    pub(crate) kernel: String,
    pub(crate) processors: usize,
    /// Whether the generator ran under a real-time policy.
    pub(crate) real_time: bool,
    /// Whether idle processors waited instead of halting.
    pub(crate) awake: bool,
    pub(crate) congestion_control: &'static str,
    pub(crate) seed: u64,
    pub(crate) rate_bps: u64,
    /// Factor on the published sizes.
    pub(crate) scale: f64,
    pub(crate) rounds: u32,
    pub(crate) run_s: u32,
    /// Messages of the first so many seconds of a run are not judged.
    pub(crate) warm_up_s: f64,
    pub(crate) learning_s: u32,
    pub(crate) gso_max_bytes: u32,
    pub(crate) treeline_cuts: TreelineCuts,
}

impl Setting {
    /// What was done against noise of the machine, in words.
    pub(crate) fn against_noise(&self) -> String {
        let done = [
            (self.real_time, ", generator at real-time priority"),
            (self.awake, ", processors kept awake"),
        ];
        let done = done
            .into_iter()
            .filter_map(|(is_done, words)| is_done.then_some(words));
        done.collect()
    }
}

/// The whole report.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    pub(crate) setting: Setting,
    pub(crate) cells: Vec<Cell>,
    pub(crate) saturation: Vec<Saturation>,
    pub(crate) changes: Vec<Change>,
    pub(crate) bars: Vec<Bar>,
}

/// One workload at one load on one bed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    pub(crate) workload: &'static str,
    pub(crate) about: &'static str,
    /// Letter of the kind of workload: a, b, c.
    pub(crate) group: &'static str,
    pub(crate) bed: BedKind,
    pub(crate) load: f64,
    /// Idle time of a tiny message over a kept connection, and with a handshake.
    pub(crate) base_kept_ms: f64,
    pub(crate) base_fresh_ms: f64,
    /// What the agent had learned when measuring began; none if it found nothing worth acting on.
    pub(crate) model: Option<Value>,
    pub(crate) schemes: Vec<SchemeReport>,
    /// Share of the gap from aging to the oracle that treeline closed.
    pub(crate) gap_closed: GapClosed,
}

/// One scheme's entry.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SchemeReport {
    pub(crate) name: Scheme,
    /// What was set up, in commands and words.
    pub(crate) settings: Vec<String>,
    /// Cut points in bytes; empty where there are none, treeline's as last seen.
    pub(crate) cuts_bytes: Vec<u32>,
    pub(crate) by_class: BTreeMap<Class, SpreadTimes>,
    pub(crate) by_service: BTreeMap<&'static str, SpreadTimes>,
    /// This scheme's figures over those of aging in the same round, below one is better.
    pub(crate) to_aging: Option<Ratios>,
    pub(crate) to_fifo: Option<Ratios>,
    pub(crate) runs: Vec<RunReport>,
    /// For the page's curves.
    #[serde(skip)]
    pub(crate) seen: Vec<Observation>,
}

/// One scheme over another, round by round.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Ratios {
    pub(crate) fct_mean: Spread,
    pub(crate) slowdown_mean: Spread,
    pub(crate) small_fct_mean: Spread,
    pub(crate) small_fct_p99: Spread,
    pub(crate) medium_fct_mean: Spread,
    pub(crate) large_fct_mean: Spread,
    pub(crate) retransmitted: Spread,
}

/// `None` where the oracle is hardly better than aging.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct GapClosed {
    /// Of the medians over rounds.
    pub(crate) fct_mean_of_medians: Option<f64>,
    pub(crate) slowdown_mean_of_medians: Option<f64>,
    /// Round by round.
    pub(crate) fct_mean: Option<Spread>,
    pub(crate) slowdown_mean: Option<Spread>,
}

impl SchemeReport {
    pub(crate) fn new(name: Scheme, settings: Vec<String>, cuts: Option<Cuts>) -> Self {
        Self {
            name,
            settings,
            cuts_bytes: cuts.map(|cuts| cuts.bytes.to_vec()).unwrap_or_default(),
            by_class: BTreeMap::new(),
            by_service: BTreeMap::new(),
            to_aging: None,
            to_fifo: None,
            runs: Vec::new(),
            seen: Vec::new(),
        }
    }

    pub(crate) fn times(&self, class: Class) -> SpreadTimes {
        self.by_class.get(&class).copied().unwrap_or_default()
    }

    fn sum_up(&mut self) {
        let over = |times: &dyn Fn(&RunReport) -> Times| {
            SpreadTimes::of(&self.runs.iter().map(times).collect::<Vec<_>>())
        };
        self.by_class = Class::ALL
            .into_iter()
            .map(|class| (class, over(&|run| run.times(class))))
            .collect();
        let names = self.runs.first().map(|run| run.by_service.clone());
        self.by_service = names
            .unwrap_or_default()
            .into_keys()
            .map(|name| {
                (
                    name,
                    over(&|run| run.by_service.get(name).copied().unwrap_or_default()),
                )
            })
            .collect();
    }

    /// This scheme's figures over another's in the same rounds.
    pub(crate) fn ratios(&self, other: &Self) -> Ratios {
        let paired = |value: &dyn Fn(&RunReport) -> f64| {
            let ratios = self
                .pairs(other)
                .map(|(ours, theirs)| value(ours) / value(theirs));
            Spread::of(ratios).unwrap_or_default()
        };
        let mean = |class| move |run: &RunReport| run.times(class).fct_ms.mean;
        Ratios {
            fct_mean: paired(&mean(Class::All)),
            slowdown_mean: paired(&|run| run.times(Class::All).slowdown.mean),
            small_fct_mean: paired(&mean(Class::Small)),
            small_fct_p99: paired(&|run| run.times(Class::Small).fct_ms.p99),
            medium_fct_mean: paired(&mean(Class::Medium)),
            large_fct_mean: paired(&mean(Class::Large)),
            // One more, so that none of either is a ratio of one.
            retransmitted: paired(&|run| run.retransmitted_segments as f64 + 1.0),
        }
    }

    fn pairs<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = (&'a RunReport, &'a RunReport)> {
        self.runs.iter().filter_map(|run| {
            let same = other.runs.iter().find(|theirs| theirs.round == run.round)?;
            Some((run, same))
        })
    }
}

impl Cell {
    pub(crate) fn scheme(&self, name: Scheme) -> Option<&SchemeReport> {
        self.schemes.iter().find(|scheme| scheme.name == name)
    }

    /// Brings everything that follows from the runs up to date.
    pub(crate) fn sum_up(&mut self) {
        for scheme in &mut self.schemes {
            scheme.sum_up();
        }
        let ratios = |to: Scheme, of: &SchemeReport| {
            (of.name != to).then(|| Some(of.ratios(self.scheme(to)?)))?
        };
        let found: Vec<_> = self
            .schemes
            .iter()
            .map(|scheme| (ratios(Scheme::Aging, scheme), ratios(Scheme::Fifo, scheme)))
            .collect();
        self.gap_closed = self.gap().unwrap_or_default();
        for (scheme, (to_aging, to_fifo)) in self.schemes.iter_mut().zip(found) {
            (scheme.to_aging, scheme.to_fifo) = (to_aging, to_fifo);
        }
    }

    fn gap(&self) -> Option<GapClosed> {
        let [aging, ours, oracle] =
            [Scheme::Aging, Scheme::Treeline, Scheme::Oracle].map(|name| self.scheme(name));
        let (aging, ours, oracle) = (aging?, ours?, oracle?);
        let of_medians = |value: fn(&SpreadTimes) -> f64| {
            let of = |scheme: &SchemeReport| value(&scheme.times(Class::All));
            gap_closed(of(aging), of(ours), of(oracle))
        };
        let by_round = |value: fn(&Times) -> f64| {
            let gaps = ours.pairs(aging).zip(oracle.pairs(aging)).filter_map(
                |((ours, aging), (oracle, again))| {
                    let of = |run: &RunReport| value(&run.times(Class::All));
                    (again.round == aging.round)
                        .then(|| gap_closed(of(aging), of(ours), of(oracle)))?
                },
            );
            Spread::of(gaps)
        };
        Some(GapClosed {
            fct_mean_of_medians: of_medians(|times| times.fct_mean_ms.median),
            slowdown_mean_of_medians: of_medians(|times| times.slowdown_mean.median),
            fct_mean: by_round(|times| times.fct_ms.mean),
            slowdown_mean: by_round(|times| times.slowdown.mean),
        })
    }

    /// Runs that were taken although they were disturbed.
    pub(crate) fn disturbed(&self) -> usize {
        let runs = self.schemes.iter().flat_map(|scheme| &scheme.runs);
        runs.filter(|run| run.disturbed).count()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::figures::tests::{observations, run_of};

    /// A cell whose schemes differ by known factors, by round.
    pub(crate) fn sample_cell() -> Cell {
        let factors = |scheme| match scheme {
            Scheme::Fifo => [8.0, 16.0, 9.0],
            Scheme::Aging => [4.0, 8.0, 5.0],
            Scheme::Treeline => [3.0, 4.0, 3.0],
            Scheme::Oracle => [2.0, 4.0, 1.0],
            _ => [6.0; 3],
        };
        let schemes = Scheme::ALL
            .into_iter()
            .map(|name| SchemeReport {
                runs: (1..)
                    .zip(factors(name))
                    .map(|(round, factor)| run_of(round, factor))
                    .collect(),
                seen: observations(factors(name)[0]),
                ..SchemeReport::new(name, vec!["as it is".into()], None)
            })
            .collect();
        let mut cell = Cell {
            workload: "services",
            about: "made up",
            group: "b",
            bed: BedKind::Host,
            load: 0.8,
            base_kept_ms: 0.2,
            base_fresh_ms: 0.3,
            model: None,
            schemes,
            gap_closed: GapClosed::default(),
        };
        cell.sum_up();
        cell
    }

    pub(crate) fn sample_report() -> Report {
        Report {
            schema: SCHEMA,
            setting: Setting {
                command: "treeline-bench-fct".into(),
                kernel: "6.18.0".into(),
                processors: 2,
                real_time: false,
                awake: true,
                congestion_control: "cubic",
                seed: 1,
                rate_bps: 200_000_000,
                scale: 0.1,
                rounds: 3,
                run_s: 10,
                warm_up_s: 1.0,
                learning_s: 30,
                gso_max_bytes: 8_000,
                treeline_cuts: TreelineCuts::Own,
            },
            cells: vec![sample_cell()],
            saturation: Vec::new(),
            changes: Vec::new(),
            bars: Vec::new(),
        }
    }

    #[test]
    fn rounds_are_paired_before_they_are_compared() {
        let cell = sample_cell();
        let ours = cell.scheme(Scheme::Treeline).unwrap();
        let ratios = ours.to_aging.unwrap();
        // 3/4, 4/8, 3/5.
        assert!((ratios.fct_mean.median - 0.6).abs() < 1e-9, "{ratios:?}");
        assert!((ratios.slowdown_mean.min - 0.5).abs() < 1e-9, "{ratios:?}");
        assert!((ratios.slowdown_mean.max - 0.75).abs() < 1e-9, "{ratios:?}");
        assert!(cell.scheme(Scheme::Aging).unwrap().to_aging.is_none());
    }

    #[test]
    fn the_gap_is_closed_by_known_shares() {
        let gap = sample_cell().gap_closed;
        // (4-3)/(4-2), (8-4)/(8-4), (5-3)/(5-1).
        let by_round = gap.slowdown_mean.unwrap();
        assert_eq!(
            (by_round.median, by_round.min, by_round.max),
            (0.5, 0.5, 1.0)
        );
        // Medians: 5, 3, 2.
        assert!((gap.fct_mean_of_medians.unwrap() - 2.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn without_the_oracle_there_is_no_gap() {
        let mut cell = sample_cell();
        cell.schemes.retain(|scheme| scheme.name != Scheme::Oracle);
        cell.sum_up();
        assert!(cell.gap_closed.fct_mean.is_none());
    }

    #[test]
    fn the_json_has_the_agreed_keys() {
        let json = serde_json::to_value(sample_report()).unwrap();
        assert_eq!(json["schema"], SCHEMA);
        let cell = &json["cells"][0];
        for key in ["workload", "group", "bed", "load", "model", "gap_closed"] {
            assert!(!cell[key].is_null() || key == "model", "{key}");
        }
        for scheme in cell["schemes"].as_array().unwrap() {
            for class in ["small", "medium", "large", "all"] {
                for key in [
                    "fct_mean_ms",
                    "fct_p50_ms",
                    "fct_p99_ms",
                    "slowdown_mean",
                    "slowdown_p99",
                ] {
                    for part in ["median", "min", "max"] {
                        assert!(
                            scheme["by_class"][class][key][part].is_number(),
                            "{class} {key}"
                        );
                    }
                }
            }
            assert_eq!(scheme["runs"].as_array().unwrap().len(), 3);
            assert!(scheme["runs"][0]["retransmitted_segments"].is_number());
            assert!(scheme["seen"].is_null());
        }
        assert!(cell["gap_closed"]["slowdown_mean"]["median"].is_number());
    }
}
