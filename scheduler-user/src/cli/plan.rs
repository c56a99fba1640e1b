//! `--dry-run`: what would be done, as a script that can be read and run.

use serde::Serialize;

use super::{Format, print, print_json, runtime};
use crate::{
    instance::Instance,
    journal, qdisc,
    uplink::{
        Wanted,
        plan::{self, Planned},
    },
};

/// Version of the JSON.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Outcome<'a> {
    schema: u32,
    outcome: &'static str,
    interfaces: &'a [Planned],
}

pub(super) fn print_plan(
    instance: &Instance,
    format: Format,
    wanted: &[(String, Wanted)],
) -> anyhow::Result<()> {
    journal::start("warn", None);
    let ability = qdisc::ability()?;
    let all = runtime()?.block_on(async {
        let mut all = Vec::new();
        for (interface, wanted) in wanted {
            all.push(plan::plan(instance, interface, wanted, &ability).await?);
        }
        anyhow::Ok(all)
    })?;
    match format {
        Format::Json => print_json(&Outcome {
            schema: SCHEMA,
            outcome: "planned",
            interfaces: &all,
        }),
        Format::Text => {
            let texts: Vec<String> = all.iter().map(text).collect();
            print(&texts.join("\n"));
            Ok(())
        }
    }
}

/// A shell script: what is no command is a comment.
fn text(planned: &Planned) -> String {
    let Planned {
        interface,
        is_up,
        steps,
    } = planned;
    let mut lines = vec![format!(
        "# {interface}{}: nothing is done; this is what `up` comes to",
        if *is_up { " is up already" } else { "" }
    )];
    for step in steps {
        lines.push(format!("# {}", step.what));
        lines.extend(step.commands.iter().cloned());
    }
    lines.push(format!("# undo: treeline down {interface}"));
    lines.join("\n")
}
