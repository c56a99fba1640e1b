//! Facts about this machine that several verbs ask for.

use std::{
    env,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::rustc::Rustc;

/// Where administrators' programs are, which an ordinary user's `PATH` may leave out.
const ADMINISTRATORS_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// What the verbs know of the machine they run on.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) rustc: Rustc,
    /// The folder where `cargo install` puts `bin/`.
    pub(crate) install_root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
    /// The workspace's root.
    pub(crate) workspace: PathBuf,
    path: OsString,
    user_id: u32,
}

impl Machine {
    pub(crate) fn look() -> Result<Self> {
        let install_root = install_root(|name| env::var_os(name))
            .context("neither CARGO_HOME nor HOME is set: set HOME")?;
        let path = with_folder(
            &env::var_os("PATH").unwrap_or_default(),
            &install_root.join("bin"),
        );
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has lost its workspace")?
            .to_owned();
        Ok(Self {
            rustc: Rustc::look()?,
            install_root,
            target: target()?,
            workspace,
            path,
            user_id: nix::unistd::geteuid().as_raw(),
        })
    }

    pub(crate) const fn is_root(&self) -> bool {
        self.user_id == 0
    }

    /// A program to run at the workspace's root, which finds what cargo installed.
    #[must_use]
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.workspace).env("PATH", &self.path);
        command
    }

    /// The cargo that runs this program.
    #[must_use]
    pub(crate) fn cargo(&self) -> Command {
        self.command(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")))
    }

    /// Where a child would find `program`.
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        which::which_in(program, Some(&self.path), &self.workspace).ok()
    }

    /// As [`Self::find`], and also where only root's `PATH` looks.
    pub(crate) fn find_as_root(&self, program: &str) -> Option<PathBuf> {
        let folders = env::join_paths(ADMINISTRATORS_FOLDERS).ok()?;
        self.find(program)
            .or_else(|| which::which_in(program, Some(folders), &self.workspace).ok())
    }

    /// A file for the output of one program that setup runs.
    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.scratch().join(format!("{name}.log"))
    }

    /// Setup's own folder, which may be deleted at any time.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.target.join("xtask")
    }
}

/// Cargo puts this program into `<target>/<profile>/`, whatever sets the target folder.
fn target() -> Result<PathBuf> {
    let program = env::current_exe().context("cannot tell where this program is")?;
    let target = program
        .ancestors()
        .nth(2)
        .context("xtask was moved: run it as `cargo xtask`")?;
    Ok(target.to_owned())
}

/// The order that cargo documents, without its configuration file.
fn install_root(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("CARGO_INSTALL_ROOT")
        .or_else(|| set("CARGO_HOME"))
        .or_else(|| set("HOME").map(|home| home.join(".cargo")))
}

/// `path` with `folder` in front, or as it is where it has `folder` already: its order
/// may be meant, as with two installations of Rust.
fn with_folder(path: &OsStr, folder: &Path) -> OsString {
    if env::split_paths(path).any(|present| present == folder) {
        return path.to_owned();
    }
    env::join_paths(
        [folder.to_owned()]
            .into_iter()
            .chain(env::split_paths(path)),
    )
    .unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_folder_goes_to_the_front_of_the_path() {
        assert_eq!(
            with_folder("/usr/bin:/bin".as_ref(), Path::new("/c/bin")),
            "/c/bin:/usr/bin:/bin"
        );
    }

    #[test]
    fn a_path_that_has_the_folder_keeps_its_order() {
        assert_eq!(
            with_folder("/usr/bin:/c/bin".as_ref(), Path::new("/c/bin")),
            "/usr/bin:/c/bin"
        );
    }

    #[test]
    fn the_install_root_follows_cargo() {
        let root = |pairs: &[(&str, &str)]| {
            install_root(|name| {
                pairs
                    .iter()
                    .find(|(key, _)| *key == name)
                    .map(|(_, value)| OsString::from(value))
            })
        };
        assert_eq!(root(&[("HOME", "/h")]), Some(PathBuf::from("/h/.cargo")));
        assert_eq!(
            root(&[("HOME", "/h"), ("CARGO_HOME", "/c")]),
            Some(PathBuf::from("/c"))
        );
        assert_eq!(
            root(&[("CARGO_HOME", "/c"), ("CARGO_INSTALL_ROOT", "/r")]),
            Some(PathBuf::from("/r"))
        );
        assert_eq!(root(&[("HOME", "")]), None);
    }
}
