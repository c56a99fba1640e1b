//! Drives `treeline` on several interfaces of one namespace, and tells what it costs.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::maps::MapData;
use bed::{netns::Namespace, wait};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::Serialize;
use serde_json::Value;
use treeline::qdisc::format_rate;

const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// `USER_HZ`: what /proc counts in, whatever the kernel's own tick.
const TICKS_PER_S: f64 = 100.0;

/// An instance of treeline; dropping it takes everything down.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    pub(crate) binary: PathBuf,
    pub(crate) instance: String,
    pub(crate) namespace: &'a Namespace,
    pub(crate) interfaces: Vec<String>,
    pub(crate) log: PathBuf,
}

/// What the agent took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Cost {
    /// User and system time so far, seconds.
    pub(crate) cpu_s: f64,
    /// Largest resident set so far, MB.
    pub(crate) peak_mb: f64,
}

impl Site<'_> {
    /// One agent for all interfaces.
    pub(crate) fn run(&self, rate_bps: u64) -> Result<Agent> {
        let output = File::options().create(true).append(true).open(&self.log)?;
        let mut command = self.command();
        command
            .arg("run")
            .args(&self.interfaces)
            .args(["--rate", &format_rate(rate_bps), "--train-every", "4s"])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = self.namespace.spawn(&mut command)?;
        let mut agent = Agent { child };
        wait::until("the agent's start", START_LIMIT, || {
            agent.check()?;
            let status = self.status()?;
            let up = status["interfaces"].as_array().map_or(0, Vec::len);
            Ok((up == self.interfaces.len()).then_some(()))
        })
        .with_context(|| format!("the agent's log is {}", self.log.display()))?;
        Ok(agent)
    }

    /// No agent, no model; the answer is what the command says of the queue.
    pub(crate) fn up(&self, arguments: &[&str]) -> Result<String> {
        let mut told = String::new();
        for interface in &self.interfaces {
            let mut words = vec!["up", interface, "--model", "none"];
            words.extend(arguments);
            told.push_str(&self.call(&words)?);
        }
        Ok(told.trim().to_owned())
    }

    pub(crate) fn down(&self) -> Result<()> {
        self.call(&["down", "--all"]).map(drop)
    }

    pub(crate) fn status(&self) -> Result<Value> {
        let answer = self.call(&["--format", "json", "status"])?;
        serde_json::from_str(&answer).context("`treeline status` did not answer in JSON")
    }

    /// Memory of the kernel's maps, MB; they outlive the agent.
    pub(crate) fn maps_mb(&self) -> Result<f64> {
        let pins = Path::new("/sys/fs/bpf/treeline").join(&self.instance);
        // What is no map is not opened.
        let opened: Vec<_> = files_below(&pins)?
            .iter()
            .filter_map(|pin| MapData::from_pin(pin).ok())
            .collect();
        let bytes = memory_of_maps(Path::new("/proc/self/fdinfo"))?;
        drop(opened);
        Ok(bytes as f64 / 1e6)
    }

    fn call(&self, arguments: &[&str]) -> Result<String> {
        self.namespace.output(self.command().args(arguments))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["--instance", &self.instance]);
        command
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        // What is not there needs no removal; `down` says so by failing.
        drop(self.down());
        for parent in ["/run/treeline", "/var/lib/treeline", "/sys/fs/bpf/treeline"] {
            drop(fs::remove_dir_all(Path::new(parent).join(&self.instance)));
        }
    }
}

/// The agent's process; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
}

impl Agent {
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("the agent ended by itself ({status})"),
        }
    }

    pub(crate) fn cost(&self) -> Result<Cost> {
        let folder = PathBuf::from(format!("/proc/{}", self.child.id()));
        let read = |name: &str| fs::read_to_string(folder.join(name)).context("the agent is gone");
        Ok(Cost {
            cpu_s: cpu_s(&read("stat")?)?,
            peak_mb: peak_mb(&read("status")?)?,
        })
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        self.check()?;
        self.signal(Signal::SIGTERM)?;
        wait::until("the agent's end", STOP_LIMIT, || {
            Ok(self.child.try_wait()?)
        })?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process id out of range")?;
        kill(Pid::from_raw(pid), signal).context("cannot signal the agent")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

fn cpu_s(stat: &str) -> Result<f64> {
    // The name in parentheses may hold blanks; user and system time are the 14th and 15th field of all.
    let (_, fields) = stat.rsplit_once(')').context("not a process's stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: f64 = ticks.filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / TICKS_PER_S)
}

fn peak_mb(status: &str) -> Result<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let text = line.context("the process has no memory of its own")?;
    let kib: f64 = text.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

/// Each map once, however many descriptors show it.
fn memory_of_maps(folder: &Path) -> Result<u64> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        // A descriptor may be gone by now.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name));
            value.and_then(|value| value.trim().parse::<u64>().ok())
        };
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_stand_behind_a_name_with_blanks() {
        let stat = "12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        assert_eq!(cpu_s(stat).unwrap().to_bits(), 2f64.to_bits());
        assert_eq!(
            peak_mb("Name:\tx\nVmHWM:\t  1000 kB\n").unwrap().to_bits(),
            1.024f64.to_bits()
        );
    }
}
