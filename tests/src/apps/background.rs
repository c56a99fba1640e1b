//! What goes on beside every application: bulk, and two people at work.

use std::{
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use bed::{command, netns::SERVER_V4};
use serde::Serialize;

use crate::{
    catalog::{IPERF, Need, Role, SSH, SSHD, WEB, downloads, missing, ssh_options},
    figure::{self, Figure},
    read,
    server::{IPERF_PORTS, KEYS_PORT, Server},
    site::{Process, Site, more_urgent},
};

/// Of a fast typist.
const KEY_EVERY: Duration = Duration::from_millis(100);
/// Greedy senders fill the queue within this time.
pub(crate) const SETTLE: Duration = Duration::from_secs(2);
const LOGIN_LIMIT: Duration = Duration::from_secs(20);
/// A sender keeps little of one stream in its own queue (TCP small queues); it takes some to fill it.
const BULK_STREAMS: &str = "-P 8";
/// Longer than any run; it is stopped before.
const LONG_S: u32 = 36_000;
/// Echoes before these are those of the login.
const READY: &[u8] = b"ready\r\n";

/// A part of the background that is judged like an application.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) role: Role,
    #[serde(skip)]
    pub(crate) needs: &'static [Need],
    #[serde(skip)]
    pub(crate) servers: &'static [Server],
}

pub(crate) const BULK: Part = Part {
    name: "bg-iperf3",
    what: "background: iperf3, eight TCP streams all the time, their sum",
    role: Role::Bulk,
    needs: &[IPERF],
    servers: &[Server::Iperf],
};
pub(crate) const LARGE: Part = Part {
    name: "bg-downloads",
    what: "background: files of 20 MB from nginx to curl, one after another",
    role: Role::Bulk,
    needs: &WEB,
    servers: &[Server::Nginx],
};
pub(crate) const KEYS: Part = Part {
    name: "ssh-keys",
    what: "background: an interactive ssh session, ten keys a second: time to the echo",
    role: Role::Interactive,
    needs: &[SSHD, SSH],
    servers: &[Server::Sshd],
};
pub(crate) const VOICE: Part = Part {
    name: "voice",
    what: "background: iperf3's UDP at 64 kbit/s in packets of 160 bytes, as a G.711 call: jitter by second",
    role: Role::Interactive,
    needs: &[IPERF],
    servers: &[Server::Iperf],
};

/// Every part, in the order of reports.
pub(crate) const PARTS: [Part; 4] = [KEYS, VOICE, LARGE, BULK];

/// The background of one run; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Background {
    processes: Vec<(Part, Process)>,
    keys: Option<Keys>,
    /// Keys before this are those of the start.
    settled: Instant,
}

impl Background {
    /// Starts what is installed.
    pub(crate) fn start(site: &Site<'_>) -> Result<Self> {
        let mut processes = Vec::new();
        let present = |part: &Part| missing(part.needs).is_empty();
        let [_, bulk, voice] = IPERF_PORTS;
        let iperf = |port: u16, more: &str| {
            site.urgent(&format!(
                "iperf3 -c {SERVER_V4} -p {port} -R -J -t {LONG_S} {more}"
            ))
        };
        if present(&VOICE) {
            processes.push((VOICE, site.ask(iperf(voice, "-u -b 64k -l 160")?)?));
        }
        let keys = if present(&KEYS) {
            Some(Keys::start(site)?)
        } else {
            None
        };
        if present(&BULK) {
            processes.push((BULK, site.ask(iperf(bulk, BULK_STREAMS)?)?));
        }
        if present(&LARGE) {
            processes.push((LARGE, site.ask(downloads(site, "large")?)?));
        }
        Ok(Self {
            processes,
            keys,
            settled: Instant::now() + SETTLE,
        })
    }

