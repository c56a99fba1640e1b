//! The demo's figures: as JSON, as a table, and what they mean.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::Value;

use crate::{
    machine::Disturbance,
    mix::Service,
    scheme::Scheme,
    stats::{Class, Figures, Observation, Summary, gap_closed, millis},
    traffic::Run,
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
    pub fn add(&mut self, run: &Run) {
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
        report.remarks = remarks(&report);
        report
    }

    /// The entry of a scheme, if it was run.
    #[must_use]
    pub fn scheme(&self, name: Scheme) -> Option<&SchemeReport> {
        self.schemes.iter().find(|entry| entry.name == name)
    }

    /// The report for a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        self.write_text(&mut text)
            .expect("writing to a string can't fail");
        text
    }

    fn write_text(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "Completion time (ms), mean and p99; slowdown = time over that of the idle link\n"
        )?;
        write!(text, "{:<10}", "scheme")?;
        for class in Class::ALL {
            let count = self
                .schemes
                .first()
                .map_or(0, |first| first.summary.fct_ms[&class].count);
            write!(text, "{:>20}", format!("{} (n={count})", class.name()))?;
        }
        writeln!(text, "{:>20}", "slowdown")?;
        for scheme in &self.schemes {
            let columns = scheme
                .summary
                .fct_ms
                .values()
                .chain([&scheme.summary.slowdown]);
            write!(text, "{:<10}", scheme.name.name())?;
            for figures in columns {
                write!(
                    text,
                    "{:>20}",
                    format!("{:.2} / {:.1}", figures.mean, figures.p99)
                )?;
            }
            writeln!(text)?;
        }
        writeln!(text, "\nMean completion time (ms) by service")?;
        for scheme in &self.schemes {
            write!(text, "{:<10}", scheme.name.name())?;
            for service in Service::ALL {
                let mean = scheme.summary.fct_ms_by_service[&service].mean;
                write!(text, "{:>20}", format!("{} {mean:.2}", service.name()))?;
            }
            writeln!(text)?;
        }
        writeln!(text, "\nPackets per band, top band first")?;
        for scheme in &self.schemes {
            let packets: Vec<String> = scheme
                .packets_per_band
                .iter()
                .map(|packets| format!("{packets:>8}"))
                .collect();
            writeln!(text, "{:<10}{}", scheme.name.name(), packets.join(" "))?;
        }
        writeln!(text)?;
        for (what, gap) in [
            ("mean completion time", self.gap_closed),
            ("mean slowdown", self.gap_closed_slowdown),
        ] {
            if let Some(gap) = gap {
                let percent = gap * 100.0;
                writeln!(
                    text,
                    "Gap from aging to the oracle closed, {what}: {percent:.0} %"
                )?;
            }
        }
        if let Some(model) = &self.model {
            writeln!(text, "Model: {}", model_line(model))?;
        }
        for remark in &self.remarks {
            writeln!(text, "Note: {remark}")?;
        }
        Ok(())
    }
}

/// The learned model in one line.
#[must_use]
pub fn model_line(model: &Value) -> String {
    let number = |key: &str| {
        model[key]
            .as_u64()
            .map_or_else(|| "?".into(), |n| n.to_string())
    };
    let train_ms = model["train_ms"]
        .as_f64()
        .map_or_else(|| "?".to_owned(), |ms| format!("{ms:.0}"));
    format!(
        "generation {}, {} tree(s), {} nodes, depth {}, trained on {} samples in {train_ms} ms, \
         {} packets classified",
        number("generation"),
        number("trees"),
        number("nodes"),
        number("depth"),
        number("trained_on_samples"),
        number("packets"),
    )
}

/// Says where treeline does not win, and why the figures may deserve doubt.
fn remarks(report: &Report) -> Vec<String> {
    let mut remarks = Vec::new();
    if let Some(ours) = report.scheme(Scheme::Treeline) {
        for other in [Scheme::Fifo, Scheme::Aging] {
            let Some(theirs) = report.scheme(other) else {
                continue;
            };
            for class in Class::ALL {
                let (ours, theirs) = (ours.summary.mean_ms(class), theirs.summary.mean_ms(class));
                if ours > theirs * 1.02 {
                    let percent = (ours / theirs - 1.0) * 100.0;
                    let what = if class == Class::All {
                        "all transfers together"
                    } else {
                        class.name()
                    };
                    remarks.push(format!(
                        "under treeline, {what}{} take {percent:.0} % longer than under {} \
                         ({ours:.2} against {theirs:.2} ms in the mean)",
                        if class == Class::All {
                            ""
                        } else {
                            " transfers"
                        },
                        other.name(),
                    ));
                }
            }
        }
        if report.gap_closed.is_none() && report.scheme(Scheme::Oracle).is_some() {
            remarks.push(
                "the oracle was not faster than aging, so there was no gap to close".to_owned(),
            );
        }
    }
    for scheme in &report.schemes {
        let RunFigures {
            unfinished, failed, ..
        } = scheme.run;
        if unfinished + failed > 0 {
            remarks.push(format!(
                "{}: {unfinished} messages were not finished and {failed} failed; they are \
                 missing in its figures",
                scheme.name.name()
            ));
        }
    }
    if report.disturbed {
        remarks.push(
            "the machine was busy with something else during a run: repeat before you quote"
                .to_owned(),
        );
    }
    if report.setting.quick {
        remarks.push(
            "a quick run holds few large transfers: their figures vary with the seed".to_owned(),
        );
    }
    remarks
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

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
                        service: Service::ALL[i % 5],
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
    fn the_text_says_where_treeline_loses() {
        let mut measured = sample_measurements();
        for seen in &mut measured[2].observations {
            if seen.reply_bytes > 1_000_000 {
                seen.fct_ms *= 10.0;
            }
        }
        let text = Report::new(&measured, None, sample_setting()).to_text();
        assert!(
            text.contains("large transfers take 275 % longer than under fifo"),
            "{text}"
        );
        assert!(!text.contains("small transfers take"), "{text}");
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
