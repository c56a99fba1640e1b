//! bpf-linker, which turns LLVM's output into a BPF object.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{
    child,
    console::{Outcome, Step},
    machine::Machine,
};

/// The series that was tested with this workspace's aya.
const VERSION: &str = "^0.13";
const LIMIT: Duration = Duration::from_secs(1800);

pub(super) fn install(machine: &Machine, step: &Step) -> Result<Outcome> {
    if works(machine) {
        return Ok(Outcome::Present);
    }
    let mut tried = Vec::new();
    if let Some(llvm) = machine.rustc.own_llvm() {
        step.doing("building against rustc's own LLVM, about two minutes");
        match with_own_llvm(machine, &llvm) {
            Ok(()) if works(machine) => return Ok(Outcome::Done),
            Ok(()) => tried.push(hidden(machine)),
            Err(error) => tried.push(format!("{error:#}")),
        }
    } else {
        tried.push("rustc brings no shared LLVM of its own".to_owned());
    }
    step.doing("building against the system's LLVM, about two minutes");
    match with_system_llvm(machine) {
        Ok(()) if works(machine) => return Ok(Outcome::Done),
        Ok(()) => tried.push(hidden(machine)),
        Err(error) => tried.push(format!("{error:#}")),
    }
    let major = machine.rustc.version.llvm_major;
    bail!(
        "bpf-linker does not run. Tried:\n  - {}\n\
         Install LLVM {major} with its development files and a C++ compiler, then run \
         `cargo install bpf-linker --no-default-features --features llvm-{major}`; or put a \
         bpf-linker that a distribution packages on PATH",
        tried.join("\n  - "),
    );
}

/// After an update of Rust the file may be there and its LLVM gone, so it is run.
fn works(machine: &Machine) -> bool {
    machine
        .find("bpf-linker")
        .is_some_and(|program| child::succeeds(machine.command(program).arg("--version")))
}

fn hidden(machine: &Machine) -> String {
    match machine.find("bpf-linker") {
        Some(program) => format!("built, but {} is found first and broken", program.display()),
        None => "built, but not found afterwards".to_owned(),
    }
}

/// The same LLVM in compiler and linker by construction, and no LLVM packages needed.
fn with_own_llvm(machine: &Machine, llvm: &Path) -> Result<()> {
    let folder = llvm.parent().context("rustc's LLVM has no folder")?;
    let flags = [
        format!("-Clink-arg={}", llvm.display()),
        format!("-Clink-arg=-Wl,-rpath,{}", folder.display()),
    ];
    let features = format!("llvm-{},no-llvm-linking", machine.rustc.version.llvm_major);
    let mut cargo = cargo_install(machine);
    cargo
        .args(["--no-default-features", "--features", &features])
        // Its separator lets paths have spaces; it goes before RUSTFLAGS.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    build(machine, &mut cargo, "bpf-linker")
}

fn with_system_llvm(machine: &Machine) -> Result<()> {
    let mut cargo = cargo_install(machine);
    let features = format!("llvm-{}", machine.rustc.version.llvm_major);
    cargo.args(["--no-default-features", "--features", &features]);
    build(machine, &mut cargo, "bpf-linker-system-llvm")
}

fn cargo_install(machine: &Machine) -> Command {
    let mut cargo = machine.cargo();
    cargo
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--force",
            "--root",
        ])
        .arg(&machine.install_root)
        // A wrapper or a cross target meant for treeline must not meet the linker.
        .env_remove("CARGO_BUILD_TARGET")
        .env("CARGO_TARGET_DIR", machine.scratch().join("bpf-linker"));
    cargo
}

fn build(machine: &Machine, cargo: &mut Command, log: &str) -> Result<()> {
    child::logged(cargo, LIMIT, &machine.log(log))?;
    let built = machine.scratch().join("bpf-linker");
    fs::remove_dir_all(&built).with_context(|| format!("cannot remove {}", built.display()))
}
