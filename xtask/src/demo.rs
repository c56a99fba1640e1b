//! Builds treeline in release mode and runs its demo.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{child, machine::Machine, setup};

const PACKAGES: [&str; 2] = ["treeline", "treeline-tests"];

/// Arguments of `cargo xtask demo`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Passed on to treeline-demo: --quick, --seed N, …; `-- --help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub(crate) fn run(machine: &Machine, options: &Options) -> Result<()> {
    ensure!(
        machine.is_root(),
        "the demo makes network namespaces and attaches XDP and TC programs, which only root \
         may: run `sudo -E env \"PATH=$PATH\" cargo xtask demo`"
    );
    setup::run(machine)?;
    build(machine)?;
    // Replaced rather than watched: ^C and the exit code are the demo's own.
    let mut demo = command(machine, options);
    let error = demo.exec();
    Err(error).with_context(|| format!("cannot run `{}`", child::describe(&demo)))
}

pub(crate) fn build(machine: &Machine) -> Result<()> {
    let mut cargo = machine.cargo();
    cargo.args(["build", "--release", "--bins"]);
    for package in PACKAGES {
        cargo.args(["--package", package]);
    }
    ensure!(
        child::shown(&mut cargo)?,
        "`{}` failed",
        child::describe(&cargo)
    );
    Ok(())
}

fn command(machine: &Machine, options: &Options) -> Command {
    let Options { args } = options;
    let release = machine.target.join("release");
    let mut demo = machine.command(release.join("treeline-demo"));
    demo.stdin(Stdio::null());
    if !args
        .iter()
        .any(|arg| arg.to_string_lossy().starts_with("--treeline"))
    {
        demo.arg("--treeline").arg(release.join("treeline"));
    }
    demo.args(args);
    demo
}
