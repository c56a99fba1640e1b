//! `treeline model list`.

use std::time::{Duration, UNIX_EPOCH};

use super::{Format, print, print_json, runtime};
use crate::{
    control::client::Client,
    instance::Instance,
    model::Entry,
    shown::{Damaged, Listing},
};

pub(super) fn list(instance: &Instance, format: Format) -> anyhow::Result<()> {
    let listing = match runtime()?.block_on(told_by_agent(instance)) {
        Some(listing) => listing,
        None => Listing::of(instance)?,
    };
    match format {
        Format::Json => print_json(&listing),
        Format::Text => {
            print(&table(&listing.models, listing.acting));
            for Damaged { file, reason } in listing.damaged {
                print(&format!("damaged: {file}: {reason}"));
            }
            Ok(())
        }
    }
}

/// What the agent says: it knows what acts, which is root's to know.
async fn told_by_agent(instance: &Instance) -> Option<Listing> {
    let agent = Client::connect(instance).await?;
    agent.get("/v1/models").await.ok()
}

fn table(entries: &[Entry], acting: Option<u32>) -> String {
    if entries.is_empty() {
        return "no models yet; `treeline run` learns them from traffic".to_owned();
    }
    let mut lines = vec![format!(
        "  {:>10} {:>8} {:>20} {:>9}  held-out",
        "generation", "parent", "created", "samples"
    )];
    for entry in entries {
        let parent = match entry.parent_generation {
            Some(parent) => parent.to_string(),
            None => "-".to_owned(),
        };
        let created = humantime::format_rfc3339_seconds(
            UNIX_EPOCH + Duration::from_secs(entry.created_unix_s),
        );
        let scores = entry
            .scores
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        let mark = if acting == Some(entry.generation) {
            '*'
        } else {
            ' '
        };
        lines.push(format!(
            "{mark} {:>10} {parent:>8} {created:>20} {:>9}  {scores}",
            entry.generation, entry.trained_on_samples
        ));
    }
    if acting.is_some() {
        lines.push("* acts now".to_owned());
    }
    lines.join("\n")
}
