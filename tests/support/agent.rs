//! The `treeline` binary at work in a namespace.

use std::{
    env,
    fs::{self, File},
    io::{Read as _, Seek as _},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::Duration,
};

use aya::{maps::loaded_maps, programs::loaded_programs};
use bed::{
    netns::{Namespace, UPLINK},
    wait,
};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use scheduler_common::names;
use serde_json::Value;
use treeline::datapath::Datapath;

use super::{OwnInstance, json::documented};

const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// The kernel frees programs and maps after grace periods of RCU.
const FREE_LIMIT: Duration = Duration::from_secs(30);

/// The binary of the same build; built now if only the tests were.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).expect("tests lie in deps/");
        let path = profile.join("treeline");
        if !path.exists() {
            let target = profile
                .parent()
                .expect("a profile lies in the target directory");
            let built = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "--package", "treeline", "--target-dir"])
                .arg(target)
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .unwrap();
            assert!(
                built.success() && path.exists(),
                "cannot build {}",
                path.display()
            );
        }
        path
    })
}

/// How a command ended and what it said.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    pub(crate) fn of(command: &mut Command) -> Self {
        let output = command.stdin(Stdio::null()).output().unwrap();
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// As [`Self::of`]; what does not end within `limit` is killed with all that it has started, and has no code.
    pub(crate) fn within(command: &mut Command, limit: Duration) -> Self {
        let [mut stdout, mut stderr] = [(); 2].map(|()| tempfile::tempfile().unwrap());
        let mut child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone().unwrap())
            .stderr(stderr.try_clone().unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let ended = wait::until("the end", limit, || Ok(child.try_wait()?));
        if ended.is_err() {
            let group = Pid::from_raw(i32::try_from(child.id()).unwrap());
            killpg(group, Signal::SIGKILL).unwrap();
            child.wait().unwrap();
        }
        let [stdout, mut stderr] = [&mut stdout, &mut stderr].map(|file| {
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        });
        if let Err(error) = &ended {
            stderr.push_str(&format!("killed: {error}"));
        }
        Self {
            code: ended.ok().and_then(|status| status.code()),
            stdout,
            stderr,
        }
    }

    /// Fails the test unless the command ended with `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Fails the test unless what the command said holds `text`.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(
            self.stdout.contains(text) || self.stderr.contains(text),
            "{text:?} is missing: {self:?}"
        );
        self
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// An instance on the uplink of a namespace; dropping it takes everything down.
pub(crate) struct Site<'a> {
    pub(crate) instance: OwnInstance,
    namespace: &'a Namespace,
}

impl<'a> Site<'a> {
    pub(crate) fn new(namespace: &'a Namespace) -> Self {
        Self {
            instance: OwnInstance::new(),
            namespace,
        }
    }

    /// The binary for this instance, with these arguments.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(["--instance", self.instance.name()])
            .args(arguments)
            .env_remove("TREELINE_LOG");
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn call(&self, arguments: &[&str]) -> Done {
        let mut command = self.command(arguments);
        self.namespace.enter(|| Ok(Done::of(&mut command))).unwrap()
    }

    /// `up` on the uplink at 100 Mbit/s.
    pub(crate) fn up(&self, more: &[&str]) -> Done {
        self.call(&[&["up", UPLINK, "--rate", "100mbit"], more].concat())
    }

    /// `down` on the uplink.
    pub(crate) fn down(&self) -> Done {
        self.call(&["down", UPLINK])
    }

    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        let status = self.call(&["status", "--format", "json"]).expect(0).json();
        documented("status", &status);
        status
    }

    /// A counter of `status`.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        let status = self.status();
        status["counters"][name]
            .as_u64()
            .unwrap_or_else(|| panic!("no counter {name} in {status}"))
    }

    /// Starts an agent on the uplink and waits until it has attached.
    pub(crate) fn run(&self, more: &[&str]) -> Agent {
        self.start(&[&["run", UPLINK, "--rate", "100mbit"], more].concat())
    }

    /// Starts an agent with these arguments and waits until it has attached and handed its model to the kernel.
    pub(crate) fn start(&self, arguments: &[&str]) -> Agent {
        let log = tempfile::NamedTempFile::new().unwrap();
        let output = File::options().append(true).open(log.path()).unwrap();
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let mut agent = Agent {
            child: self.namespace.spawn(&mut command).unwrap(),
            log,
        };
        wait::until("the agent's start", START_LIMIT, || {
            if let Some(status) = agent.child.try_wait()? {
                panic!("the agent ended: {status}\n{}", agent.log());
            }
            // It is opened behind both; who looks before it may find no model yet.
            let is_open = agent.log().contains("the control socket is open");
            let serving = self.instance.agent_pid() == Some(agent.child.id());
            Ok((is_open && serving).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
        agent
    }

    /// Handle to what is pinned.
    #[track_caller]
    pub(crate) fn datapath(&self) -> Datapath {
        Datapath::open(&self.instance)
            .unwrap()
            .expect("programs are pinned")
    }

    /// What the kernel holds for this instance now.
    pub(crate) fn loaded(&self) -> Loaded {
        let pin = |name| self.instance.pins().join("programs").join(name);
        let programs = [names::EGRESS, names::INGRESS]
            .map(|name| aya::programs::ProgramInfo::from_pin(pin(name)).unwrap());
        let maps = programs
            .iter()
            .flat_map(|program| program.map_ids().unwrap().unwrap())
            .collect();
        Loaded {
            programs: programs
                .iter()
                .map(aya::programs::ProgramInfo::id)
                .collect(),
            maps,
        }
    }

    /// Fails the test unless no pin and no record of the instance is left.
    #[track_caller]
    pub(crate) fn assert_no_trace(&self) {
        let pins = self.instance.pins();
        assert!(!pins.exists(), "{} is still there", pins.display());
        let records = self.instance.records().unwrap();
        assert!(records.is_empty(), "{records:?}");
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        // Not `call`: a panic in here would hide the first one.
        let mut command = self.command(&["down", "--all"]);
        drop(self.namespace.output(&mut command));
    }
}

/// Kernel's ids of an instance's programs and maps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Loaded {
    pub(crate) programs: Vec<u32>,
    pub(crate) maps: Vec<u32>,
}

impl Loaded {
    /// Fails the test unless the kernel frees all of them soon.
    #[track_caller]
    pub(crate) fn assert_freed(&self) {
        let mut left = Vec::new();
        let freed = wait::until("the kernel's clean-up", FREE_LIMIT, || {
            // What vanishes while the list is read gives an error, and is gone.
            let programs = loaded_programs()
                .filter_map(Result::ok)
                .filter(|program| self.programs.contains(&program.id()))
                .map(|program| program.name_as_str().unwrap_or_default().to_owned());
            let maps = loaded_maps()
                .filter_map(Result::ok)
                .filter(|map| self.maps.contains(&map.id()))
                .map(|map| map.name_as_str().unwrap_or_default().to_owned());
            left = programs.chain(maps).collect();
            Ok(left.is_empty().then_some(()))
        });
        assert!(freed.is_ok(), "the kernel still holds {left:?}");
    }
}

/// A running agent; dropping it kills it.
pub(crate) struct Agent {
    child: Child,
    log: tempfile::NamedTempFile,
}

impl Agent {
    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// Kills it without a chance to clean up.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end; the answer is how it ended and its log.
    pub(crate) fn end(self, signal: Signal) -> (ExitStatus, String) {
        self.signal(signal);
        self.ended()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits until it has ended.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let status = wait::until("the agent's end", STOP_LIMIT, || {
            Ok(self.child.try_wait()?)
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", self.log()));
        (status, self.log())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
