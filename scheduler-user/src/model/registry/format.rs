//! The file format and what is written about it agree.

use std::collections::BTreeMap;

use scheduler_common::ABI_VERSION;
use serde_json::Value;

use super::{
    super::{Combine, DataWindow, Pruned, Split, Tree, TreeNode},
    *,
};
use crate::training::{Advantage, Lean};

const DOCUMENT: &str = include_str!("../../../../docs/model-format.md");

/// A file in which every part of the format occurs.
fn everything() -> Value {
    let leaf = TreeNode {
        output: 10.5,
        sigma: 0.5,
        rows: 20,
        split: None,
    };
    let split = Split {
        feature: 0,
        value: 443.5,
        at_most: 1,
        above: 2,
    };
    let root = TreeNode {
        split: Some(split),
        ..leaf
    };
    let nodes = vec![root, leaf, leaf];
    let mut model = Model::new("made up", DataWindow::default(), vec![Tree { nodes }]);
    model.parent_generation = Some(1);
    model.aging_thresholds = Some(Thresholds::default());
    model.combine = Combine::Sum { base: 20.5 };
    model.pruned = Some(Pruned {
        from_nodes: 9,
        to_nodes: 3,
        dropped_trees: 0,
        moved_rows: 2,
        r2_before: 0.5,
        r2_after: 0.4,
    });
    model.scores = Some(scores());
    model.check().unwrap();
    serde_json::from_slice(&Registry::encode(&model)).unwrap()
}

/// Scores in which every part occurs but a whole replay.
fn scores() -> Scores {
    let mut scores = Scores::default();
    scores.candidate.calibration.buckets.push(Lean {
        predicted_log2: 14,
        rows: 1,
        bias_log2: 0.5,
    });
    let advantage = Advantage {
        gain: 0.1,
        standard_error: 0.01,
        worst_class: 0.01,
        worst_class_error: 0.01,
    };
    scores.advantages.insert("RIVAL".to_owned(), advantage);
    scores
}

/// Said once for all predictors, of `candidate`.
const ALIKE: [&str; 2] = ["model.scores.constant", "model.scores.bytes_so_far"];

/// Path → type of every value; `[]` stands for any index.
fn fields(value: &Value, path: &str, found: &mut BTreeMap<String, String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(items) => {
            for item in items {
                fields(item, &format!("{path}[]"), found);
            }
            "array"
        }
        Value::Object(_) if ALIKE.contains(&path) => "object",
        Value::Object(members) => {
            for (name, member) in members {
                let dot = if path.is_empty() { "" } else { "." };
                fields(member, &format!("{path}{dot}{name}"), found);
            }
            "object"
        }
    };
    let known = found
        .entry(path.to_owned())
        .or_insert_with(|| kind.to_owned());
    // A split is an object in one node and null in another.
    if kind == "null" && known.as_str() != "null" && !known.ends_with("or null") {
        known.push_str(" or null");
    } else if known.as_str() == "null" && kind != "null" {
        *known = format!("{kind} or null");
    }
}

/// Path → type by the tables of the document.
fn documented() -> BTreeMap<String, String> {
    let rows = DOCUMENT.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|');
        let path = cells.next()?.trim().strip_suffix('`')?;
        Some((path.to_owned(), cells.next()?.trim().to_owned()))
    });
    rows.collect()
}

#[test]
fn the_document_lists_what_is_written_and_nothing_else() {
    let mut written = BTreeMap::new();
    fields(&everything(), "", &mut written);
    written.remove("");
    let documented = documented();
    let rows = |of: &BTreeMap<String, String>, without: &BTreeMap<String, String>| {
        let only = of.iter().filter(|(path, _)| !without.contains_key(*path));
        only.map(|(path, kind)| format!("| `{path}` | {kind} | … |\n"))
            .collect::<String>()
    };
    assert_eq!(
        rows(&written, &documented),
        "",
        "these rows are missing in docs/model-format.md"
    );
    assert_eq!(
        rows(&documented, &written),
        "",
        "these rows of docs/model-format.md are out of date"
    );
    for (path, kind) in &written {
        let told = &documented[path];
        // What can be absent may be present here, and the other way round.
        let (bare, told_bare) = (
            kind.trim_end_matches(" or null"),
            told.trim_end_matches(" or null"),
        );
        let fits = bare == told_bare || (kind == "null" && told.ends_with(" or null"));
        assert!(
            fits,
            "{path}: {kind} is written, docs/model-format.md says {told}"
        );
    }
}

#[test]
fn the_document_names_the_versions_in_force() {
    for line in [
        format!("Format version {SCHEMA}, ABI version {ABI_VERSION}."),
        format!("at most {} MiB", MAX_FILE_BYTES >> 20),
        format!("the newest {KEPT}"),
    ] {
        assert!(
            DOCUMENT.contains(&line),
            "docs/model-format.md does not say: {line}"
        );
    }
}
