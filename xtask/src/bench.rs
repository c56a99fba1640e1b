//! Builds treeline and its bench in release mode and runs the bench.

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};

use crate::{child, demo, machine::Machine, setup};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Cost of a packet in the kernel programs, beside empty ones and published methods.
    Datapath {
        /// Passed on to treeline-bench: --quick, --rounds N, …; `-- --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Completion times of real TCP messages under several schedulers.
    Fct {
        /// Passed on to treeline-bench-fct: --quick, --workload NAME,…, --bars, …; `-- --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Training beside scikit-learn in a Python environment of the bench's own, a whole cycle, a running agent.
    Learning {
        /// Passed on to treeline-bench-learning: --quick, --only PART,…, --rows N,…, …; `-- --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

pub(crate) fn run(machine: &Machine, options: &Options) -> Result<()> {
    let (program, args) = match &options.what {
        What::Datapath { args } => {
            ensure!(
                machine.is_root(),
                "the bench loads kernel programs, which only root may: run \
                 `sudo -E env \"PATH=$PATH\" cargo xtask bench datapath`"
            );
            ("treeline-bench", args)
        }
        What::Fct { args } => {
            ensure!(
                machine.is_root(),
                "the bench makes network namespaces and attaches TC programs, which only root may: \
                 run `sudo -E env \"PATH=$PATH\" cargo xtask bench fct`"
            );
            ("treeline-bench-fct", args)
        }
        What::Learning { args } => ("treeline-bench-learning", args),
    };
    setup::run(machine)?;
    demo::build(machine)?;
    let mut bench = machine.command(machine.target.join("release").join(program));
    bench.stdin(Stdio::null()).args(args);
    let error = bench.exec();
    Err(error).with_context(|| format!("cannot run `{}`", child::describe(&bench)))
}
