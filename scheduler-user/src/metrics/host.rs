//! What the agent and its programs cost.

use std::{
    fs,
    time::{Duration, UNIX_EPOCH},
};

use aya::programs::ProgramInfo;
use nix::time::{ClockId, clock_gettime};
use scheduler_common::names;

use crate::instance::Instance;

/// Cost of a scrape's moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Costs {
    /// On all CPUs, user and system together.
    pub(super) cpu: Duration,
    pub(super) resident_bytes: u64,
    pub(super) programs: Vec<Program>,
}

/// What the kernel has counted of a program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) run_time: Duration,
    pub(super) runs: u64,
}

/// Looks at this process, and at the programs that are pinned.
pub(super) fn costs(instance: &Instance) -> Costs {
    let cpu = clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)
        .map(Duration::from)
        .unwrap_or_default();
    let pins = instance.pins().join("programs");
    let program = |name| {
        let info = ProgramInfo::from_pin(pins.join(name)).ok()?;
        Some(Program {
            name,
            run_time: info.run_time(),
            runs: info.run_count(),
        })
    };
    Costs {
        cpu,
        resident_bytes: resident_bytes(
            &fs::read_to_string("/proc/self/status").unwrap_or_default(),
        ),
        programs: [names::EGRESS, names::INGRESS]
            .into_iter()
            .filter_map(program)
            .collect(),
    }
}

/// Seconds since 1970.
pub(super) fn now_unix_s() -> f64 {
    // A clock before 1970 is no reason not to answer.
    UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64()
}

/// Reads the line `VmRSS: 1234 kB`.
fn resident_bytes(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_costs_something() {
        let costs = costs(&Instance::new("itest-no-such-instance").unwrap());
        assert!(costs.cpu > Duration::ZERO && costs.resident_bytes > 1 << 20);
        assert!(costs.programs.is_empty());
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    12 kB\n"), 12_288);
        assert_eq!(resident_bytes(""), 0);
    }
}
