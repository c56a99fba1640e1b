//! What the agent logs: found again by level, matter and time, with the kernel's records, and as fields of systemd's journal.

use std::{
    fs::{self, File},
    os::unix::{fs::MetadataExt as _, net::UnixDatagram},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bed::{
    mix::{Plan, schedule},
    netns::{Bed, Namespace, SERVER_V4, UPLINK},
    traffic::{self, Play},
    wait,
};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    registry::{by_port, file},
    support::{
        agent::{Site, binary},
        json::documented,
        privileged,
    },
};

const LIMIT: Duration = Duration::from_secs(60);

fn offer(bed: &Bed) {
    let plan = Plan {
        rate_bps: 100_000_000,
        load: 0.5,
        length: Duration::from_millis(500),
        shrink: 8.0,
    };
    let play = Play {
        server: SERVER_V4,
        drain: Duration::from_secs(5),
        band: None,
    };
    traffic::run(bed, schedule(&plan, 3), play, None, &mut || Ok(())).unwrap();
}

/// `logs` with these arguments, record by record.
fn records(site: &Site<'_>, arguments: &[&str]) -> Vec<Value> {
    let all = [&["logs", "-n", "1000", "--format", "json"], arguments].concat();
    let lines = site.call(&all).expect(0).stdout;
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn records_are_found_by_level_matter_and_time_and_the_kernels_are_among_them() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let directory = tempfile::tempdir().unwrap();
    let agent = site.run(&[]);
    let model = file(directory.path(), "model.json", &by_port(7001, 24.0));
    site.call(&["model", "push", model.to_str().unwrap()])
        .expect(0);
    // The programs say so on each CPU on which they first ask a model.
    wait::until("the kernel's record", LIMIT, || {
        offer(&bed);
        let told = records(&site, &["--what", "CLASSIFIES"]);
        Ok((!told.is_empty() && told.iter().all(|it| it["origin"] == "kernel")).then_some(()))
    })
    .unwrap();
    site.call(&["logs", "--what", "classifies"])
        .expect(0)
        .says("[kernel] generation 1 classifies");

    let all = records(&site, &[]);
    for record in &all {
        documented("logs", record);
        assert!(["agent", "kernel"].contains(&record["origin"].as_str().unwrap()));
    }
    let [attached] = &records(&site, &["--what", "by bands"])[..] else {
        panic!("{all:?}");
    };
    assert_eq!(attached["message"], "attached");
    for part in ["what", "why", "undo"] {
        assert!(attached["fields"][part].is_string(), "{attached}");
    }
    assert!(records(&site, &["--level", "error"]).is_empty());
    assert_eq!(
        records(&site, &["--since", "1day", "--level", "trace"]).len(),
        all.len()
    );
    assert!(records(&site, &["--since", "2099-01-01T00:00:00Z"]).is_empty());
    site.call(&["logs", "--what", "no such thing"])
        .expect(0)
        .says("no such records");
    site.call(&["logs", "--since", "yesterday"])
        .expect(2)
        .says("10min");
    site.call(&["logs", "--level", "loud"])
        .expect(2)
        .says("warn");

    let followed = directory.path().join("followed");
    let mut follower = site.command(&["logs", "-n", "0", "-f", "--what", "stay attached"]);
    let output = File::create(&followed).unwrap();
    let mut follower = follower
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (ended, log) = agent.end(Signal::SIGTERM);
    assert!(ended.success(), "{log}");
    // It may have started after the record was written; then it would wait for ever, so one more agent ends.
    let seen = wait::until("the record", LIMIT, || {
        let text = fs::read_to_string(&followed)?;
        if text.is_empty() {
            let agent = site.run(&[]);
            assert!(agent.end(Signal::SIGTERM).0.success());
        }
        Ok(text.ends_with('\n').then_some(text))
    });
    follower.kill().unwrap();
    follower.wait().unwrap();
    let seen = seen.unwrap();
    assert!(
        seen.lines()
            .all(|line| line.contains("agent ends") && line.contains("undo=\"treeline")),
        "{seen}"
    );
}

#[test]
fn under_systemd_a_record_is_fields_of_the_journal() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::new("logs").unwrap();
    namespace
        .ip(&format!("link add {UPLINK} type veth peer name far"))
        .unwrap();
    let site = Site::new(&namespace);
    let directory = tempfile::tempdir().unwrap();
    let journal = UnixDatagram::bind(directory.path().join("socket")).unwrap();
    journal
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let stderr = File::create(directory.path().join("stderr")).unwrap();
    let stream = stderr.metadata().unwrap();
    // In a mount namespace of its own the test's socket stands where systemd's would.
    let script = "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && mount --bind \"$PLACE\" /run/systemd/journal \
         && \"$TREELINE\" --instance \"$NAME\" run \"$LINK\" --rate 1mbit --for 1s; ended=$?; \
         \"$TREELINE\" --instance \"$NAME\" down --all >&2; exit $ended";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c", script])
        .env("PLACE", directory.path())
        .env("TREELINE", binary())
        .env("NAME", site.instance.name())
        .env("LINK", UPLINK)
        .env(
            "JOURNAL_STREAM",
            format!("{}:{}", stream.dev(), stream.ino()),
        )
        .env_remove("TREELINE_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(stderr);
    let over = AtomicBool::new(false);
    let (status, records) = std::thread::scope(|scope| {
        // Who writes to the journal waits for whoever reads it.
        let reader = scope.spawn(|| {
            let (mut records, mut datagram) = (Vec::new(), vec![0; 1 << 16]);
            loop {
                match journal.recv(&mut datagram) {
                    Ok(length) => {
                        let text = String::from_utf8_lossy(&datagram[..length]);
                        records.push(text.into_owned());
                    }
                    Err(_nothing) if over.load(Ordering::Relaxed) => return records,
                    Err(_nothing) => {}
                }
            }
        });
        let mut child = namespace.spawn(&mut command).unwrap();
        let status = child.wait().unwrap();
        over.store(true, Ordering::Relaxed);
        (status, reader.join().unwrap())
    });
    let said = fs::read_to_string(directory.path().join("stderr")).unwrap();
    assert!(status.success(), "{said}\n{records:?}");
    let attached = records.iter().find(|record| record.contains("attached"));
    let attached = attached.unwrap_or_else(|| panic!("{records:?}\n{said}"));
    for part in [
        "SYSLOG_IDENTIFIER",
        "PRIORITY",
        "TREELINE_INTERFACE",
        UPLINK,
        "TREELINE_WHAT",
        "TREELINE_UNDO",
    ] {
        assert!(attached.contains(part), "{part} is missing: {attached:?}");
    }
    assert!(!said.contains("INFO"), "told twice: {said}");
}
