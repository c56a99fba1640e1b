//! The alert rules and the dashboard in `contrib/`, held to what is exported.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use treeline::metrics::catalog::{self, Kind};

use super::prometheus::program;
use crate::support::agent::Done;

/// A file of `contrib/`.
pub(super) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../contrib")
        .join(name)
}

fn dashboard() -> Value {
    let text = fs::read_to_string(path("grafana/treeline.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// All values of a key, wherever it stands.
fn values_of<'a>(key: &str, value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == key => found.push(text),
                    _ => values_of(key, value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| values_of(key, item, found)),
        _ => {}
    }
}

fn expressions(dashboard: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    values_of("expr", dashboard, &mut found);
    found
}

/// The dashboard's queries as Grafana sends them with all hosts and interfaces chosen.
pub(super) fn dashboard_queries() -> Vec<String> {
    let dashboard = dashboard();
    let queries: Vec<String> = expressions(&dashboard)
        .into_iter()
        .map(|expression| {
            let query = expression.replace("$__rate_interval", "5m");
            query.replace("$instance", ".+").replace("$interface", ".+")
        })
        .collect();
    assert!(queries.len() > 30, "{}", queries.len());
    assert!(
        queries.iter().all(|query| !query.contains('$')),
        "{queries:?}"
    );
    queries
}

/// Names of metrics in a text, as they are exported.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words
        .filter(|word| word.starts_with("treeline_") || word.starts_with("process_"))
        .map(str::to_owned)
        .collect()
}

/// Names that a query may use.
fn exported() -> BTreeSet<String> {
    catalog::ALL
        .iter()
        .flat_map(|metric| {
            let name = metric.name();
            let ends: &[&str] = match metric.kind {
                Kind::Histogram => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            ends.iter().map(move |end| format!("{name}{end}"))
        })
        .collect()
}

#[test]
fn dashboard_and_alerts_name_only_what_is_exported() {
    let exported = exported();
    let dashboard = dashboard();
    let mut asked: BTreeSet<String> = expressions(&dashboard)
        .into_iter()
        .flat_map(names)
        .collect();
    let mut variables = Vec::new();
    values_of("definition", &dashboard, &mut variables);
    assert_eq!(variables.len(), 2);
    asked.extend(variables.into_iter().flat_map(names));
    let rules = fs::read_to_string(path("prometheus/alerts.yml")).unwrap();
    assert!(names(&rules).len() >= 8, "{:?}", names(&rules));
    asked.extend(names(&rules));
    let unknown: Vec<_> = asked.difference(&exported).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    // And the other way round: what nobody looks at is told of by its family at least once.
    let families =
        |names: &BTreeSet<String>, name: &str| names.iter().any(|asked| asked.starts_with(name));
    let unseen: Vec<String> = catalog::ALL
        .iter()
        .map(catalog::Metric::name)
        .filter(|name| !families(&asked, name))
        .collect();
    assert_eq!(
        unseen,
        [
            "treeline_band_backlog_packets",
            "treeline_observes_only",
            "process_start_time_seconds"
        ],
        "metrics that neither dashboard nor alerts use"
    );
}

#[test]
fn panels_are_whole_and_do_not_overlap() {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}");
        let side = |key| panel["gridPos"][key].as_u64().unwrap();
        assert!(side("x") + side("w") <= 24, "{title}");
        for x in side("x")..side("x") + side("w") {
            for y in side("y")..side("y") + side("h") {
                assert!(taken.insert((x, y)), "{title} lies on another panel");
            }
        }
        if panel["type"] != "row" {
            assert!(
                !panel["description"].as_str().unwrap().is_empty(),
                "{title}"
            );
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title}");
        }
    }
}

#[test]
fn the_alert_rules_pass_their_own_tests() {
    let Some(promtool) = program("promtool") else {
        return;
    };
    let run = |verb: &[&str], file: &str| {
        let mut command = Command::new(&promtool);
        Done::of(command.args(verb).arg(path(file))).expect(0)
    };
    run(&["check", "rules"], "prometheus/alerts.yml").says("10 rules found");
    run(&["test", "rules"], "prometheus/alerts_test.yml").says("SUCCESS");
    // Every alert has both: an input that raises it, and one that does not.
    let rules = fs::read_to_string(path("prometheus/alerts.yml")).unwrap();
    let tests = fs::read_to_string(path("prometheus/alerts_test.yml")).unwrap();
    for alert in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        let raised = format!("alertname: {alert}\n        exp_alerts:");
        assert!(tests.contains(&raised), "{alert} is never raised");
        assert!(
            tests.contains(&format!("alertname: {alert} }}")),
            "{alert} is never quiet"
        );
    }
}
