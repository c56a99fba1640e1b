//! cargo-deb, which puts the package together.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{
    child,
    console::{Outcome, Step},
    machine::Machine,
};

/// The series that was tested with this workspace's manifest.
const VERSION: &str = "^3.8";
const LIMIT: Duration = Duration::from_secs(1200);

/// Installs it where it is not there yet: only who makes a package needs it.
pub(super) fn install(machine: &Machine) -> Result<()> {
    let step = Step::start(1, 1, "cargo-deb");
    let outcome = ensure_present(machine, &step);
    step.end(&outcome);
    outcome.map(drop)
}

fn ensure_present(machine: &Machine, step: &Step) -> Result<Outcome> {
    if works(machine) {
        return Ok(Outcome::Present);
    }
    step.doing("building, about a minute");
    let mut cargo = machine.cargo();
    cargo
        .args(["install", "cargo-deb", "--version", VERSION, "--locked"])
        // It compresses by xz itself, and its own speed does not matter: the debug profile builds sooner.
        .args(["--debug", "--no-default-features", "--root"])
        .arg(&machine.install_root)
        .env_remove("CARGO_BUILD_TARGET")
        .env("CARGO_TARGET_DIR", machine.scratch().join("cargo-deb"));
    child::logged(&mut cargo, LIMIT, &machine.log("cargo-deb"))?;
    ensure!(
        works(machine),
        "cargo-deb was built, but does not run: `cargo deb --version`"
    );
    Ok(Outcome::Done)
}

fn works(machine: &Machine) -> bool {
    child::succeeds(machine.cargo().args(["deb", "--version"]))
}
