//! `treeline-bench-fct`: completion times of real TCP under several schedulers.
//!
//! # Theory of operation
//!
//! For each bed and workload the agent first learns from messages that are not measured
//! (`learn`). Then, for each load, rounds are played (`cell`): the same messages under every
//! scheme, in another order each round, each run judged (`figures`) and repeated if it was
//! disturbed. `report` sums up what the rounds gave and pairs them, `bars` holds it against what is to be
//! reached, `text` and `page` write it down. `change` and `saturation` are the two parts that
//! are not about rounds of messages: a service that changes, and a full link.

#![forbid(unsafe_code)]

mod bars;
mod bench;
mod cell;
mod change;
mod figures;
mod options;
mod page;
mod progress;
mod report;
mod saturation;
mod scheme;
mod text;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match bench::run(&options::Options::parse()) {
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
