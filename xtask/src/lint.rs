//! Format check and lints: host crates, then the kernel half.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::{
    child, console,
    machine::Machine,
    setup,
    test::{Report, Stage},
};

pub(crate) fn run(machine: &Machine) -> Result<()> {
    setup::run(machine)?;
    let mut stages = host(machine);
    stages.extend(kernel(machine));
    let report = Report::of(stages)?;
    console::say(format_args!("lint: {report}"));
    ensure!(report.passed(), "lint found something to mend, see above");
    Ok(())
}

/// The stages that need no eBPF target; a tool that isn't installed is said and left out.
pub(crate) fn host(machine: &Machine) -> Vec<Stage> {
    let mut stages = Vec::new();
    if has(machine, "fmt") {
        let mut format = machine.cargo();
        format.args(["fmt", "--all", "--check"]);
        stages.push(Stage::new("fmt", format));
    }
    if has(machine, "clippy") {
        let mut clippy = machine.cargo();
        clippy.args([
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]);
        stages.push(Stage::new("clippy", clippy));
    }
    stages
}

/// Lints the kernel-bound half for its own target.
///
/// In a target folder of its own: the variable that lets a stable compiler build `core`
/// makes cargo build many host crates anew, each time that it comes or goes.
pub(crate) fn kernel(machine: &Machine) -> Option<Stage> {
    let mut clippy: Command = machine.cargo();
    clippy
        .args([
            "clippy",
            "--package",
            "scheduler-ebpf",
            "--features",
            "kernel",
        ])
        .args(["--bin", "treeline-ebpf", "--target", "bpfel-unknown-none"])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(machine.scratch().join("clippy-ebpf"))
        .args(["--", "-D", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1");
    has(machine, "clippy").then(|| Stage::new("clippy of the kernel half", clippy))
}

fn has(machine: &Machine, subcommand: &str) -> bool {
    let present = child::succeeds(machine.cargo().args([subcommand, "--version"]));
    if !present {
        console::say(format_args!(
            "`cargo {subcommand}` is not installed: left out"
        ));
    }
    present
}
