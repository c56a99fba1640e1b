//! The applications: what each needs, how it runs, what it reports.

use std::{
    fs,
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use bed::netns::{CLIENT_V4, SERVER_V4};
use serde::Serialize;

use crate::{
    figure::{self, Figure},
    read,
    server::{
        DNS_NAMES, DNS_PORT, IPERF_PORTS, REDIS_PORT, RSYNC_PORT, SIP_PORT, SSH_PORT, Server,
        WEB_PORT, WEB2_PORT,
    },
    site::{Site, find},
};

/// A client that does not come back within this time after its slot is broken.
const GRACE: Duration = Duration::from_secs(60);
const DNS_QUERIES_PER_S: u32 = 200;
/// Sockets that the queries come from.
const DNS_SOCKETS: u32 = 20;
const CALLS_PER_S: u64 = 10;
const CALL_MS: u64 = 1000;
/// Queries of redis-benchmark before it is known how fast it goes.
const REDIS_FIRST_LOOK: u64 = 100;

/// What a user of the application cares for.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Each answer: judged by the 99th percentile.
    Interactive,
    /// The whole: judged by the typical time or the rate.
    Bulk,
}

impl Role {
    /// The figures that decide, the first that an application has.
    pub(crate) const fn headlines(self) -> &'static [&'static str] {
        match self {
            Self::Interactive => &["p99_ms", "jitter_p99_ms"],
            Self::Bulk => &["p50_ms", "mbit_s"],
        }
    }
}

/// A program, and Debian's package that has it.
pub(crate) type Need = (&'static str, &'static str);

type Run = fn(&Site<'_>, Duration) -> Result<Vec<Figure>>;

/// One application.
#[derive(Clone, Copy, Debug)]
pub(crate) struct App {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) role: Role,
    pub(crate) needs: &'static [Need],
    pub(crate) servers: &'static [Server],
    /// Runs the client for about this long.
    pub(crate) run: Run,
}

impl App {
    /// Packages to install before it can run.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        missing(self.needs)
    }
}

/// Packages of programs that are not there.
pub(crate) fn missing(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = (needs.iter())
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.dedup();
    packages
}

const NGINX: Need = ("nginx", "nginx-light");
const CURL: Need = ("curl", "curl");
pub(crate) const IPERF: Need = ("iperf3", "iperf3");
pub(crate) const SSHD: Need = ("sshd", "openssh-server");
pub(crate) const SSH: Need = ("ssh", "openssh-client");
/// What the background's downloads need.
pub(crate) const WEB: [Need; 2] = [NGINX, CURL];

/// In the order of runs.
pub(crate) const APPS: [App; 10] = [
    App {
        name: "pages",
        what: "nginx, pages of 10 kB to wrk over 2 kept connections, back to back",
        role: Role::Interactive,
        needs: &[NGINX, ("wrk", "wrk")],
        servers: &[Server::Nginx],
        run: pages,
    },
    App {
        name: "http2",
        what: "nginx, 50 pages of 10 kB a second to h2load over 2 connections of HTTP/2",
        role: Role::Interactive,
        needs: &[NGINX, ("h2load", "nghttp2-client")],
        servers: &[Server::Nginx],
        run: http2,
    },
    App {
        name: "files",
        what: "nginx, files of 500 kB to curl, one after another, a connection each",
        role: Role::Interactive,
        needs: &WEB,
        servers: &[Server::Nginx],
        run: files,
    },
    App {
        name: "dns",
        what: "unbound with local names, 200 queries a second of dnsperf from 20 sockets",
        role: Role::Interactive,
        needs: &[("unbound", "unbound"), ("dnsperf", "dnsperf")],
        servers: &[Server::Unbound],
        run: dns,
    },
    App {
        name: "redis",
        what: "redis, redis-benchmark's GET of 512 bytes over 4 connections, back to back",
        role: Role::Interactive,
        needs: &[
            ("redis-server", "redis-server"),
            ("redis-benchmark", "redis-tools"),
        ],
        servers: &[Server::Redis],
        run: redis,
    },
    App {
        name: "calls",
        what: "sipp at both ends, 10 calls a second with RTP for 1 s each: time to answer",
        role: Role::Interactive,
        needs: &[("sipp", "sip-tester")],
        servers: &[Server::Sip],
        run: calls,
    },
    App {
        name: "git",
        what: "git clone of 150 files, 5 MB, over HTTP from nginx and git-http-backend",
        role: Role::Bulk,
        needs: &[NGINX, ("git", "git"), ("fcgiwrap", "fcgiwrap")],
        servers: &[Server::Nginx, Server::Git],
        run: git,
    },
    App {
        name: "rsync",
        what: "rsync of 150 files, 5 MB, from its daemon",
        role: Role::Bulk,
        needs: &[("rsync", "rsync")],
        servers: &[Server::Rsync],
        run: rsync,
    },
    App {
        name: "scp",
        what: "scp of 5 MB from sshd",
        role: Role::Bulk,
        needs: &[SSHD, SSH, ("scp", "openssh-client"), NGINX],
        servers: &[Server::Sshd, Server::Nginx],
        run: scp,
    },
    App {
        name: "iperf3",
        what: "iperf3, one more TCP stream",
        role: Role::Bulk,
        needs: &[IPERF],
        servers: &[Server::Iperf],
        run: iperf,
    },
];

