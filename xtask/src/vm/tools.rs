//! Programs that boot another kernel, from the distribution.

use anyhow::{Result, bail, ensure};

use crate::{
    console::{Outcome, Step},
    machine::Machine,
    setup::packages,
};

pub(super) const QEMU: &str = "qemu-system-x86_64";

/// Each program with Debian's package of it.
const PROGRAMS: [(&str, &str); 8] = [
    (QEMU, "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("wg", "wireguard-tools"),
    ("cpio", "cpio"),
    ("xz", "xz-utils"),
    ("strip", "binutils"),
    ("ldd", "libc-bin"),
    ("dpkg-deb", "dpkg"),
];

pub(super) fn install(machine: &Machine, step: &Step) -> Result<Outcome> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "kernels are booted on x86-64 only so far"
    );
    let missing = missing(machine);
    if missing.is_empty() {
        return Ok(Outcome::Present);
    }
    let mut words = vec!["install", "--yes", "--no-install-recommends"];
    words.extend(missing.iter().map(|(_, package)| *package));
    let by_hand = format!("apt-get {}", words.join(" "));
    if !machine.is_root() || machine.find("apt-get").is_none() {
        bail!(
            "missing: {}; on Debian `sudo {by_hand}` gets it",
            programs(&missing)
        );
    }
    step.doing(format_args!("installing {}", programs(&missing)));
    packages::by_manager(machine, "apt-get", &words)?;
    match self::missing(machine).as_slice() {
        [] => Ok(Outcome::Done),
        still => bail!("`{by_hand}` ran and yet {} is missing", programs(still)),
    }
}

fn missing(machine: &Machine) -> Vec<(&'static str, &'static str)> {
    PROGRAMS
        .into_iter()
        .filter(|(program, _)| machine.find_as_root(program).is_none())
        .collect()
}

fn programs(missing: &[(&'static str, &'static str)]) -> String {
    let names: Vec<&str> = missing.iter().map(|(program, _)| *program).collect();
    names.join(", ")
}
