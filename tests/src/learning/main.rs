//! `treeline-bench-learning`: training time and quality beside scikit-learn's.
//!
//! Both learn from the same rows with the same depth and leaf size, on one thread, in turn; the least of
//! several rounds counts. Ours is timed from rows to a model that is ready to compile, theirs is `fit` alone.

#![forbid(unsafe_code)]

mod peer;
mod plot;
mod report;
mod rows;

use std::{path::PathBuf, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};
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

/// Measures training against scikit-learn on the same rows.
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
    let peer = Peer::install(&options.out)?;
    let mut lines = Vec::new();
    for count in &options.rows {
        let train = rows::made_up(*count, 1);
        let held_out = rows::made_up((*count / 2).min(100_000), 2);
        peer.write(&train, &held_out)?;
        for pair in &options.trainers {
            lines.push(measured(*pair, &peer, (&train, &held_out), options.rounds)?);
        }
    }
    let report = Report::new(peer.version()?, lines);
    report.save(&options.out)?;
    plot::draw(&report, &options.out.join("learning.svg"))?;
    #[expect(clippy::print_stdout, reason = "the command's result")]
    match options.format {
        Format::Text => println!("{report}"),
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    Ok(())
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
