//! treeline's developer verbs, run as `cargo xtask <verb>`.
//!
//! One file per verb. `setup` gets what the eBPF build and the network tests need and
//! does nothing where it is there already; the other verbs run it first, so that each
//! of them works on a machine that has only `cargo`.

#![forbid(unsafe_code)]

mod bench;
mod child;
mod console;
mod demo;
mod docs;
mod fuzz;
mod lint;
mod machine;
mod package;
mod rustc;
mod setup;
mod test;
mod vm;

use std::{env, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::machine::Machine;

/// What a developer of treeline runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Get what the build and the tests need: iproute2, rust-src, bpf-linker, bpffs.
    Setup,
    /// Build treeline in release mode and run its demo (needs root).
    Demo(demo::Options),
    /// Measure against the limit and against peers, for example `bench datapath --quick` (needs root).
    Bench(bench::Options),
    /// Format check, lints, build and all tests; or the privileged tests on other kernels.
    Test(test::Options),
    /// Throw hostile bytes at the parser and the tree table for a bounded time.
    Fuzz(fuzz::Options),
    /// Make docs/cli.md and the manual pages from the command line itself, and the README's picture from the measured figures.
    Docs(docs::Options),
    /// Make the Debian package, also for arm64.
    Package(package::Options),
    /// Format check and lints, of the kernel half too.
    Lint,
}

fn main() -> ExitCode {
    let Cli { verb } = Cli::parse();
    // For the test of the documents: the words are right, and nothing is to be done.
    if env::var_os("XTASK_PARSE_ONLY").is_some() {
        return ExitCode::SUCCESS;
    }
    let result = Machine::look().and_then(|machine| match verb {
        Verb::Setup => setup::run(&machine),
        Verb::Demo(options) => demo::run(&machine, &options),
        Verb::Bench(options) => bench::run(&machine, &options),
        Verb::Test(options) => test::run(&machine, &options),
        Verb::Fuzz(options) => fuzz::run(&machine, &options),
        Verb::Docs(options) => docs::run(&machine, &options),
        Verb::Package(options) => package::run(&machine, &options),
        Verb::Lint => lint::run(&machine),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
