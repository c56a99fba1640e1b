//! Gets what the build and the tests need.
//!
//! Each step first looks whether its thing is there, so that a second run only looks.

pub(crate) mod apt;
mod bpffs;
mod extra;
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

/// What `test` alone needs besides.
const FOR_TESTS: [(&str, Work); 1] = [("browser for the report's test", extra::browser)];

/// Runs every step in order and stops at the first that fails.
pub(crate) fn run(machine: &Machine) -> Result<()> {
    steps(machine, &STEPS)
}

/// Gets what only the tests look at.
pub(crate) fn for_tests(machine: &Machine) -> Result<()> {
    steps(machine, &FOR_TESTS)
}

fn steps(machine: &Machine, steps: &[(&str, Work)]) -> Result<()> {
    for (number, (name, work)) in (1..).zip(steps) {
        let step = Step::start(number, steps.len(), name);
        let outcome = work(machine, &step);
        step.end(&outcome);
        outcome.with_context(|| format!("setup could not do its step \"{name}\""))?;
    }
    Ok(())
}
