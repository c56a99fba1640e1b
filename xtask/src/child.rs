//! Runs other programs: quietly into a log, or in sight.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How much of a failed program's output an error repeats.
const TAIL_LINES: usize = 15;
const POLL: Duration = Duration::from_millis(50);

/// What `command` writes to stdout; an error where it can't run or fails.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let shown = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run `{shown}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}): {}", output.status, tail(&stderr));
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{shown}` did not print UTF-8"))
}

/// Runs `command` with both outputs in the file `log`, and ends it after `limit`.
pub(crate) fn logged(command: &mut Command, limit: Duration, log: &Path) -> Result<()> {
    let shown = describe(command);
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        // The end of the log is for a person: no stack traces in it.
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(file.try_clone().context("cannot share the log file")?)
        .stderr(file)
        .spawn()
        .with_context(|| format!("cannot run `{shown}`"))?;
    let deadline = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child
            .try_wait()
            .with_context(|| format!("lost `{shown}`"))?
        {
            break status;
        }
        if Instant::now() >= deadline {
            // Already gone is as good as killed; `wait` then only collects it.
            child
                .kill()
                .or_else(|_| child.wait().map(drop))
                .context("cannot end it")?;
            child.wait().with_context(|| format!("lost `{shown}`"))?;
            bail!(
                "`{shown}` was ended after {} s without an end in sight",
                limit.as_secs()
            );
        }
        thread::sleep(POLL);
    };
    judge(&shown, status, log)
}

/// Runs `command` with its output in sight; true where it succeeded.
pub(crate) fn shown(command: &mut Command) -> Result<bool> {
    let shown = describe(command);
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run `{shown}`"))?;
    Ok(status.success())
}

/// True where `command` runs and succeeds; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command line, for messages.
pub(crate) fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(
        command
            .get_args()
            .map(|argument| argument.to_string_lossy()),
    );
    words.join(" ")
}

fn judge(shown: &str, status: ExitStatus, log: &Path) -> Result<()> {
    if status.success() {
        return Ok(());
    }
    let text = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    bail!(
        "`{shown}` failed ({status}); the end of {}:\n{}",
        log.display(),
        tail(&String::from_utf8_lossy(&text))
    );
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let first = lines.len().saturating_sub(TAIL_LINES);
    lines
        .iter()
        .skip(first)
        .map(|line| format!("    {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> std::path::PathBuf {
        std::env::temp_dir().join(format!(
            "treeline-xtask-{}-{:?}.log",
            std::process::id(),
            thread::current().id()
        ))
    }

    #[test]
    fn a_failure_repeats_the_end_of_the_output() {
        let log = log();
        let error = logged(
            Command::new("sh").args(["-c", "seq 100; echo the cause >&2; exit 3"]),
            Duration::from_secs(60),
            &log,
        )
        .unwrap_err()
        .to_string();
        fs::remove_file(&log).unwrap();
        assert!(
            error.contains("the cause") && error.contains("exit status: 3"),
            "{error}"
        );
        assert!(
            !error.contains("    42\n"),
            "only the end is repeated: {error}"
        );
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let log = log();
        let started = Instant::now();
        let error = logged(
            Command::new("sleep").arg("600"),
            Duration::from_millis(200),
            &log,
        )
        .unwrap_err();
        fs::remove_file(&log).unwrap();
        assert!(started.elapsed() < Duration::from_secs(60));
        assert!(error.to_string().contains("was ended"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = output(&mut Command::new("treeline-no-such-program")).unwrap_err();
        assert!(
            error.to_string().contains("treeline-no-such-program"),
            "{error}"
        );
    }
}
