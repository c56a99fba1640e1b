//! The demo's figures, as they stand in report.json.

use serde::Serialize;
use serde_json::Value;

use crate::{
    machine::Disturbance,
    scheme::Scheme,
    stats::{Class, Figures, Observation, Summary, gap_closed, millis},
    traffic::Run,
    words,
};

/// Everything one scheme gave, all its rounds together.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Which scheme.
    pub scheme: Scheme,
    /// Every finished message after the warm-up.
    pub observations: Vec<Observation>,
    /// Packets sent by each band.
    pub packets_per_band: Vec<u64>,
    /// How the runs went.
    pub run: RunFigures,
}

impl Measured {
    /// Nothing measured so far.
    #[must_use]
    pub fn new(scheme: Scheme) -> Self {
        Self {
            scheme,
            observations: Vec::new(),
            packets_per_band: Vec::new(),
            run: RunFigures::default(),
        }
    }
}

/// What shows whether a scheme's runs can be trusted.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct RunFigures {
    /// Messages not finished when waiting ended.
    pub unfinished: usize,
    /// Messages whose connection failed.
    pub failed: usize,
    /// Packets dropped by the qdisc.
    pub drops: u64,
    /// Segments that the server's TCP sent again.
    pub retransmitted: u64,
    /// Most bytes seen waiting in the qdisc.
    pub backlog_peak_bytes: u64,
    /// How late the generator started arrivals in the mean of the worst run, milliseconds.
    pub lateness_mean_ms: f64,
    /// The same, 99th percentile.
    pub lateness_p99_ms: f64,
    /// CPU time of the generator as a share of one core, worst run.
    pub generator_cpu: f64,
    /// What else the machine did, worst run.
    pub machine: Disturbance,
}

impl RunFigures {
    /// Counts one more run in.
    pub fn add<A>(&mut self, run: &Run<A>) {
        let outcomes = &run.outcomes;
        let failed = outcomes.iter().filter(|outcome| outcome.failed).count();
        let finished = outcomes
            .iter()
            .filter(|outcome| outcome.completion.is_some())
            .count();
        let lateness = Figures::of(outcomes.iter().map(|outcome| millis(outcome.lateness)));
        self.failed += failed;
        self.unfinished += outcomes.len() - finished - failed;
        self.lateness_mean_ms = self.lateness_mean_ms.max(lateness.mean);
        self.lateness_p99_ms = self.lateness_p99_ms.max(lateness.p99);
        self.generator_cpu = self.generator_cpu.max(run.generator_cpu);
        self.machine.steal_mean = self.machine.steal_mean.max(run.disturbance.steal_mean);
        self.machine.steal_peak = self.machine.steal_peak.max(run.disturbance.steal_peak);
        self.machine.busy = self.machine.busy.max(run.disturbance.busy);
    }
}

/// Under which conditions the figures were taken.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// Kernel release.
    pub kernel: String,
    /// Seed of the arrivals.
    pub seed: u64,
    /// Link rate.
    pub rate_bps: u64,
    /// Offered load, headers counted.
    pub load: f64,
    /// Rounds of all schemes.
    pub rounds: u32,
    /// Length of one run.
    pub run_s: f64,
    /// Length of the learning phase.
    pub learning_s: f64,
    /// Whether this was the short form.
    pub quick: bool,
    /// Largest super-packet on the uplink.
    pub gso_max_bytes: u32,
    /// Idle time of a tiny message over a kept connection, milliseconds.
    pub base_kept_ms: f64,
    /// The same with a handshake.
    pub base_fresh_ms: f64,
}

/// One scheme's entry of the report.
#[derive(Clone, Debug, Serialize)]
pub struct SchemeReport {
    /// Which scheme.
    pub name: Scheme,
    /// Figures by class and by service.
    #[serde(flatten)]
    pub summary: Summary,
    /// Packets sent by each band; one number for FIFO.
    pub packets_per_band: Vec<u64>,
    /// How the runs went.
    pub run: RunFigures,
}

/// The whole report; its names are relied on by others.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// In the order of [`Scheme::ALL`].
    pub schemes: Vec<SchemeReport>,
    /// Share of the gap in mean completion time from aging to the oracle that treeline closed.
    pub gap_closed: Option<f64>,
    /// The same in mean slowdown.
    pub gap_closed_slowdown: Option<f64>,
    /// The model that treeline used last, as `treeline status` tells.
    pub model: Option<Value>,
    /// Whether the machine was too busy for the figures to be trusted.
    pub disturbed: bool,
    /// What to know when reading the figures.
    pub remarks: Vec<String>,
    /// Under which conditions.
    #[serde(flatten)]
    pub setting: Setting,
}

