//! A status and the agent's own measures as metrics, in OpenMetrics.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};
use scheduler_common::counter::Counter as Event;

use super::{
    Scrape,
    catalog::{self, Metric},
    host::Costs,
    meters::{Level, OfBand, whole},
};
use crate::{
    dataset::JoinCounts,
    qdisc::BandStats,
    status::{Interface, Status},
};

/// A counter of seconds.
type Seconds = Counter<f64, AtomicU64>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfInterface {
    interface: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfEvent {
    event: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfFate {
    fate: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfProgram {
    program: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfLevel {
    level: &'static str,
}

/// What is known at a moment, in OpenMetrics.
pub(super) fn encode(scrape: &Scrape<'_>) -> String {
    let Scrape {
        status,
        meters,
        costs,
        log_events,
        started_unix_s,
    } = scrape;
    let mut registry = Registry::default();
    interfaces(&mut registry, status);
    state(&mut registry, status);
    meters.register(&mut registry);
    samples(&mut registry, status, meters.join_counts());
    events(&mut registry, status);
    programs(&mut registry, costs);
    let levels = Family::<OfLevel, Counter>::default();
    for (level, count) in *log_events {
        levels.get_or_create(&OfLevel { level }).inc_by(count);
    }
    catalog::LOG_EVENTS.register(&mut registry, levels);
    let version = ("version", env!("CARGO_PKG_VERSION").to_owned());
    let build = Info::new(vec![
        version,
        ("abi_version", status.abi_version.to_string()),
    ]);
    catalog::BUILD.register(&mut registry, build);
    process(&mut registry, costs, *started_unix_s);
    let mut body = String::new();
    if text::encode(&mut body, &registry).is_err() {
        tracing::error!("the metrics can't be written as text");
    }
    body
}

fn gauge(registry: &mut Registry, metric: &Metric, value: u64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(whole(value));
    metric.register(registry, gauge);
}

fn state(registry: &mut Registry, status: &Status) {
    let Status {
        observes_only,
        model,
        shadow,
        flow_table,
        ..
    } = status;
    gauge(registry, &catalog::OBSERVES_ONLY, u64::from(*observes_only));
    let model = model.as_ref();
    let generation = model.map_or(0, |model| model.generation.into());
    gauge(registry, &catalog::MODEL_GENERATION, generation);
    let nodes = model.map_or(0, |model| model.nodes.into());
    gauge(registry, &catalog::MODEL_NODES, nodes);
    let rows = model.and_then(|model| model.trained_on_samples);
    gauge(registry, &catalog::MODEL_ROWS, rows.unwrap_or(0));
    let classified: Counter = Counter::default();
    classified.inc_by(model.map_or(0, |model| model.packets));
    catalog::MODEL_PACKETS.register(registry, classified);
    let watched = shadow.as_ref().map_or(0, |shadow| shadow.generation.into());
    gauge(registry, &catalog::SHADOW_GENERATION, watched);
    let entries = flow_table.as_ref().map_or(0, |table| table.entries.into());
    gauge(registry, &catalog::FLOW_ENTRIES, entries);
}

fn samples(registry: &mut Registry, status: &Status, joined: JoinCounts) {
    let JoinCounts {
        decisions,
        ends,
        refused_abi,
        refused_kind,
        ..
    } = joined;
    let counted = |event: Event| status.counters.get(event.name()).copied().unwrap_or(0);
    let fates = Family::<OfFate, Counter>::default();
    for (fate, count) in [
        ("read", decisions + ends),
        ("refused", refused_abi + refused_kind),
        ("lost", counted(Event::SamplesLost)),
        ("limited", counted(Event::SamplesLimited)),
    ] {
        fates.get_or_create(&OfFate { fate }).inc_by(count);
    }
    catalog::SAMPLES.register(registry, fates);
}

fn events(registry: &mut Registry, status: &Status) {
    let events = Family::<OfEvent, Counter>::default();
    for (event, count) in &status.counters {
        events.get_or_create(&OfEvent { event }).inc_by(*count);
    }
    catalog::EVENTS.register(registry, events);
}

fn programs(registry: &mut Registry, costs: &Costs) {
    let times = Family::<OfProgram, Seconds>::default();
    let runs = Family::<OfProgram, Counter>::default();
    for program in &costs.programs {
        let of = OfProgram {
            program: program.name,
        };
        let time = times.get_or_create_owned(&of);
        time.inc_by(program.run_time.as_secs_f64());
        runs.get_or_create(&of).inc_by(program.runs);
    }
    catalog::PROGRAM_TIME.register(registry, times);
    catalog::PROGRAM_RUNS.register(registry, runs);
}

fn process(registry: &mut Registry, costs: &Costs, started_unix_s: f64) {
    let cpu = Seconds::default();
    cpu.inc_by(costs.cpu.as_secs_f64());
    catalog::PROCESS_CPU.register(registry, cpu);
    gauge(registry, &catalog::PROCESS_MEMORY, costs.resident_bytes);
    let started = Level::default();
    started.set(started_unix_s);
    catalog::PROCESS_START.register(registry, started);
}

#[derive(Default)]
struct Bands {
    bytes: Family<OfBand, Counter>,
    packets: Family<OfBand, Counter>,
    drops: Family<OfBand, Counter>,
    waiting_bytes: Family<OfBand, Gauge>,
    waiting_packets: Family<OfBand, Gauge>,
}

impl Bands {
    fn add(&self, interface: &str, bands: &[BandStats]) {
        for stats in bands {
            let of = OfBand {
                interface: interface.to_owned(),
                band: stats.band.into(),
            };
            self.bytes.get_or_create(&of).inc_by(stats.bytes);
            self.packets.get_or_create(&of).inc_by(stats.packets);
            self.drops.get_or_create(&of).inc_by(stats.drops);
            self.waiting_bytes
                .get_or_create(&of)
                .set(whole(stats.backlog_bytes));
            self.waiting_packets
                .get_or_create(&of)
                .set(whole(stats.backlog_packets));
        }
    }

    fn register(self, registry: &mut Registry) {
        catalog::BAND_SENT.register(registry, self.bytes);
        catalog::BAND_SENT_PACKETS.register(registry, self.packets);
        catalog::BAND_DROPPED.register(registry, self.drops);
        catalog::BAND_BACKLOG.register(registry, self.waiting_bytes);
        catalog::BAND_BACKLOG_PACKETS.register(registry, self.waiting_packets);
    }
}

fn interfaces(registry: &mut Registry, status: &Status) {
    let up = Family::<OfInterface, Gauge>::default();
    let rate = Family::<OfInterface, Gauge>::default();
    let bands = Bands::default();
    for it in &status.interfaces {
        let Interface {
            name,
            present,
            rate_bps,
            downlink,
            ..
        } = it;
        let of = |interface: &str| OfInterface {
            interface: interface.to_owned(),
        };
        up.get_or_create(&of(name)).set(i64::from(*present));
        if let Some(rate_bps) = rate_bps {
            rate.get_or_create(&of(name)).set(whole(rate_bps / 8));
        }
        bands.add(name, &it.bands);
        if let Some(downlink) = downlink {
            rate.get_or_create(&of(&downlink.device))
                .set(whole(downlink.rate_bps / 8));
            bands.add(&downlink.device, &downlink.bands);
        }
    }
    catalog::INTERFACE_UP.register(registry, up);
    catalog::INTERFACE_RATE.register(registry, rate);
    bands.register(registry);
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        time::Duration,
    };

    use super::*;
    use crate::{
        dataset::{Row, samples},
        instance::EgressHook,
        metrics::{Meters, catalog::Kind, host::Program, older::in_older_form},
        model::{DataWindow, Model},
        qdisc::RootChoice,
        training::{Advantage, Scores},
    };

    /// A status in which everything is there.
    fn status() -> Status {
        let bands = (0..8).map(|band| BandStats {
            band,
            packets: 1,
            bytes: 1500,
            drops: 0,
            backlog_packets: 0,
            backlog_bytes: 0,
        });
        let events = Event::ALL.iter().map(|event| (event.name(), 5));
        Status {
            schema: 1,
            instance: "default".to_owned(),
            abi_version: 7,
            agent: None,
            observes_only: false,
            model: None,
            shadow: None,
            thresholds: None,
            flow_table: None,
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                ifindex: 2,
                present: true,
                rate_bps: Some(100_000_000),
                root: RootChoice::Htb,
                leaf: "pfifo".to_owned(),
                egress_hook: EgressHook::Tcx,
                ingress_hook: None,
                bands: bands.collect(),
                downlink: None,
            }],
            counters: BTreeMap::from_iter(events),
        }
    }

    /// Measures of everything.
    fn meters() -> Meters {
        let meters = Meters::default();
        meters.waited("eth0", 0, Duration::ZERO);
        meters.saw(&[Row {
            generation: 1,
            ..samples::row(1, 1, 443)
        }]);
        meters.trained(3);
        meters.cycled("train", Duration::from_millis(4));
        let advantages = BTreeMap::from([("aging".to_owned(), Advantage::default())]);
        let scores = Scores {
            advantages,
            ..Scores::default()
        };
        meters.acts(Some(&Model {
            scores: Some(scores),
            ..Model::new("none", DataWindow::default(), Vec::new())
        }));
        meters.gains(&Advantage::default());
        meters
    }

    fn text() -> String {
        let (status, meters) = (status(), meters());
        let program = Program {
            name: "treeline_egress",
            run_time: Duration::from_millis(1500),
            runs: 7,
        };
        encode(&Scrape {
            status: &status,
            meters: &meters,
            costs: Costs {
                programs: vec![program],
                ..Costs::default()
            },
            log_events: [("warn", 1), ("error", 0)],
            started_unix_s: 1.5e9,
        })
    }

    #[test]
    fn both_forms_name_samples_and_families_by_their_rules() {
        let open = text();
        for line in [
            "# TYPE treeline_events counter",
            "treeline_events_total{event=\"egress_packets\"} 5",
            "treeline_samples_total{fate=\"lost\"} 5",
            "treeline_program_run_seconds_total{program=\"treeline_egress\"} 1.5",
            "# TYPE treeline_model_classified_packets counter",
            "# TYPE treeline_build info",
            "# EOF",
        ] {
            assert!(
                open.lines().any(|it| it == line),
                "{line} is missing:\n{open}"
            );
        }
        let older = in_older_form(&open);
        for line in [
            "# TYPE treeline_events_total counter",
            "treeline_events_total{event=\"egress_packets\"} 5",
            "# TYPE treeline_build_info gauge",
            "# TYPE treeline_band_delay_seconds histogram",
            "# TYPE treeline_model_generation gauge",
        ] {
            assert!(
                older.lines().any(|it| it == line),
                "{line} is missing:\n{older}"
            );
        }
        assert!(!older.contains("# UNIT") && !older.contains("# EOF"));
    }

    /// Names of the labels in `name{a="b",c="d"} 1`.
    fn labels(sample: &str) -> BTreeSet<&str> {
        let inside = sample
            .split_once('{')
            .and_then(|(_, rest)| rest.split_once('}'));
        let pairs = inside.map_or("", |(inside, _)| inside).split(',');
        pairs
            .filter_map(|pair| Some(pair.split_once('=')?.0))
            .collect()
    }

    #[test]
    fn what_is_written_is_what_the_catalog_says() {
        let text = text();
        let written: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        let listed: BTreeSet<String> = catalog::ALL
            .iter()
            .map(|metric| {
                format!(
                    "{} {}",
                    metric.family(),
                    format!("{:?}", metric.kind).to_lowercase()
                )
            })
            .collect();
        assert_eq!(written, listed.iter().map(String::as_str).collect());
        for metric in catalog::ALL {
            let help = format!("# HELP {} {}.", metric.family(), metric.help());
            assert!(text.lines().any(|line| line == help), "{help}");
            let name = match metric.kind {
                Kind::Histogram => format!("{}_count", metric.name()),
                _ => metric.name(),
            };
            let of_it = |line: &&str| {
                line.strip_prefix(name.as_str())
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            let sample = text.lines().find(of_it);
            let sample = sample.unwrap_or_else(|| panic!("no sample of {name}"));
            assert_eq!(
                labels(sample),
                metric.labels.iter().copied().collect(),
                "{sample}"
            );
        }
    }
}
