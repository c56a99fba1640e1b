//! `treeline model list` and `treeline model show`.

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::{Format, print, print_json};
use crate::{
    datapath::Datapath,
    instance::Instance,
    model::{Entry, Model, Registry},
};

/// Version of the JSON of both verbs.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Damaged {
    file: String,
    reason: String,
}

pub(super) fn list(instance: &Instance, format: Format) -> anyhow::Result<()> {
    let (entries, skipped) = Registry::new(instance.models()).list()?;
    let damaged: Vec<_> = skipped
        .iter()
        .map(|skip| Damaged {
            file: skip.path.display().to_string(),
            reason: skip.reason.to_string(),
        })
        .collect();
    match format {
        Format::Json => {
            print_json(&json!({ "schema": SCHEMA, "models": entries, "damaged": damaged }))
        }
        Format::Text => {
            print(&table(&entries));
            for Damaged { file, reason } in damaged {
                print(&format!("damaged: {file}: {reason}"));
            }
            Ok(())
        }
    }
}

fn table(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return "no models yet; `treeline run` learns them from traffic".to_owned();
    }
    let mut lines = vec![format!(
        "{:>10} {:>8} {:>20} {:>9}  held-out",
        "generation", "parent", "created", "samples"
    )];
    for entry in entries {
        let parent = match entry.parent_generation {
            Some(parent) => parent.to_string(),
            None => "-".to_owned(),
        };
        let created = humantime::format_rfc3339_seconds(
            std::time::UNIX_EPOCH + std::time::Duration::from_secs(entry.created_unix_s),
        );
        let scores = entry
            .scores
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        lines.push(format!(
            "{:>10} {parent:>8} {created:>20} {:>9}  {scores}",
            entry.generation, entry.trained_on_samples
        ));
    }
    lines.join("\n")
}

pub(super) fn show(instance: &Instance, format: Format, which: Option<&str>) -> anyhow::Result<()> {
    let registry = Registry::new(instance.models());
    let model = match which {
        Some(which) => match which.parse::<u32>() {
            Ok(generation) => registry.load(generation)?,
            Err(_not_a_number) => Registry::load_file(Path::new(which))?,
        },
        None => match current(instance, &registry)? {
            Some(model) => model,
            None => {
                print("no model yet; `treeline run` learns one from traffic");
                return Ok(());
            }
        },
    };
    match format {
        Format::Json => print_json(&model),
        Format::Text => {
            print(model.to_string().trim_end());
            Ok(())
        }
    }
}

/// The model that acts, as far as this user may know, else the newest.
fn current(instance: &Instance, registry: &Registry) -> anyhow::Result<Option<Model>> {
    let active = Datapath::open(instance).ok().flatten();
    if let Some(active) = active.and_then(|datapath| datapath.active().ok().flatten()) {
        return Ok(Some(registry.load(active.generation)?));
    }
    Ok(registry.latest_valid()?.0)
}
