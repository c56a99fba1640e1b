//! The `treeline` command.

use std::process::ExitCode;

use clap::Parser as _;
use treeline::cli::{self, Cli};

fn main() -> ExitCode {
    cli::execute(Cli::parse())
}
