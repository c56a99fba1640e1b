//! `treeline config`, and a configuration as what `run` is to do.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Format, UplinkArgs, parse_one_in, print, print_json};
use crate::{
    agent::{Observe, Options},
    config::{self, Choice, Config, ConfigError, Interface, Text},
    control::{Access, Reloaded},
    instance::Instance,
    uplink::{ModelChoice, Wanted},
};

/// Version of the JSON.
const SCHEMA: u32 = 1;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Look whether a configuration is right; an error tells line and column.
    #[command(after_help = "Examples:\n  treeline config check\n  treeline config check new.toml")]
    Check(FileArgs),
    /// Print what comes of the configuration and the environment together.
    #[command(after_help = "Example:\n  TREELINE_INTERFACE_ETH0_RATE=50mbit treeline config show")]
    Show(FileArgs),
    /// Have the running agent read its configuration anew, and say what came of it; SIGHUP does the same without a word.
    #[command(after_help = "Example:\n  treeline config reload")]
    Reload,
}

#[derive(Debug, Args)]
pub(super) struct FileArgs {
    /// The file.
    #[arg(value_name = "FILE", default_value = config::PATH)]
    file: PathBuf,
}

#[derive(Serialize)]
struct Checked<'a> {
    schema: u32,
    file: String,
    interfaces: Vec<&'a String>,
    absent: Vec<&'a String>,
}

#[derive(Serialize)]
struct Shown<'a> {
    schema: u32,
    config: &'a Config,
}

pub(super) fn run(instance: &Instance, format: Format, verb: &ConfigVerb) -> anyhow::Result<()> {
    let (ConfigVerb::Check(args) | ConfigVerb::Show(args)) = verb else {
        return reload(instance, format);
    };
    let config = config::load(&args.file)?;
    // What contradicts itself is found here, too.
    Job::of(&args.file, &config)?;
    let is_absent = |name: &&String| nix::net::if_::if_nametoindex(name.as_str()).is_err();
    let interfaces: Vec<&String> = config.interface.keys().collect();
    let absent: Vec<&String> = interfaces.iter().copied().filter(is_absent).collect();
    match (verb, format) {
        (ConfigVerb::Check(_), Format::Json) => print_json(&Checked {
            schema: SCHEMA,
            file: args.file.display().to_string(),
            interfaces,
            absent,
        }),
        (ConfigVerb::Check(_), Format::Text) => {
            let names: Vec<&str> = interfaces.iter().map(|name| name.as_str()).collect();
            print(&format!(
                "{} is right: {}",
                args.file.display(),
                names.join(", ")
            ));
            for name in absent {
                print(&format!(
                    "but there is no interface {name} now, and `treeline run` needs it"
                ));
            }
            Ok(())
        }
        (_, Format::Json) => print_json(&Shown {
            schema: SCHEMA,
            config: &config,
        }),
        (_, Format::Text) => {
            print(toml::to_string(&config)?.trim_end());
            Ok(())
        }
    }
}

fn reload(instance: &Instance, format: Format) -> anyhow::Result<()> {
    let reloaded: Reloaded = super::ask_agent(instance, "/v1/reload")?;
    if format == Format::Json {
        return print_json(&reloaded);
    }
    print(&format!("taken over: {}", reloaded.interfaces.join(", ")));
    if let Some(warning) = reloaded.warning {
        print(&format!("note: {warning}"));
    }
    Ok(())
}

/// What an agent is to do.
#[derive(Clone, Debug)]
pub(super) struct Job {
    pub(super) interfaces: Vec<(String, Wanted)>,
    pub(super) model: ModelChoice,
    pub(super) options: Options,
    pub(super) metrics: Option<std::net::SocketAddr>,
    pub(super) socket: Access,
}

