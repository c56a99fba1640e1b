//! Where servers and clients run, and how their processes end.

use std::{
    env,
    fs::{self, File},
    net::{SocketAddr, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use bed::{
    netns::{Bed, Namespace, SERVER_V4},
    wait,
};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// Where servers are, which an ordinary `PATH` may leave out.
const ADMINISTRATORS_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
const START_LIMIT: Duration = Duration::from_secs(10);
const END_LIMIT: Duration = Duration::from_secs(3);
/// Fine enough to time a client by; one look costs some microseconds.
const LOOK: Duration = Duration::from_millis(2);
const TAIL_BYTES: usize = 600;

/// The bed and a folder for configurations, data and logs.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    pub(crate) bed: &'a Bed,
    pub(crate) folder: &'a Path,
    next: AtomicU32,
}

impl<'a> Site<'a> {
    pub(crate) const fn new(bed: &'a Bed, folder: &'a Path) -> Self {
        Self {
            bed,
            folder,
            next: AtomicU32::new(0),
        }
    }

    /// A path below the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// A path that was not given out before.
    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.path(&format!("{name}-{number}"))
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// A command line, its words split at blanks; `{}` stands for the folder.
    pub(crate) fn command(&self, line: &str) -> Result<Command> {
        let folder = self.folder.to_string_lossy();
        let mut words = line
            .split_whitespace()
            .map(|word| word.replace("{}", &folder));
        let program = words.next().context("an empty command line")?;
        let path = find(&program).with_context(|| format!("{program} is not installed"))?;
        let mut command = Command::new(path);
        command.args(words).current_dir(self.folder);
        Ok(command)
    }

    /// The same, one step more urgent than this process where it runs at a real-time priority.
    ///
    /// What is measured by single packets must not wait for a processor that others' encryption fills.
    pub(crate) fn urgent(&self, line: &str) -> Result<Command> {
        match more_urgent()? {
            Some(priority) => self.command(&format!("chrt -r {priority} {line}")),
            None => self.command(line),
        }
    }

    /// Starts a server.
    pub(crate) fn serve(&self, command: Command) -> Result<Process> {
        self.start(&self.bed.server, command)
    }

    /// Starts a client that runs until it is stopped.
    pub(crate) fn ask(&self, command: Command) -> Result<Process> {
        self.start(&self.bed.client, command)
    }

    /// Runs a client to its end and gives its standard output and how long it took.
    pub(crate) fn run(&self, command: Command, limit: Duration) -> Result<(String, Duration)> {
        self.run_with(command, limit, ExitStatus::success)
    }

    /// The same for clients whose failure tells something, too.
    pub(crate) fn run_with(
        &self,
        command: Command,
        limit: Duration,
        is_good: fn(&ExitStatus) -> bool,
    ) -> Result<(String, Duration)> {
        let began = Instant::now();
        let mut process = self.ask(command)?;
        let status = process.wait(limit)?;
        let took = began.elapsed();
        ensure!(
            is_good(&status),
            "`{}` failed ({status}): {}",
            process.shown,
            process.told()
        );
        Ok((process.written()?.out, took))
    }

    /// Runs a client for a time, stops it, and gives what it wrote.
    pub(crate) fn run_for(&self, command: Command, length: Duration) -> Result<Told> {
        let mut process = self.ask(command)?;
        let until = Instant::now() + length;
        while Instant::now() < until && !wait::interrupted() {
            thread::sleep(LOOK);
            process.check()?;
        }
        process.stop()
    }

    /// Waits until a server takes connections.
    pub(crate) fn wait_for(&self, port: u16, server: &mut Process) -> Result<()> {
        let address = SocketAddr::new(SERVER_V4, port);
        let tried = wait::until(&format!("port {port}"), START_LIMIT, || {
            server.check()?;
            self.bed
                .client
                .enter(|| Ok(TcpStream::connect(address).ok().map(drop)))
        });
        tried.with_context(|| format!("`{}`: {}", server.shown, server.told()))
    }

    fn start(&self, namespace: &Namespace, mut command: Command) -> Result<Process> {
        let shown = format!("{command:?}").replace('"', "");
        let (out, log) = (self.fresh("out"), self.fresh("log"));
        command
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&log)?)
            // So that what a server forks ends with it.
            .process_group(0);
        let child = namespace.spawn(&mut command)?;
        Ok(Process {
            child,
            shown,
            out,
            log,
        })
    }
}

/// A real-time priority above our own, if we have one.
pub(crate) fn more_urgent() -> Result<Option<u64>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may hold blanks; the real-time priority is the 40th field of all.
    let (_, fields) = stat.rsplit_once(')').context("not a process's stat")?;
    let own = fields.split_whitespace().nth(37);
    let own: u64 = own.context("a short stat")?.parse()?;
    Ok((own > 0).then_some(own + 1))
}

/// A program of the system, also where only administrators look.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(ADMINISTRATORS_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// What a process wrote.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A process of ours with what it forked; dropping it ends them.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    shown: String,
    out: PathBuf,
    log: PathBuf,
}

impl Process {
    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("`{}` ended ({status}): {}", self.shown, self.told()),
        }
    }

    /// Stops it as ^C would and gives what it wrote.
    pub(crate) fn stop(mut self) -> Result<Told> {
        self.check()?;
        self.end();
        self.written()
    }

    fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline && !wait::interrupted(),
                "`{}` did not end within {} s: {}",
                self.shown,
                limit.as_secs(),
                self.told()
            );
            thread::sleep(LOOK);
        }
    }

    fn end(&mut self) {
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
            let ended = matches!(self.child.try_wait(), Ok(Some(_)));
            // When the leader is gone, whoever of its group stayed has no reason to.
            let signal = if ended { Signal::SIGKILL } else { signal };
            if !self.signal(signal) {
                break;
            }
            drop(self.wait(END_LIMIT));
        }
    }

    /// False where nobody is left.
    fn signal(&self, signal: Signal) -> bool {
        i32::try_from(self.child.id())
            .is_ok_and(|group| killpg(Pid::from_raw(group), signal).is_ok())
    }

    fn written(&self) -> Result<Told> {
        let read =
            |path| -> Result<String> { Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned()) };
        Ok(Told {
            out: read(&self.out)?,
            err: read(&self.log)?,
        })
    }

    /// The end of what it wrote, for messages.
    fn told(&self) -> String {
        let read = |path| fs::read(path).unwrap_or_default();
        let mut text = String::from_utf8_lossy(&read(&self.log)).into_owned();
        if text.trim().is_empty() {
            text = String::from_utf8_lossy(&read(&self.out)).into_owned();
        }
        let from = text.len().saturating_sub(TAIL_BYTES);
        let from = (from..text.len())
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(text.len());
        text[from..].trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        // Outputs of hundreds of clients would fill the folder.
        drop(fs::remove_file(&self.out));
        drop(fs::remove_file(&self.log));
    }
}
