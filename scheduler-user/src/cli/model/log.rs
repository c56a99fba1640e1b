//! `treeline model log`.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;

use super::{Format, print, print_json};
use crate::{
    instance::Instance,
    journal::decisions::{Actor, Decision, Decisions},
    shown::Decided,
};

pub(super) fn log(instance: &Instance, format: Format, lines: usize) -> anyhow::Result<()> {
    let path = instance.decisions();
    let tail = Decisions::new(path.clone())
        .tail(lines)
        .with_context(|| format!("cannot read {}", path.display()))?;
    if format == Format::Json {
        return print_json(&Decided::from(tail));
    }
    if tail.decisions.is_empty() {
        print("nothing was decided yet; `treeline run` learns models from traffic");
    } else {
        print(&table(&tail.decisions));
    }
    if tail.unreadable > 0 {
        print(&format!(
            "{} lines of {} can't be read: damaged, or of a later treeline",
            tail.unreadable,
            path.display()
        ));
    }
    Ok(())
}

fn table(decisions: &[Decision]) -> String {
    let mut lines = vec![format!(
        "{:<20} {:<8} {:<12} {:>6} {:>6}  what and why",
        "when", "by", "step", "before", "acts"
    )];
    for decision in decisions {
        let when = UNIX_EPOCH + Duration::from_millis(decision.unix_ms);
        let by = match decision.by {
            Actor::Agent => "agent",
            Actor::Command => "command",
        };
        lines.push(format!(
            "{:<20} {by:<8} {:<12} {:>6} {:>6}  {}: {}",
            humantime::format_rfc3339_seconds(when).to_string(),
            decision.step.name(),
            generation(decision.before),
            generation(decision.acting),
            decision.step,
            decision.why
        ));
        lines.extend(
            decision
                .undo
                .iter()
                .map(|undo| format!("{:<20} undo: {undo}", "")),
        );
    }
    lines.join("\n")
}

fn generation(generation: Option<u32>) -> String {
    generation.map_or_else(|| "aging".to_owned(), |it| it.to_string())
}
