//! Runs the fuzz targets for a bounded time, and gets cargo-fuzz first.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{child, console, machine::Machine};

/// The series that was tried; it builds with the stable compiler.
const VERSION: &str = "^0.13";
const INSTALL_LIMIT: Duration = Duration::from_secs(1800);
/// Longest input, in bytes: beyond it nothing new is read.
const MAX_INPUT_BYTES: u32 = 2048;
/// Seconds after which a single input counts as a hang.
const INPUT_LIMIT_S: u32 = 10;

/// A fuzz target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// Any bytes as a packet.
    Parse,
    /// Any bytes as a tree table.
    Table,
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Table => "table",
        }
    }
}

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What to fuzz; every target if none is named.
    targets: Vec<Target>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
}

pub(crate) fn run(machine: &Machine, options: &Options) -> Result<()> {
    let Options { targets, seconds } = options;
    ensure!(
        *seconds > 0,
        "libFuzzer takes 0 for no limit: give --seconds a number from 1 on"
    );
    install(machine)?;
    let targets = if targets.is_empty() {
        Target::value_variants()
    } else {
        targets
    };
    for target in targets {
        let name = target.name();
        console::say(format_args!("── fuzz: {name}, {seconds} s"));
        let mut build = cargo_fuzz(machine, "build", *target);
        ensure!(
            child::shown(&mut build)?,
            "{name} does not build, see above"
        );
        let mut fuzzer = fuzzer(machine, *target, *seconds)?;
        ensure!(
            child::shown(&mut fuzzer)?,
            "{name} broke on the input named above, which is kept in fuzz/artifacts/{name}: \
             mend it, and make the input a case in the tests"
        );
    }
    Ok(())
}

fn install(machine: &Machine) -> Result<()> {
    if works(machine) {
        return Ok(());
    }
    console::say("cargo-fuzz is missing: built once, about a minute");
    let mut cargo = machine.cargo();
    cargo
        .args(["install", "cargo-fuzz", "--version", VERSION, "--locked"])
        .arg("--root")
        .arg(&machine.install_root)
        .env_remove("CARGO_BUILD_TARGET")
        .env("CARGO_TARGET_DIR", machine.scratch().join("cargo-fuzz"));
    child::logged(&mut cargo, INSTALL_LIMIT, &machine.log("cargo-fuzz"))
        .context("fuzzing needs cargo-fuzz and a C++ compiler")?;
    ensure!(
        works(machine),
        "cargo-fuzz was built but does not run: see `cargo fuzz --version`"
    );
    Ok(())
}

fn works(machine: &Machine) -> bool {
    child::succeeds(machine.cargo().args(["fuzz", "--version"]))
}

/// The corpus of earlier runs grows in `fuzz/corpus`, which is nobody's but this machine's; the
/// seeds are only read.
fn fuzzer(machine: &Machine, target: Target, seconds: u32) -> Result<Command> {
    let fuzz = machine.workspace.join("fuzz");
    let folder = |kind: &str| -> PathBuf { fuzz.join(kind).join(target.name()) };
    let corpus = folder("corpus");
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let mut cargo = cargo_fuzz(machine, "run", target);
    cargo.args([&corpus, &folder("seeds")]).arg("--").args([
        format!("-max_total_time={seconds}"),
        format!("-max_len={MAX_INPUT_BYTES}"),
        format!("-timeout={INPUT_LIMIT_S}"),
        "-print_final_stats=1".to_owned(),
    ]);
    Ok(cargo)
}

fn cargo_fuzz(machine: &Machine, verb: &str, target: Target) -> Command {
    let mut cargo = machine.cargo();
    cargo
        // What is fuzzed is safe Rust: a sanitizer has nothing to see there, and panics are seen.
        .args(["fuzz", verb, "--sanitizer", "none", target.name()])
        .env("CARGO_TARGET_DIR", machine.target.join("fuzz"))
        .env("RUSTC_BOOTSTRAP", "1");
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_seeds_and_a_source() {
        let fuzz = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        for target in Target::value_variants() {
            let name = target.name();
            assert!(fuzz.join(format!("targets/{name}.rs")).exists(), "{name}");
            let seeds = fs::read_dir(fuzz.join("seeds").join(name)).unwrap();
            assert!(seeds.count() >= 5, "{name}");
        }
    }
}
