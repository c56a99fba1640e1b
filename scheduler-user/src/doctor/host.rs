//! Checks of the host: kernel, rights, programs, qdiscs, clock.

use std::{
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use aya::util::KernelVersion;
use caps::{CapSet, Capability};
use nix::sys::statfs;

use super::Check;
use crate::{
    datapath::{self, Trial},
    instance::{BPFFS, Instance},
    qdisc::{self, Ability, QdiscError},
};

/// The oldest kernel that the programs are tested on.
const OLDEST: KernelVersion = KernelVersion::new(6, 1, 0);
/// The first one with TCX links.
const WITH_TCX: KernelVersion = KernelVersion::new(6, 6, 0);
const KERNEL_TYPES: &str = "/sys/kernel/btf/vmlinux";
const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
/// A clock that takes longer is not read by one instruction but asked over a bus.
const DEAR_CLOCK: Duration = Duration::from_nanos(200);
/// What loading programs, pinning them and setting qdiscs takes, and what each is for; the unit has these and no other.
const NEEDED: [(Capability, &str); 3] = [
    (Capability::CAP_BPF, "load programs"),
    (Capability::CAP_NET_ADMIN, "attach them and set qdiscs"),
    (Capability::CAP_PERFMON, "let them read sockets"),
];
/// What only looking, and the mount that systemd makes at boot, take besides.
const WISHED: Capability = Capability::CAP_SYS_ADMIN;
const AS_ROOT: &str = "run as root: `sudo treeline doctor`";

pub(super) fn checks(instance: &Instance) -> Vec<Check> {
    let (missing, may_mount) = (missing_rights(), has(WISHED));
    let mut checks = vec![
        kernel(),
        rights(&missing, may_mount),
        types(),
        bpffs(may_mount),
    ];
    checks.extend(programs(datapath::trial(), &missing));
    checks.extend(qdiscs(qdisc::ability()));
    checks.push(clock());
    checks.push(agent(instance));
    checks
}

fn kernel() -> Check {
    let release = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    match KernelVersion::current() {
        Ok(version) if version >= WITH_TCX => Check::ok("kernel", format!("{release}, with TCX")),
        Ok(version) if version >= OLDEST => Check::ok(
            "kernel",
            format!("{release}: programs hang on clsact, as TCX came with 6.6"),
        ),
        Ok(_) => Check::warn(
            "kernel",
            format!("{release} is older than the oldest that treeline is tested on"),
            "use kernel 6.1 or later",
        ),
        Err(error) => Check::warn(
            "kernel",
            format!("{release} has a version that can't be read ({error})"),
            "use kernel 6.1 or later",
        ),
    }
}

fn has(right: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, right).unwrap_or(false)
}

fn missing_rights() -> Vec<(Capability, &'static str)> {
    let lacks = |(right, _): &&(Capability, &str)| !has(*right);
    NEEDED.iter().filter(lacks).copied().collect()
}

fn rights(missing: &[(Capability, &str)], has_wished: bool) -> Check {
    let lacking: Vec<String> = missing
        .iter()
        .map(|(right, purpose)| format!("{right} (to {purpose})"))
        .collect();
    match (lacking.as_slice(), has_wished) {
        ([], true) => Check::ok("capabilities", "all that are needed"),
        ([], false) => Check::warn(
            "capabilities",
            format!(
                "those that scheduling needs; without {WISHED} qdiscs can't be tried nor programs of others be named here, \
                 `treeline top` does not measure costs, and bpffs must be mounted already"
            ),
            AS_ROOT,
        ),
        (lacking, _) => Check::fail(
            "capabilities",
            format!("without {}", lacking.join(", ")),
            AS_ROOT,
        ),
    }
}

fn types() -> Check {
    if Path::new(KERNEL_TYPES).exists() {
        Check::ok("btf", "the kernel tells its types")
    } else {
        Check::fail(
            "btf",
            format!("{KERNEL_TYPES} is not there"),
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as distributions build it",
        )
    }
}

fn bpffs(may_mount: bool) -> Check {
    match statfs::statfs(BPFFS) {
        Ok(stat) if stat.filesystem_type() == statfs::BPF_FS_MAGIC => {
            Check::ok("bpffs", format!("mounted on {BPFFS}"))
        }
        Ok(_) if may_mount => Check::warn(
            "bpffs",
            format!("nothing is mounted on {BPFFS}; `treeline up` mounts it"),
            format!("mount -t bpf bpf {BPFFS}"),
        ),
        Ok(_) => Check::fail(
            "bpffs",
            format!("nothing is mounted on {BPFFS}, and to mount it takes {WISHED}"),
            format!("as root: mount -t bpf bpf {BPFFS}"),
        ),
        Err(errno) => Check::fail(
            "bpffs",
            format!("{BPFFS} can't be looked at: {}", errno.desc()),
            "mount sysfs: mount -t sysfs sysfs /sys",
        ),
    }
}

