//! Makes the Debian package, and looks whether it runs where it says that it does.

mod arm64;
mod cargo_deb;
mod elf;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;

use self::elf::Libc;
use crate::{child, console, machine::Machine, setup};

/// The oldest C library of the systems that the package is for: that of Ubuntu 22.04. Debian 12 has a newer one.
const OLDEST: Libc = Libc(2, 35);
/// Where the package of the debug build is, for the tests that install it.
pub(crate) const FOR_TESTS: &str = "package/treeline-debug.deb";

/// Arguments of `cargo xtask package`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Build for arm64 instead, compare its eBPF object with this machine's, and run it under QEMU.
    #[arg(long)]
    arm64: bool,
    /// Package the debug build, quickly: what the tests install.
    #[arg(long)]
    debug: bool,
}

/// A build of cargo's.
#[derive(Clone, Copy, Debug)]
struct Profile {
    name: &'static str,
    /// Its folder below the target's.
    folder: &'static str,
}

impl Profile {
    const fn of(options: &Options) -> Self {
        let (name, folder) = if options.debug {
            ("dev", "debug")
        } else {
            ("release", "release")
        };
        Self { name, folder }
    }
}

pub(crate) fn run(machine: &Machine, options: &Options) -> Result<()> {
    for program in ["dpkg-deb", "xz", "strip"] {
        ensure!(
            machine.find(program).is_some(),
            "`{program}` is missing, without which no package of Debian's can be made: install dpkg, xz-utils and binutils"
        );
    }
    setup::run(machine)?;
    cargo_deb::install(machine)?;
    let profile = Profile::of(options);
    let mut build = machine.cargo();
    build.args(["build", "--package", "treeline", "--profile", profile.name]);
    ensure!(child::shown(&mut build)?, "treeline could not be built");
    let host = machine.target.join(profile.folder).join("treeline");
    let built = if options.arm64 {
        arm64::build(machine, profile, &host)?
    } else {
        Built {
            target_dir: machine.target.clone(),
            triple: None,
            program: host.clone(),
        }
    };
    let folder = built
        .program
        .parent()
        .context("a program lies in a folder")?;
    stage(machine, &host, &folder.join("package"))?;
    let package = pack(machine, &built, profile)?;
    judge(machine, &built.program, &package)?;
    console::say(format_args!("package: {}", package.display()));
    Ok(())
}

/// A binary and where cargo has put it.
struct Built {
    target_dir: PathBuf,
    triple: Option<&'static str>,
    program: PathBuf,
}

/// Puts what is generated where cargo-deb finds it: beside the binary.
fn stage(machine: &Machine, host: &Path, into: &Path) -> Result<()> {
    if into.exists() {
        fs::remove_dir_all(into).with_context(|| format!("cannot remove {}", into.display()))?;
    }
    let mut manual = machine.command(host);
    manual
        .arg("manual")
        .arg("--man")
        .arg(into.join("man"))
        .arg("--completions")
        .arg(into.join("completions"));
    child::output(&mut manual)?;
    let example = machine.workspace.join("contrib/config.toml");
    let example = fs::read_to_string(&example)
        .with_context(|| format!("cannot read {}", example.display()))?;
    let path = into.join("config.toml");
    fs::write(&path, without_interfaces(&example))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The example with its interfaces commented out: a package that is only installed changes no traffic.
fn without_interfaces(example: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for line in example.lines() {
        if line.starts_with('[') {
            inside = line.starts_with("[interface");
        }
        if inside && !line.is_empty() && !line.starts_with('#') {
            text.push('#');
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn pack(machine: &Machine, built: &Built, profile: Profile) -> Result<PathBuf> {
    let mut deb = machine.cargo();
    deb.args(["deb", "--package", "treeline", "--no-build", "--quiet"])
        .args(["--profile", profile.name, "--strip"])
        .env("CARGO_TARGET_DIR", &built.target_dir);
    if let Some(triple) = built.triple {
        deb.args(["--target", triple]);
    }
    let output = if profile.folder == "debug" {
        deb.arg("--fast");
        let path = machine.target.join(FOR_TESTS);
        match built.triple {
            // The tests install this machine's.
            Some(triple) => path.with_file_name(format!("treeline-debug-{triple}.deb")),
            None => path,
        }
    } else {
        machine.target.join("debian")
    };
    let folder = output.parent().context("a package lies in a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let told = child::output(deb.arg("--output").arg(&output))?;
    let path = told
        .lines()
        .last()
        .context("cargo-deb did not say where the package is")?;
    Ok(PathBuf::from(path))
}

/// The C library that the binary needs is one that the package asks for, and that the oldest system has.
fn judge(machine: &Machine, program: &Path, package: &Path) -> Result<()> {
    let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    let needed = elf::libc_of(&bytes)?;
    let depends = child::output(
        machine
            .command("dpkg-deb")
            .arg("--field")
            .arg(package)
            .arg("Depends"),
    )?;
    let asked = asked_libc(&depends)
        .with_context(|| format!("the package depends on no libc6, but: {depends}"))?;
    if needed > OLDEST || needed > asked {
        bail!(
            "the binary needs glibc {needed}, but the package asks for {asked} and Ubuntu 22.04 has {OLDEST}: build on an older \
             system, or raise `depends` in scheduler-user/Cargo.toml"
        );
    }
    console::say(format_args!(
        "package: needs glibc {needed}, so it runs on Ubuntu 22.04 ({OLDEST}) and Debian 12 (2.36)"
    ));
    Ok(())
}

/// Reads `libc6 (>= 2.34), …`.
fn asked_libc(depends: &str) -> Option<Libc> {
    let (_, rest) = depends.split_once("libc6 (>= ")?;
    Libc::parse(rest.split_once(')')?.0)
}

/// The stage of `cargo xtask test` that makes the package which the tests install; `None` where there is no dpkg.
pub(crate) fn for_tests(machine: &Machine) -> Result<Option<Command>> {
    if machine.find("dpkg-deb").is_none() {
        console::say("`dpkg-deb` is not installed: no package is made");
        return Ok(None);
    }
    let this = std::env::current_exe().context("cannot tell where this program is")?;
    let mut command = machine.command(this);
    command.args(["package", "--debug"]);
    Ok(Some(command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_configurations_name_no_interface() {
        let text = "# a\n[agent]\n#x = 1\ny = 2\n\n[interface.eth0]\n# word\nrate = \"1mbit\"\n#qdisc = \"htb\"\n[scheduling]\nz = 3\n";
        assert_eq!(
            without_interfaces(text),
            "# a\n[agent]\n#x = 1\ny = 2\n\n#[interface.eth0]\n# word\n#rate = \"1mbit\"\n#qdisc = \"htb\"\n[scheduling]\nz = 3\n"
        );
        let ours = without_interfaces(include_str!("../../../contrib/config.toml"));
        assert!(!ours.lines().any(|line| line.starts_with("[interface")));
        assert!(ours.lines().any(|line| line.starts_with("#[interface")));
    }

    #[test]
    fn the_c_library_that_is_asked_for_is_read() {
        assert_eq!(
            asked_libc("libc6 (>= 2.34), libgcc-s1\n"),
            Some(Libc(2, 34))
        );
        assert_eq!(asked_libc("libgcc-s1"), None);
        assert!(Libc(2, 9) < Libc(2, 34));
    }
}
