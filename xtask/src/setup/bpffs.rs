//! Mounts the file system where treeline pins its maps.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    child,
    console::{Outcome, Step},
    machine::Machine,
};

const MOUNT_POINT: &str = "/sys/fs/bpf";

pub(super) fn mount(machine: &Machine, step: &Step) -> Result<Outcome> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mount table")?;
    if is_mounted(&mounts) {
        return Ok(Outcome::Present);
    }
    // A build needs no bpffs and treeline mounts it when it starts: nothing here is fatal.
    if !Path::new(MOUNT_POINT).is_dir() {
        return Ok(Outcome::Skipped(format!(
            "this kernel has no {MOUNT_POINT}"
        )));
    }
    if !machine.is_root() {
        return Ok(Outcome::Skipped(
            "only root can mount it; treeline does when it starts".into(),
        ));
    }
    step.doing(format_args!("mounting at {MOUNT_POINT}"));
    let mounted = child::logged(
        machine
            .command("mount")
            .args(["-t", "bpf", "bpf", MOUNT_POINT]),
        Duration::from_secs(10),
        &machine.log("mount"),
    );
    Ok(match mounted {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Skipped(format!("{error:#}")),
    })
}

/// Reads lines of `device mount-point type options …`.
fn is_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next() == Some(MOUNT_POINT) && fields.next() == Some("bpf")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpffs_is_recognised_in_the_mount_table() {
        assert!(is_mounted(
            "sysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw,relatime 0 0\n"
        ));
    }

    #[test]
    fn another_file_system_there_is_not_bpffs() {
        assert!(!is_mounted(
            "tmpfs /sys/fs/bpf tmpfs rw 0 0\nbpf /mnt/bpf bpf rw 0 0\n"
        ));
    }
}
