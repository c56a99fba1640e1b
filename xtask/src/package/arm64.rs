//! The same for arm64: cross-built, its kernel programs compared, run under QEMU.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{Built, Profile, elf};
use crate::{child, console, machine::Machine, setup};

const TRIPLE: &str = "aarch64-unknown-linux-gnu";
const LINKER: &str = "aarch64-linux-gnu-gcc";
const EMULATOR: &str = "qemu-aarch64-static";
/// Where Debian's cross compiler has arm64's C library.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";
/// The eBPF object, as the build script names it.
const OBJECT: &str = "treeline-ebpf";

pub(super) fn build(machine: &Machine, profile: Profile, host: &Path) -> Result<Built> {
    setup::packages::install_cross(machine)?;
    // In a folder of its own: the variable that lets a stable compiler build `std` would have the host's crates built anew.
    let target_dir = machine.scratch().join("arm64");
    let mut cargo = machine.cargo();
    cargo
        .args(["build", "--package", "treeline", "--target", TRIPLE])
        .args(["--profile", profile.name, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", LINKER);
    let has_std = machine
        .rustc
        .sysroot
        .join("lib/rustlib")
        .join(TRIPLE)
        .is_dir();
    if !has_std {
        cargo
            .args(["-Z", "build-std=std,panic_unwind"])
            .env("RUSTC_BOOTSTRAP", "1");
    }
    ensure!(
        child::shown(&mut cargo)?,
        "treeline could not be built for arm64"
    );
    let folder = target_dir.join(TRIPLE).join(profile.folder);
    let program = folder.join("treeline");
    let bytes = fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    ensure!(
        elf::is_arm64(&bytes)?,
        "{} is not for arm64",
        program.display()
    );
    let ours = host.parent().context("a program lies in a folder")?;
    compare(&newest_object(ours)?, &newest_object(&folder)?)?;
    run(machine, &program)?;
    Ok(Built {
        target_dir,
        triple: Some(TRIPLE),
        program,
    })
}

/// The object that the last build left below `build/`.
fn newest_object(folder: &Path) -> Result<PathBuf> {
    let build = folder.join("build");
    let entries = build
        .read_dir()
        .with_context(|| format!("cannot list {}", build.display()))?;
    entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            let object = path.join("out").join(OBJECT);
            let made = object.metadata().ok()?.modified().ok()?;
            name.starts_with("treeline-").then_some((made, object))
        })
        .max()
        .map(|(_, object)| object)
        .with_context(|| format!("there is no {OBJECT} in {}", build.display()))
}

/// What the verifier took here is what arm64's kernel is given, byte for byte; of the types only the paths of sources differ.
fn compare(ours: &Path, theirs: &Path) -> Result<()> {
    let read = |path: &Path| {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        elf::loaded_sections(&bytes)
    };
    let (ours, theirs) = (read(ours)?, read(theirs)?);
    ensure!(
        ours.contains_key(".BTF") && ours.keys().eq(theirs.keys()),
        "the eBPF objects have other sections: {:?} here, {:?} for arm64",
        ours.keys().collect::<Vec<_>>(),
        theirs.keys().collect::<Vec<_>>()
    );
    let other: Vec<&String> = ours
        .iter()
        .filter(|(name, bytes)| match theirs.get(*name) {
            Some(others) if *name == ".BTF" => {
                elf::types_of(bytes).is_none() || elf::types_of(bytes) != elf::types_of(others)
            }
            others => others != Some(bytes),
        })
        .map(|(name, _)| name)
        .collect();
    if !other.is_empty() {
        bail!("the eBPF object for arm64 has other bytes in {other:?}");
    }
    console::say(format_args!(
        "package: arm64's eBPF object is this machine's in {} sections, byte for byte but for the paths of sources",
        ours.len()
    ));
    Ok(())
}

/// A program of another machine runs as far as QEMU carries it: there is no eBPF.
fn run(machine: &Machine, program: &Path) -> Result<()> {
    let mut emulated = machine.command(EMULATOR);
    emulated.args(["-L", LIBRARIES]).arg(program);
    let told = child::output(emulated.arg("--version"))?;
    ensure!(
        told.contains(env!("CARGO_PKG_VERSION")),
        "under QEMU it says: {told}"
    );
    console::say(format_args!(
        "package: under QEMU arm64's says {}",
        told.trim_end()
    ));
    Ok(())
}
