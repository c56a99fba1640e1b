//! `treeline-bench-scale`: many connections, several interfaces with one agent, several queues.

#![forbid(unsafe_code)]

mod load;
mod parts;
mod report;
mod site;
mod wires;

use std::{env, fs, net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result, ensure};
use bed::{machine::Awake, wait};
use clap::{Parser, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use treeline::qdisc;

use crate::{parts::Bench, report::Report};

/// Plays messages over thousands of kept connections: under FIFO, aging and treeline, over several interfaces with one agent,
/// and over devices with several transmit queues.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "treeline-bench-scale",
    after_help = "Example: treeline-bench-scale --quick --only connections"
)]
pub(crate) struct Options {
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::ALL)]
    only: Vec<Part>,
    /// Connections that stand at once
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=25_000))]
    connections: u32,
    /// Rounds of all schemes [default: 3, quick: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Rate of the uplink, of all of them together where there are several
    #[arg(long, default_value = "100mbit", value_parser = parse_rate)]
    rate: u64,
    /// Share of the rate that the replies fill
    #[arg(long, default_value_t = 0.8)]
    load: f64,
    /// Seconds of a run [default: 15, quick: 4]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: Option<u64>,
    /// One round of short runs: whether it works, not how well
    #[arg(long)]
    quick: bool,
    /// Seed of the arrivals
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Largest super-packet on the uplink, bytes
    #[arg(long, default_value_t = 8_000)]
    gso_max_bytes: u32,
    /// The treeline binary [default: beside this one]
    #[arg(long, value_name = "PATH")]
    treeline: Option<PathBuf>,
    /// Where scale.json and the agent's log go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// What to print at the end
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Be the server of a run
    #[arg(long, hide = true)]
    serve: Option<SocketAddr>,
}

impl Options {
    fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 1 } else { 3 })
    }

    fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.quick { 4 } else { 15 })
    }
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Many connections under FIFO, aging and treeline.
    Connections,
    /// One, two and four interfaces with one agent.
    Interfaces,
    /// One, two and four transmit queues.
    Queues,
}

impl Part {
    const ALL: [Self; 3] = [Self::Connections, Self::Interfaces, Self::Queues];
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A table.
    Text,
    /// The same as scale.json.
    Json,
}

fn main() -> ExitCode {
    match bench(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Progress and complaints; standard output is for the result.
#[expect(clippy::print_stderr, reason = "progress is for the person who waits")]
fn say(what: &str) {
    eprintln!("{what}");
}

fn bench(options: &Options) -> Result<()> {
    if let Some(at) = options.serve {
        raise_descriptors(u64::from(options.connections) + 500)?;
        return load::serve(at);
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces and kernel programs need root: run as root"
    );
    ensure!(
        options.load > 0.0 && options.load < 1.0,
        "--load must lie between 0 and 1"
    );
    wait::catch_interrupts()?;
    let _awake = Awake::keep();
    raise_descriptors(u64::from(options.connections) + 500)?;
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let binary = options.treeline.clone().map_or_else(beside_this_one, Ok)?;
    let bench = Bench { options, binary };
    let wanted = |part| options.only.contains(&part);
    let mut report = Report::begin(options)?;
    if wanted(Part::Queues) {
        report.queues = bench.queues()?;
    }
    if wanted(Part::Interfaces) {
        report.interfaces = bench.interfaces()?;
    }
    if wanted(Part::Connections) {
        report.connections = bench.connections()?;
    }
    report.machine = report
        .watch
        .take()
        .map(bed::machine::Watch::finish)
        .transpose()?;
    let json = serde_json::to_string_pretty(&report)?;
    let path = options.out.join("scale.json");
    fs::write(&path, &json).with_context(|| format!("cannot write {}", path.display()))?;
    #[expect(clippy::print_stdout, reason = "the command's result")]
    match options.format {
        Format::Text => println!("{report}"),
        Format::Json => println!("{json}"),
    }
    Ok(())
}

/// Each connection is a file here, and one of the server's.
fn raise_descriptors(count: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < count {
        setrlimit(Resource::RLIMIT_NOFILE, count, hard.max(count))
            .with_context(|| format!("cannot open {count} files: raise `ulimit -n`"))?;
    }
    Ok(())
}

fn beside_this_one() -> Result<PathBuf> {
    let path = env::current_exe()?.with_file_name("treeline");
    ensure!(
        path.exists(),
        "there is no {}; build it with `cargo build`, or name it with --treeline",
        path.display()
    );
    Ok(path)
}

fn parse_rate(text: &str) -> Result<u64, String> {
    let rate_bps = qdisc::parse_rate(text).map_err(|error| error.to_string())?;
    if rate_bps < 5_000_000 {
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
        let options = Options::parse_from(["scale", "--quick", "--only", "queues"]);
        assert_eq!((options.rounds(), options.seconds()), (1, 4));
        assert_eq!(options.only, [Part::Queues]);
    }
}
