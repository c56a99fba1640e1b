//! The sources of Rust's `core`, which the eBPF target is built from.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::apt;
use crate::{
    child,
    console::{Outcome, Step},
    machine::Machine,
};

/// A machine that reaches no toolchain server must not wait for rustup's retries.
const RUSTUP_LIMIT: Duration = Duration::from_secs(90);

type Way = fn(&Machine) -> Result<()>;
const WAYS: [(&str, Way); 2] = [("rustup", by_rustup), ("Debian's package", by_package)];

pub(super) fn install(machine: &Machine, step: &Step) -> Result<Outcome> {
    if is_present(machine) {
        return Ok(Outcome::Present);
    }
    let mut tried = Vec::new();
    for (name, way) in WAYS {
        step.doing(format_args!("installing by {name}"));
        match way(machine) {
            Ok(()) if is_present(machine) => return Ok(Outcome::Done),
            Ok(()) => tried.push(format!("{name}: ran, but left nothing in the right place")),
            Err(error) => tried.push(format!("{name}: {error:#}")),
        }
    }
    let release = &machine.rustc.version.release;
    bail!(
        "the standard library's sources are not in {}. Tried:\n  - {}\n\
         Install the component rust-src of Rust {release} (with rustup: `rustup component add \
         rust-src`; with a distribution's Rust: its package rust-src of the same version)",
        machine.rustc.source().display(),
        tried.join("\n  - "),
    );
}

fn is_present(machine: &Machine) -> bool {
    machine.rustc.source().join("library/Cargo.lock").is_file()
}

fn by_rustup(machine: &Machine) -> Result<()> {
    ensure!(machine.find("rustup").is_some(), "not installed here");
    child::logged(
        machine
            .command("rustup")
            .args(["component", "add", "rust-src"]),
        RUSTUP_LIMIT,
        &machine.log("rustup"),
    )
}

/// Takes `library/` out of Debian's package of exactly this compiler's version.
fn by_package(machine: &Machine) -> Result<()> {
    for program in ["apt-get", "apt-cache", "dpkg-deb", "tar"] {
        ensure!(
            machine.find(program).is_some(),
            "`{program}` is not installed here"
        );
    }
    let source = machine.rustc.source();
    let parent = source.parent().context("the sysroot has no parent")?;
    let staging = parent.join(format!("treeline-rust-src-{}", std::process::id()));
    fs::create_dir_all(&staging).with_context(|| {
        format!(
            "cannot write to the sysroot, {}: run as the user who owns it",
            parent.display()
        )
    })?;
    let unpacked = apt::download(machine, "rust-src", &machine.rustc.version.release)
        .and_then(|package| {
            unpack(&package, &staging)?;
            fs::remove_file(&package).context("cannot remove the package after unpacking")
        })
        .and_then(|()| put_in_place(&staging, &source));
    // After success the staging folder has become `source`.
    if unpacked.is_err() {
        fs::remove_dir_all(&staging)
            .with_context(|| format!("cannot remove {}", staging.display()))?;
    }
    unpacked
}

/// `dpkg-deb` streams the package and `tar` picks: the whole tree would be ten times the size.
fn unpack(package: &Path, into: &Path) -> Result<()> {
    let mut stream = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run `dpkg-deb`")?;
    let archive = stream.stdout.take().context("`dpkg-deb` has no output")?;
    let picked = Command::new("tar")
        .args([
            "--extract",
            "--no-same-owner",
            "--strip-components=4",
            "--wildcards",
            "--no-wildcards-match-slash",
            "--directory",
        ])
        .arg(into)
        .arg("./usr/src/rustc-*/library")
        .stdin(archive)
        .output()
        .context("cannot run `tar`")?;
    let streamed = stream.wait().context("lost `dpkg-deb`")?;
    ensure!(
        picked.status.success() && streamed.success(),
        "cannot unpack {} (dpkg-deb: {streamed}, tar: {}): {}",
        package.display(),
        picked.status,
        String::from_utf8_lossy(&picked.stderr).trim_end()
    );
    Ok(())
}

/// Renames, so that the sources are there whole or not at all.
fn put_in_place(staging: &Path, source: &Path) -> Result<()> {
    // A link whose target is gone is no sources, but would stop the renaming.
    if source.is_symlink() {
        fs::remove_file(source)
            .with_context(|| format!("cannot remove the dead link {}", source.display()))?;
    }
    fs::rename(staging, source).with_context(|| {
        format!(
            "cannot make {}: if it exists without library/, remove it",
            source.display()
        )
    })
}
