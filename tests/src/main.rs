//! `treeline-demo`: the same arrivals under four schemes, compared.

use std::process::ExitCode;

use bed::{demo::demo, options::Options};
use clap::Parser as _;

fn main() -> ExitCode {
    match demo(&Options::parse()) {
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