impl Report {
    /// Sums up what was measured.
    #[must_use]
    pub fn new(measured: &[Measured], model: Option<Value>, setting: Setting) -> Self {
        let schemes: Vec<SchemeReport> = measured
            .iter()
            .map(|scheme| SchemeReport {
                name: scheme.scheme,
                summary: Summary::of(&scheme.observations),
                packets_per_band: scheme.packets_per_band.clone(),
                run: scheme.run,
            })
            .collect();
        let gap = |value: fn(&Summary) -> f64| {
            let of = |name| schemes.iter().find(|entry| entry.name == name);
            gap_closed(
                value(&of(Scheme::Aging)?.summary),
                value(&of(Scheme::Treeline)?.summary),
                value(&of(Scheme::Oracle)?.summary),
            )
        };
        let mut report = Self {
            gap_closed: gap(|summary| summary.mean_ms(Class::All)),
            gap_closed_slowdown: gap(|summary| summary.slowdown.mean),
            model,
            disturbed: schemes
                .iter()
                .any(|scheme| scheme.run.machine.is_disturbed()),
            remarks: Vec::new(),
            setting,
            schemes,
        };
        report.remarks = words::remarks(&report);
        report
    }

    /// The entry of a scheme, if it was run.
    #[must_use]
    pub fn scheme(&self, name: Scheme) -> Option<&SchemeReport> {
        self.schemes.iter().find(|entry| entry.name == name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::mix::Service;

    /// A report whose schemes differ by a factor, for the tests of this crate.
    pub(crate) fn sample_measurements() -> Vec<Measured> {
        let speed = |scheme| match scheme {
            Scheme::Fifo => 4.0,
            Scheme::Aging => 3.0,
            Scheme::Treeline => 1.5,
            Scheme::Oracle => 1.0,
        };
        Scheme::ALL
            .into_iter()
            .map(|scheme| Measured {
                scheme,
                observations: (1..=300)
                    .map(|i| Observation {
                        service: i % Service::ALL.len(),
                        at: std::time::Duration::ZERO,
                        reply_bytes: (i * i * 40) as u64,
                        fct_ms: i as f64 * speed(scheme),
                        slowdown: speed(scheme),
                    })
                    .collect(),
                packets_per_band: vec![10; if scheme == Scheme::Fifo { 1 } else { 8 }],
                run: RunFigures::default(),
            })
            .collect()
    }

    pub(crate) fn sample_setting() -> Setting {
        Setting {
            kernel: "6.18.0".into(),
            seed: 1,
            rate_bps: 200_000_000,
            load: 0.8,
            rounds: 1,
            run_s: 8.0,
            learning_s: 12.0,
            quick: true,
            gso_max_bytes: 16_000,
            base_kept_ms: 0.2,
            base_fresh_ms: 0.3,
        }
    }

    #[test]
    fn the_json_has_the_agreed_names() {
        let model = serde_json::json!({"generation": 3, "trees": 1, "nodes": 31, "depth": 6,
            "trained_on_samples": 900, "train_ms": 12.5, "packets": 4000});
        let report = Report::new(&sample_measurements(), Some(model), sample_setting());
        let json = serde_json::to_value(&report).unwrap();
        let names: Vec<&str> = json["schemes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["fifo", "aging", "treeline", "oracle"]);
        for scheme in json["schemes"].as_array().unwrap() {
            for class in ["small", "medium", "large", "all"] {
                for key in ["mean", "p99", "count"] {
                    assert!(scheme["fct_ms"][class][key].is_number(), "{class} {key}");
                }
            }
            assert!(scheme["slowdown"]["mean"].is_number());
            assert!(scheme["slowdown"]["p99"].is_number());
            assert!(scheme["packets_per_band"].is_array());
        }
        assert_eq!(json["gap_closed"], 0.75);
        for key in [
            "generation",
            "trees",
            "nodes",
            "depth",
            "trained_on_samples",
            "train_ms",
        ] {
            assert!(json["model"][key].is_number(), "{key}");
        }
        assert!(json["kernel"].is_string() && json["seed"].is_number());
    }

    #[test]
    fn schemes_that_were_not_run_leave_no_gap() {
        let mut measured = sample_measurements();
        measured.truncate(2);
        let report = Report::new(&measured, None, sample_setting());
        assert_eq!(report.gap_closed, None);
        assert_eq!(report.schemes.len(), 2);
    }
}
