//! Prometheus and promtool, which the tests of the metrics run: unpacked beside the build, so that no service starts.

use std::{fs, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::apt;
use crate::{
    child,
    console::{Outcome, Step},
    machine::Machine,
};

/// Below `target/xtask/prometheus`; `tests/monitoring` looks there, too.
const PROGRAMS: [&str; 2] = ["usr/bin/prometheus", "usr/bin/promtool"];

/// Unpacks the package, if it can be had; without it those tests say that they were left out.
pub(super) fn unpack(machine: &Machine, step: &Step) -> Result<Outcome> {
    if machine.find("prometheus").is_some() && machine.find("promtool").is_some() {
        return Ok(Outcome::Present);
    }
    let folder = machine.scratch().join("prometheus");
    if PROGRAMS
        .iter()
        .all(|program| folder.join(program).is_file())
    {
        return Ok(Outcome::Present);
    }
    if machine.find("apt-get").is_none() || machine.find("dpkg-deb").is_none() {
        let why = "only Debian's package is known here; the tests that scrape skip themselves";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    step.doing("downloading");
    Ok(match download(machine) {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Skipped(format!("{error:#}; the tests that scrape skip themselves")),
    })
}

fn download(machine: &Machine) -> Result<()> {
    let suites = apt::suites_for_this_machine();
    let package = apt::from_first(machine, &suites, "prometheus", |suite| {
        suite.download("prometheus", None)
    })?;
    let folder = machine.scratch().join("prometheus");
    let staging = folder.with_extension("staging");
    for folder in [&folder, &staging] {
        if folder.exists() {
            fs::remove_dir_all(folder).context("cannot remove what an earlier run left")?;
        }
    }
    child::output(
        Command::new("dpkg-deb")
            .arg("--extract")
            .arg(&package)
            .arg(&staging),
    )?;
    fs::remove_file(&package).context("cannot remove the package after unpacking")?;
    for program in PROGRAMS {
        let runs = child::succeeds(Command::new(staging.join(program)).arg("--version"));
        ensure!(runs, "the package's {program} does not run here");
    }
    fs::rename(&staging, &folder).with_context(|| format!("cannot make {}", folder.display()))
}