impl Job {
    /// What a file asks for.
    pub(super) fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::of(path, &config::load(path)?)
    }

    fn of(path: &Path, config: &Config) -> Result<Self, ConfigError> {
        let contradicts = |message: String| ConfigError::Contradiction {
            path: path.to_owned(),
            message,
        };
        let observes = config.agent.observe.unwrap_or(false);
        let mut interfaces = Vec::new();
        for (name, interface) in &config.interface {
            let how = uplink_args(config, interface);
            let wanted = if observes {
                how.observed()
            } else {
                how.wanted()
            };
            wanted
                .check(name)
                .map_err(|error| contradicts(format!("[interface.{name}]: {error}")))?;
            interfaces.push((name.clone(), wanted));
        }
        let agent = &config.agent;
        let defaults = super::run::default_options();
        let one_in = agent.sample_one_in.unwrap_or(defaults.sample_one_in);
        let sample_one_in = parse_one_in(&one_in.to_string())
            .map_err(|why| contradicts(format!("sample-one-in: {why}")))?;
        // The slowest link is the one that a model must help.
        let rates = config
            .interface
            .values()
            .filter_map(|it| Some(it.rate.as_ref()?.value.0));
        let observe = observes.then(|| Observe {
            rate_bps: rates.min(),
        });
        Ok(Self {
            interfaces,
            model: uplink_args(config, &Interface::default()).model,
            options: Options {
                train_every: agent
                    .train_every
                    .as_ref()
                    .map_or(defaults.train_every, |it| it.value.0),
                min_samples: agent.min_samples.unwrap_or(defaults.min_samples),
                canary_rows: agent.canary_rows.unwrap_or(defaults.canary_rows),
                sample_one_in,
                observe,
                ..defaults
            },
            metrics: agent.metrics,
            socket: Access {
                group: agent.socket_group.as_ref().map(|it| it.value.clone()),
                mode: agent.socket_mode.as_ref().map(|it| it.value),
            },
        })
    }
}

fn chosen<T: Copy>(choice: Option<&Text<Choice<T>>>) -> Option<T> {
    choice.map(|text| text.value.0)
}

/// The options that somebody would have typed.
fn uplink_args(config: &Config, interface: &Interface) -> UplinkArgs {
    let mut how = UplinkArgs::watching();
    let Interface {
        rate,
        qdisc,
        leaf,
        egress_hook,
        order,
        replace,
        ingress_rate,
        steer,
        metadata,
        police,
    } = interface;
    how.rate = rate.as_ref().map(|it| it.value.0);
    how.qdisc = chosen(qdisc.as_ref());
    how.leaf = chosen(leaf.as_ref()).unwrap_or(how.leaf);
    how.egress_hook = chosen(egress_hook.as_ref()).unwrap_or(how.egress_hook);
    how.order = chosen(order.as_ref()).unwrap_or(how.order);
    how.replace = replace.unwrap_or(how.replace);
    how.ingress.ingress_rate = ingress_rate.as_ref().map(|it| it.value.0);
    how.ingress.steer = steer.as_ref().map(|it| it.value.clone());
    how.ingress.metadata = metadata.unwrap_or(false);
    let police = police.iter().flatten();
    how.ingress.police = police.map(|it| it.value).collect();
    let all = &config.scheduling;
    if let Some(model) = &all.model {
        how.model = model.value.0.clone();
    }
    how.flows = all.flows.unwrap_or(how.flows);
    how.inner = all.inner.unwrap_or(how.inner);
    how.acts.dscp = all.dscp.as_ref().map(|it| it.value.0);
    how.acts.pace = all.pace.as_ref().map(|it| it.value.0);
    how.acts.queues = all.queues.as_ref().map(|it| it.value.0);
    how.acts.priorities = all.priorities.as_ref().map(|it| it.value.0);
    how
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::{super::Cli, *};

    #[test]
    fn every_option_of_an_interface_is_a_key_and_the_other_way_round() {
        let example = include_str!("../../../contrib/config.toml");
        let command = Cli::command();
        let up = command.find_subcommand("up").unwrap();
        let longs = up.get_arguments().filter_map(clap::Arg::get_long);
        for long in longs.filter(|long| !["dry-run", "instance", "format", "help"].contains(long)) {
            let key = format!("{long} = ");
            assert!(
                example.contains(&key),
                "{long} is no key of the configuration"
            );
        }
    }

    #[test]
    fn what_contradicts_itself_names_the_interface() {
        let path = Path::new("config.toml");
        let config: Config = toml::from_str("[interface.eth0]\nqdisc = \"htb\"\n").unwrap();
        let error = Job::of(path, &config).unwrap_err().to_string();
        assert!(
            error.contains("[interface.eth0]") && error.contains("--rate"),
            "{error}"
        );
        let config: Config = toml::from_str(
            "[agent]\nobserve = true\nsample-one-in = 4\n[interface.a]\nrate = \"2mbit\"\n[interface.b]\nrate = \"1mbit\"\n",
        )
        .unwrap();
        let job = Job::of(path, &config).unwrap();
        assert!(
            job.interfaces
                .iter()
                .all(|(_, wanted)| wanted.observe && wanted.rate_bps.is_none())
        );
        assert_eq!(job.options.observe.unwrap().rate_bps, Some(1_000_000));
        let config: Config = toml::from_str("[agent]\nsample-one-in = 3\n").unwrap();
        assert!(
            Job::of(path, &config)
                .unwrap_err()
                .to_string()
                .contains("power of two")
        );
    }
}
