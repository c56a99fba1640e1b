//! Every metric that is exported: name, kind, unit, labels and what it says, written once.

use prometheus_client::registry::{Metric as Measured, Registry, Unit};

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the agent or the programs start anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
    /// Always 1; its labels tell.
    Info,
}

/// A metric as it is exported.
#[derive(Debug)]
pub struct Metric {
    stem: &'static str,
    units: &'static [&'static str],
    /// What it is.
    pub kind: Kind,
    /// Its labels, beside those that a histogram's buckets have.
    pub labels: &'static [&'static str],
    doc: &'static str,
}

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident $stem:literal $(in $unit:literal)? $(by $($label:literal)+)?;)+) => {
        $($(#[doc = $doc])+ pub(super) const $name: Metric = Metric {
            stem: $stem,
            units: &[$($unit)?],
            kind: Kind::$kind,
            labels: &[$($($label),+)?],
            doc: concat!($($doc),+),
        };)+

        /// All of them, in the order of the reference.
        pub const ALL: &[Metric] = &[$($name),+];
    };
}

metrics! {
    /// Bytes that a band has sent.
    BAND_SENT: Counter "treeline_band_sent" in "bytes" by "interface" "band";
    /// Packets that a band has sent.
    BAND_SENT_PACKETS: Counter "treeline_band_sent_packets" by "interface" "band";
    /// Packets that a band has dropped.
    BAND_DROPPED: Counter "treeline_band_dropped_packets" by "interface" "band";
    /// Bytes that wait in a band.
    BAND_BACKLOG: Gauge "treeline_band_backlog" in "bytes" by "interface" "band";
    /// Packets that wait in a band.
    BAND_BACKLOG_PACKETS: Gauge "treeline_band_backlog_packets" by "interface" "band";
    /// Time until all that stood in a band at a moment had left it, of about one moment a second in which the band was in use.
    BAND_DELAY: Histogram "treeline_band_delay" in "seconds" by "interface" "band";
    /// 1 if the interface is there, 0 if it is gone.
    INTERFACE_UP: Gauge "treeline_interface_up" by "interface";
    /// Rate that it is shaped to.
    INTERFACE_RATE: Gauge "treeline_interface_rate" in "bytes_per_second" by "interface";
    /// 1 if packets are watched and left alone.
    OBSERVES_ONLY: Gauge "treeline_observes_only";
    /// Generation of the model that acts; 0 while bytes sent decide.
    MODEL_GENERATION: Gauge "treeline_model_generation";
    /// Nodes of the acting model in the kernel's table.
    MODEL_NODES: Gauge "treeline_model_nodes";
    /// Labelled samples that the acting model has learned from.
    MODEL_ROWS: Gauge "treeline_model_trained_on_samples";
    /// Packets that the acting model has classified.
    MODEL_PACKETS: Counter "treeline_model_classified_packets";
    /// What the acting model wins by the latest replay of fresh messages: 0.1 is 10 % in mean slowdown and completion time.
    MODEL_GAIN: Gauge "treeline_model_gain_ratio" by "over";
    /// Standard error of treeline_model_gain_ratio.
    MODEL_GAIN_ERROR: Gauge "treeline_model_gain_error_ratio" by "over";
    /// What the acting model won over each rival by the replay for which it was accepted.
    MODEL_ACCEPTED_GAIN: Gauge "treeline_model_accepted_gain_ratio" by "over";
    /// Predicted over real bytes to come, 4096 added to both, where a finished message was first predicted.
    PREDICTION_RATIO: Histogram "treeline_prediction_ratio";
    /// Generation of the candidate that is only watched; 0 for none.
    SHADOW_GENERATION: Gauge "treeline_shadow_generation";
    /// Fresh labelled samples that the candidate was watched on; 0 for none.
    SHADOW_ROWS: Gauge "treeline_shadow_samples";
    /// Time that it took to learn a candidate from the window.
    TRAINING: Histogram "treeline_training" in "seconds";
    /// Time that a cycle took on its thread, judging included, by what it had to do.
    CYCLE: Histogram "treeline_cycle" in "seconds" by "work";
    /// Steps about models, by the names of `treeline model log`; of this agent, so without those by hand.
    DECISIONS: Counter "treeline_decisions" by "step";
    /// Samples of the kernel programs by what became of them.
    SAMPLES: Counter "treeline_samples" by "fate";
    /// Decision points by how the end of their message became known, if it did.
    ROWS: Counter "treeline_rows" by "label";
    /// Decision points that wait for the end of their message.
    WAITING: Gauge "treeline_waiting_samples";
    /// Labelled samples that the next candidate can learn from.
    WINDOW: Gauge "treeline_window_samples";
    /// Flows that the kernel's table has room for.
    FLOW_ENTRIES: Gauge "treeline_flow_table_entries";
    /// What the kernel programs have counted, by the names of `treeline status`.
    EVENTS: Counter "treeline_events" by "event";
    /// Time that the kernel programs ran, while the kernel keeps account of it (sysctl kernel.bpf_stats_enabled).
    PROGRAM_TIME: Counter "treeline_program_run" in "seconds" by "program";
    /// Times that the kernel programs ran, while the kernel keeps account of it.
    PROGRAM_RUNS: Counter "treeline_program_runs" by "program";
    /// Warnings and errors in the agent's log.
    LOG_EVENTS: Counter "treeline_log_events" by "level";
    /// Version of the agent and of the programs' interface.
    BUILD: Info "treeline_build" by "version" "abi_version";
    /// Time that the agent has used on all CPUs.
    PROCESS_CPU: Counter "process_cpu" in "seconds";
    /// Memory of the agent that is in RAM.
    PROCESS_MEMORY: Gauge "process_resident_memory" in "bytes";
    /// When the agent started, since 1970.
    PROCESS_START: Gauge "process_start_time" in "seconds";
}

