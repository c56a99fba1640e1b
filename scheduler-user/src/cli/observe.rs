//! What `run --observe` shows while it learns, and has to say at its end.

use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Format, print, print_json, progress};
use crate::{
    advice::{Advice, Comparison, SCHEMA},
    instance::Instance,
    metrics::Meters,
    model::human_bytes,
    qdisc::format_rate,
    simulate::{CLASS_BOUNDS_BYTES, Figures, Replay},
};

/// How often it says how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How far the watching is, on a terminal, until dropped.
pub(super) struct Watched {
    clock: ProgressBar,
    task: JoinHandle<()>,
}

impl Watched {
    pub(super) fn start(
        length: Option<Duration>,
        needed: usize,
        meters: Meters,
        stop: CancellationToken,
    ) -> Self {
        let clock = progress::clock("observing", length);
        let shown = clock.clone();
        let task = tokio::spawn(async move {
            while !stop.is_cancelled() {
                shown.set_message(how_far(meters.held(), needed));
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                }
            }
            shown.set_message("judging what was seen");
        });
        Self { clock, task }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
        self.clock.finish_and_clear();
    }
}

fn how_far(rows: u64, needed: usize) -> String {
    if rows < needed as u64 {
        format!("observing: {rows} of {needed} labelled samples to learn from")
    } else {
        format!("observing: learning from {rows} labelled samples")
    }
}

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
            "  {:<18} {:>9}   {:>11} {:>10} {:>10} {:>9}",
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
        "  {name:<18} {:>9}   {fifo:>11.2} {aging:>10.2} {:>10} {gain:>8.2}x",
        figures(&of.fifo).messages,
        learned.map_or_else(|| "-".to_owned(), |it| format!("{it:.2}"))
    )
}