fn pages(site: &Site<'_>, length: Duration) -> Result<Vec<Figure>> {
    let line = format!(
        "wrk -t 1 -c 2 -d {}s --timeout 20s --latency http://{SERVER_V4}:{WEB_PORT}/page",
        length.as_secs()
    );
    let (told, _) = site.run(site.command(&line)?, length + GRACE)?;
    read::wrk(&told)
}

fn http2(site: &Site<'_>, length: Duration) -> Result<Vec<Figure>> {
    let log = site.fresh("h2load");
    let line = format!(
        "h2load -c 2 --rps 25 -D {} --log-file={} http://{SERVER_V4}:{WEB2_PORT}/page",
        length.as_secs(),
        log.display()
    );
    site.run(site.command(&line)?, length + GRACE)?;
    let times = read::h2load_log(&fs::read_to_string(&log)?)?;
    fs::remove_file(&log)?;
    Ok(figure::of_times(&times))
}

fn files(site: &Site<'_>, length: Duration) -> Result<Vec<Figure>> {
    let told = site.run_for(downloads(site, "file")?, length)?;
    Ok(figure::of_times(&read::seconds_a_line(&told.err)))
}

/// Far more than fit in a run.
const DOWNLOADS_AT_MOST: u32 = 100_000;

/// The same file again and again, each time over a new connection, its seconds on standard error.
pub(crate) fn downloads(site: &Site<'_>, file: &str) -> Result<Command> {
    // The number only makes curl ask again.
    let mut command = site.command(&format!(
        "curl --silent --fail --header Connection:close --output /dev/null \
         http://{SERVER_V4}:{WEB_PORT}/{file}?[1-{DOWNLOADS_AT_MOST}]"
    ))?;
    // Standard output is kept back in a buffer, and lost with it when the time is over.
    command.args(["--write-out", "%{stderr}%{time_total}\n"]);
    Ok(command)
}

fn dns(site: &Site<'_>, length: Duration) -> Result<Vec<Figure>> {
    let names: String = (0..DNS_NAMES)
        .map(|number| format!("n{number}.bed.test A\n"))
        .collect();
    site.write("names", &names)?;
    let line = format!(
        "dnsperf -s {SERVER_V4} -p {DNS_PORT} -d {{}}/names -Q {DNS_QUERIES_PER_S} -c {DNS_SOCKETS} -l {} -v",
        length.as_secs()
    );
    let (told, _) = site.run(site.command(&line)?, length + GRACE)?;
    read::dnsperf(&told)
}

fn redis(site: &Site<'_>, length: Duration) -> Result<Vec<Figure>> {
    let bench = |test: &str, count: u64| {
        let line = format!(
            "redis-benchmark -h {SERVER_V4} -p {REDIS_PORT} -t {test} -c 4 -d 512 -n {count} --csv"
        );
        let (told, _) = site.run(site.command(&line)?, length + GRACE)?;
        read::redis_benchmark(&told)
    };
    bench("set", 10)?;
    // It can't be told a time, only a number: as many as its first look says.
    let rate = |figures: &[Figure]| {
        let found = figures.iter().find(|figure| figure.name == "rate_per_s");
        found.map_or(0.0, |figure| figure.value)
    };
    let first = rate(&bench("get", REDIS_FIRST_LOOK)?);
    let count = (first * length.as_secs_f64()) as u64;
    bench("get", count.max(REDIS_FIRST_LOOK))
}

