//! `treeline-bench`: a packet's time through treeline and its peers.
//!
//! Every program is run by the kernel's `BPF_PROG_TEST_RUN` on one pinned CPU. A round runs each
//! variant of a section once, in a new random order, so a change of the machine's speed meets all. Throughput is that
//! of real sockets over a veth pair.

#![forbid(unsafe_code)]

#[path = "../../support/captures.rs"]
#[expect(
    dead_code,
    clippy::panic,
    clippy::print_stderr,
    reason = "written for the tests, whose names and times the replay does not need"
)]
mod captures;
mod kernel;
mod load;
mod measure;
mod plot;
mod replay;
mod report;
mod samples;
mod section;
mod throughput;
mod trees;
mod variant;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bed::netns::Namespace;
use clap::{Parser, ValueEnum};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use crate::report::Report;

/// Measures the data path against an empty program and two peers.
#[derive(Debug, Parser)]
#[command(name = "treeline-bench")]
struct Options {
    /// Fewer rounds of fewer packets
    #[arg(long)]
    quick: bool,
    /// Rounds [default: 21, quick: 5]
    #[arg(long)]
    rounds: Option<u32>,
    /// Packets of a run [default: 1000000, quick: 200000]
    #[arg(long)]
    packets: Option<u32>,
    /// What to measure
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Part::ALL)]
    parts: Vec<Part>,
    /// Numbers of flows, such as 1,64k
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = section::Flows::ALL)]
    flows: Vec<section::Flows>,
    /// Of the packets' rows only those whose names begin with one of these, such as found,cached_v4
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    rows: Vec<String>,
    /// Which time is measured
    #[arg(long, value_enum, default_value_t = measure::Clock::Cpu)]
    clock: measure::Clock,
    /// CPU to run on [default: the last]
    #[arg(long)]
    cpu: Option<usize>,
    /// Where datapath.json and datapath.svg go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// What to print at the end
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Parts of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One packet in a known state, by number of flows.
    Packets,
    /// Real captures, packet after packet.
    Replay,
    /// Samples under full load.
    Samples,
    /// TCP and UDP over a veth pair.
    Throughput,
}

impl Part {
    const ALL: [Self; 4] = [Self::Packets, Self::Replay, Self::Samples, Self::Throughput];
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A table.
    Text,
    /// The same as datapath.json.
    Json,
}

fn main() -> ExitCode {
    match bench(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the command's own error")]
            {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the bench loads kernel programs: run it as root"
    );
    let effort = measure::Effort {
        rounds: options.rounds.unwrap_or(if options.quick { 5 } else { 21 }),
        packets: options
            .packets
            .unwrap_or(if options.quick { 200_000 } else { 1_000_000 })
            .max(2),
        clock: options.clock,
    };
    let report = measured(options, effort)?;
    report.save(&options.out)?;
    plot::draw(&report, &options.out.join("datapath.svg"))?;
    #[expect(clippy::print_stdout, reason = "the command's result")]
    match options.format {
        Format::Text => println!("{report}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report.json())?),
    }
    Ok(())
}

/// Runs the parts that were asked for.
fn measured(options: &Options, effort: measure::Effort) -> Result<Report> {
    let asked = |part| options.parts.contains(&part);
    let namespace = Namespace::new("bench")?;
    let (cpu, sections, replay) = namespace.enter(|| {
        let cpu = pin(options.cpu)?;
        let flows = options.flows.iter().filter(|_| asked(Part::Packets));
        let sections = flows
            .map(|flows| section::run(*flows, &options.rows, effort, &namespace))
            .collect::<Result<Vec<_>>>()?;
        let replay = if asked(Part::Replay) {
            replay::run(effort, &namespace)?
        } else {
            None
        };
        Ok((cpu, sections, replay))
    })?;
    let samples = asked(Part::Samples).then(|| {
        let length = Duration::from_secs(if options.quick { 1 } else { 5 });
        namespace.enter(|| samples::run(length, options.cpu, &namespace))
    });
    let throughput = asked(Part::Throughput).then(|| {
        throughput::run(throughput::Effort {
            rounds: effort.rounds,
            slice: Duration::from_millis(if options.quick { 300 } else { 1000 }),
        })
    });
    let mut report = Report::new(effort, cpu, sections)?;
    report.replay = replay;
    report.samples = samples.transpose()?;
    report.throughput = throughput.transpose()?;
    Ok(report)
}

/// Keeps this thread on one CPU: test runs take the caller's.
fn pin(cpu: Option<usize>) -> Result<usize> {
    let cpus = std::thread::available_parallelism()?.get();
    let cpu = cpu.unwrap_or(cpus - 1);
    let mut set = CpuSet::new();
    set.set(cpu)
        .with_context(|| format!("there is no CPU {cpu}"))?;
    sched_setaffinity(Pid::from_raw(0), &set)
        .with_context(|| format!("cannot stay on CPU {cpu}: name another by --cpu"))?;
    Ok(cpu)
}
