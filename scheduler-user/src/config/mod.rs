//! The configuration file: read, checked with line and column, overridden by the environment.
//!
//! The keys are the long options of `treeline run` and `up`, and what stands behind them is written in the same way.

mod environment;
mod value;

use std::{
    collections::BTreeMap,
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use self::value::{
    Choice, Dscp, FromText, ModelName, Pace, Period, Priorities, Queues, Rate, Text,
};
use crate::{
    cli::Leaf,
    control::{Group, Mode},
    datapath::{EgressChoice, Order},
    ingress::{Limit, Steering},
    qdisc::RootChoice,
};

/// Where the file is unless another one is named.
pub const PATH: &str = "/etc/treeline/config.toml";

/// What one agent does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// How it learns.
    pub agent: Agent,
    /// What holds for all interfaces.
    pub scheduling: Scheduling,
    /// The interfaces by name.
    pub interface: BTreeMap<String, Interface>,
}

/// How the agent learns.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Agent {
    /// Time between training cycles.
    pub train_every: Option<Text<Period>>,
    /// Labelled samples to wait for before the first training.
    pub min_samples: Option<usize>,
    /// Fresh labelled samples on which a candidate is watched.
    pub canary_rows: Option<usize>,
    /// Sample one flow in so many; a power of two.
    pub sample_one_in: Option<u32>,
    /// Watch and advise, touch nothing.
    pub observe: Option<bool>,
    /// Address of the metrics endpoint; absent for none.
    pub metrics: Option<std::net::SocketAddr>,
    /// Group that may use the control socket.
    pub socket_group: Option<Text<Group>>,
    /// Mode of the control socket, in octal.
    pub socket_mode: Option<Text<Mode>>,
}

/// What holds for all interfaces of the instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Scheduling {
    /// Model to begin with.
    pub model: Option<Text<ModelName>>,
    /// Flows that the table has room for.
    pub flows: Option<u32>,
    /// Schedule tunnelled packets by the flow inside.
    pub inner: Option<bool>,
    /// DSCP by band.
    pub dscp: Option<Text<Dscp>>,
    /// Pace by band.
    pub pace: Option<Text<Pace>>,
    /// Transmit queue by band.
    pub queues: Option<Text<Queues>>,
    /// Priorities by hand.
    pub priorities: Option<Text<Priorities>>,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Interface {
    /// Rate to shape to.
    pub rate: Option<Text<Rate>>,
    /// Root qdisc.
    pub qdisc: Option<Text<Choice<RootChoice>>>,
    /// Queue of each band.
    pub leaf: Option<Text<Choice<Leaf>>>,
    /// Hook on egress.
    pub egress_hook: Option<Text<Choice<EgressChoice>>>,
    /// Place among programs of others.
    pub order: Option<Text<Choice<Order>>>,
    /// Put an administrator's root qdisc aside.
    pub replace: Option<bool>,
    /// Rate to shape ingress to.
    pub ingress_rate: Option<Text<Rate>>,
    /// CPUs of incoming packets by band.
    pub steer: Option<Text<Steering>>,
    /// Put the band in front of incoming packets.
    pub metadata: Option<bool>,
    /// Rate limits of incoming bands.
    pub police: Option<Vec<Text<Limit>>>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is wrong at a place.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong, and the line itself.
        message: String,
    },
    /// A variable of the environment is wrong.
    #[error("{variable} in the environment: {message}")]
    Environment {
        /// The variable.
        variable: String,
        /// What is wrong.
        message: String,
    },
    /// Parts of it contradict each other.
    #[error("{}: {message}", path.display())]
    Contradiction {
        /// The file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// It names no interface.
    #[error("{} names no interface: add `[interface.eth0]` with `rate = \"95mbit\"`, or name one on the command line", path.display())]
    NoInterface {
        /// The file.
        path: PathBuf,
    },
}

/// Reads a configuration, with what the environment has to say.
///
/// # Errors
/// What is wrong, and where.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    read(path, &text, std::env::vars().collect())
}

/// The same from a text.
fn read(path: &Path, text: &str, variables: Vec<(String, String)>) -> Result<Config, ConfigError> {
    let at = |error: &toml::de::Error| wrong(path, text, error);
    let config: Config = toml::from_str(text).map_err(|error| at(&error))?;
    let config = environment::over(config, &variables)?;
    if config.interface.is_empty() {
        return Err(ConfigError::NoInterface {
            path: path.to_owned(),
        });
    }
    Ok(config)
}

fn wrong(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or(0..0);
    let before = text.get(..span.start).unwrap_or_default();
    let begin = before.rfind('\n').map_or(0, |at| at + 1);
    let line_text = text[begin..].lines().next().unwrap_or_default();
    let column = before[begin..].chars().count() + 1;
    let mut message = error.message().replace('\n', "; ");
    if let Some(meant) = meant(&message, text, span.clone()) {
        message.push_str(&format!("; did you mean `{meant}`?"));
    }
    let marks = "^".repeat(
        text.get(span)
            .map_or(1, |at| at.lines().next().map_or(1, str::len))
            .max(1),
    );
    message.push_str(&format!(
        "\n  | {line_text}\n  | {:1$}{marks}",
        "",
        column - 1
    ));
    ConfigError::Wrong {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column,
        message,
    }
}

