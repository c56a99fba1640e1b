//! A program followed line by line until its end or a time limit.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Read, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{cards, kernels::Kernel, tools::QEMU};
use crate::{child, console, machine::Machine};

/// How long one kernel may take, all tests included; a busy machine is ten times slower than an idle one.
pub(super) const LIMIT: Duration = Duration::from_secs(40 * 60);
/// Everything QEMU emulates but one instruction: 7.2 leaves wrong flags behind `cmpxchg16b` now and
/// then, and Linux's allocator dies of it.
const PROCESSOR: &str = "max,-cx16";
const MEMORY_MIB: &str = "1536";
const PROCESSORS: &str = "2";

/// The command that boots `kernel` with its console on standard output.
pub(super) fn qemu(machine: &Machine, kernel: &Kernel, image: &Path) -> Command {
    let mut qemu = cards::in_own_network(machine, QEMU);
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", PROCESSOR])
        .args(["-m", MEMORY_MIB, "-smp", PROCESSORS])
        .args(["-display", "none", "-vga", "none", "-monitor", "none"])
        .args(["-serial", "stdio", "-no-reboot"])
        .args(cards::arguments(machine.is_root()))
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        .args(["-append", "console=ttyS0 panic=-1 quiet"]);
    qemu
}

/// Runs `command`, shows and hands on each line; the exit code, or `None` where it was ended.
pub(super) fn followed(
    command: &mut Command,
    limit: Duration,
    log: &Path,
    each: &mut dyn FnMut(&str),
) -> Result<Option<i32>> {
    let shown = child::describe(command);
    if let Some(folder) = log.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{shown}`"))?;
    let (sender, lines) = mpsc::channel();
    let stdout = child.stdout.take().context("no standard output")?;
    let stderr = child.stderr.take().context("no standard error")?;
    let readers = [forward(stdout, sender.clone()), forward(stderr, sender)];
    let deadline = Instant::now() + limit;
    let in_time = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                writeln!(log, "{line}").context("cannot write the log")?;
                console::say(format_args!("    {line}"));
                each(&line);
            }
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => {
                child
                    .kill()
                    .with_context(|| format!("cannot end `{shown}`"))?;
                break false;
            }
        }
    };
    let status = child.wait().with_context(|| format!("lost `{shown}`"))?;
    if in_time {
        // Killed, its descendants may still hold the pipes.
        for reader in readers {
            drop(reader.join());
        }
    }
    Ok(in_time.then(|| status.code().unwrap_or(-1)))
}

fn forward(output: impl Read + Send + 'static, lines: Sender<String>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        // A console ends lines with CR LF, and firmware would clear the terminal.
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            let mut text = String::from_utf8_lossy(&line).into_owned();
            text.retain(|letter| letter == '\t' || !letter.is_control());
            if lines.send(text).is_err() {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follow(script: &str, limit: Duration) -> (Option<i32>, Vec<String>) {
        let log = std::env::temp_dir().join(format!(
            "treeline-vm-{}-{:?}.log",
            std::process::id(),
            thread::current().id()
        ));
        let mut seen = Vec::new();
        let mut shell = Command::new("sh");
        let code = followed(shell.args(["-c", script]), limit, &log, &mut |line| {
            seen.push(line.to_owned());
        });
        assert_eq!(
            fs::read_to_string(&log).unwrap().lines().count(),
            seen.len()
        );
        fs::remove_file(log).unwrap();
        (code.unwrap(), seen)
    }

    #[test]
    fn every_line_is_seen_and_the_code_told() {
        let (code, seen) = follow("printf 'a\\r\\n'; echo b; exit 3", Duration::from_secs(60));
        assert_eq!(code, Some(3));
        assert_eq!(seen, ["a", "b"]);
    }

    #[test]
    fn what_does_not_end_is_ended() {
        let (code, seen) = follow("echo a; exec sleep 600", Duration::from_millis(500));
        assert_eq!(code, None);
        assert_eq!(seen, ["a"]);
    }
}