    /// An error if a part has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.processes
            .iter_mut()
            .try_for_each(|(_, process)| process.check())
    }

    /// Times of the keys typed since then, milliseconds.
    pub(crate) fn keys_since(&self, since: Instant) -> Vec<f64> {
        let keys = self.keys.as_ref();
        keys.map(|keys| keys.since(since)).unwrap_or_default()
    }

    /// Stops it and gives what each part reports.
    pub(crate) fn finish(self) -> Result<Vec<(Part, Vec<Figure>)>> {
        let mut told = Vec::new();
        if let Some(keys) = self.keys {
            let times = keys.since(self.settled);
            keys.finish()?;
            told.push((KEYS, figure::of_times(&times)));
        }
        for (part, process) in self.processes {
            let written = process.stop()?;
            let figures = match part.name {
                name if name == VOICE.name => read::iperf_voice(&written.out)?,
                name if name == BULK.name => {
                    vec![Figure::high("mbit_s", read::iperf_mbit(&written.out)?)]
                }
                _ => figure::of_times(&read::seconds_a_line(&written.err)),
            };
            told.push((part, figures));
        }
        Ok(told)
    }
}

/// Somebody who types into a remote terminal and sees each key come back.
#[derive(Debug)]
struct Keys {
    child: Child,
    stop: Arc<AtomicBool>,
    typed: Arc<Mutex<Vec<(Instant, f64)>>>,
    typist: Option<JoinHandle<Result<()>>>,
}

impl Keys {
    fn start(site: &Site<'_>) -> Result<Self> {
        let mut command: Command = site.urgent(&format!(
            "ssh -tt {} -p {KEYS_PORT} root@{SERVER_V4}",
            ssh_options()
        ))?;
        // What comes is sent back by a program, as an editor or a shell does.
        command
            .arg("stty raw -echo; echo ready; exec cat")
            .env("TERM", "dumb")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = site.bed.client.spawn(&mut command)?;
        let keyboard = child.stdin.take().context("the session has no input")?;
        let screen = child.stdout.take().context("the session has no output")?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let typed = Arc::new(Mutex::new(Vec::new()));
        let sheet = Arc::clone(&typed);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let typist = thread::Builder::new()
            .name("typist".into())
            .spawn(move || {
                let mut screen = screen;
                if let Some(priority) = more_urgent()? {
                    let thread = nix::unistd::gettid();
                    command::run("chrt", &format!("-r -p {priority} {thread}"))?;
                }
                login(&mut screen)?;
                ready.send(()).context("nobody waits for the session")?;
                type_on(keyboard, screen, &stopped, &sheet)
            })?;
        let keys = Self {
            child,
            stop,
            typed,
            typist: Some(typist),
        };
        is_ready
            .recv_timeout(LOGIN_LIMIT)
            .context("the ssh session did not begin")?;
        Ok(keys)
    }

    fn since(&self, since: Instant) -> Vec<f64> {
        let typed = self.typed.lock().unwrap_or_else(PoisonError::into_inner);
        let times = typed.iter().filter(|(at, _)| *at >= since);
        times.map(|(_, took_ms)| *took_ms).collect()
    }

    fn finish(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let typist = self.typist.take().context("the session ended already")?;
        typist
            .join()
            .map_err(|_panic| anyhow!("the typist panicked"))?
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Reads up to the line that the remote side begins with.
fn login(screen: &mut ChildStdout) -> Result<()> {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(&READY[..READY.len() - 2]) {
        screen.read_exact(&mut byte).context("the login failed")?;
        seen.push(byte[0]);
    }
    // The end of the line comes as one or two bytes, by the terminal's mode.
    loop {
        screen.read_exact(&mut byte).context("the login failed")?;
        if byte[0] == b'\n' {
            return Ok(());
        }
    }
}

/// Notes when each key was typed, and the milliseconds until it was echoed.
fn type_on(
    mut keyboard: ChildStdin,
    mut screen: ChildStdout,
    stop: &AtomicBool,
    sheet: &Mutex<Vec<(Instant, f64)>>,
) -> Result<()> {
    let mut echo = [0];
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        keyboard.write_all(b"x").context("the session ended")?;
        screen.read_exact(&mut echo).context("the session ended")?;
        let took = began.elapsed();
        let mut typed = sheet.lock().unwrap_or_else(PoisonError::into_inner);
        typed.push((began, took.as_secs_f64() * 1e3));
        drop(typed);
        // Who waits for an echo types on as soon as it is there.
        thread::sleep(KEY_EVERY.saturating_sub(took));
    }
    Ok(())
}

/// Servers that the background needs, of parts that are installed.
pub(crate) fn servers() -> impl Iterator<Item = Server> {
    PARTS
        .iter()
        .filter(|part| missing(part.needs).is_empty())
        .flat_map(|part| part.servers)
        .copied()
}
