//! The compiler in use: its version, its LLVM, its files.

use std::{env, ffi::OsString, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::child;

/// What `rustc -vV` says, as far as setup asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// `1.95.0`, or with a suffix on beta and nightly.
    pub(crate) release: String,
    /// `22` of LLVM 22.1.2.
    pub(crate) llvm_major: u32,
}

/// The compiler that the children of this program use.
#[derive(Debug)]
pub(crate) struct Rustc {
    pub(crate) version: Version,
    pub(crate) sysroot: PathBuf,
}

impl Rustc {
    pub(crate) fn look() -> Result<Self> {
        let program = env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc"));
        let verbose = child::output(Command::new(&program).arg("-vV"))?;
        let version = Version::parse(&verbose).with_context(|| {
            format!(
                "`{} -vV` names no release or LLVM version",
                program.display()
            )
        })?;
        let sysroot = child::output(Command::new(&program).args(["--print", "sysroot"]))?;
        Ok(Self {
            version,
            sysroot: PathBuf::from(sysroot.trim_end()),
        })
    }

    /// Where rustup's component `rust-src` would be.
    pub(crate) fn source(&self) -> PathBuf {
        self.sysroot.join("lib/rustlib/src/rust")
    }

    /// The shared LLVM that this compiler brings along, if it does.
    pub(crate) fn own_llvm(&self) -> Option<PathBuf> {
        let folder = self.sysroot.join("lib");
        let names: Vec<String> = folder
            .read_dir()
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        llvm_file(&names, self.version.llvm_major).map(|name| folder.join(name))
    }
}

impl Version {
    fn parse(verbose: &str) -> Option<Self> {
        let field = |name: &str| {
            verbose
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let llvm_major = field("LLVM version")?.split('.').next()?.parse().ok()?;
        Some(Self {
            release: field("release")?.to_owned(),
            llvm_major,
        })
    }
}

/// The name of the shared library of LLVM `major`: `libLLVM.so.22.1-rust-1.95.0-stable`.
///
/// `libLLVM-22-rust-….so` beside it is a linker script for older programs, so the name
/// with the version at its end goes first.
fn llvm_file(names: &[String], major: u32) -> Option<&str> {
    let versioned = format!("libLLVM.so.{major}");
    let legacy = format!("libLLVM-{major}");
    [versioned, legacy].iter().find_map(|stem| {
        names.iter().map(String::as_str).find(|name| {
            // `libLLVM.so.2` must not stand for `libLLVM.so.22`.
            name.strip_prefix(stem.as_str())
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERBOSE: &str = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\n\
        commit-hash: 59807616e1fa2540724bfbac14d7976d7e4a3860\ncommit-date: 2026-04-14\n\
        host: x86_64-unknown-linux-gnu\nrelease: 1.95.0\nLLVM version: 22.1.2\n";

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_release_and_the_llvm_version_are_read() {
        assert_eq!(
            Version::parse(VERBOSE),
            Some(Version {
                release: "1.95.0".to_owned(),
                llvm_major: 22
            })
        );
    }

    #[test]
    fn a_compiler_without_llvm_is_not_understood() {
        assert_eq!(Version::parse("release: 1.95.0\nhost: x\n"), None);
    }

    #[test]
    fn the_versioned_library_goes_before_the_legacy_name() {
        let names = names(&[
            "librustc_driver-6108105cd7e839cf.so",
            "libLLVM-22-rust-1.95.0-stable.so",
            "libLLVM.so.22.1-rust-1.95.0-stable",
        ]);
        assert_eq!(
            llvm_file(&names, 22),
            Some("libLLVM.so.22.1-rust-1.95.0-stable")
        );
    }

    #[test]
    fn an_llvm_of_another_major_version_does_not_serve() {
        let names = names(&["libLLVM.so.22.1-rust-1.95.0-stable", "libLLVM-22-rust-x.so"]);
        assert_eq!(llvm_file(&names, 2), None);
        assert_eq!(llvm_file(&names, 21), None);
    }
}
