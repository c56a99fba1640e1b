//! Programs of the system: `ip` and `tc` at run time, `cc` to link.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use crate::{
    child,
    console::{Outcome, Step},
    machine::Machine,
};

const LIMIT: Duration = Duration::from_secs(600);

/// A program, and what it is for.
const PROGRAMS: [(&str, &str); 4] = [
    (
        "ip",
        "the demo and the tests make network namespaces with it",
    ),
    (
        "tc",
        "the demo and the tests set queueing disciplines with it",
    ),
    ("cc", "rustc links with it"),
    ("curl", "the tests ask the control socket with it"),
];

/// A package manager and its names for what holds [`PROGRAMS`].
struct Manager {
    program: &'static str,
    install: &'static [&'static str],
    network: &'static [&'static str],
    compiler: &'static [&'static str],
}

const MANAGERS: [Manager; 5] = [
    Manager {
        program: "apt-get",
        install: &["install", "--yes", "--no-install-recommends"],
        network: &["iproute2"],
        compiler: &["gcc", "libc6-dev"],
    },
    Manager {
        program: "dnf",
        install: &["install", "--assumeyes"],
        network: &["iproute", "iproute-tc"],
        compiler: &["gcc"],
    },
    Manager {
        program: "zypper",
        install: &["--non-interactive", "install"],
        network: &["iproute2"],
        compiler: &["gcc"],
    },
    Manager {
        program: "pacman",
        install: &["-S", "--noconfirm", "--needed"],
        network: &["iproute2"],
        compiler: &["gcc"],
    },
    Manager {
        program: "apk",
        install: &["add"],
        network: &["iproute2"],
        compiler: &["gcc", "musl-dev"],
    },
];

impl Manager {
    fn words(&self, missing: &[&str]) -> Vec<&'static str> {
        let mut words = self.install.to_vec();
        if missing.iter().any(|program| ["ip", "tc"].contains(program)) {
            words.extend(self.network);
        }
        if missing.contains(&"cc") {
            words.extend(self.compiler);
        }
        if missing.contains(&"curl") {
            words.push("curl");
        }
        words
    }
}

pub(super) fn install(machine: &Machine, step: &Step) -> Result<Outcome> {
    let missing = missing(machine);
    if missing.is_empty() {
        return Ok(Outcome::Present);
    }
    let reasons = reasons(&missing);
    let Some(manager) = MANAGERS
        .iter()
        .find(|known| machine.find(known.program).is_some())
    else {
        bail!(
            "{reasons}; no package manager known here was found: install iproute2, curl and a C compiler"
        );
    };
    let words = manager.words(&missing);
    let by_hand = format!("{} {}", manager.program, words.join(" "));
    if !machine.is_root() {
        bail!("{reasons}; only root can install them: run `sudo {by_hand}`");
    }
    step.doing(format_args!("installing {}", missing.join(", ")));
    let installed = by_manager(machine, manager.program, &words);
    installed.map_err(|error| error.context(format!("{reasons}; `{by_hand}` did not help")))?;
    match self::missing(machine).as_slice() {
        [] => Ok(Outcome::Done),
        still => bail!("`{by_hand}` ran and yet {} is missing", still.join(", ")),
    }
}

/// Debian's names of what `bench apps` runs; elsewhere the bench itself says what it lacks.
const APPS: [&str; 16] = [
    "curl",
    "dnsperf",
    "fcgiwrap",
    "git",
    "iperf3",
    "nghttp2-client",
    "nginx",
    "nginx-light",
    "openssh-client",
    "openssh-server",
    "redis-server",
    "redis-tools",
    "rsync",
    "sip-tester",
    "unbound",
    "wrk",
];

/// Installs the servers and clients of `bench apps`, which nothing else needs.
pub(crate) fn install_apps(machine: &Machine) -> Result<()> {
    if machine.find("apt-get").is_none() {
        bail!(
            "only Debian's packages are known here: install by hand what `bench apps --list` names"
        );
    }
    let words = ["install", "--yes", "--no-install-recommends"];
    let words: Vec<_> = words.into_iter().chain(APPS).collect();
    by_manager(machine, "apt-get", &words)
}

