//! The unit: its exposure, and the agent under systemd with no more rights than it names.

use std::{process::Command, time::Duration};

use bed::wait;
use serde_json::Value;

use super::throwaway::Throwaway;
use crate::support::left_out;

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/treeline.service");
const LIMIT: Duration = Duration::from_secs(60);
/// CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF.
const RIGHTS: u64 = 1 << 12 | 1 << 38 | 1 << 39;

#[test]
fn the_unit_is_exposed_as_little_as_was_promised() {
    let mut analyze = Command::new("systemd-analyze");
    // The threshold is in tenths: 3.0.
    analyze.args([
        "security",
        "--offline=true",
        "--no-pager",
        "--threshold=30",
        UNIT,
    ]);
    match analyze.output() {
        Ok(output) => {
            let told = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{told}");
            assert!(told.contains("Overall exposure level"), "{told}");
        }
        Err(error) => left_out(format_args!("systemd-analyze can't be started: {error}")),
    }
}

/// A property of the service.
fn property(root: &Throwaway, name: &str) -> String {
    let line = format!("systemctl show --value --property {name} treeline.service");
    root.call(&line).expect(0).stdout.trim().to_owned()
}

/// A line of the service's main process in /proc.
fn of_process(root: &Throwaway, field: &str) -> String {
    let pid = property(root, "MainPID");
    let status = root.call(&format!("cat /proc/{pid}/status")).expect(0);
    let mut lines = status.stdout.lines();
    let value = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
    value.unwrap().to_owned()
}

#[track_caller]
fn configure(root: &Throwaway, text: &str) {
    root.call(&format!(
        "cat > /etc/treeline/config.toml <<'END'\n{text}\nEND"
    ))
    .expect(0);
}

#[track_caller]
fn rate_becomes(root: &Throwaway, rate_bps: u64) {
    let mut last = None;
    let reached = wait::until("the rate", LIMIT, || {
        let status = root.call("treeline status --format json").expect(0).json();
        last = status["interfaces"][0]["rate_bps"].as_u64();
        Ok((last == Some(rate_bps)).then_some(()))
    });
    assert!(reached.is_ok(), "{last:?}");
}

#[test]
fn systemd_runs_the_agent_with_no_more_rights_than_its_unit_names() {
    let Some(root) = Throwaway::booted() else {
        return;
    };
    root.call("dpkg --install /run/treeline.deb").expect(0);
    // Installing changes nothing: the unit waits for a person.
    assert_eq!(
        root.call("systemctl is-enabled treeline").stdout,
        "disabled\n"
    );
    assert_eq!(
        root.call("systemctl is-active treeline").stdout,
        "inactive\n"
    );
    let verified = root
        .call("systemd-analyze verify treeline.service")
        .expect(0);
    assert!(!verified.stderr.contains("treeline"), "{verified:?}");
    // Without an interface in the configuration the start fails for good, and says what to do.
    root.call("systemctl start treeline").expect(1);
    assert_eq!(property(&root, "ExecMainStatus"), "2");
    assert_eq!(property(&root, "ActiveState"), "failed");

    root.call(
        "ip link add up0 type veth peer name up1 && ip link set lo up && ip link set up0 up && ip link set up1 up \
         && ip addr add 10.99.7.1/24 dev up0 && ip neigh add 10.99.7.2 lladdr 02:00:00:00:99:07 dev up0",
    )
    .expect(0);
    configure(&root, "[interface.up0]\nrate = \"20mbit\"");
    start(&root);
    works(&root);
    reloads(&root);
    outlives(&root);

    root.call("dpkg --remove treeline").expect(0);
    let left = root.call("tc qdisc show dev up0").expect(0);
    assert!(!left.stdout.contains("htb"), "{left:?}");
    for path in ["/sys/fs/bpf/treeline/default", "/usr/bin/treeline"] {
        root.call(&format!("test -e {path}")).expect(1);
    }
    root.call("dpkg --purge treeline").expect(0);
    for path in ["/var/lib/treeline", "/run/treeline", "/etc/treeline"] {
        root.call(&format!("test -e {path}")).expect(1);
    }
    root.call("systemctl cat treeline").expect(1);
}

#[track_caller]
fn start(root: &Throwaway) {
    let started = root.call("systemctl start treeline");
    let log = || root.call("journalctl --no-pager --unit treeline").stdout;
    assert_eq!(started.code, Some(0), "{started:?}\n{}", log());
}

/// The agent has what it needs and nothing more.
#[track_caller]
fn works(root: &Throwaway) {
    // The start has ended, so the agent has said that it is ready.
    assert_eq!(property(root, "StatusText"), "schedules up0");
    for set in ["CapBnd", "CapEff", "CapPrm"] {
        let rights = u64::from_str_radix(&of_process(root, set), 16).unwrap();
        assert_eq!(rights, RIGHTS, "{set} is {rights:x}");
    }
    assert_eq!(of_process(root, "NoNewPrivs"), "1");
    assert_eq!(of_process(root, "Seccomp"), "2");
    root.call("tc qdisc show dev up0").expect(0).says("htb 7e:");
    // Packets are counted, and what the programs say of them reaches the agent.
    let send = "for i in $(seq 50); do echo word > /dev/udp/10.99.7.2/4000; done";
    root.call(&format!("bash -c '{send}'")).expect(0);
    let status = root.call("treeline status --format json").expect(0).json();
    assert!(
        status["counters"]["egress_packets"].as_u64() >= Some(50),
        "{status}"
    );
    assert_eq!(
        status["agent"]["pid"].to_string(),
        property(root, "MainPID"),
        "{status}"
    );
    wait::until("a sample", LIMIT, || {
        let status = root.call("treeline status --format json").expect(0).json();
        let samples = status["counters"]["samples_sent"].as_u64();
        Ok(samples.is_some_and(|count| count > 0).then_some(()))
    })
    .unwrap();
    let logs = root
        .call("treeline logs -n 200 --format json")
        .expect(0)
        .stdout;
    assert!(logs.contains("attached"), "{logs}");
    for line in logs.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        assert!(
            !["warn", "error"].contains(&record["level"].as_str().unwrap()),
            "{logs}"
        );
    }
}

/// `systemctl reload` takes over what is right and refuses what is wrong.
#[track_caller]
fn reloads(root: &Throwaway) {
    configure(root, "[interface.up0]\nrate = \"40mbit\"");
    root.call("systemctl reload treeline").expect(0);
    rate_becomes(root, 40_000_000);
    configure(root, "[interface.up0]\nrate = \"fast\"");
    root.call("systemctl reload treeline").expect(1);
    assert_eq!(property(root, "ActiveState"), "active");
    configure(root, "[interface.up0]\nrate = \"40mbit\"");
}

/// What stands outlives the agent, and an agent that dies comes back.
#[track_caller]
fn outlives(root: &Throwaway) {
    let before = property(root, "MainPID");
    root.call("systemctl kill --signal KILL treeline").expect(0);
    wait::until("the restart", LIMIT, || {
        let now = property(root, "MainPID");
        let active = property(root, "ActiveState") == "active";
        Ok((active && now != "0" && now != before).then_some(()))
    })
    .unwrap();
    root.call("systemctl stop treeline").expect(0);
    root.call("treeline status --format json")
        .expect(0)
        .says("up0");
    root.call("ls /run/treeline/default /var/lib/treeline/default/journal.jsonl")
        .expect(0);
    start(root);
}
