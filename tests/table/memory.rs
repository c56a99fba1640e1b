//! A table that the kernel has no memory for.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use bed::netns::Namespace;

use crate::support::{
    agent::{Done, Site, binary},
    left_out, privileged,
};

const LIMIT_BYTES: &str = "268435456";

/// Memory that could be had, as the kernel estimates it.
pub(super) fn available_kib() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number
        .expect("Linux 3.14 and later tell it")
        .parse()
        .unwrap()
}

/// A control group with little memory; dropping it removes it.
struct Poor(PathBuf);

impl Poor {
    /// `None` where memory is not controlled.
    fn new() -> Option<Self> {
        let name = format!("treeline-{}", std::process::id());
        for (parent, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let poor = Self(Path::new(parent).join(&name));
            if fs::create_dir(&poor.0).is_ok() && fs::write(poor.0.join(limit), LIMIT_BYTES).is_ok()
            {
                return Some(poor);
            }
        }
        None
    }
}

impl Drop for Poor {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

#[test]
fn a_table_too_large_for_the_memory_is_refused_and_says_so() {
    if !privileged() {
        return;
    }
    let Some(poor) = Poor::new() else {
        left_out(format_args!("memory is not controlled by groups here"));
        return;
    };
    let namespace = Namespace::new("table").unwrap();
    namespace
        .ip("link add present type veth peer name present-end")
        .unwrap();
    let site = Site::new(&namespace);
    let up = |flows: &str| {
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(poor.0.join("cgroup.procs"))
            .arg(binary())
            .args(["--instance", site.instance.name(), "up", "present"])
            .args(["--rate", "1mbit", "--flows", flows]);
        namespace.enter(|| Ok(Done::of(&mut command))).unwrap()
    };
    up("16777216")
        .expect(1)
        .says("no 2048 MiB")
        .says("16777216 flows")
        .says("--flows");
    site.assert_no_trace();
    up("65536").expect(0);
    site.call(&["down", "present"]).expect(0);
}