/// Folders below which packages keep what can be run.
const RUN_FROM: [&str; 4] = ["bin", "sbin", "git-core", "openssh"];

/// The programs of those servers and clients, as far as they are installed.
pub(crate) fn apps_programs() -> Result<Vec<PathBuf>> {
    let mut programs = Vec::new();
    for package in APPS {
        let listed = Command::new("dpkg-query")
            .args(["--listfiles", package])
            .stdin(Stdio::null())
            .output()
            .context("cannot run `dpkg-query`, and only Debian's packages are known here")?;
        // It fails for what is not installed, which the bench then leaves out.
        let listed = String::from_utf8_lossy(&listed.stdout);
        programs.extend(
            listed
                .lines()
                .map(PathBuf::from)
                .filter(|path| can_be_run(path)),
        );
    }
    Ok(programs)
}

fn can_be_run(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    let is_place = folder.is_some_and(|name| RUN_FROM.iter().any(|it| name == *it));
    is_place && (path.is_symlink() || path.is_file())
}

/// Debian's names of what builds for arm64 and runs it.
const CROSS: [(&str, &str); 2] = [
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("qemu-aarch64-static", "qemu-user-static"),
];

/// Installs a cross compiler for arm64 and an emulator, which nothing else needs.
pub(crate) fn install_cross(machine: &Machine) -> Result<()> {
    let missing: Vec<&str> = CROSS
        .iter()
        .filter(|(program, _)| machine.find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if machine.find("apt-get").is_none() {
        bail!("install a cross compiler for arm64 and QEMU's emulation of its programs by hand");
    }
    let words = ["install", "--yes", "--no-install-recommends"];
    let mut words = words.to_vec();
    words.extend(missing);
    // The compiler recommends the C library's headers and start files, and the link needs them.
    words.push("libc6-dev-arm64-cross");
    by_manager(machine, "apt-get", &words)
}

/// Runs a package manager with these words.
pub(crate) fn by_manager(machine: &Machine, manager: &str, words: &[&str]) -> Result<()> {
    let install = || {
        child::logged(
            non_interactive(machine.command(manager).args(words)),
            LIMIT,
            &machine.log("packages"),
        )
    };
    // A fresh Debian machine has no package lists, and an old one has outdated lists.
    match install() {
        Err(_) if manager == "apt-get" => child::logged(
            non_interactive(machine.command("apt-get").arg("update")),
            LIMIT,
            &machine.log("package-lists"),
        )
        .and_then(|()| install()),
        other => other,
    }
}

fn missing(machine: &Machine) -> Vec<&'static str> {
    PROGRAMS
        .iter()
        .map(|(program, _)| *program)
        .filter(|program| machine.find_as_root(program).is_none())
        .collect()
}

fn reasons(missing: &[&str]) -> String {
    PROGRAMS
        .iter()
        .filter(|(program, _)| missing.contains(program))
        .map(|(program, why)| format!("`{program}` is missing ({why})"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn non_interactive(command: &mut Command) -> &mut Command {
    command.env("DEBIAN_FRONTEND", "noninteractive")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_missing_is_asked_for() {
        let [apt, ..] = &MANAGERS;
        assert_eq!(
            apt.words(&["tc"]),
            ["install", "--yes", "--no-install-recommends", "iproute2"]
        );
        assert!(apt.words(&["cc"]).contains(&"gcc") && !apt.words(&["cc"]).contains(&"iproute2"));
        assert_eq!(apt.words(&["curl"]).last(), Some(&"curl"));
        assert!(
            apt.words(&["ip", "cc"])
                .ends_with(&["iproute2", "gcc", "libc6-dev"])
        );
    }

    #[test]
    fn a_missing_program_is_named_with_its_purpose() {
        let reasons = reasons(&["tc"]);
        assert!(
            reasons.contains("`tc`") && reasons.contains("queueing"),
            "{reasons}"
        );
        assert!(!reasons.contains("`cc`"), "{reasons}");
    }
}
