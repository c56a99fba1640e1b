//! The emulated network cards that the tests find in a machine.

use std::process::Command;

use crate::machine::Machine;

/// Addresses of two cards on one cable. The driver of the first joins receive buffers, that of the second
/// does not: two ways through its XDP.
pub(super) const CABLE: [&str; 2] = ["02:74:6c:00:00:01", "02:74:6c:00:00:02"];
/// The address of a card with two queues, whose cable is cut.
pub(super) const WITH_QUEUES: &str = "02:74:6c:00:00:03";

/// What to start `program` with, so that its end of a card is in no network of this machine.
pub(super) fn in_own_network(machine: &Machine, program: &str) -> Command {
    if !machine.is_root() {
        return machine.command(program);
    }
    let mut command = machine.command("unshare");
    command.args(["--net", program]);
    command
}

/// QEMU's arguments. No peer of these cards takes offloads, so frames are whole, as from a real wire.
pub(super) fn arguments(root: bool) -> Vec<String> {
    let mut words = Vec::new();
    let mut push = |option: &str, value: String| words.extend([option.to_owned(), value]);
    for (number, address) in CABLE.iter().enumerate() {
        let merging = if number == 0 { "on" } else { "off" };
        push("-netdev", format!("hubport,hubid=0,id=cable{number}"));
        push(
            "-device",
            format!(
                "virtio-net-pci,netdev=cable{number},mac={address},mrg_rxbuf={merging},romfile="
            ),
        );
    }
    if root {
        // Only a tap device has several queues; nobody sets this one up, so it swallows all frames.
        push(
            "-netdev",
            "tap,id=queues,queues=2,vhost=off,script=no,downscript=no".to_owned(),
        );
        push(
            "-device",
            format!(
                "virtio-net-pci,netdev=queues,mac={WITH_QUEUES},mq=on,vectors=6,csum=off,\
                 guest_csum=off,host_tso4=off,host_tso6=off,guest_tso4=off,guest_tso6=off,romfile="
            ),
        );
    }
    words
}