/// The programs as the kernel takes them, and whether it compiles them.
fn programs(
    trial: Result<Trial, datapath::DatapathError>,
    missing: &[(Capability, &str)],
) -> Vec<Check> {
    let Trial {
        verified,
        machine_code_bytes,
        asks_sockets,
    } = match trial {
        Ok(trial) => trial,
        Err(_) if !missing.is_empty() => {
            let found = "could not be tried without the capabilities";
            return vec![Check::fail("programs", found, AS_ROOT)];
        }
        Err(error) => {
            let causes = causes(&error);
            let remedy =
                "use kernel 6.1 or later with BTF; if this is one, report it with this text";
            return vec![Check::fail("programs", causes, remedy)];
        }
    };
    let count = verified.map_or_else(String::new, |count| {
        format!(" ({count} instructions verified)")
    });
    let taken = format!("the kernel takes both{count}");
    let programs = if asks_sockets {
        Check::ok("programs", taken)
    } else {
        Check::warn(
            "programs",
            format!("{taken}, and does not tell what applications have written and not yet sent"),
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y; predictions of local traffic are better then",
        )
    };
    let jit = if machine_code_bytes > 0 {
        Check::ok("jit", format!("{machine_code_bytes} bytes of machine code"))
    } else {
        Check::warn(
            "jit",
            "programs are interpreted, several times slower",
            "sysctl net.core.bpf_jit_enable=1",
        )
    };
    vec![programs, jit]
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    // The verifier's log may be long; its end says what it did not like.
    let lines: Vec<&str> = text.lines().collect();
    match lines.as_slice() {
        [first, .., last] => format!("{first} … {last}"),
        _ => text,
    }
}

fn qdiscs(ability: Result<Ability, QdiscError>) -> Vec<Check> {
    let Ability {
        kinds,
        clsact,
        no_downlink,
    } = match ability {
        Ok(ability) => ability,
        // Nothing is wrong, only not known.
        Err(QdiscError::NoPermission { .. }) => {
            let found = format!("not tried: the network namespace for it takes {WISHED}");
            return vec![Check::warn("qdiscs", found, AS_ROOT)];
        }
        Err(error) => {
            let found = format!("could not be tried: {}", causes(&error));
            return vec![Check::fail("qdiscs", found, AS_ROOT)];
        }
    };
    let have = kinds.join(", ");
    let has = |kind| kinds.contains(&kind);
    let queue = if !has("htb") {
        Check::warn(
            "qdiscs",
            format!("no htb, so nothing can be shaped by `--rate`; there are: {have}"),
            "modprobe sch_htb (CONFIG_NET_SCH_HTB)",
        )
    } else if !has("fq_codel") {
        Check::warn(
            "qdiscs",
            format!("no fq_codel, so the bands' queues are pfifo; there are: {have}"),
            "modprobe sch_fq_codel (CONFIG_NET_SCH_FQ_CODEL)",
        )
    } else {
        Check::ok("qdiscs", have)
    };
    let hooks = if clsact {
        Check::ok("clsact", "there")
    } else {
        Check::warn(
            "clsact",
            "not there: no downlink can be shaped, and before kernel 6.6 nothing attached",
            "modprobe sch_ingress (CONFIG_NET_SCH_INGRESS)",
        )
    };
    let downlink = match no_downlink {
        None => Check::ok("downlink", "can be shaped through an IFB device"),
        Some(why) => Check::warn(
            "downlink",
            why,
            "modprobe ifb numifbs=0; modprobe cls_u32; modprobe act_mirred",
        ),
    };
    vec![queue, hooks, downlink]
}

/// The clock that messages are timed by, read by a program at every decision point.
fn clock() -> Check {
    let source = fs::read_to_string(CLOCK_SOURCE).map(|text| text.trim().to_owned());
    told_clock(source, clock_cost())
}

