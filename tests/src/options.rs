//! The demo's command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use treeline::qdisc;

use crate::scheme::Scheme;

/// Super-packets of at most this size: five segments block the link for 0.3 ms at 200 Mbit/s.
const GSO_MAX_BYTES: u32 = 8_000;

/// Compares FIFO, aging, treeline and the oracle on the same arrivals of real TCP.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "treeline-demo",
    after_help = "Example: treeline-demo --treeline target/release/treeline --quick"
)]
pub struct Options {
    /// The treeline binary [default: beside this one]
    #[arg(long, value_name = "PATH")]
    pub treeline: Option<PathBuf>,
    /// Finish in less than a minute, with fewer large transfers
    #[arg(long)]
    pub quick: bool,
    /// Seed of the arrivals
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Rate of the uplink, such as 200mbit
    #[arg(long, default_value = "200mbit", value_parser = parse_rate)]
    pub rate: u64,
    /// Share of the uplink that the replies fill
    #[arg(long, default_value_t = 0.8)]
    pub load: f64,
    /// Rounds of all schemes [default: 4, quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: Option<u32>,
    /// Where report.json, report.html and the agent's log go
    #[arg(long, value_name = "DIR", default_value = "target/demo")]
    pub out: PathBuf,
    /// What to print at the end
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Schemes to run
    #[arg(long, hide = true, value_enum, value_delimiter = ',', default_values_t = Scheme::ALL)]
    pub schemes: Vec<Scheme>,
    /// Largest super-packet on the uplink, bytes
    #[arg(long, hide = true, default_value_t = GSO_MAX_BYTES)]
    pub gso_max_bytes: u32,
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// Tables and notes.
    Text,
    /// The same as report.json.
    Json,
}

/// Reads a rate with its unit, in bits per second.
///
/// # Errors
///
/// When it is none, or less than 1 Mbit/s.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let rate_bps = qdisc::parse_rate(text).map_err(|error| error.to_string())?;
    if rate_bps < 1_000_000 {
        Err("the least rate is 1mbit".to_owned())
    } else {
        Ok(rate_bps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_with_their_unit_and_a_bound() {
        assert_eq!(parse_rate("200mbit"), Ok(200_000_000));
        assert!(parse_rate("0.5mbit").unwrap_err().contains("1mbit"));
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Options::command().debug_assert();
        let options = Options::parse_from(["treeline-demo", "--schemes", "fifo,oracle"]);
        assert_eq!(options.schemes, [Scheme::Fifo, Scheme::Oracle]);
    }
}