impl Metric {
    /// The name of its samples; a histogram's have `_bucket`, `_sum` and `_count` behind it.
    pub fn name(&self) -> String {
        let end = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        format!("{}{end}", self.family())
    }

    /// The name as OpenMetrics' `# TYPE` has it.
    pub fn family(&self) -> String {
        self.units
            .iter()
            .fold(self.stem.to_owned(), |name, unit| format!("{name}_{unit}"))
    }

    /// What it says, without a full stop.
    pub fn help(&self) -> &'static str {
        self.doc.trim().trim_end_matches('.')
    }

    /// Adds it to those that are written.
    pub(super) fn register(&self, registry: &mut Registry, measured: impl Measured) {
        match self.units {
            [unit, ..] => {
                let unit = Unit::Other((*unit).to_owned());
                registry.register_with_unit(self.stem, self.help(), unit, measured);
            }
            [] => registry.register(self.stem, self.help(), measured),
        }
    }
}

/// The reference's table, which `docs/metrics.md` holds.
#[cfg(test)]
pub(super) fn table() -> String {
    let row = |metric: &Metric| {
        let labels: Vec<String> = metric.labels.iter().map(|it| format!("`{it}`")).collect();
        let kind = format!("{:?}", metric.kind).to_lowercase();
        format!(
            "| `{}` | {kind} | {} | {} |\n",
            metric.name(),
            labels.join(", "),
            metric.help()
        )
    };
    let rows: String = ALL.iter().map(row).collect();
    format!("| metric | kind | labels | |\n|---|---|---|---|\n{rows}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_reference_has_every_metric_as_it_is() {
        let kept = include_str!("../../../docs/metrics.md");
        let table = table();
        assert!(
            kept.contains(&table),
            "docs/metrics.md is stale; its table is to be:\n{table}"
        );
    }

    #[test]
    fn names_are_unique_and_speak_in_base_units() {
        let names: BTreeSet<String> = ALL.iter().map(Metric::family).collect();
        assert_eq!(names.len(), ALL.len());
        for name in names {
            let is_word = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.chars().all(is_word), "{name}");
            let ours = name.starts_with("treeline_") || name.starts_with("process_");
            assert!(ours, "{name}");
            for part in ["_ms", "_us", "_ns", "_kb", "_bits", "_percent", "_total"] {
                assert!(!name.ends_with(part), "{name}");
            }
        }
    }
}
