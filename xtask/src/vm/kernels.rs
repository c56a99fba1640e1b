//! Debian's kernels: downloaded, unpacked beside the build, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::Series;
use crate::{
    child,
    console::{Outcome, Step},
    machine::Machine,
    setup::apt::{self, Suite},
};

/// Small kernels for virtual machines: the fewest drivers, all of the network.
const FLAVOUR: &str = "-cloud-amd64";
/// What a kernel is split into; which of them exist depends on its age.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];
const SUITES: [&str; 4] = ["trixie", "trixie-backports", "bookworm", "sid"];

/// A kernel that is ready to boot.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) series: String,
    /// As `uname -r` would say.
    pub(super) release: String,
    pub(super) image: PathBuf,
    pub(super) modules: PathBuf,
}

/// The newest kernel of a series, from the folder of an earlier run if it is there.
pub(super) fn get(machine: &Machine, series: &Series, step: &Step) -> Result<(Outcome, Kernel)> {
    let folder = machine.scratch().join("vm/kernels").join(series.name());
    if folder.exists() {
        let kernel = look(&folder, series)
            .with_context(|| format!("remove {} and try again", folder.display()))?;
        return Ok((Outcome::Present, kernel));
    }
    step.doing("asking Debian's suites");
    let start = format!("{}{}.", PARTS[0], series.name());
    let what = format!("{start}…{FLAVOUR}");
    let packages = apt::from_first(machine, &SUITES.map(str::to_owned), &what, |suite| {
        let names = suite.names(&start)?;
        let image = newest(&names).with_context(|| format!("has no {what}"))?;
        step.doing(format_args!("downloading {image}"));
        parts(suite, image)
    })?;
    let staging = folder.with_extension("staging");
    if staging.exists() {
        fs::remove_dir_all(&staging).context("cannot remove what an earlier run left")?;
    }
    fs::create_dir_all(&staging).with_context(|| format!("cannot make {}", staging.display()))?;
    step.doing("unpacking");
    for package in packages {
        child::output(
            Command::new("dpkg-deb")
                .arg("--extract")
                .arg(&package)
                .arg(&staging),
        )?;
        fs::remove_file(&package).context("cannot remove a package after unpacking")?;
    }
    look(&staging, series)?;
    fs::rename(&staging, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok((Outcome::Done, look(&folder, series)?))
}

/// All packages of the kernel whose image package is `image`.
fn parts(suite: &Suite<'_>, image: &str) -> Result<Vec<PathBuf>> {
    let [first, ..] = PARTS;
    let release = image.strip_prefix(first).unwrap_or(image);
    let mut packages = Vec::new();
    for part in PARTS {
        let name = format!("{part}{release}");
        if suite.names(&name)?.contains(&name) {
            packages.push(suite.download(&name, None)?);
        }
    }
    Ok(packages)
}

/// What is in an unpacked kernel's folder.
fn look(folder: &Path, series: &Series) -> Result<Kernel> {
    let modules = ["usr/lib/modules", "lib/modules"]
        .into_iter()
        .find_map(|place| only_entry(&folder.join(place)))
        .context("the packages hold no modules")?;
    let release = modules
        .file_name()
        .context("a folder has a name")?
        .to_string_lossy()
        .into_owned();
    let image = [
        folder.join("boot").join(format!("vmlinuz-{release}")),
        modules.join("vmlinuz"),
    ]
    .into_iter()
    .find(|image| image.is_file());
    ensure!(
        release.starts_with(&format!("{}.", series.name())),
        "the packages hold a kernel {release}"
    );
    Ok(Kernel {
        series: series.name().to_owned(),
        release,
        image: image.context("the packages hold no kernel image")?,
        modules,
    })
}

fn only_entry(folder: &Path) -> Option<PathBuf> {
    Some(folder.read_dir().ok()?.next()?.ok()?.path())
}

fn newest(names: &[String]) -> Option<&str> {
    names
        .iter()
        .map(String::as_str)
        .filter(|name| name.ends_with(FLAVOUR))
        .max_by_key(|name| numbers(name))
}

/// All numbers in a name in their order: `6.1.0-47` is older than `6.1.0-50`.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_of_the_flavour_is_taken() {
        let names = [
            "linux-image-6.12.94+deb13-cloud-amd64",
            "linux-image-6.12.107+deb13-cloud-amd64",
            "linux-image-6.12.200+deb13-amd64",
            "linux-image-6.12.200+deb13-cloud-amd64-unsigned",
        ]
        .map(str::to_owned);
        assert_eq!(
            newest(&names),
            Some("linux-image-6.12.107+deb13-cloud-amd64")
        );
        let old = [
            "linux-image-6.1.0-47-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
        ]
        .map(str::to_owned);
        assert_eq!(newest(&old), Some("linux-image-6.1.0-50-cloud-amd64"));
        assert_eq!(newest(&[]), None);
    }
}
