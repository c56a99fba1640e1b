//! Drives the `treeline` binary inside the server's namespace.

use std::{
    fs::{self, File},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use scheduler_common::{class::Cuts, settings::Settings};
use serde_json::Value;
use treeline::{datapath::Datapath, instance::Instance, qdisc::format_rate};

use crate::{
    machine,
    netns::{Namespace, UPLINK},
    wait,
};

/// The verifier takes a second on an idle machine, and far longer beside other work.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// Lines of the agent's log that an error shows.
const TAIL_LINES: usize = 15;

/// One instance of treeline on the uplink; dropping it takes everything down.
#[derive(Debug)]
pub struct Treeline<'a> {
    /// The binary.
    pub binary: PathBuf,
    /// Name that keeps its pins and models apart from any other instance's.
    pub instance: String,
    /// Where it runs.
    pub namespace: &'a Namespace,
    /// Link rate.
    pub rate_bps: u64,
}

impl Treeline<'_> {
    /// Attaches the kernel program without an agent and without a model.
    ///
    /// # Errors
    ///
    /// When the command fails.
    pub fn up_without_model(&self) -> Result<()> {
        let rate = self.rate();
        self.call(&["up", UPLINK, "--rate", &rate, "--model", "none"])
            .map(drop)
    }

    /// As [`Self::up_without_model`], with other cut points than treeline's own.
    ///
    /// # Errors
    ///
    /// When the command fails or the settings can't be written.
    pub fn up_with_cuts(&self, cuts: Cuts) -> Result<()> {
        self.up_without_model()?;
        self.set_cuts(cuts)
    }

    /// Gives the programs that are attached other cut points.
    ///
    /// # Errors
    ///
    /// When nothing is attached or the settings can't be written.
    pub fn set_cuts(&self, cuts: Cuts) -> Result<()> {
        let instance = Instance::new(&self.instance)?;
        let datapath = Datapath::open(&instance)?.context("treeline is not up")?;
        let settings = datapath.settings()?;
        datapath.set_settings(&Settings {
            // The first bytes are on top whatever is known; a first cut below them would mean nothing.
            first_bytes: settings.first_bytes.min(cuts.bytes[0]),
            cuts,
            ..settings
        })?;
        Ok(())
    }

    /// The cut points in force.
    ///
    /// # Errors
    ///
    /// When nothing is attached or the settings can't be read.
    pub fn cuts(&self) -> Result<Cuts> {
        let instance = Instance::new(&self.instance)?;
        let datapath = Datapath::open(&instance)?.context("treeline is not up")?;
        Ok(datapath.settings()?.cuts)
    }

    /// Detaches everything and restores the qdisc.
    ///
    /// # Errors
    ///
    /// When the command fails.
    pub fn down(&self) -> Result<()> {
        self.call(&["down", UPLINK]).map(drop)
    }

    /// What `status` says, as JSON.
    ///
    /// # Errors
    ///
    /// When the command fails or does not answer in JSON.
    pub fn status(&self) -> Result<Value> {
        let answer = self.call(&["--format", "json", "status"])?;
        serde_json::from_str(&answer).context("`treeline status` did not answer in JSON")
    }

    /// The active model's entry of `status`, once there is a model.
    ///
    /// # Errors
    ///
    /// As for [`Self::status`].
    pub fn model(&self) -> Result<Option<Value>> {
        let model = self.status()?["model"].take();
        Ok(model["generation"]
            .as_u64()
            .filter(|&generation| generation > 0)
            .map(|_| model))
    }

    /// Starts the agent and waits until it has attached.
    ///
    /// # Errors
    ///
    /// When it can't be started, or ends or hangs before it has attached.
    pub fn run(&self, log: &Path, train_every: Duration) -> Result<Running> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = self.agent_command()?;
        command
            .args(["run", UPLINK, "--rate", &self.rate()])
            .args(["--train-every", &format!("{}s", train_every.as_secs())])
            .args(["--sample-one-in", "1"])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let socket = Instance::new(&self.instance)?.control_socket();
        let child = self.namespace.spawn(&mut command)?;
        let mut running = Running {
            child,
            log: log.to_owned(),
        };
        // The root qdisc alone does not tell: classes and leaves come after it. The socket is opened last.
        wait::until("the agent's start", START_LIMIT, || {
            running.check()?;
            Ok(UnixStream::connect(&socket).ok().map(drop))
        })
        .with_context(|| format!("cannot start the agent; its log is {}", log.display()))?;
        Ok(running)
    }

    fn rate(&self) -> String {
        format_rate(self.rate_bps)
    }

    /// A generator under a real-time policy must not hand it on: training would take its processor.
    fn agent_command(&self) -> Result<Command> {
        if !machine::is_real_time()? {
            return Ok(self.command());
        }
        let mut command = Command::new("chrt");
        command.args(["--other", "0"]).arg(&self.binary);
        command.args(["--instance", &self.instance]);
        Ok(command)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(["--instance", &self.instance]);
        command
    }

    fn call(&self, arguments: &[&str]) -> Result<String> {
        self.namespace.output(self.command().args(arguments))
    }
}

impl Drop for Treeline<'_> {
    fn drop(&mut self) {
        // What is not there needs no removal; `down` says so by failing.
        drop(self.down());
        for parent in ["/run/treeline", "/var/lib/treeline", "/sys/fs/bpf/treeline"] {
            drop(fs::remove_dir_all(Path::new(parent).join(&self.instance)));
        }
    }
}

/// An agent in its own process; dropping it ends it, first politely.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// The agent's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether the agent still runs.
    ///
    /// # Errors
    ///
    /// When it has ended; the message holds the end of its log.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the agent ended by itself ({status})\n{}", self.tail());
        }
        Ok(())
    }

    /// Asks the agent to end and waits for it.
    ///
    /// # Errors
    ///
    /// When it had ended already, does not end, or ends with a failure.
    pub fn stop(mut self) -> Result<()> {
        self.check()?;
        self.signal(Signal::SIGTERM)?;
        let status = wait::until("the agent's end", STOP_LIMIT, || {
            Ok(self.child.try_wait()?)
        })?;
        if !status.success() {
            bail!("the agent did not end cleanly ({status})\n{}", self.tail());
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process id out of range")?;
        kill(Pid::from_raw(pid), signal).context("cannot signal the agent")
    }

    fn tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        format!(
            "the end of {}:\n{}",
            self.log.display(),
            lines[from..].join("\n")
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            drop(self.signal(Signal::SIGTERM));
            let ended = (0..100).any(|_| {
                std::thread::sleep(Duration::from_millis(20));
                !matches!(self.child.try_wait(), Ok(None))
            });
            if !ended {
                drop(self.child.kill());
                drop(self.child.wait());
            }
        }
    }
}
