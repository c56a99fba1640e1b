//! `treeline model show`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::{Format, ShowArgs, print, print_json};
use crate::{
    instance::Instance,
    model::{Importance, Model, human_bytes, svg},
    shown::{Described, named},
};

pub(super) fn show(instance: &Instance, format: Format, args: &ShowArgs) -> anyhow::Result<()> {
    let Some(model) = named(instance, args.model.as_deref())? else {
        print("no model yet; `treeline run` learns one from traffic");
        return Ok(());
    };
    let drawn = match &args.svg {
        Some(path) => draw(&model, path, args.tree)?,
        None => Vec::new(),
    };
    match format {
        Format::Json => print_json(&Described::of(&model, args.rules, drawn)),
        Format::Text if drawn.is_empty() => {
            print(text(&model, args.rules).trim_end());
            Ok(())
        }
        Format::Text => {
            for path in drawn {
                print(&format!("wrote {}", path.display()));
            }
            Ok(())
        }
    }
}

/// Draws one tree or all; answers the files.
fn draw(model: &Model, path: &Path, tree: Option<u32>) -> anyhow::Result<Vec<PathBuf>> {
    let trees = model.trees.len();
    let wanted: Vec<usize> = match tree {
        Some(tree) if tree as usize <= trees => vec![tree as usize - 1],
        Some(tree) => bail!(
            "model {} has {trees} trees: --tree {tree} is none of them",
            model.generation
        ),
        None => (0..trees).collect(),
    };
    let many = wanted.len() > 1;
    let mut drawn = Vec::new();
    for index in wanted {
        let file = if many {
            with_number(path, index + 1)
        } else {
            path.to_owned()
        };
        let picture = svg(model, index).with_context(|| format!("there is no tree {index}"))?;
        fs::write(&file, picture).with_context(|| format!("cannot write {}", file.display()))?;
        drawn.push(file);
    }
    Ok(drawn)
}

/// `tree.svg` → `tree-2.svg`.
fn with_number(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let mut name = format!("{stem}-{number}");
    if let Some(extension) = path.extension() {
        name.push('.');
        name.push_str(&extension.to_string_lossy());
    }
    path.with_file_name(name)
}

fn text(model: &Model, rules: bool) -> String {
    if !rules {
        return model.to_string();
    }
    let mut lines = vec![model.summary().to_string()];
    lines.extend(model.scores.as_ref().map(ToString::to_string));
    lines.push(cuts(model));
    lines.push(String::new());
    lines.extend(importance_lines(&model.importances()));
    let many = model.trees.len() > 1;
    let mut tree = None;
    lines.push(format!(
        "{:>10} {:>7} {:>8} {:>5}  for messages with",
        "to come", "factor", "rows", "band"
    ));
    for rule in model.rules() {
        if many && tree != Some(rule.tree) {
            tree = Some(rule.tree);
            lines.push(format!("tree {}", rule.tree + 1));
        }
        let bytes = model.leaf_bytes(&rule.node);
        let band = bytes.map_or_else(
            || "-".to_owned(),
            |bytes| model.thresholds.band_of(bytes).to_string(),
        );
        lines.push(format!(
            "{:>10} {:>7.1} {:>8} {band:>5}  {rule}",
            model.leaf_text(&rule.node),
            rule.node.sigma.exp2(),
            rule.node.rows,
        ));
    }
    lines.join("\n")
}

fn cuts(model: &Model) -> String {
    let cuts = model.thresholds.cuts_bytes;
    let cuts: Vec<String> = cuts
        .iter()
        .map(|cut| human_bytes(f64::from(*cut)))
        .collect();
    format!(
        "bands are cut at {}; those below are of the bytes to come alone, what is sent already comes on top",
        cuts.join(", ")
    )
}

fn importance_lines(importances: &[Importance]) -> Vec<String> {
    if importances.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!("{:<24} {:>7} {:>7}", "feature", "weight", "splits")];
    lines.extend(importances.iter().map(|it| {
        format!(
            "{:<24} {:>6.1}% {:>7}",
            it.feature,
            it.share * 100.0,
            it.splits
        )
    }));
    lines.push(String::new());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_pictures_have_the_number_in_their_name() {
        let named = |path: &str| with_number(Path::new(path), 2).display().to_string();
        assert_eq!(named("/tmp/tree.svg"), "/tmp/tree-2.svg");
        assert_eq!(named("tree"), "tree-2");
    }
}
