//! Where the commands of a document are run: a namespace with the interfaces that they name, and a folder with their files.

use std::{
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bed::{netns::Namespace, wait};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::talk::{Talk, conversation};
use crate::support::{
    OwnInstance,
    agent::{Done, binary},
};

/// Interfaces that documents name; `eth0` leads to somebody who answers.
const INTERFACES: [&str; 4] = ["eth0", "eth1", "wan0", "lan0"];
/// For each command: one that waits for somebody at a terminal must not hold up the others for ever.
const LIMIT: Duration = Duration::from_secs(90);

/// The stage of one document.
pub(super) struct Stage {
    pub(super) folder: tempfile::TempDir,
    near: Namespace,
    _far: Namespace,
    instance: OwnInstance,
    /// What the current block has left running.
    running: Option<Running>,
    over: Arc<AtomicBool>,
    talk: Talk,
}

struct Running {
    child: Child,
    command: String,
    log: PathBuf,
}

impl Stage {
    /// `captured` is a file that `treeline replay` takes, `learned` what it made of it.
    pub(super) fn new(root: &Path, (captured, learned): (&Path, &Path)) -> Self {
        let (near, far) = (
            Namespace::new("docs").unwrap(),
            Namespace::new("docs-far").unwrap(),
        );
        for name in INTERFACES {
            near.ip(&format!(
                "link add {name} numtxqueues 4 numrxqueues 4 type veth peer name {name} numtxqueues 4 numrxqueues 4 netns {}",
                far.name()
            ))
            .unwrap();
            near.ip(&format!("link set {name} up")).unwrap();
            far.ip(&format!("link set {name} up")).unwrap();
        }
        near.ip("addr add 10.0.0.1/24 dev eth0").unwrap();
        far.ip("addr add 10.0.0.2/24 dev eth0").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        fs::create_dir(place("bin")).unwrap();
        symlink(binary(), place("bin/treeline")).unwrap();
        for shared in ["contrib", "docs"] {
            symlink(root.join(shared), place(shared)).unwrap();
        }
        fs::copy(captured, place("trace.pcap")).unwrap();
        fs::copy(learned, place("learned.parquet")).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let talk = conversation([&near, &far], &over);
        Self {
            folder,
            near,
            _far: far,
            instance: OwnInstance::new(),
            running: None,
            over,
            talk,
        }
    }

    /// Whether the kernel has a link type or a qdisc.
    pub(super) fn kernel_has(&self, kind: Kind) -> bool {
        match kind {
            Kind::Link(kind) => {
                let more = if kind == "vxlan" {
                    " id 1 dstport 4789"
                } else {
                    ""
                };
                let made = self.near.ip(&format!("link add probe type {kind}{more}"));
                made.is_ok() && self.near.ip("link del probe").is_ok()
            }
            Kind::Qdisc(kind) => {
                let more = if kind == "ets" { " bands 2" } else { "" };
                let made = self
                    .near
                    .tc(&format!("qdisc add dev lan0 root {kind}{more}"));
                // One that only asks for more parameters is there.
                let there = match &made {
                    Ok(_) => true,
                    Err(error) => !format!("{error:#}").contains("kind is unknown"),
                };
                drop(self.near.tc("qdisc del dev lan0 root"));
                there
            }
        }
    }

    /// Runs a command to its end, or until it does what it goes on doing; the answer is what it printed, or what went wrong.
    ///
    /// What is to be shown runs as long as it says, everything else for moments.
    pub(super) fn run(&mut self, command: &str, is_shown: bool) -> Result<String, String> {
        self.prepare(command);
        let command = self.here(command, is_shown);
        let goes_on = (command.starts_with("treeline run ") || command == "treeline run")
            && !["--for", "--dry-run", "--help"]
                .iter()
                .any(|word| command.contains(word));
        if goes_on {
            self.start(&command, "attached")?;
            return Ok(String::new());
        }
        if command.contains("--follow") {
            self.start(&command, "")?;
            self.end()?;
            return Ok(String::new());
        }
        let mut done = self.call(&command);
        let explains = command.starts_with("treeline explain") || command.contains("/v1/explain");
        if explains && done.code != Some(0) {
            // The flow is known with its next packet.
            let seen = wait::until("the flow", LIMIT, || {
                done = self.call(&command);
                Ok((done.code == Some(0)).then_some(()))
            });
            drop(seen);
        }
        let name = self.instance.name();
        if done.code == Some(0) {
            // As on a host that has one instance.
            let told = (done.stdout + &done.stderr).replace(&format!("--instance {name} "), "");
            Ok(told.replace(name, "default"))
        } else {
            Err(format!("{:?}: {}{}", done.code, done.stdout, done.stderr))
        }
    }

    /// What has to be there, or gone, before a command.
    fn prepare(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        // Commands that bring an interface up are shown as alternatives.
        if let ["treeline", "up" | "run", ..] = words.as_slice() {
            drop(self.end());
            if !self.instance.records().unwrap().is_empty() {
                self.call("treeline down --all");
            }
        }
        if command.starts_with("curl ") {
            self.prepare_answers();
        }
        // A second of a quiet interface is too little to learn from.
        let from = words.iter().position(|word| *word == "--from");
        if let Some(file) = from.and_then(|at| words.get(at + 1)) {
            let place = |name: &str| self.folder.path().join(name);
            fs::copy(place("learned.parquet"), place(file)).unwrap();
        }
    }

    /// An agent that answers on its socket, with a model, and with the file of one that documents push.
    fn prepare_answers(&mut self) {
        if self.running.is_some() {
            return;
        }
        if !self.folder.path().join("model.json").exists() {
            let train = "treeline train --from learned.parquet --out model.json";
            self.call(train).expect(0);
        }
        self.start("treeline run eth0 --rate 95mbit", "attached")
            .unwrap();
        self.call("treeline model push model.json").expect(0);
    }

    /// The command as it is run here: for moments, and with this instance's files.
    fn here(&self, command: &str, is_shown: bool) -> String {
        let mut words: Vec<&str> = command.split(' ').collect();
        for at in 1..words.len() {
            if words[at - 1] == "--for" && !is_shown {
                words[at] = "2s";
            }
        }
        let name = self.instance.name();
        let mut command = words.join(" ");
        // An answer that tells of an error is one, but there is too little here to learn from and no configuration to read:
        // `tests/control.rs` holds these two to what they answer.
        let is_refused = command.ends_with("/v1/train") || command.ends_with("/v1/reload");
        if command.starts_with("curl ") && !is_refused {
            command = command.replacen("curl ", "curl --fail-with-body ", 1);
        }
        // `tests/top.rs` has a terminal.
        if command == "treeline top" {
            command.push_str(" --once --format json");
        }
        command
            // A group that every system has.
            .replace("--socket-group netadmin", "--socket-group root")
            .replace("/run/treeline/default", &format!("/run/treeline/{name}"))
            .replace(
                "/var/lib/treeline/default",
                &format!("/var/lib/treeline/{name}"),
            )
    }

    fn shell(&self, command: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let words: Vec<&str> = command.split_whitespace().collect();
        // The shell of a small system may have programs of these names built in, which know less.
        let mut shell = match words.as_slice() {
            [program @ ("ip" | "tc"), arguments @ ..]
                if !command.contains(['|', '$', '>', '"', '\'']) =>
            {
                let mut direct = Command::new(program);
                direct.args(arguments);
                direct
            }
            _ => {
                let mut shell = Command::new("sh");
                shell.args(["-e", "-c", command]);
                shell
            }
        };
        shell
            .current_dir(self.folder.path())
            .env(
                "PATH",
                format!(
                    "{}:{path}:/usr/sbin:/sbin",
                    self.folder.path().join("bin").display()
                ),
            )
            .env("TREELINE_INSTANCE", self.instance.name())
            .env_remove("TREELINE_LOG")
            .stdin(Stdio::null());
        shell
    }

    fn call(&self, command: &str) -> Done {
        let mut shell = self.shell(command);
        self.near
            .enter(|| Ok(Done::within(&mut shell, LIMIT)))
            .unwrap()
    }

    fn start(&mut self, command: &str, sign: &str) -> Result<(), String> {
        let log = self.folder.path().join("log");
        let output = File::create(&log).unwrap();
        let mut shell = self.shell(&format!("exec {command}"));
        shell.stdout(output.try_clone().unwrap()).stderr(output);
        let child = self.near.spawn(&mut shell).unwrap();
        self.running = Some(Running {
            child,
            command: command.to_owned(),
            log: log.clone(),
        });
        let running = self.running.as_mut().expect("it was just put there");
        let told = || fs::read_to_string(&log).unwrap_or_default();
        wait::until(command, LIMIT, || {
            if let Some(status) = running.child.try_wait()? {
                anyhow::bail!("{command} ended: {status}");
            }
            Ok((!told().is_empty() && told().contains(sign)).then_some(()))
        })
        .map_err(|error| format!("{error}\n{}", told()))
    }

    /// Undoes what the commands before have done, where those that would undo it are not run.
    pub(super) fn clear(&mut self) {
        drop(self.end());
        self.call("treeline down --all");
        for name in INTERFACES {
            drop(self.near.tc(&format!("qdisc del dev {name} root")));
        }
    }

    /// Ends what the block has left running.
    pub(super) fn end(&mut self) -> Result<(), String> {
        let Some(Running {
            mut child,
            command,
            log,
        }) = self.running.take()
        else {
            return Ok(());
        };
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        kill(pid, Signal::SIGINT).map_err(|error| error.to_string())?;
        let ended = wait::until("its end", LIMIT, || Ok(child.try_wait()?));
        if ended.is_err() {
            drop(child.kill());
            drop(child.wait());
        }
        let status = ended.map_err(|error| format!("{command}: {error}"))?;
        if status.success() {
            return Ok(());
        }
        let told = fs::read_to_string(log).unwrap_or_default();
        Err(format!("{command}: {status}: {told}"))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        drop(self.end());
        self.call("treeline down --all");
        for thread in self.talk.drain(..) {
            drop(thread.join());
        }
    }
}

/// What a kernel may be without.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Link(&'static str),
    Qdisc(&'static str),
}

impl Kind {
    /// The module that it is.
    pub(super) fn module(self) -> String {
        match self {
            Self::Link(kind) => kind.to_owned(),
            Self::Qdisc(kind) => format!("sch_{kind}"),
        }
    }
}

/// What a command needs of the kernel.
pub(super) fn needs(command: &str) -> Vec<Kind> {
    const LINKS: [&str; 4] = ["wireguard", "ifb", "vxlan", "bridge"];
    const QDISCS: [&str; 7] = ["fq", "fq_codel", "prio", "ets", "cake", "mqprio", "netem"];
    let words: Vec<&str> = command.split_whitespace().collect();
    let after = |word: &str, kind: &str| words.windows(2).any(|pair| pair == [word, kind]);
    let links = LINKS.into_iter().filter(|kind| after("type", kind));
    let shaped = command
        .contains("--ingress-rate")
        .then_some(Kind::Link("ifb"));
    let qdiscs = QDISCS.into_iter().filter(|kind| {
        after("--qdisc", kind) || (words.starts_with(&["tc", "qdisc"]) && words.contains(kind))
    });
    (links.map(Kind::Link))
        .chain(shaped)
        .chain(qdiscs.map(Kind::Qdisc))
        .collect()
}
