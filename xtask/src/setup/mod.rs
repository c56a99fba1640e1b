//! Gets what the build and the tests need.
//!
//! Each step first looks whether its thing is there, so that a second run only looks.

pub(crate) mod apt;
mod bpffs;
mod linker;
pub(crate) mod packages;
mod prometheus;
mod rust_src;

use anyhow::{Context as _, Result};

use crate::{
    console::{Outcome, Step},
    machine::Machine,
};

type Work = fn(&Machine, &Step) -> Result<Outcome>;

const STEPS: [(&str, Work); 5] = [
    ("system packages", packages::install),
    ("rust-src", rust_src::install),
    ("bpf-linker", linker::install),
    ("bpffs", bpffs::mount),
    ("prometheus", prometheus::unpack),
];

/// Runs every step in order and stops at the first that fails.
pub(crate) fn run(machine: &Machine) -> Result<()> {
    for (number, (name, work)) in (1..).zip(STEPS) {
        let step = Step::start(number, STEPS.len(), name);
        let outcome = work(machine, &step);
        step.end(&outcome);
        outcome.with_context(|| format!("setup could not do its step \"{name}\""))?;
    }
    Ok(())
}
