//! The command line of the bench of applications.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use treeline::qdisc;

use crate::rival::Rival;

/// Below this a page of an application takes longer than its slot.
const LEAST_RATE_BPS: u64 = 5_000_000;

/// Runs real servers and clients over one bottleneck under each scheme and gathers the figures that they report themselves.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "treeline-bench-apps",
    after_help = "Example: treeline-bench-apps --quick --apps pages,dns --schemes fifo,treeline"
)]
pub(crate) struct Options {
    /// Applications [default: all that are installed]; `--list` names them
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub(crate) apps: Vec<String>,
    /// Name the applications and the packages that they need, and end
    #[arg(long)]
    pub(crate) list: bool,
    /// What stands on the uplink, in turn
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Rival::DEFAULT)]
    pub(crate) schemes: Vec<Rival>,
    /// Rounds of all schemes [default: 3, quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: Option<u32>,
    /// Rate of the uplink
    #[arg(long, default_value = "100mbit", value_parser = parse_rate)]
    pub(crate) rate: u64,
    /// Seconds of each application in a run [default: 5, quick: 2]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: Option<u64>,
    /// Passes of 24 slots from which the agent learns before the rounds, until a model acts [default: 3, quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) learn: Option<u32>,
    /// Applications that run while the agent learns [default: all that are measured]
    #[arg(long, value_delimiter = ',', value_name = "NAME,…")]
    pub(crate) learn_apps: Vec<String>,
    /// One round of short slots: whether it works, not who wins
    #[arg(long)]
    pub(crate) quick: bool,
    /// Largest super-packet on the uplink, bytes
    #[arg(long, default_value_t = 8_000)]
    pub(crate) gso_max_bytes: u32,
    /// The treeline binary [default: beside this one]
    #[arg(long, value_name = "PATH")]
    pub(crate) treeline: Option<PathBuf>,
    /// Where apps.json and what treeline said of itself go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// What to print at the end
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

impl Options {
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    pub(crate) fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.quick { 2 } else { 5 })
    }

    pub(crate) fn learn(&self) -> u32 {
        self.learn.unwrap_or(if self.quick { 1 } else { 3 })
    }
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// A table.
    Text,
    /// The same as apps.json.
    Json,
}

fn parse_rate(text: &str) -> Result<u64, String> {
    let rate_bps = qdisc::parse_rate(text).map_err(|error| error.to_string())?;
    if rate_bps < LEAST_RATE_BPS {
        Err("the least rate is 5mbit".to_owned())
    } else {
        Ok(rate_bps)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Options::command().debug_assert();
        let options = Options::parse_from(["apps", "--quick", "--schemes", "fifo,fq-codel"]);
        assert_eq!(options.schemes, [Rival::Fifo, Rival::FqCodel]);
        assert_eq!((options.rounds(), options.seconds()), (1, 2));
        parse_rate("1mbit").unwrap_err();
    }
}
