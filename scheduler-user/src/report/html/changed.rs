//! What was changed, and what stands now.

use scheduler_common::{counter::Counter, ingress::IngressCounter};

use super::{
    super::{Report, plots::traffic, times::minute, words::prefix},
    Page,
};
use crate::{
    journal::decisions::{Actor, Decision, Step},
    model::human_bytes,
    page::{PlotError, escape},
    qdisc::{BandStats, format_rate},
    status::{Interface, Status, served},
};

/// Decisions that a person looks through.
const MOST_DECISIONS: usize = 40;

pub(super) fn changed(page: &mut Page, report: &Report) {
    page.add(format_args!("<h2>What it changed, and how to undo it</h2>"));
    let told: Vec<&Decision> = (report.decisions.iter().rev())
        .filter(|it| !matches!(it.step, Step::Trained { .. } | Step::Refused { .. }))
        .collect();
    if told.is_empty() {
        page.add(format_args!("<p>Nothing was changed in this time.</p>"));
        return;
    }
    page.add(format_args!(
        "<div class=\"scroll\"><table><tr><th>when, UTC</th><th class=\"text\">by</th><th class=\"text\">what, why, and the command that \
         undoes it</th></tr>"
    ));
    for decision in told.iter().take(MOST_DECISIONS) {
        let by = match decision.by {
            Actor::Agent => "agent",
            Actor::Command => "a person",
        };
        let undo = decision.undo.as_ref().map_or_else(String::new, |undo| {
            format!("<br><code>{}</code>", escape(undo))
        });
        page.add(format_args!(
            "<tr><td class=\"when\">{}</td><td class=\"text\">{by}</td><td class=\"text wide\"><b>{}</b>: {}<br><span class=\"note\">\
             {}</span>{undo}</td></tr>",
            minute(decision.unix_ms / 1000),
            decision.step.name(),
            escape(&decision.step.to_string()),
            escape(&decision.why),
        ));
    }
    page.add(format_args!("</table></div>"));
    let more = told.len().saturating_sub(MOST_DECISIONS);
    if more > 0 {
        page.add(format_args!(
            "<p class=\"note\">{more} earlier ones: <code>{}model log -n {}</code></p>",
            prefix(&report.instance),
            report.decisions.len()
        ));
    }
}

pub(super) fn now(page: &mut Page, report: &Report) -> Result<(), PlotError> {
    page.add(format_args!("<h2>What stands now</h2>"));
    let Some(status) = &report.now else {
        page.add(format_args!(
            "<p>The kernel could not be asked: {}. As root this part says what each band has carried.</p>",
            escape(report.now_unknown.as_deref().unwrap_or("nothing is known"))
        ));
        return Ok(());
    };
    if status.interfaces.is_empty() {
        page.add(format_args!(
            "<p>No interface is scheduled now, so there are no counters to show.</p>"
        ));
    }
    for interface in &status.interfaces {
        one_interface(page, interface)?;
    }
    counters(page, status);
    Ok(())
}

fn one_interface(page: &mut Page, interface: &Interface) -> Result<(), PlotError> {
    let served = served(interface.root, interface.rate_bps, &interface.leaf);
    let name = &interface.name;
    page.add(format_args!(
        "<h3>{}: {}</h3>",
        escape(name),
        escape(&served)
    ));
    band_picture(page, name, &interface.bands)?;
    if let Some(downlink) = &interface.downlink {
        page.add(format_args!(
            "<h3>The way in of {}: {}</h3>",
            escape(name),
            format_rate(downlink.rate_bps)
        ));
        band_picture(page, &downlink.device, &downlink.bands)?;
    }
    Ok(())
}

fn band_picture(page: &mut Page, name: &str, bands: &[BandStats]) -> Result<(), PlotError> {
    let [packets, bytes, drops] = [
        bands.iter().map(|it| it.packets).sum::<u64>(),
        bands.iter().map(|it| it.bytes).sum(),
        bands.iter().map(|it| it.drops).sum(),
    ];
    if packets == 0 {
        page.add(format_args!(
            "<p class=\"note\">No band of its own has carried a packet yet; where the queue is not treeline's, it is not counted by band.</p>"
        ));
        return Ok(());
    }
    page.figure(
        &format!("Share of bytes and packets by band on {name}"),
        &traffic(bands)?,
        &format!(
            "What each band has carried since the queue was made, in percent: <span style=\"color:var(--oracle)\">■</span> of {}, \
             <span style=\"color:var(--aging)\">■</span> of {packets} packets. Band 0 goes first. {drops} packets were dropped because a \
             queue was full.",
            human_bytes(bytes as f64)
        ),
    );
    Ok(())
}

fn counters(page: &mut Page, status: &Status) {
    let help = |name: &str| {
        let own = Counter::ALL.iter().find(|it| it.name() == name);
        let ingress = IngressCounter::ALL.iter().find(|it| it.name() == name);
        own.map(|it| it.help())
            .or_else(|| ingress.map(|it| it.help()))
    };
    let seen = status.counters.iter().filter(|(_, value)| **value > 0);
    let seen: Vec<_> = seen.collect();
    if seen.is_empty() {
        return;
    }
    page.add(format_args!(
        "<h3>What the kernel programs counted since they were loaded</h3><div class=\"scroll\"><table><tr><th>what</th><th>times</th></tr>"
    ));
    for (name, value) in seen {
        page.add(format_args!(
            "<tr><td class=\"wide\">{} <code>{name}</code></td><td>{value}</td></tr>",
            escape(help(name).unwrap_or_default().trim())
        ));
    }
    page.add(format_args!("</table></div>"));
}
