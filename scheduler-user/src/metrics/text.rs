//! A status as metrics, named by the conventions of Prometheus.

use std::collections::BTreeSet;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use crate::{
    qdisc::BandStats,
    status::{Interface, Status},
};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfInterface {
    interface: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfBand {
    interface: String,
    band: u32,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OfEvent {
    event: String,
}

/// The status in OpenMetrics.
pub(super) fn encode(status: &Status) -> String {
    let mut registry = Registry::with_prefix("treeline");
    let version = ("version", env!("CARGO_PKG_VERSION"));
    let abi = status.abi_version.to_string();
    let build = Info::new(
        vec![version, ("abi_version", abi.as_str())]
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect::<Vec<_>>(),
    );
    registry.register(
        "build",
        "Version of the agent and of the programs' interface",
        build,
    );
    state(&mut registry, status);
    events(&mut registry, status);
    interfaces(&mut registry, status);
    let mut body = String::new();
    if text::encode(&mut body, &registry).is_err() {
        tracing::error!("the metrics can't be written as text");
    }
    body
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

fn state(registry: &mut Registry, status: &Status) {
    let Status {
        observes_only,
        model,
        shadow,
        flow_table,
        ..
    } = status;
    gauge(
        registry,
        "observes_only",
        "1 if packets are watched and left alone",
        u64::from(*observes_only),
    );
    let model = model.as_ref();
    gauge(
        registry,
        "model_generation",
        "Generation of the model that acts; 0 while bytes sent decide",
        model.map_or(0, |model| model.generation.into()),
    );
    gauge(
        registry,
        "model_nodes",
        "Nodes of the acting model in the kernel's table",
        model.map_or(0, |model| model.nodes.into()),
    );
    gauge(
        registry,
        "model_trained_on_samples",
        "Labelled samples that the acting model has learned from",
        model
            .and_then(|model| model.trained_on_samples)
            .unwrap_or(0),
    );
    let classified: Counter = Counter::default();
    classified.inc_by(model.map_or(0, |model| model.packets));
    registry.register(
        "model_classified_packets",
        "Packets that the acting model has classified",
        classified,
    );
    gauge(
        registry,
        "shadow_generation",
        "Generation of the candidate that is only watched; 0 for none",
        shadow.as_ref().map_or(0, |shadow| shadow.generation.into()),
    );
    gauge(
        registry,
        "flow_table_entries",
        "Flows that the kernel's table has room for",
        flow_table.as_ref().map_or(0, |table| table.entries.into()),
    );
}

fn events(registry: &mut Registry, status: &Status) {
    let events = Family::<OfEvent, Counter>::default();
    for (event, count) in &status.counters {
        let event = (*event).to_owned();
        events.get_or_create(&OfEvent { event }).inc_by(*count);
    }
    registry.register(
        "events",
        "What the kernel programs have counted, by kind",
        events,
    );
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
            let level = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            self.bytes.get_or_create(&of).inc_by(stats.bytes);
            self.packets.get_or_create(&of).inc_by(stats.packets);
            self.drops.get_or_create(&of).inc_by(stats.drops);
            self.waiting_bytes
                .get_or_create(&of)
                .set(level(stats.backlog_bytes));
            self.waiting_packets
                .get_or_create(&of)
                .set(level(stats.backlog_packets));
        }
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
        let bytes_per_second = |bps: u64| i64::try_from(bps / 8).unwrap_or(i64::MAX);
        if let Some(rate_bps) = rate_bps {
            rate.get_or_create(&of(name))
                .set(bytes_per_second(*rate_bps));
        }
        bands.add(name, &it.bands);
        if let Some(downlink) = downlink {
            rate.get_or_create(&of(&downlink.device))
                .set(bytes_per_second(downlink.rate_bps));
            bands.add(&downlink.device, &downlink.bands);
        }
    }
    registry.register(
        "interface_up",
        "1 if the interface is there, 0 if it is gone",
        up,
    );
    let per_second = Unit::Other("bytes_per_second".to_owned());
    registry.register_with_unit(
        "interface_rate",
        "Rate that it is shaped to",
        per_second,
        rate,
    );
    let Bands {
        bytes,
        packets,
        drops,
        waiting_bytes,
        waiting_packets,
    } = bands;
    registry.register_with_unit(
        "band_sent",
        "Bytes that a band has sent",
        Unit::Bytes,
        bytes,
    );
    registry.register("band_sent_packets", "Packets that a band has sent", packets);
    registry.register(
        "band_dropped_packets",
        "Packets that a band has dropped",
        drops,
    );
    registry.register_with_unit(
        "band_backlog",
        "Bytes that wait in a band",
        Unit::Bytes,
        waiting_bytes,
    );
    registry.register(
        "band_backlog_packets",
        "Packets that wait in a band",
        waiting_packets,
    );
}

/// OpenMetrics as Prometheus' older text form, where a counter's family is named as its samples are.
pub(super) fn in_older_form(text: &str) -> String {
    let of_kind = |kind: &str| -> BTreeSet<&str> {
        text.lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(kind))
            .map(str::trim_end)
            .collect()
    };
    let (counters, infos) = (of_kind(" counter"), of_kind(" info"));
    let mut older = String::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => {}
            (Some("#"), Some(what), Some(name), Some(rest)) => {
                let (suffix, rest) = match (counters.contains(name), infos.contains(name)) {
                    (true, _) => ("_total", rest),
                    (_, true) if what == "TYPE" => ("_info", "gauge"),
                    (_, true) => ("_info", rest),
                    _ => ("", rest),
                };
                older.push_str(&format!("# {what} {name}{suffix} {rest}\n"));
            }
            _ => older.push_str(&format!("{line}\n")),
        }
    }
    older
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn status() -> Status {
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
            interfaces: Vec::new(),
            counters: BTreeMap::from([("egress_packets", 5)]),
        }
    }

    #[test]
    fn both_forms_name_samples_and_families_by_their_rules() {
        let open = encode(&status());
        for line in [
            "# TYPE treeline_events counter",
            "treeline_events_total{event=\"egress_packets\"} 5",
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
            "# TYPE treeline_model_generation gauge",
        ] {
            assert!(
                older.lines().any(|it| it == line),
                "{line} is missing:\n{older}"
            );
        }
        assert!(!older.contains("# UNIT") && !older.contains("# EOF"));
    }
}