/// The nearest of the names that the message offers for what stands at `span`.
fn meant(message: &str, text: &str, span: Range<usize>) -> Option<String> {
    let (_, offered) = message.split_once("expected ")?;
    let offered = offered.split('`').skip(1).step_by(2);
    let typed = text.get(span)?.trim_matches('"');
    nearest(typed, offered)
}

/// The name that somebody may have meant.
pub fn nearest<'a, I: Iterator<Item = &'a str>>(typed: &str, names: I) -> Option<String> {
    /// Less alike is no typing error.
    const ALIKE: f64 = 0.75;
    names
        .map(|name| (strsim::jaro_winkler(typed, name), name))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../contrib/config.toml");

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        read(Path::new("config.toml"), text, variables)
    }

    /// The example with every key that is commented out.
    fn everything() -> String {
        let is_key = |line: &str| {
            line.strip_prefix("#").is_some_and(|rest| {
                rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains(" = ")
            })
        };
        let lines = EXAMPLE
            .lines()
            .map(|line| if is_key(line) { &line[1..] } else { line });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_example_is_read_as_it_stands_and_with_every_key() {
        let plain = parse(EXAMPLE, &[]).unwrap();
        assert!(plain.interface.len() >= 2, "{plain:?}");
        let config = parse(&everything(), &[]).unwrap();
        let table = toml::Table::try_from(&config).unwrap();
        for (section, count) in [("agent", 8), ("scheduling", 7)] {
            let present = table[section].as_table().unwrap().len();
            assert_eq!(present, count, "the example leaves out keys of {section}");
        }
        let mut keys: Vec<&str> = (config.interface.keys())
            .flat_map(|name| table["interface"][name].as_table().unwrap().keys())
            .map(String::as_str)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 10, "{keys:?}");
    }

    #[test]
    fn what_is_shown_reads_back() {
        let config = parse(&everything(), &[]).unwrap();
        let text = toml::to_string(&config).unwrap();
        assert_eq!(parse(&text, &[]).unwrap(), config, "{text}");
    }

    #[test]
    fn errors_name_line_and_column_and_what_was_meant() {
        let error = |text: &str| parse(text, &[]).unwrap_err().to_string();
        let rate = error("[interface.eth0]\nrate = \"fast\"\n");
        assert!(
            rate.starts_with("config.toml:2:8: `fast` is not a rate"),
            "{rate}"
        );
        assert!(
            rate.contains("100mbit") && rate.contains("^^^^^^"),
            "{rate}"
        );
        let key = error("[agent]\n  train-evry = \"1min\"\n");
        assert!(
            key.starts_with("config.toml:2:3: unknown field `train-evry`"),
            "{key}"
        );
        assert!(key.contains("did you mean `train-every`?"), "{key}");
        let kind = error("[interface.eth0]\nqdisc = \"htbb\"\n");
        assert!(
            kind.contains(":2:9:") && kind.contains("did you mean `htb`?"),
            "{kind}"
        );
        let torn = error("[interface.eth0\n");
        assert!(torn.starts_with("config.toml:1:16:"), "{torn}");
        let kind = error("[interface.eth0]\nreplace = \"yes\"\n");
        assert!(kind.starts_with("config.toml:2:11: invalid type"), "{kind}");
        assert!(error("").contains("names no interface"));
    }

    #[test]
    fn the_environment_overrides_and_its_errors_name_the_variable() {
        let text = "[interface.eth0]\nrate = \"1mbit\"\n[interface.\"eth0.5\"]\n";
        let config = parse(
            text,
            &[
                ("TREELINE_INTERFACE_ETH0_RATE", "2mbit"),
                ("TREELINE_INTERFACE_ETH0_5_INGRESS_RATE", "3mbit"),
                ("TREELINE_AGENT_TRAIN_EVERY", "30s"),
                ("TREELINE_AGENT_MIN_SAMPLES", "7"),
                ("TREELINE_SCHEDULING_INNER", "true"),
                ("TREELINE_LOG", "debug"),
                ("TREELINE_INSTANCE", "x"),
            ],
        )
        .unwrap();
        assert_eq!(
            config.interface["eth0"].rate.as_ref().unwrap().value.0,
            2_000_000
        );
        let second = config.interface["eth0.5"].ingress_rate.as_ref().unwrap();
        assert_eq!(second.value.0, 3_000_000);
        assert_eq!(config.agent.min_samples, Some(7));
        assert_eq!(config.agent.train_every.unwrap().value.0.as_secs(), 30);
        assert_eq!(config.scheduling.inner, Some(true));
        let wrong =
            |name: &str, value: &str| parse(text, &[(name, value)]).unwrap_err().to_string();
        let rate = wrong("TREELINE_INTERFACE_ETH0_RATE", "fast");
        assert!(
            rate.contains("TREELINE_INTERFACE_ETH0_RATE") && rate.contains("100mbit"),
            "{rate}"
        );
        let typo = wrong("TREELINE_AGENT_TRAIN_EVRY", "1s");
        assert!(
            typo.contains("did you mean `TREELINE_AGENT_TRAIN_EVERY`?"),
            "{typo}"
        );
    }
}
