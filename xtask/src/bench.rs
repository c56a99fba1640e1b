//! Builds treeline and its bench in release mode and runs the bench.

use std::{ffi::OsString, os::unix::process::CommandExt as _, path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, Subcommand};

use crate::{
    child, demo,
    machine::Machine,
    setup,
    vm::{self, Series, bench::Bench},
};

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
        #[command(flatten)]
        place: Place,
        /// Passed on to treeline-bench-fct: --quick, --workload NAME,…, --bars, …; `-- --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Delay of voice, games and terminals beside bulk, under treeline and the kernel's own disciplines.
    Urgent {
        #[command(flatten)]
        place: Place,
        /// Passed on to treeline-bench-urgent: --schemes NAME,…, --rounds N, …; `-- --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Real servers and clients over one bottleneck, by their own figures (needs root).
    Apps {
        #[command(flatten)]
        place: Place,
        /// Install what is missing first; on a host that starts servers at boot, these start then, too.
        #[arg(long)]
        install: bool,
        /// Passed on to treeline-bench-apps: --quick, --apps NAME,…, --schemes NAME,…, …; `-- --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Ten thousand connections, several interfaces with one agent, devices with several queues (needs root).
    Scale {
        /// Passed on to treeline-bench-scale: --quick, --connections N, …; `-- --help` lists them.
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

/// Where a bench runs.
#[derive(Debug, Args)]
struct Place {
    /// On these kernels under QEMU, such as 7.3, which have disciplines that this one may lack
    #[arg(long, value_delimiter = ',', value_name = "SERIES")]
    vm: Vec<Series>,
    /// With the programs of the debug profile, which build sooner and learn more slowly
    #[arg(long, requires = "vm")]
    debug: bool,
    /// QEMU runs ahead of everything else on this machine
    #[arg(long, requires = "vm")]
    ahead: bool,
}

pub(crate) fn run(machine: &Machine, options: &Options) -> Result<()> {
    let (program, args) = match &options.what {
        What::Datapath { args } => {
            need_root(machine, "datapath")?;
            ("treeline-bench", args)
        }
        What::Fct { place, args } => {
            need_root(machine, "fct")?;
            let program = "treeline-bench-fct";
            if !place.vm.is_empty() {
                return on_other_kernels(machine, place, (program, &[]), args);
            }
            (program, args)
        }
        What::Urgent { place, args } => {
            need_root(machine, "urgent")?;
            let program = "treeline-bench-urgent";
            if !place.vm.is_empty() {
                return on_other_kernels(machine, place, (program, &[]), args);
            }
            (program, args)
        }
        What::Learning { args } => ("treeline-bench-learning", args),
        What::Apps {
            place,
            install,
            args,
        } => {
            need_root(machine, "apps")?;
            if *install {
                setup::packages::install_apps(machine)?;
            }
            let program = "treeline-bench-apps";
            if !place.vm.is_empty() {
                let calls = setup::packages::apps_programs()?;
                return on_other_kernels(machine, place, (program, &calls), args);
            }
            (program, args)
        }
        What::Scale { args } => {
            need_root(machine, "scale")?;
            ("treeline-bench-scale", args)
        }
    };
    setup::run(machine)?;
    demo::build(machine)?;
    let mut bench = machine.command(machine.target.join("release").join(program));
    bench.stdin(Stdio::null()).args(args);
    let error = bench.exec();
    Err(error).with_context(|| format!("cannot run `{}`", child::describe(&bench)))
}

/// Builds what boots and runs there: a bench, which calls those programs of this machine.
fn on_other_kernels(
    machine: &Machine,
    place: &Place,
    (program, calls): (&'static str, &[PathBuf]),
    args: &[OsString],
) -> Result<()> {
    setup::run(machine)?;
    let (profile, release) = if place.debug {
        ("debug", None)
    } else {
        ("release", Some("--release"))
    };
    let mut cargo = machine.cargo();
    cargo.arg("build").args(release);
    cargo.args(["--package", "treeline", "--package", "treeline-tests"]);
    cargo.args(["--bin", "treeline", "--bin", program]);
    ensure!(
        child::shown(&mut cargo)?,
        "`{}` failed",
        child::describe(&cargo)
    );
    let bench = Bench {
        program,
        built: machine.target.join(profile),
        calls,
        args,
        ahead: place.ahead,
    };
    vm::bench::run(machine, &place.vm, &bench)
}

fn need_root(machine: &Machine, bench: &str) -> Result<()> {
    ensure!(
        machine.is_root(),
        "the bench loads kernel programs into namespaces of its own, which only root may: run \
         `sudo -E env \"PATH=$PATH\" cargo xtask bench {bench}`"
    );
    Ok(())
}
