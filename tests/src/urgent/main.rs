//! `treeline-bench-urgent`: delay of urgent, long-lived flows beside bulk, by scheduler.
//!
//! # Theory of operation
//!
//! Calls, games and terminals (`kind`) run between two namespaces for some time, then downloads and pages (`bulk`) fill the
//! link as well. Each packet's delay is taken (`flows`) under each scheme (`scheme`) in turn, in another order each round,
//! and summed up (`report`): median of the rounds, with their spread.

#![forbid(unsafe_code)]

mod bulk;
mod flows;
mod kind;
mod report;
mod scheme;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, ensure};
use bed::{
    beds::Bed,
    machine::{Awake, Watch},
    netns::UPLINK,
    options::Format,
    peers::Kernel,
    wait,
};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::{
    bulk::{Bulk, Offer},
    flows::{Flows, Setup},
    report::{Report, Round},
    scheme::{Scheme, Stage},
};

/// Compares schedulers by the delay of voice, games and terminals beside bulk, over real sockets.
#[derive(Clone, Debug, Parser)]
#[command(name = "treeline-bench-urgent")]
pub(crate) struct Options {
    /// Schemes: aging, aging-plain (no streams), treeline, or a peer [default: all that the kernel has]
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    schemes: Vec<Scheme>,
    /// Where the bottleneck is
    #[arg(long, value_enum, default_value_t = BedKind::Router)]
    bed: BedKind,
    /// Rounds of all schemes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds that the urgent flows have the link to themselves
    #[arg(long, default_value_t = 15)]
    lead: u64,
    /// Seconds beside bulk, the first two of which are not judged
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(4..))]
    seconds: u64,
    /// Seconds that treeline learns before the rounds
    #[arg(long, default_value_t = 40)]
    learn: u64,
    /// Rate of the bottleneck
    #[arg(long, default_value = "40mbit", value_parser = treeline::qdisc::parse_rate)]
    rate: u64,
    /// Share of the link that pages take; downloads take the rest
    #[arg(long, default_value_t = 0.3)]
    web_load: f64,
    /// Factor on the published sizes of pages
    #[arg(long, default_value_t = 0.05)]
    scale: f64,
    /// Seed of the packets
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Largest super-packet on the host bed, bytes
    #[arg(long, default_value_t = 2_000)]
    gso_max_bytes: u32,
    /// The treeline binary [default: beside this one]
    #[arg(long, value_name = "PATH")]
    treeline: Option<PathBuf>,
    /// Where urgent.json and the agent's log go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// What to print at the end
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Where the bottleneck is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum BedKind {
    /// The sender's own egress, where TCP keeps its queue short by itself.
    Host,
    /// A router between two hosts, each packet alone.
    Router,
}

/// Time for queues to fill before a packet counts.
const FILL: Duration = Duration::from_secs(2);
/// What is under way at the end may still come in.
const DRAIN: Duration = Duration::from_millis(1500);

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "progress and errors are for the person who waits"
)]
fn say(what: &str) {
    eprintln!("{what}");
}

fn run(options: &Options) -> Result<()> {
    ensure!(
        options.web_load > 0.0 && options.web_load < 1.0,
        "--web-load must lie between 0 and 1"
    );
    wait::catch_interrupts()?;
    let _awake = Awake::keep();
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let kernel = Kernel::ask()?;
    let schemes = Scheme::chosen(&options.schemes, kernel)?;
    let bed = match options.bed {
        BedKind::Host => Bed::host()?,
        BedKind::Router => Bed::router()?,
    };
    bed.limit_super_packets(options.gso_max_bytes)?;
    let stage = Stage::new(options, &bed, kernel)?;
    if schemes.contains(&Scheme::Treeline) {
        stage.learn(|| play(options, &bed, false, !options.seed).map(drop))?;
    }
    let mut rounds = Vec::new();
    for round in 0..options.rounds {
        for place in 0..schemes.len() {
            let scheme = schemes[(place + round as usize) % schemes.len()];
            let standing = stage.set_up(scheme)?;
            let seed = options.seed.wrapping_add(u64::from(round));
            let mut played = play(options, &bed, scheme.reads_marks(), seed)?;
            played.drops = drops(&bed)?;
            drop(standing);
            say(&format!(
                "round {} {:<16} {}",
                round + 1,
                scheme.name(),
                played.line()
            ));
            rounds.push((scheme, played));
        }
    }
    let report = Report::new(options.into(), &schemes, &rounds, &stage)?;
    let json = serde_json::to_string_pretty(&report)?;
    let path = options.out.join("urgent.json");
    fs::write(&path, &json).with_context(|| format!("cannot write {}", path.display()))?;
    let result = match options.format {
        Format::Text => report.to_text(),
        Format::Json => json,
    };
    #[expect(clippy::print_stdout, reason = "the result is what the command is for")]
    {
        println!("{result}");
    }
    Ok(())
}

/// One run: urgent flows alone, then beside bulk.
fn play(options: &Options, bed: &Bed, marked: bool, seed: u64) -> Result<Round> {
    let lead = Duration::from_secs(options.lead);
    let length = lead + Duration::from_secs(options.seconds);
    let setup = Setup {
        length,
        marked,
        seed,
    };
    let mut watch = Watch::start()?;
    let (flows, ssh) = Flows::start(bed, setup)?;
    // The flows grow old: nothing can be waited for but time.
    pass(lead, &mut watch)?;
    let offer = Offer {
        rate_bps: options.rate,
        web_load: options.web_load,
        scale: options.scale,
        marked,
        seed,
    };
    let bulk = Bulk::start(bed, offer, ssh)?;
    pass(length - lead, &mut watch)?;
    let goodput = bulk.finish();
    let delivered = flows.finish(DRAIN)?;
    Ok(Round::of(
        &delivered,
        lead + FILL..length,
        goodput,
        watch.finish()?,
    ))
}

fn pass(time: Duration, watch: &mut Watch) -> Result<()> {
    let until = std::time::Instant::now() + time;
    while std::time::Instant::now() < until {
        ensure!(!wait::interrupted(), "interrupted");
        watch.look()?;
        std::thread::sleep(Duration::from_millis(100).min(time));
    }
    Ok(())
}

/// Packets that the uplink's queues have dropped.
fn drops(bed: &Bed) -> Result<u64> {
    let listed = bed.shaped().tc(&format!("-s -j qdisc show dev {UPLINK}"))?;
    let listed: Vec<serde_json::Value> =
        serde_json::from_str(&listed).context("cannot read tc's answer")?;
    // A parent counts its children's.
    let each = listed.iter().filter_map(|qdisc| qdisc["drops"].as_u64());
    Ok(each.max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Options::command().debug_assert();
        let options =
            Options::try_parse_from(["urgent", "--schemes", "pfifo,aging-plain,cake-diffserv4"])
                .unwrap();
        assert_eq!(options.schemes.len(), 3);
        Options::try_parse_from(["urgent", "--schemes", "nosuch"]).unwrap_err();
    }
}
