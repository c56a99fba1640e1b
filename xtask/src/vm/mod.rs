//! The privileged tests on other kernels, each booted under QEMU.
//!
//! Emulated by software, so that it works in a virtual machine too; one after another, since
//! each of them keeps the processors busy.

pub(crate) mod bench;
mod cards;
mod emulator;
mod initramfs;
mod kernels;
mod modules;
mod outcome;
mod suite;
mod tools;

use std::{
    path::Path,
    process::Command,
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    console::{self, Outcome as Got, Spoken, Step},
    machine::Machine,
};

use self::{kernels::Kernel, outcome::Outcome, suite::Suite};

/// A series of kernels, `6.12`; the newest of it that Debian has is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Series(String);

impl Series {
    pub(crate) fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Vec<&str> = text.split('.').collect();
        let is_number = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        if numbers.len() == 2 && numbers.iter().all(is_number) {
            Ok(Self(text.to_owned()))
        } else {
            Err("a kernel series looks like 6.12".to_owned())
        }
    }
}

/// Times that a kernel is booted until it comes as far as the tests. Linux patches its own code while it boots, and QEMU's emulation
/// on several threads now and then runs into the breakpoint of a patch that is long done (`int3` in `sched_clock_cpu`).
const BOOTS: u32 = 3;

/// Kernels that every change is tried on, where QEMU and they can be had.
const MATRIX: [&str; 3] = ["6.1", "6.12", "7.3"];
/// Tests that are quick and steady under emulation, and tell what another kernel may do otherwise. Not
/// among them is `swap`, which waits for more packets than an emulated processor makes in time.
const STEADY: [&str; 4] = ["verifier", "prog_run", "bands", "lifecycle"];
/// What one kernel of the matrix is tried on besides: real devices and their queues. `--vm 6.12 7.3 -- acts` runs all acts.
const WITH_DEVICES: (&str, [&str; 2]) = ("6.12", ["acts::queues", "devices::"]);
/// How long a kernel of the matrix may take; more than the tests need on a busy machine.
const STEADY_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Runs the steady tests on each kernel of the matrix that can be had; what can't is said and left out.
pub(crate) fn matrix(machine: &Machine) -> Result<()> {
    let mut kernels = Vec::new();
    for series in MATRIX.map(|name| Series(name.to_owned())) {
        match set_up(machine, std::slice::from_ref(&series)) {
            Ok(kernel) => kernels.extend(kernel),
            Err(error) => console::say(format_args!(
                "not run on kernel {}: {error:#}",
                series.name()
            )),
        }
    }
    if kernels.is_empty() {
        return Ok(());
    }
    let built = suite::build(machine)?;
    let mut rows = Vec::new();
    for kernel in &kernels {
        let suites = suite::chosen(&built, &steady(&kernel.series));
        let tests = (suites.as_slice(), built.treeline.as_path());
        rows.push(on_kernel(machine, kernel, tests, STEADY_LIMIT)?);
    }
    judge(&rows)
}

/// Names of the tests for a kernel of the matrix.
fn steady(series: &str) -> Vec<String> {
    let (with_devices, more) = WITH_DEVICES;
    let more = more.into_iter().filter(|_| series == with_devices);
    STEADY.into_iter().chain(more).map(str::to_owned).collect()
}

/// Runs the tests on the running kernel and on each of `series`.
pub(crate) fn run(machine: &Machine, series: &[Series], filters: &[String]) -> Result<()> {
    let kernels = set_up(machine, series)?;
    let built = suite::build(machine)?;
    let suites = suite::chosen(&built, filters);
    let mut rows = vec![on_host(machine, &suites)?];
    for kernel in &kernels {
        let tests = (suites.as_slice(), built.treeline.as_path());
        rows.push(on_kernel(machine, kernel, tests, emulator::LIMIT)?);
    }
    judge(&rows)
}

fn judge(rows: &[Outcome]) -> Result<()> {
    console::say("");
    for line in outcome::table(rows) {
        console::say(line);
    }
    ensure!(
        rows.iter().all(Outcome::passed),
        "not every kernel passed, see above"
    );
    Ok(())
}

