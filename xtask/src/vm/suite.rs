//! Test executables of this build, and which of their tests run.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{console, machine::Machine};

const PACKAGES: [&str; 4] = ["--package", "treeline", "--package", "treeline-tests"];
/// Under emulation traffic is too slow for what these wait for.
const LEFT_OUT: [&str; 6] = [
    "learning::",
    "report::",
    "docs::every_command",
    "survival::",
    "qdisc::tests::traffic::",
    "ingress_acts::a_band_beyond",
];

/// What cargo built.
#[derive(Debug)]
pub(super) struct Built {
    /// The program itself, which the integration test starts.
    pub(super) treeline: PathBuf,
    library: PathBuf,
    integration: PathBuf,
}

/// One test executable with its arguments.
#[derive(Debug)]
pub(super) struct Suite {
    pub(super) name: &'static str,
    pub(super) executable: PathBuf,
    pub(super) arguments: Vec<String>,
}

/// Builds and finds the executables.
pub(super) fn build(machine: &Machine) -> Result<Built> {
    console::say("── build of the tests");
    let programs = executables(machine, &["build", "--package", "treeline"])?;
    let tests = executables(machine, &[&["test", "--no-run"], &PACKAGES[..]].concat())?;
    let find = |built: &[Target], kind: &str, name: &str| {
        built
            .iter()
            .find(|target| target.kind == kind && target.name == name)
            .map(|target| target.executable.clone())
            .with_context(|| format!("cargo built no {kind} {name}"))
    };
    Ok(Built {
        treeline: find(&programs, "bin", "treeline")?,
        library: find(&tests, "lib", "treeline")?,
        integration: find(&tests, "test", "integration")?,
    })
}

/// What runs: every privileged test that does not need real traffic, or those of `filters`.
pub(super) fn chosen(built: &Built, filters: &[String]) -> Vec<Suite> {
    // Of the library only these look at the kernel.
    let library = if filters.is_empty() {
        vec!["qdisc::tests::".to_owned()]
    } else {
        filters.to_vec()
    };
    let suite = |name, executable: &PathBuf, filters: &[String]| Suite {
        name,
        executable: executable.clone(),
        arguments: arguments(filters),
    };
    vec![
        suite("integration", &built.integration, filters),
        suite("library", &built.library, &library),
    ]
}

fn arguments(filters: &[String]) -> Vec<String> {
    // Some tests tell figures, which the table shows.
    let mut arguments = vec!["--show-output".to_owned()];
    for name in LEFT_OUT {
        arguments.extend(["--skip".to_owned(), name.to_owned()]);
    }
    arguments.extend(filters.iter().cloned());
    arguments
}

struct Target {
    kind: String,
    name: String,
    executable: PathBuf,
}

fn executables(machine: &Machine, words: &[&str]) -> Result<Vec<Target>> {
    let output = machine
        .cargo()
        .args(words)
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "`cargo {}` failed, see above",
        words.join(" ")
    );
    let text = String::from_utf8(output.stdout).context("cargo did not print UTF-8")?;
    let targets: Vec<Target> = text.lines().filter_map(target).collect();
    if targets.is_empty() {
        bail!("`cargo {}` built nothing to run", words.join(" "));
    }
    Ok(targets)
}

fn target(line: &str) -> Option<Target> {
    let message: Value = serde_json::from_str(line).ok()?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(Target {
        executable: message.get("executable")?.as_str()?.into(),
        kind: text(message.pointer("/target/kind/0")?)?,
        name: text(message.pointer("/target/name")?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_read_from_cargos_messages() {
        let line = r#"{"reason":"compiler-artifact","target":{"kind":["test"],
            "name":"integration"},"executable":"/t/debug/deps/integration-1"}"#
            .replace('\n', "");
        let found = target(&line).unwrap();
        assert_eq!(
            (found.kind.as_str(), found.name.as_str()),
            ("test", "integration")
        );
        let library = r#"{"target":{"kind":["lib"],"name":"aya"},"executable":null}"#;
        assert!(target(library).is_none() && target("not JSON").is_none());
    }

    #[test]
    fn given_names_replace_the_librarys_own_choice() {
        let built = Built {
            treeline: "/t".into(),
            library: "/l".into(),
            integration: "/i".into(),
        };
        let own = chosen(&built, &[]);
        assert!(!own[0].arguments.contains(&"qdisc::tests::".to_owned()));
        assert!(own[1].arguments.contains(&"qdisc::tests::".to_owned()));
        let given = chosen(&built, &["verifier".to_owned()]);
        for suite in given {
            assert_eq!(suite.arguments.last().unwrap(), "verifier");
        }
    }
}
