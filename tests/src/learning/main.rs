//! `treeline-bench-learning`: training beside scikit-learn, a whole cycle, a running agent.
//!
//! Both learn from the same rows with the same depth and leaf size, on one thread, in turn; the least of
//! several rounds counts. Ours is timed from rows to a model that is ready to compile, theirs is `fit` alone.

#![forbid(unsafe_code)]

mod agent;
mod cycle;
mod packets;
mod peer;
mod plot;
mod report;
mod rows;

use std::{
    env, fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bed::machine::Watch;
use clap::{Parser, ValueEnum};
use treeline::{
    dataset::Row,
    model::{Model, compile},
    training::choice,
};

use crate::{
    peer::Peer,
    report::{Line, Report},
};

/// Measures training against scikit-learn on the same rows, a cycle from rows to an active generation, and what a running
/// agent costs; the latter two need root.
#[derive(Debug, Parser)]
#[command(name = "treeline-bench-learning")]
struct Options {
    /// Training rows
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000])]
    rows: Vec<usize>,
    /// Trainers, of those that scikit-learn has too
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Pair::ALL)]
    trainers: Vec<Pair>,
    /// Rounds, of which the fastest counts
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// What to measure
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Part::ALL)]
    only: Vec<Part>,
    /// Rows in the window of the cycle
    #[arg(long, default_value_t = 100_000)]
    window: usize,
    /// Seconds of the agent at rest
    #[arg(long, default_value_t = 30)]
    rest: u64,
    /// Seconds of the agent under load
    #[arg(long, default_value_t = 20)]
    load: u64,
    /// Samples a second that the load makes
    #[arg(long, default_value_t = 50_000.0)]
    samples: f64,
    /// Few rows, one round and short looks: whether it works, not how fast
    #[arg(long)]
    quick: bool,
    /// Where learning.json, learning.svg and the Python environment go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    out: PathBuf,
    /// What to print at the end
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// A trainer here and its like there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pair {
    /// `DecisionTreeRegressor`.
    Tree,
    /// `RandomForestRegressor`.
    Forest,
}

impl Pair {
    const ALL: [Self; 2] = [Self::Tree, Self::Forest];

    const fn name(self) -> &'static str {
        match self {
            Self::Tree => "tree",
            Self::Forest => "forest",
        }
    }
}

/// A part of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Training beside scikit-learn.
    Training,
    /// From rows in the window to an active generation.
    EndToEnd,
    /// A running agent, at rest and under load.
    Agent,
}

impl Part {
    const ALL: [Self; 3] = [Self::Training, Self::EndToEnd, Self::Agent];
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A table.
    Text,
    /// The same as learning.json.
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
    let wanted = |part| options.only.contains(&part);
    let needs_root = wanted(Part::EndToEnd) || wanted(Part::Agent);
    ensure!(
        !needs_root || nix::unistd::geteuid().is_root(),
        "the cycle and the agent need kernel programs, which only root may load: run as root, or with `--only training`"
    );
    bed::wait::catch_interrupts()?;
    fs::create_dir_all(&options.out)
        .with_context(|| format!("cannot make {}", options.out.display()))?;
    let watch = Watch::start()?;
    let mut report = Report::default();
    let before = load_average()?;
    let rounds = if options.quick { 1 } else { options.rounds };
    if wanted(Part::EndToEnd) {
        let rows = if options.quick {
            10_000
        } else {
            options.window
        };
        report.end_to_end = cycle::measure(rows, rounds)?;
    }
    if wanted(Part::Agent) {
        let seconds = |seconds| Duration::from_secs(if options.quick { 3 } else { seconds });
        let lengths = (seconds(options.rest), seconds(options.load));
        report.agent = Some(agent::measure(lengths, options.samples, &options.out)?);
    }
    if wanted(Part::Training) {
        training(options, rounds, &mut report)?;
        plot::draw(&report, &options.out.join("learning.svg"))?;
    }
    report.machine = watch.finish()?;
    report.load_average = [before, load_average()?];
    report.save(&options.out)?;
    #[expect(clippy::print_stdout, reason = "the command's result")]
    match options.format {
        Format::Text => println!("{report}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
}

fn training(options: &Options, rounds: u32, report: &mut Report) -> Result<()> {
    let peer = Peer::install(&options.out)?;
    report.scikit_learn = Some(peer.version()?);
    let counts: &[usize] = if options.quick {
        &[10_000]
    } else {
        &options.rows
    };
    for count in counts {
        let train = rows::made_up(*count, 1);
        let held_out = rows::made_up((*count / 2).min(100_000), 2);
        peer.write(&train, &held_out)?;
        for pair in &options.trainers {
            let line = measured(*pair, &peer, (&train, &held_out), rounds)?;
            report.training.push(line);
        }
    }
    Ok(())
}

/// Of the last minute.
fn load_average() -> Result<f64> {
    let told = fs::read_to_string("/proc/loadavg").context("cannot read the load average")?;
    let first = told.split_whitespace().next().unwrap_or_default();
    first.parse().context("the load average is no number")
}

/// The agent's binary of the same build.
fn treeline_binary() -> Result<PathBuf> {
    let path = env::current_exe()?.with_file_name("treeline");
    ensure!(
        path.exists(),
        "{} is missing: run `cargo xtask bench learning`, which builds it",
        path.display()
    );
    Ok(path)
}

fn measured(
    pair: Pair,
    peer: &Peer,
    (train, held_out): (&[Row], &[Row]),
    rounds: u32,
) -> Result<Line> {
    let choice = choice(pair.name()).context("the trainer is in the catalog")?;
    let trainer = choice.with(choice.defaults);
    let mut line = Line {
        trainer: pair.name(),
        rows: train.len(),
        ours_s: f64::INFINITY,
        theirs_s: f64::INFINITY,
        ours_r2: 0.0,
        theirs_r2: 0.0,
        nodes: 0,
        pruned_from: None,
    };
    for _ in 0..rounds.max(1) {
        let began = Instant::now();
        let model = trainer.train(train)?;
        line.ours_s = line.ours_s.min(began.elapsed().as_secs_f64());
        line.ours_r2 = r2(&model, held_out)?;
        line.nodes = model.summary().nodes;
        line.pruned_from = model.pruned.map(|pruned| pruned.from_nodes);
        let theirs = peer.fit(pair.name(), &choice.defaults)?;
        line.theirs_s = line.theirs_s.min(theirs.seconds);
        line.theirs_r2 = theirs.r2;
    }
    Ok(line)
}

/// Explained share of the variance, by the packed table as the kernel walks it.
fn r2(model: &Model, rows: &[Row]) -> Result<f64> {
    let table = compile(model)?;
    let mean = rows.iter().map(Row::target).sum::<f64>() / rows.len() as f64;
    let (mut error, mut variance) = (0.0, 0.0);
    for row in rows {
        let leaf = table.walk(&row.features).context("the table has trees")?;
        error += (row.target() - f64::from(leaf.log2_q8) / 256.0).powi(2);
        variance += (row.target() - mean).powi(2);
    }
    Ok(1.0 - error / variance)
}