fn set_up(machine: &Machine, series: &[Series]) -> Result<Vec<Kernel>> {
    let steps = series.len() + 1;
    let step = Step::start(1, steps, "QEMU and busybox");
    let got = tools::install(machine, &step);
    step.end(&got);
    got.context("setup could not get what boots other kernels")?;
    let mut kernels = Vec::new();
    for (number, series) in (2..).zip(series) {
        let step = Step::start(number, steps, &format!("kernel {}", series.name()));
        let found = kernels::get(machine, series, &step);
        let (got, kernel) = match found {
            Ok((got, kernel)) => (Ok(got), Ok(kernel)),
            Err(error) => (Ok(Got::Skipped("not to be had".to_owned())), Err(error)),
        };
        step.end(&got);
        kernels.push(kernel.with_context(|| format!("kernel {} can't be had", series.name()))?);
    }
    Ok(kernels)
}

fn on_host(machine: &Machine, suites: &[Suite]) -> Result<Outcome> {
    let release = nix::sys::utsname::uname().context("cannot ask for the kernel's name")?;
    let label = format!("{} (running)", release.release().to_string_lossy());
    console::say(format_args!("── {label}"));
    ensure!(
        machine.is_root(),
        "these tests load kernel programs and make network namespaces, which only root may"
    );
    let started = Instant::now();
    let mut outcome = Outcome::new(label);
    for suite in suites {
        let mut command = Command::new(&suite.executable);
        command
            .args(&suite.arguments)
            .current_dir(&machine.workspace)
            .env("TREELINE_REQUIRE_ROOT", "1");
        outcome.line(&format!("{}{}", outcome::BEGIN, suite.name));
        let log = machine.log(&format!("vm/host-{}", suite.name));
        let code = emulator::followed(&mut command, emulator::LIMIT, &log, &mut |line| {
            outcome.line(line);
        })?;
        if let Some(code) = code {
            outcome.line(&format!("{}{} {code}", outcome::END, suite.name));
        }
    }
    outcome.took = started.elapsed();
    say_end(&outcome);
    Ok(outcome)
}

fn on_kernel(
    machine: &Machine,
    kernel: &Kernel,
    (suites, treeline): (&[Suite], &Path),
    limit: Duration,
) -> Result<Outcome> {
    console::say(format_args!("── {} under QEMU", kernel.release));
    let image = initramfs::make(machine, kernel, (suites, &[]), treeline)
        .with_context(|| format!("cannot make the initramfs of kernel {}", kernel.release))?;
    let mut outcome = boot(machine, kernel, (suites, &image), limit)?;
    for _ in 1..BOOTS {
        if outcome.has_begun() {
            break;
        }
        console::say(format_args!(
            "{}: it did not come as far as the tests; once more",
            kernel.release
        ));
        outcome = boot(machine, kernel, (suites, &image), limit)?;
    }
    say_end(&outcome);
    Ok(outcome)
}

fn boot(
    machine: &Machine,
    kernel: &Kernel,
    (suites, image): (&[Suite], &Path),
    limit: Duration,
) -> Result<Outcome> {
    let started = Instant::now();
    let mut outcome = Outcome::new(kernel.release.clone());
    let names: Vec<&str> = suites.iter().map(|suite| suite.name).collect();
    outcome.expect(&names);
    let log = machine.log(&format!("vm/{}", kernel.series));
    let mut qemu = emulator::qemu(machine, kernel, image);
    let code = emulator::followed(&mut qemu, limit, &log, &mut |line| {
        outcome.line(line);
    })?;
    outcome.took = started.elapsed();
    if code.is_none() {
        console::say(format_args!(
            "{}: no end after {}; its console is in {}",
            kernel.release,
            Spoken(limit),
            log.display()
        ));
    }
    Ok(outcome)
}

fn say_end(outcome: &Outcome) {
    console::say(format_args!(
        "{}: {} in {}",
        outcome.kernel,
        if outcome.passed() { "passed" } else { "FAILED" },
        Spoken(outcome.took)
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kernel_of_the_matrix_is_tried_on_devices() {
        let tried = MATRIX.map(|series| steady(series).len());
        assert_eq!(tried, [4, 6, 4]);
    }

    #[test]
    fn a_series_is_two_numbers() {
        assert_eq!("6.12".parse(), Ok(Series("6.12".to_owned())));
        for wrong in ["6", "6.", "6.1.0", "v6.1", "6.x", ""] {
            assert!(wrong.parse::<Series>().is_err(), "{wrong}");
        }
    }
}
