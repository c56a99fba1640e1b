//! `treeline status`.

use std::time::{Duration, UNIX_EPOCH};

use super::{Format, print, print_json, runtime};
use crate::{
    control::client::Client,
    instance::Instance,
    model::human_bytes,
    qdisc::{BandStats, format_rate},
    status::{Interface, Status, gather, served},
};

pub(super) fn status(instance: &Instance, format: Format) -> anyhow::Result<()> {
    let status = runtime()?.block_on(current(instance))?;
    match format {
        Format::Json => print_json(&status),
        Format::Text => {
            print(&text(&status));
            Ok(())
        }
    }
}

/// What the agent says, or what there is to see without one.
pub(super) async fn current(instance: &Instance) -> anyhow::Result<Status> {
    if let Some(agent) = Client::connect(instance).await
        && let Ok(status) = agent.get("/v1/status").await
    {
        return Ok(status);
    }
    super::exit::require_root()?;
    Ok(gather(instance).await?)
}

fn text(status: &Status) -> String {
    let Status {
        schema: _,
        instance,
        abi_version: _,
        agent,
        observes_only,
        model,
        shadow,
        thresholds,
        flow_table,
        interfaces,
        counters,
    } = status;
    let mut lines = vec![format!("instance {instance}")];
    lines.push(match agent {
        Some(agent) => format!("agent    running, pid {}", agent.pid),
        None => "agent    not running: no learning (start it with `treeline run`)".to_owned(),
    });
    if *observes_only {
        lines.push("act      none: it watches only, and no packet is touched".to_owned());
    }
    lines.push(match model {
        Some(model) => format!(
            "model    generation {}, {} nodes, depth {}, {} packets classified",
            model.generation, model.nodes, model.depth, model.packets
        ),
        None => "model    none: bytes already sent decide (aging)".to_owned(),
    });
    lines.extend(shadow.as_ref().map(|shadow| {
        let (other, all) = shadow.differs();
        let since = shadow.since_unix_s.map_or_else(String::new, |unix_s| {
            let since = UNIX_EPOCH + Duration::from_secs(unix_s);
            format!(" since {}", humantime::format_rfc3339_seconds(since))
        });
        format!(
            "shadow   generation {} is watched{since}: another band at {other} of {all} decision points",
            shadow.generation
        )
    }));
    lines.extend(thresholds.as_ref().map(|thresholds| {
        let cuts = thresholds.cuts_bytes;
        let cuts = cuts.map(|cut| human_bytes(f64::from(cut))).join(", ");
        let first = human_bytes(f64::from(thresholds.first_bytes));
        format!("cuts     {cuts}; the first {first} of a message are not foretold")
    }));
    lines.extend(flow_table.as_ref().map(|table| {
        format!(
            "flows    table of {}, {} created, {} evicted alive",
            table.entries, table.created, table.evicted
        )
    }));
    if interfaces.is_empty() {
        lines.push("no interface is up; `treeline up IFACE --rate RATE` brings one up".to_owned());
    }
    for interface in interfaces {
        lines.extend(interface_lines(interface));
    }
    let seen: Vec<_> = counters.iter().filter(|(_, value)| **value > 0).collect();
    if !seen.is_empty() {
        lines.push("counters".to_owned());
        lines.extend(
            seen.iter()
                .map(|(name, value)| format!("  {name:24} {value:>14}")),
        );
    }
    lines.join("\n")
}

fn interface_lines(interface: &Interface) -> Vec<String> {
    let Interface {
        name,
        rate_bps,
        root,
        leaf,
        egress_hook,
        ingress_hook,
        present,
        bands,
        downlink,
        ..
    } = interface;
    let served = served(*root, *rate_bps, leaf);
    let ingress = match (ingress_hook, downlink) {
        (Some(hook), _) => format!("{hook:?}"),
        (None, Some(downlink)) => format!("shaped through {}", downlink.device),
        (None, None) => "not observed".to_owned(),
    };
    let mut lines = vec![format!(
        "{name}: {served}, egress {egress_hook:?}, ingress {ingress}{}",
        if *present {
            ""
        } else {
            " — the interface is gone, `treeline down` clears it"
        }
    )];
    lines.extend(band_lines(bands));
    if let Some(downlink) = downlink {
        let rate = format_rate(downlink.rate_bps);
        lines.push(format!("{} (ingress of {name}): {rate}", downlink.device));
        lines.extend(band_lines(&downlink.bands));
    }
    lines
}

fn band_lines(bands: &[BandStats]) -> Vec<String> {
    let mut lines = Vec::new();
    if !bands.is_empty() {
        lines.push(format!(
            "  {:>4} {:>12} {:>12} {:>10} {:>10}",
            "band", "packets", "sent", "dropped", "waiting"
        ));
    }
    lines.extend(bands.iter().map(|band| {
        format!(
            "  {:>4} {:>12} {:>12} {:>10} {:>10}",
            band.band,
            band.packets,
            human_bytes(band.bytes as f64),
            band.drops,
            band.backlog_packets
        )
    }));
    lines
}