fn calls(site: &Site<'_>, length: Duration) -> Result<Vec<Figure>> {
    let folder = site.fresh("calls");
    fs::create_dir_all(&folder)?;
    let line = format!(
        "sipp -sn uac -i {CLIENT_V4} -mi {CLIENT_V4} -r {CALLS_PER_S} -m {} -d {CALL_MS} -nostdin -rtp_echo \
         -trace_rtt -rtt_freq 1 -trace_stat -fd 1 {SERVER_V4}:{SIP_PORT}",
        CALLS_PER_S * length.as_secs()
    );
    let mut command = site.command(&line)?;
    command.current_dir(&folder);
    // By 1 sipp says that a call failed.
    let is_good = |status: &ExitStatus| matches!(status.code(), Some(0 | 1));
    site.run_with(command, length + GRACE, is_good)?;
    let mut times = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with("_rtt.csv") {
            times.extend(read::sipp_rtt(&fs::read_to_string(&path)?)?);
        }
    }
    fs::remove_dir_all(&folder)?;
    ensure!(!times.is_empty(), "sipp answered no call");
    let unanswered = (CALLS_PER_S * length.as_secs()) as f64 - times.len() as f64;
    let mut figures = figure::of_times(&times);
    figures.push(Figure::low("lost", unanswered));
    Ok(figures)
}

fn git(site: &Site<'_>, length: Duration) -> Result<Vec<Figure>> {
    again_and_again(site, length, "git-clone", |target| {
        let mut command = site.command(&format!(
            "git clone --quiet http://{SERVER_V4}:{WEB_PORT}/git/project.git {target}"
        ))?;
        command.env("HOME", site.folder);
        command.env("GIT_CONFIG_NOSYSTEM", "1");
        Ok(command)
    })
}

fn rsync(site: &Site<'_>, length: Duration) -> Result<Vec<Figure>> {
    again_and_again(site, length, "rsynced", |target| {
        site.command(&format!(
            "rsync --recursive --times rsync://{SERVER_V4}:{RSYNC_PORT}/tree/ {target}/"
        ))
    })
}

fn scp(site: &Site<'_>, length: Duration) -> Result<Vec<Figure>> {
    again_and_again(site, length, "copied", |target| {
        fs::create_dir_all(target)?;
        let options = ssh_options();
        site.command(&format!(
            "scp {options} -P {SSH_PORT} -q root@{SERVER_V4}:{{}}/www/copy {target}/"
        ))
    })
}

/// Nothing of the user's own configuration, and no question.
pub(crate) fn ssh_options() -> String {
    "-F /dev/null -i {}/user_key -o BatchMode=yes -o StrictHostKeyChecking=no \
     -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        .to_owned()
}

/// Runs a client again and again until its slot is over, the last one to its end: time of each by our clock, as none of these
/// says its own in a form to read.
fn again_and_again(
    site: &Site<'_>,
    length: Duration,
    name: &str,
    command: impl Fn(&str) -> Result<Command>,
) -> Result<Vec<Figure>> {
    let mut times = Vec::new();
    let mut spent = Duration::ZERO;
    while spent < length {
        let target = site.fresh(name);
        let prepared = command(&target.to_string_lossy())?;
        let (_, took) = site.run(prepared, length + GRACE)?;
        fs::remove_dir_all(&target)
            .with_context(|| format!("{name} left nothing at {}", target.display()))?;
        times.push(took.as_secs_f64() * 1e3);
        spent += took;
    }
    Ok(figure::of_times(&times))
}

fn iperf(site: &Site<'_>, length: Duration) -> Result<Vec<Figure>> {
    let [port, ..] = IPERF_PORTS;
    let line = format!(
        "iperf3 -c {SERVER_V4} -p {port} -R -J -t {}",
        length.as_secs()
    );
    let (told, _) = site.run(site.command(&line)?, length + GRACE)?;
    Ok(vec![Figure::high("mbit_s", read::iperf_mbit(&told)?)])
}
