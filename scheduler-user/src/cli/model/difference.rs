//! `treeline model diff`.

use anyhow::Context as _;
use serde_json::Value;

use super::{Format, print, print_json};
use crate::{
    instance::Instance,
    model::{Diff, Model, diff, human_bytes},
    shown::named,
};

pub(super) fn difference(
    instance: &Instance,
    format: Format,
    which: [&String; 2],
) -> anyhow::Result<()> {
    let [a, b] = which.map(|which| -> anyhow::Result<Model> {
        named(instance, Some(which))?.context("a named model is one")
    });
    let diff = diff(&a?, &b?);
    match format {
        Format::Json => print_json(&diff),
        Format::Text => {
            print(&text(&diff, which));
            Ok(())
        }
    }
}

fn text(diff: &Diff, which: [&String; 2]) -> String {
    let mut lines = Vec::new();
    for ((name, summary), trainer) in which.iter().zip(diff.summaries).zip(&diff.trainers) {
        lines.push(format!("{name}: {summary}, by {trainer}"));
    }
    lines.push(if diff.same_trees {
        "the trees are the same".to_owned()
    } else {
        "the trees differ".to_owned()
    });
    if !diff.values.is_empty() {
        lines.push(String::new());
        lines.push(format!(
            "{:<44} {:>22} {:>22}",
            "differs", which[0], which[1]
        ));
        lines.extend(diff.values.iter().map(|(path, [a, b])| {
            format!(
                "{path:<44} {:>22} {:>22}",
                shown(a.as_ref()),
                shown(b.as_ref())
            )
        }));
    }
    if !diff.same_trees {
        lines.push(String::new());
        lines.push(format!(
            "{:<44} {:>22} {:>22}",
            "weight of feature", which[0], which[1]
        ));
        lines.extend(diff.features.iter().map(|it| {
            let [a, b] = it.shares.map(|share| {
                share.map_or_else(|| "-".to_owned(), |share| format!("{:.1}%", share * 100.0))
            });
            format!("{:<44} {a:>22} {b:>22}", it.feature)
        }));
        lines.push(String::new());
        lines.extend(verdict_lines(diff, which));
    }
    lines.join("\n")
}

fn verdict_lines(diff: &Diff, which: [&String; 2]) -> Vec<String> {
    let verdicts = &diff.verdicts;
    let same = verdicts.packets - verdicts.shorter - verdicts.longer;
    let mut lines = vec![format!(
        "of {} made-up packets at the splits of both, {same} have the same band, {} a more urgent one by {}, {} a \
         less urgent one",
        verdicts.packets, verdicts.shorter, which[1], verdicts.longer
    )];
    for example in &verdicts.examples {
        let [a, b] = example.bytes.map(human_bytes);
        let conditions: Vec<String> = example.conditions.iter().map(ToString::to_string).collect();
        lines.push(format!(
            "  {a} (band {}) → {b} (band {}): {}",
            example.bands[0],
            example.bands[1],
            conditions.join(", ")
        ));
    }
    lines
}

/// At most so many characters that a table holds them.
fn shown(value: Option<&Value>) -> String {
    let text = match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) if number.is_f64() => {
            format!("{:.4}", number.as_f64().unwrap_or_default())
        }
        Some(other) => other.to_string(),
    };
    match text.char_indices().nth(20) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}
