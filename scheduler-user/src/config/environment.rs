//! Overrides: `TREELINE_SECTION_KEY`, as `TREELINE_INTERFACE_ETH0_RATE=50mbit`.

use serde::Deserialize as _;
use toml::{Table, Value};

use super::{Config, ConfigError, nearest};

const AGENT: [&str; 8] = [
    "train-every",
    "min-samples",
    "canary-rows",
    "sample-one-in",
    "observe",
    "metrics",
    "socket-group",
    "socket-mode",
];
const SCHEDULING: [&str; 7] = [
    "model",
    "flows",
    "inner",
    "dscp",
    "pace",
    "queues",
    "priorities",
];
const INTERFACE: [&str; 10] = [
    "rate",
    "qdisc",
    "leaf",
    "egress-hook",
    "order",
    "replace",
    "ingress-rate",
    "steer",
    "metadata",
    "police",
];

/// A key and the variable that overrides it.
struct Override {
    variable: String,
    path: Vec<String>,
}

/// The configuration with the variables that concern it.
pub(super) fn over(config: Config, variables: &[(String, String)]) -> Result<Config, ConfigError> {
    let known = overrides(&config);
    let mut config = config;
    for (name, text) in variables {
        let wrong = |message| ConfigError::Environment {
            variable: name.clone(),
            message,
        };
        let concerns = ["AGENT", "SCHEDULING", "INTERFACE"]
            .iter()
            .any(|section| name.starts_with(&format!("TREELINE_{section}_")));
        if !concerns {
            continue;
        }
        let Some(found) = known.iter().find(|known| known.variable == *name) else {
            let names = known.iter().map(|known| known.variable.as_str());
            let meant = nearest(name, names)
                .map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"));
            return Err(wrong(format!(
                "it stands for no key of the configuration{meant}"
            )));
        };
        // One by one, so that an error can name its variable.
        let mut table = Table::try_from(&config).map_err(|error| wrong(error.to_string()))?;
        set(&mut table, &found.path, text);
        config = Config::deserialize(table)
            .map_err(|error| wrong(error.message().replace('\n', "; ")))?;
    }
    Ok(config)
}

fn overrides(config: &Config) -> Vec<Override> {
    let of = |section: &[&str], keys: &[&str]| -> Vec<Override> {
        keys.iter()
            .map(|key| {
                let path: Vec<String> = section
                    .iter()
                    .chain([key])
                    .map(|&it| it.to_owned())
                    .collect();
                Override {
                    variable: format!("TREELINE_{}", variable(&path.join("_"))),
                    path,
                }
            })
            .collect()
    };
    let mut all = of(&["agent"], &AGENT);
    all.extend(of(&["scheduling"], &SCHEDULING));
    for name in config.interface.keys() {
        all.extend(of(&["interface", name], &INTERFACE));
    }
    all
}

/// As a shell takes it for a name.
fn variable(text: &str) -> String {
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    text.chars().map(letter).collect()
}

fn set(table: &mut Table, path: &[String], text: &str) {
    let Some((key, sections)) = path.split_last() else {
        return;
    };
    let mut at = table;
    for section in sections {
        let inner = at
            .entry(section.clone())
            .or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = inner else {
            return;
        };
        at = inner;
    }
    let value = if key == "police" {
        let parts = text.split(',').map(|part| Value::String(part.to_owned()));
        Value::Array(parts.collect())
    } else if key == "socket-mode" {
        // Octal digits, and no number.
        Value::String(text.to_owned())
    } else if let Ok(flag) = text.parse() {
        Value::Boolean(flag)
    } else if let Ok(number) = text.parse() {
        Value::Integer(number)
    } else {
        Value::String(text.to_owned())
    };
    at.insert(key.clone(), value);
}