fn told_clock(source: io::Result<String>, cost: Duration) -> Check {
    let name = source.unwrap_or_else(|_unknown| "an unknown clock source".to_owned());
    let found = format!("{name}, {} ns a look", cost.as_nanos());
    if cost <= DEAR_CLOCK {
        return Check::ok("clock", found);
    }
    Check::warn(
        "clock",
        found,
        "let the kernel use a faster one: `cat /sys/devices/system/clocksource/clocksource0/available_clocksource`, \
         then for example `echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource`",
    )
}

/// The least of many measurements: whatever disturbs one makes it longer.
fn clock_cost() -> Duration {
    const LOOKS: u32 = 1000;
    let measure = |_| {
        let started = Instant::now();
        for _ in 0..LOOKS {
            std::hint::black_box(Instant::now());
        }
        started.elapsed() / LOOKS
    };
    (0..20).map(measure).min().unwrap_or_default()
}

fn agent(instance: &Instance) -> Check {
    let name = instance.name();
    match instance.agent_pid() {
        Some(pid) => Check::ok("agent", format!("instance {name} has one, pid {pid}")),
        None => Check::ok("agent", format!("instance {name} has none running")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    #[test]
    fn a_slow_clock_is_warned_of() {
        let tsc = told_clock(Ok("tsc".to_owned()), Duration::from_nanos(25));
        assert_eq!(tsc.verdict, Verdict::Ok);
        let hpet = told_clock(Ok("hpet".to_owned()), Duration::from_nanos(1400));
        assert_eq!(hpet.verdict, Verdict::Warn);
        assert!(hpet.found.contains("hpet, 1400 ns"), "{hpet:?}");
        assert!(clock_cost() > Duration::ZERO);
    }

    #[test]
    fn what_the_kernel_lacks_is_told_with_its_module() {
        let ability = |kinds: &[&'static str], clsact| Ability {
            kinds: kinds.to_vec(),
            clsact,
            no_downlink: (!clsact).then(|| "no IFB".to_owned()),
        };
        let verdicts = |ability| -> Vec<Verdict> {
            let checks = qdiscs(Ok(ability));
            checks.iter().map(|check| check.verdict).collect()
        };
        let [ok, warn] = [Verdict::Ok, Verdict::Warn];
        assert_eq!(verdicts(ability(&["htb", "fq_codel"], true)), [ok; 3]);
        assert_eq!(verdicts(ability(&["htb"], false)), [warn; 3]);
        let without = &qdiscs(Ok(ability(&["prio"], true)))[0];
        assert!(without.remedy.as_ref().unwrap().contains("sch_htb"));
        let refused = qdiscs(Err(QdiscError::NoPermission { op: "try" }));
        assert_eq!(refused[0].verdict, Verdict::Warn);
        let op = "try";
        let source = io::Error::other("no");
        let broken = qdiscs(Err(QdiscError::Netlink { op, source }));
        assert_eq!(broken[0].verdict, Verdict::Fail);
    }

    #[test]
    fn missing_rights_are_named_with_what_they_are_for() {
        assert_eq!(rights(&[], true).verdict, Verdict::Ok);
        let check = rights(&NEEDED[..1], false);
        assert_eq!(check.verdict, Verdict::Fail);
        let as_service = rights(&[], false);
        assert_eq!(as_service.verdict, Verdict::Warn);
        assert!(as_service.found.contains("CAP_SYS_ADMIN"), "{as_service:?}");
        assert!(
            check.found.contains("CAP_BPF (to load programs)"),
            "{check:?}"
        );
    }

    #[test]
    fn the_unit_has_the_rights_that_are_needed_and_no_other() {
        let unit = include_str!("../../../contrib/treeline.service");
        let lines = unit.lines();
        let [bounding] = lines
            .filter_map(|line| line.strip_prefix("CapabilityBoundingSet="))
            .collect::<Vec<_>>()[..]
        else {
            panic!("the unit bounds its capabilities once");
        };
        let given: Vec<&str> = bounding.split(' ').collect();
        assert_eq!(given, NEEDED.map(|(right, _)| right.to_string()));
    }

    #[test]
    fn interpreted_programs_are_warned_of() {
        let trial = |machine_code_bytes| Trial {
            verified: Some(7),
            machine_code_bytes,
            asks_sockets: true,
        };
        assert_eq!(programs(Ok(trial(0)), &[])[1].verdict, Verdict::Warn);
        let fine = programs(Ok(trial(100)), &[]);
        assert!(fine[0].found.contains("7 instructions"), "{fine:?}");
        assert_eq!(fine[1].verdict, Verdict::Ok);
    }
}
