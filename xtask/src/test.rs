//! Everything a change must pass, with the time of each stage.

use std::{
    collections::BTreeMap,
    env,
    fmt::{self, Display, Formatter},
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{
    child, console,
    console::Spoken,
    lint,
    machine::Machine,
    package, setup,
    vm::{self, Series},
};

/// The file to which tests write what they leave out, for libtest shows nothing of a test that has passed.
const LEFT_OUT: &str = "TREELINE_LEFT_OUT";

/// Arguments of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Leave out the format check and clippy.
    #[arg(long)]
    no_lint: bool,
    /// Run the privileged tests on these kernels under QEMU, and on the running one.
    #[arg(long, value_name = "KERNEL", num_args = 1..)]
    vm: Vec<Series>,
    /// Afterwards run the privileged tests that are steady there on 6.1, 6.12 and 7.3 under QEMU, as
    /// far as these can be had.
    #[arg(long, conflicts_with = "vm")]
    matrix: bool,
    /// Run only tests whose names contain one of these.
    filters: Vec<String>,
}

pub(crate) fn run(machine: &Machine, options: &Options) -> Result<()> {
    let Options {
        no_lint,
        vm,
        matrix,
        filters,
    } = options;
    let started = Instant::now();
    setup::run(machine)?;
    if !vm.is_empty() {
        return vm::run(machine, vm, filters);
    }
    setup::for_tests(machine)?;
    let mut stages = if *no_lint {
        Vec::new()
    } else {
        lint::host(machine)
    };
    let mut build = machine.cargo();
    build.args(["build", "--package", "treeline"]);
    stages.push(Stage::new("build", build));
    let mut test = tests(machine, filters);
    let of_package = |name: &String| name.contains("package") || name.contains("unit");
    if filters.is_empty() || filters.iter().any(of_package) {
        let package = package::for_tests(machine)?;
        if let Some(package) = package {
            stages.push(Stage::new("package", package));
            test.env("TREELINE_PACKAGE", machine.target.join(package::FOR_TESTS));
        }
    }
    let left_out = machine.scratch().join("left-out");
    if left_out.exists() {
        fs::remove_file(&left_out)
            .with_context(|| format!("cannot remove {}", left_out.display()))?;
    }
    test.env(LEFT_OUT, &left_out);
    stages.push(Stage::new("test", test));
    let report = Report::of(stages)?;
    // No test leaves anything out where there is no such file.
    for line in summed(&fs::read_to_string(&left_out).unwrap_or_default()) {
        console::say(format_args!("test: left out: {line}"));
    }
    console::say(format_args!(
        "test: {report}, {} in all",
        Spoken(started.elapsed())
    ));
    ensure!(report.passed(), "not everything passed, see above");
    if *matrix {
        vm::matrix(machine)?;
        console::say(format_args!(
            "test: {} with the other kernels",
            Spoken(started.elapsed())
        ));
    }
    Ok(())
}

/// Each line once, with how often it was there: what tests have left out, and why.
fn summed(text: &str) -> Vec<String> {
    let mut counts = BTreeMap::<&str, u32>::new();
    for line in text.lines() {
        *counts.entry(line).or_default() += 1;
    }
    let told = counts.into_iter().map(|(line, count)| match count {
        1 => line.to_owned(),
        _ => format!("{line} ({count} times)"),
    });
    told.collect()
}

fn tests(machine: &Machine, filters: &[String]) -> Command {
    let mut cargo = machine.cargo();
    cargo.args(["test", "--workspace"]);
    if !filters.is_empty() {
        cargo.arg("--").args(filters);
    }
    // Where every change is judged, a privileged test that skips itself would judge nothing.
    if env::var_os("CI").is_some_and(|ci| ci == "true") {
        cargo.env("TREELINE_REQUIRE_ROOT", "1");
    }
    cargo
}

/// One program to run, and its name in the report.
#[derive(Debug)]
pub(crate) struct Stage {
    name: &'static str,
    command: Command,
}

impl Stage {
    pub(crate) const fn new(name: &'static str, command: Command) -> Self {
        Self { name, command }
    }
}

/// How the stages ended, in their order.
#[derive(Debug)]
pub(crate) struct Report(Vec<(&'static str, bool, Duration)>);

impl Report {
    /// Runs every stage, also after one that failed: a person mends them together.
    pub(crate) fn of(stages: Vec<Stage>) -> Result<Self> {
        let mut results = Vec::new();
        for Stage { name, mut command } in stages {
            console::say(format_args!("── {name}: {}", words_after_program(&command)));
            let started = Instant::now();
            let passed = child::shown(&mut command)?;
            results.push((name, passed, started.elapsed()));
        }
        Ok(Self(results))
    }

    pub(crate) fn passed(&self) -> bool {
        self.0.iter().all(|(_, passed, _)| *passed)
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, (name, passed, took)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let verdict = if *passed { "passed" } else { "FAILED" };
            write!(f, "{separator}{name} {verdict} ({})", Spoken(*took))?;
        }
        Ok(())
    }
}

/// As a person would type it: without the long path of cargo's program.
fn words_after_program(command: &Command) -> String {
    let arguments: Vec<_> = command
        .get_args()
        .map(|word| word.to_string_lossy())
        .collect();
    format!("cargo {}", arguments.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_every_stage_and_fails_with_any() {
        let report = Report::of(vec![
            Stage::new("first", Command::new("false")),
            Stage::new("second", Command::new("true")),
        ])
        .unwrap();
        let text = report.to_string();
        assert!(
            text.contains("first FAILED") && text.contains("second passed"),
            "{text}"
        );
        assert!(!report.passed());
    }

    #[test]
    fn what_was_left_out_is_told_once_with_its_count() {
        let told = summed("no browser\nno card\nno browser\n");
        assert_eq!(told, ["no browser (2 times)", "no card"]);
        assert!(summed("").is_empty());
    }

    #[test]
    fn a_report_passes_where_every_stage_does() {
        assert!(
            Report::of(vec![Stage::new("only", Command::new("true"))])
                .unwrap()
                .passed()
        );
    }
}
