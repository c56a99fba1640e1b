//! `treeline model push`, `rollback`, `export` and `import`.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use anyhow::Context as _;
use serde_json::json;

use super::{Format, SCHEMA, acting, loaded, named, print, print_json};
use crate::{
    handover::{Back, Change, Handover},
    instance::Instance,
    model::Registry,
};

pub(super) fn push(instance: &Instance, format: Format, file: &Path) -> anyhow::Result<()> {
    // Before the programs are asked for: a faulty file is the first thing to know.
    Registry::load_file(file)?;
    let datapath = loaded(instance)?;
    let (model, change) = Handover::new(instance).push(&datapath, file)?;
    tell(
        format,
        &change,
        ("pushed", None),
        &format!("model {} acts ({})", model.generation, model.summary()),
    )
}

pub(super) fn roll_back(
    instance: &Instance,
    format: Format,
    (generation, to_aging): (Option<u32>, bool),
) -> anyhow::Result<()> {
    let datapath = loaded(instance)?;
    let back = match generation {
        Some(generation) => Back::Generation(generation),
        None if to_aging => Back::Aging,
        None => Back::Parent,
    };
    let change = Handover::new(instance).roll_back(&datapath, back)?;
    let done = match change.acting {
        Some(generation) => format!("model {generation} acts again"),
        None => "no model acts: bytes already sent decide (aging)".to_owned(),
    };
    let warning = instance.agent_pid().map(|pid| {
        format!("the agent (pid {pid}) goes on learning and may put a better model to work")
    });
    tell(format, &change, ("rolled-back", warning), &done)
}

fn tell(
    format: Format,
    change: &Change,
    (step, warning): (&str, Option<String>),
    done: &str,
) -> anyhow::Result<()> {
    let flip_us = change.flip.as_micros() as u64;
    if format == Format::Json {
        return print_json(&json!({
            "schema": SCHEMA, "step": step, "before": change.before, "acting": change.acting,
            "flip_us": flip_us, "undo": change.undo, "warning": warning,
        }));
    }
    let before = match change.before {
        Some(generation) => format!("model {generation}"),
        None => "aging".to_owned(),
    };
    print(&format!(
        "{done}; before: {before}; the flip took {flip_us} us"
    ));
    print(&format!("undo: {}", change.undo));
    if let Some(warning) = warning {
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
