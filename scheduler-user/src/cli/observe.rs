//! What `run --observe` has to say at its end.

use serde::Serialize;

use super::{Format, print, print_json};
use crate::{
    advice::{Advice, Comparison, SCHEMA},
    instance::Instance,
    model::human_bytes,
    qdisc::format_rate,
    simulate::{CLASS_BOUNDS_BYTES, Figures, Replay},
};

/// The figures of one class of size.
type OfClass = fn(&Replay) -> Figures;

#[derive(Serialize)]
struct Outcome<'a> {
    schema: u32,
    interfaces: &'a [String],
    /// Absent where too little was seen.
    advice: Option<&'a Advice>,
}

/// Forgets what an earlier watch has come to.
pub(super) fn forget(instance: &Instance) -> anyhow::Result<()> {
    match std::fs::remove_file(instance.advice()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

pub(super) fn tell(
    instance: &Instance,
    format: Format,
    interfaces: &[String],
) -> anyhow::Result<()> {
    let advice = Advice::load(&instance.advice())?;
    match format {
        Format::Json => print_json(&Outcome {
            schema: SCHEMA,
            interfaces,
            advice: advice.as_ref(),
        }),
        Format::Text => {
            print(&match &advice {
                Some(advice) => text(advice, interfaces),
                None => format!(
                    "observed {}; too little traffic was seen to say anything: watch for longer",
                    interfaces.join(", ")
                ),
            });
            Ok(())
        }
    }
}

fn text(advice: &Advice, interfaces: &[String]) -> String {
    let Advice {
        rate_bps,
        load,
        messages,
        bytes,
        accepted,
        reason,
        all,
        services,
        ..
    } = advice;
    let mut lines = vec![
        format!(
            "observed {}: no packet and no qdisc was touched",
            interfaces.join(", ")
        ),
        format!(
            "{messages} later messages ({}) replayed on a link of {} at load {load}: mean time to completion in ms",
            human_bytes(*bytes as f64),
            format_rate(*rate_bps)
        ),
        format!(
            "  {:<18} {:>9} {:>10} {:>10} {:>10} {:>9}",
            "", "messages", "as it comes", "aging", "learned", "gain"
        ),
    ];
    lines.push(line("all", all, |replay| replay.all));
    let [small, medium] = CLASS_BOUNDS_BYTES.map(|bytes| human_bytes(bytes as f64));
    let classes: [(String, OfClass); 3] = [
        (format!("up to {small}"), |replay| replay.small),
        (format!("up to {medium}"), |replay| replay.medium),
        ("above".to_owned(), |replay| replay.large),
    ];
    for (name, figures) in classes {
        if figures(&all.fifo).messages > 0 {
            lines.push(line(&name, all, figures));
        }
    }
    lines.push("by service".to_owned());
    for service in services {
        lines.push(line(&service.name, &service.comparison, |it| it.all));
    }
    let verdict = if *accepted {
        "a model may act"
    } else {
        "no model may act yet, so bytes sent decide (aging)"
    };
    lines.push(format!("verdict: {verdict}: {reason}"));
    let rate = format_rate(*rate_bps);
    lines.extend(interfaces.iter().map(|interface| {
        format!("to have it: `treeline run {interface} --rate {rate}`; to undo that: `treeline down {interface}`")
    }));
    lines.join("\n")
}

/// One row; the gain is over serving as it comes.
fn line(name: &str, of: &Comparison, figures: impl Fn(&Replay) -> Figures) -> String {
    let [fifo, aging] = [&of.fifo, &of.aging].map(|replay| figures(replay).mean_fct_ms);
    let learned = of.learned.as_ref().map(|it| figures(it).mean_fct_ms);
    let scheduled = learned.unwrap_or(aging);
    let gain = if scheduled > 0.0 {
        fifo / scheduled
    } else {
        1.0
    };
    format!(
        "  {name:<18} {:>9} {fifo:>11.2} {aging:>10.2} {:>10} {gain:>8.2}x",
        figures(&of.fifo).messages,
        learned.map_or_else(|| "-".to_owned(), |it| format!("{it:.2}"))
    )
}
