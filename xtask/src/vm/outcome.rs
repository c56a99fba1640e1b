//! What the tests said on one kernel, and the table of all kernels.

use std::{collections::BTreeMap, time::Duration};

/// Before and after a test executable there is a line with one of these and its name.
pub(super) const BEGIN: &str = "@@ begin ";
pub(super) const END: &str = "@@ end ";
/// `verified: <program> <instructions>`, printed by the test of the verifier's cost.
const VERIFIED: &str = "verified: ";
/// Said by a test for which something is missing.
const NOT_RUN: &str = "not run: ";

/// How the tests went on one kernel.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) kernel: String,
    pub(super) took: Duration,
    passed: u64,
    failed: u64,
    skipped: u64,
    /// Tests whose end was seen, so that a kernel which hangs is known to have done something.
    successes: u64,
    failures: Vec<String>,
    verified: BTreeMap<String, u64>,
    /// Why tests did nothing.
    not_run: Vec<String>,
    /// Executables that have not ended well, or not at all.
    open: Vec<String>,
    has_begun: bool,
}

impl Outcome {
    pub(super) fn new(kernel: String) -> Self {
        Self {
            kernel,
            ..Self::default()
        }
    }

    /// Names executables that must end well for this to pass.
    pub(super) fn expect(&mut self, names: &[&str]) {
        self.open.extend(names.iter().map(ToString::to_string));
    }

    /// Reads one line of output.
    pub(super) fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix(BEGIN) {
            self.has_begun = true;
            if !self.open.iter().any(|open| open == name) {
                self.open.push(name.to_owned());
            }
        } else if let Some(name) = line
            .strip_prefix(END)
            .and_then(|ended| ended.strip_suffix(" 0"))
        {
            self.open.retain(|open| open != name);
        } else if let Some(figures) = line.strip_prefix("test result: ") {
            let number = |word| number_before(figures, word);
            self.passed += number("passed");
            self.failed += number("failed");
            self.skipped += number("ignored") + number("filtered");
        } else if line.starts_with(NOT_RUN) {
            if !self.not_run.iter().any(|known| known == line) {
                self.not_run.push(line.to_owned());
            }
        } else if let Some(figures) = line.strip_prefix(VERIFIED) {
            if let Some((program, count)) = figures.split_once(' ')
                && let Ok(count) = count.parse()
            {
                self.verified.insert(program.to_owned(), count);
            }
        } else if let Some(test) = line.strip_prefix("test ") {
            if let Some(name) = test.strip_suffix(" ... FAILED") {
                self.failures.push(name.to_owned());
            }
            self.successes += u64::from(test.ends_with(" ... ok"));
        }
    }

    /// Whether the kernel came as far as the first executable.
    pub(super) const fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether every executable ran to its end and no test failed.
    pub(super) fn passed(&self) -> bool {
        self.failed == 0 && self.open.is_empty() && self.passed > 0
    }
}

fn number_before(figures: &str, word: &str) -> u64 {
    let mut words = figures
        .split_whitespace()
        .map(|text| text.trim_end_matches(';'));
    let mut last = 0;
    words
        .find_map(|text| {
            if text == word {
                return Some(last);
            }
            last = text.parse().unwrap_or(0);
            None
        })
        .unwrap_or(0)
}

/// The lines of the table, and below it what failed or could not run where.
pub(super) fn table(rows: &[Outcome]) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<32} {:>6} {:>6} {:>7} {:>7}  verified instructions",
        "kernel", "passed", "failed", "skipped", "seconds"
    )];
    for row in rows {
        let verified: Vec<String> = row
            .verified
            .iter()
            .map(|(program, count)| format!("{program} {count}"))
            .collect();
        lines.push(format!(
            "{:<32} {:>6} {:>6} {:>7} {:>7}  {}",
            row.kernel,
            row.passed.max(row.successes),
            row.failed.max(row.failures.len() as u64),
            row.skipped,
            row.took.as_secs(),
            verified.join(", ")
        ));
    }
    for row in rows {
        let failed = row.failures.iter().map(|name| format!("{name} failed"));
        let open = row
            .open
            .iter()
            .map(|name| format!("{name} did not end well"));
        lines.extend(
            failed
                .chain(open)
                .chain(row.not_run.iter().cloned())
                .map(|what| format!("{}: {what}", row.kernel)),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outcome {
        let mut outcome = Outcome::new("6.1".to_owned());
        for line in text.lines() {
            outcome.line(line);
        }
        outcome
    }

    const RESULT: &str = "test result: ok. 31 passed; 0 failed; 1 ignored; 0 measured; \
        4 filtered out; finished in 1.34s";

    #[test]
    fn a_kernel_that_died_while_it_booted_has_not_begun() {
        let mut outcome = Outcome::new("6.12".to_owned());
        outcome.line("[    2.31] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI");
        assert!(!outcome.has_begun());
        outcome.line("@@ begin integration");
        assert!(outcome.has_begun());
    }

    #[test]
    fn results_of_all_executables_are_added() {
        let text = format!(
            "@@ begin a\nverified: egress 4242\n{RESULT}\n@@ end a 0\n@@ begin b\n{RESULT}\n@@ end b 0"
        );
        let outcome = read(&text);
        assert_eq!((outcome.passed, outcome.skipped), (62, 10));
        assert!(outcome.passed());
        let table = table(&[outcome]);
        assert_eq!(table.len(), 2);
        assert!(table[1].ends_with("egress 4242"), "{table:?}");
    }

    #[test]
    fn an_executable_that_does_not_end_or_ends_badly_is_a_failure() {
        let hung = read(&format!("@@ begin a\n{RESULT}"));
        let crashed = read(&format!("@@ begin a\n{RESULT}\n@@ end a 134"));
        for outcome in [hung, crashed] {
            assert!(!outcome.passed());
            assert!(table(&[outcome])[2].contains("a did not end well"));
        }
        let mut never_booted = read("Kernel panic");
        never_booted.expect(&["a"]);
        assert!(!never_booted.passed());
    }

    #[test]
    fn what_could_not_run_is_told_once() {
        let outcome = read(&format!("not run: no TCX\nnot run: no TCX\n{RESULT}"));
        assert!(outcome.passed());
        assert_eq!(table(&[outcome])[2..], ["6.1: not run: no TCX"]);
    }

    #[test]
    fn a_failed_test_is_named() {
        let outcome = read("test swap::all ... FAILED\ntest result: FAILED. 3 passed; 1 failed;");
        assert!(!outcome.passed());
        assert_eq!(table(&[outcome])[2], "6.1: swap::all failed");
    }
}
