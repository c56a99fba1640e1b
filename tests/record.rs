//! Recording real traffic, with and without an agent, and learning from the file.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use bed::{
    mix::{Plan, schedule},
    netns::{Bed, SERVER_V4, UPLINK},
    traffic::{self, Play},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use scheduler_common::{features::Feature, sample::Hook, settings::Act};
use treeline::dataset::store::{self, Dataset};

use crate::support::{agent::Site, json::documented, privileged};

const LIMIT: Duration = Duration::from_secs(60);

/// Offers some seconds of traffic.
fn offer(bed: &Bed, seed: u64) {
    let plan = Plan {
        rate_bps: 100_000_000,
        load: 0.5,
        length: Duration::from_millis(2000),
        shrink: 8.0,
    };
    let play = Play {
        server: SERVER_V4,
        drain: Duration::from_secs(5),
        band: None,
    };
    traffic::run(bed, schedule(&plan, seed), play, None, &mut || Ok(())).unwrap();
}

/// `treeline record` at work.
struct Recorder {
    child: Child,
    log: PathBuf,
}

impl Recorder {
    fn start(bed: &Bed, site: &Site<'_>, directory: &Path, more: &[&str]) -> Self {
        let log = directory.join("log");
        let output = File::create(&log).unwrap();
        let mut command = site.command(&[&["record"], more].concat());
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let child = bed.server.spawn(&mut command).unwrap();
        let recorder = Self { child, log };
        wait::until("the recording", LIMIT, || {
            Ok(recorder.said().contains("recording").then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error}\n{}", recorder.said()));
        recorder
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Waits for its end; what it said.
    fn ended(mut self) -> String {
        let status = wait::until("the end", LIMIT, || Ok(self.child.try_wait()?)).unwrap();
        let said = self.said();
        assert!(status.success(), "{status}\n{said}");
        said
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[track_caller]
fn holds_traffic(dataset: &Dataset) {
    let rows = &dataset.rows;
    assert!(rows.len() > 200, "{} rows", rows.len());
    let censored = rows.iter().filter(|row| row.censored).count();
    assert!(censored < rows.len() / 5, "{censored} of {}", rows.len());
    for hook in [Hook::Egress, Hook::Ingress] {
        assert!(rows.iter().any(|row| row.hook == hook), "none at {hook:?}");
    }
    for row in rows {
        assert_eq!(u64::from(row.feature(Feature::MessageBytes)), row.bytes_at);
        assert_eq!(row.bytes_at + row.remaining_bytes, row.total_bytes);
        assert!(row.network_hash != 0 && row.flow_hash != 0);
    }
    // The client is one network, and treeline hears of the far end alone.
    let networks = rows.iter().map(|row| row.network_hash);
    assert!(networks.collect::<std::collections::BTreeSet<_>>().len() <= 4);
}

#[test]
fn a_recording_ends_whole_by_a_signal_and_can_be_learned_from() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("rows.parquet");
    let file = out.to_str().unwrap();
    let recorder = Recorder::start(&bed, &site, directory.path(), &[UPLINK, "--out", file]);
    // Whoever only watches leaves packets as they are.
    assert_eq!(site.datapath().settings().unwrap().act, Act::Observe as u32);
    offer(&bed, 1);
    recorder.signal(Signal::SIGINT);
    let said = recorder.ended();
    assert!(said.contains("rows of"), "{said}");
    assert!(said.contains("uplink"), "{said}");
    site.assert_no_trace();
    let dataset = store::read(&out).unwrap();
    assert_eq!(dataset.sessions, [UPLINK]);
    holds_traffic(&dataset);

    let model = directory.path().join("model.json");
    let model = model.to_str().unwrap();
    let learned = site
        .call(&["--format", "json", "train", "--from", file, "--out", model])
        .expect(0)
        .json();
    documented("train", &learned);
    assert!(learned["nodes"].as_u64() > Some(1), "{learned}");
    assert!(learned["judged_on_rows"].as_u64() > Some(50), "{learned}");
    assert!(learned["ingress_rows"].as_u64() > Some(0), "{learned}");
    let worth = learned["importances"]
        .as_array()
        .expect("it asks for features");
    let gains = worth.iter().filter_map(|it| it["gain"].as_f64());
    assert!((gains.sum::<f64>() - 1.0).abs() < 1e-6, "{worth:?}");
    assert_eq!(
        learned["partial_dependence"].as_array().map(Vec::len),
        Some(worth.len())
    );
    site.call(&["model", "show", model])
        .expect(0)
        .says("service_port");
    site.up(&["--model", model]).expect(0);
    assert_eq!(site.status()["model"]["generation"], 1);
    // What is up already stays up as it is, and only it is taken by `--all`.
    let again = directory.path().join("again.parquet");
    let file = again.to_str().unwrap();
    site.call(&["record", "lo", "--out", file])
        .expect(1)
        .says("treeline up lo");
    assert!(!again.exists());
    let more = ["--all", "--out", file, "--max-rows", "50"];
    let recorder = Recorder::start(&bed, &site, directory.path(), &more);
    offer(&bed, 2);
    recorder.ended();
    assert_eq!(
        store::read(&again).unwrap().rows.len(),
        50,
        "it is full and ends by itself"
    );
    assert_eq!(site.status()["interfaces"][0]["name"], UPLINK);
    assert_eq!(site.status()["model"]["generation"], 1);
    let predicted = store::read(&again).unwrap();
    assert!(
        predicted.rows.iter().any(|row| row.generation == 1),
        "the model acted"
    );
}

#[test]
fn a_recording_that_is_killed_is_refused_with_a_word_on_why() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("rows.parquet");
    let file = out.to_str().unwrap();
    let recorder = Recorder::start(&bed, &site, directory.path(), &[UPLINK, "--out", file]);
    recorder.signal(Signal::SIGKILL);
    drop(recorder);
    site.call(&["train", "--from", file])
        .expect(1)
        .says("killed");
    // The next one goes on with what is still attached, and does not overwrite.
    site.call(&["record", UPLINK, "--out", file])
        .expect(1)
        .says("name a new file");
    fs::remove_file(&out).unwrap();
    site.call(&["record", UPLINK, "--out", file, "--for", "300ms"])
        .expect(0);
    assert!(store::read(&out).unwrap().rows.len() < 100);
}

#[test]
fn an_agent_records_what_it_learns_from_and_is_named_to_others() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("rows.parquet");
    let agent = site.run(&["--record", out.to_str().unwrap()]);
    let other = directory.path().join("other.parquet");
    let pid = site.instance.agent_pid().unwrap().to_string();
    site.call(&["record", UPLINK, "--out", other.to_str().unwrap()])
        .expect(7)
        .says(&format!("pid {pid}"))
        .says("--record");
    assert!(!other.exists());
    offer(&bed, 3);
    let (status, log) = agent.end(Signal::SIGTERM);
    assert!(
        status.success() && log.contains("recorded"),
        "{status}\n{log}"
    );
    holds_traffic(&store::read(&out).unwrap());
}
