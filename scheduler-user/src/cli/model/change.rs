//! `treeline model push`, `rollback`, `export` and `import`.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use anyhow::Context as _;
use serde_json::json;

use super::{Format, loaded, print, print_json, runtime};
use crate::{
    control::client::{Client, in_query},
    handover::{Back, Handover},
    instance::Instance,
    model::Registry,
    shown::{Changed, SCHEMA, acting, named},
};

pub(super) fn push(instance: &Instance, format: Format, file: &Path) -> anyhow::Result<()> {
    // Before anybody is asked: a faulty file is the first thing to know.
    Registry::load_file(file)?;
    let absolute = std::path::absolute(file)?;
    let by_agent = runtime()?.block_on(async {
        let Some(agent) = Client::connect(instance).await else {
            return anyhow::Ok(None);
        };
        let text = std::fs::read(file)?;
        let from = in_query(&absolute.to_string_lossy());
        Ok(Some(
            agent.post(&format!("/v1/models?from={from}"), text).await?,
        ))
    })?;
    let changed = match by_agent {
        Some(changed) => changed,
        None => {
            let datapath = loaded(instance)?;
            let (model, change) = Handover::new(instance).push(&datapath, file)?;
            Changed::pushed(&model, &change)
        }
    };
    let acting = changed.acting.unwrap_or_default();
    let summary = changed.summary.as_deref().unwrap_or_default();
    tell(
        format,
        &changed,
        &format!("model {acting} acts ({summary})"),
    )
}

pub(super) fn roll_back(
    instance: &Instance,
    format: Format,
    (generation, to_aging): (Option<u32>, bool),
) -> anyhow::Result<()> {
    let by_agent = runtime()?.block_on(async {
        let Some(agent) = Client::connect(instance).await else {
            return anyhow::Ok(None);
        };
        let target = json!({ "generation": generation, "to_aging": to_aging });
        let changed = agent
            .post("/v1/models/rollback", target.to_string())
            .await?;
        Ok(Some(changed))
    })?;
    let changed: Changed = match by_agent {
        Some(changed) => changed,
        None => {
            let datapath = loaded(instance)?;
            let back = match generation {
                Some(generation) => Back::Generation(generation),
                None if to_aging => Back::Aging,
                None => Back::Parent,
            };
            let change = Handover::new(instance).roll_back(&datapath, back)?;
            Changed::rolled_back(instance, &change)
        }
    };
    let done = match changed.acting {
        Some(generation) => format!("model {generation} acts again"),
        None => "no model acts: bytes already sent decide (aging)".to_owned(),
    };
    tell(format, &changed, &done)
}

fn tell(format: Format, changed: &Changed, done: &str) -> anyhow::Result<()> {
    if format == Format::Json {
        return print_json(changed);
    }
    let before = match changed.before {
        Some(generation) => format!("model {generation}"),
        None => "aging".to_owned(),
    };
    print(&format!(
        "{done}; before: {before}; the flip took {} us",
        changed.flip_us
    ));
    print(&format!("undo: {}", changed.undo));
    if let Some(warning) = &changed.warning {
        print(&format!("note: {warning}"));
    }
    Ok(())
}

pub(super) fn export(
    instance: &Instance,
    format: Format,
    which: Option<&str>,
    (out, force): (&Path, bool),
) -> anyhow::Result<()> {
    let model = named(instance, which)?
        .context("there is no model to export yet; `treeline run` learns one from traffic")?;
    let bytes = Registry::encode(&model);
    if out == Path::new("-") {
        io::stdout().write_all(&bytes)?;
        return Ok(());
    }
    let opened = File::options()
        .write(true)
        .create(true)
        .create_new(!force)
        .truncate(force)
        .open(out);
    let mut file = opened.with_context(|| {
        format!(
            "cannot write {}: if it exists, --force overwrites it",
            out.display()
        )
    })?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", out.display()))?;
    match format {
        Format::Json => print_json(&json!({
            "schema": SCHEMA, "step": "exported", "generation": model.generation,
            "file": out, "sha256": model.sha256(), "size_bytes": bytes.len(),
        })),
        Format::Text => {
            print(&format!(
                "model {} written to {} ({} bytes, sha256 {})",
                model.generation,
                out.display(),
                bytes.len(),
                model.sha256()
            ));
            Ok(())
        }
    }
}

pub(super) fn import(instance: &Instance, format: Format, file: &Path) -> anyhow::Result<()> {
    let (model, saved) = Handover::new(instance).import(file, acting(instance))?;
    let generation = model.generation;
    match format {
        Format::Json => print_json(&json!({
            "schema": SCHEMA, "step": "imported", "generation": generation, "file": saved,
            "sha256": model.sha256(),
        })),
        Format::Text => {
            print(&format!(
                "{}, saved as {}",
                model.summary(),
                saved.display()
            ));
            print(&format!(
                "it does not act yet: `{}` puts it to work",
                Handover::new(instance).command_for(Some(generation))
            ));
            Ok(())
        }
    }
}
