//! Prometheus in a namespace: started, asked, ended.

use std::{
    env, fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, bail};
use bed::{netns::Namespace, wait};
use serde_json::Value;

use super::{contrib, get};
use crate::support::left_out;

const PORT: u16 = 9090;
const START_LIMIT: Duration = Duration::from_secs(60);

/// A program of Prometheus: where `xtask setup` unpacked it, or the system's. Without it the test says so.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let test = env::current_exe().unwrap();
    // target/debug/deps/integration-…
    let target = test.ancestors().nth(3).expect("tests lie in deps/");
    let unpacked = target.join("xtask/prometheus/usr/bin").join(name);
    let path = env::var_os("PATH").unwrap_or_default();
    let found = [unpacked]
        .into_iter()
        .chain(env::split_paths(&path).map(|folder| folder.join(name)))
        .find(|path| path.is_file());
    if found.is_none() {
        left_out(format_args!(
            "`{name}` is missing: `cargo xtask setup` unpacks it"
        ));
    }
    found
}

/// A Prometheus that scrapes an agent every second; dropping it ends it.
pub(super) struct Prometheus<'a> {
    child: Child,
    namespace: &'a Namespace,
    folder: tempfile::TempDir,
}

impl<'a> Prometheus<'a> {
    /// Starts it with the alert rules, and waits until it answers.
    pub(super) fn start(
        program: &std::path::Path,
        namespace: &'a Namespace,
        endpoint: &str,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let configuration = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [ {:?} ]\n\
             scrape_configs:\n  - job_name: treeline\n    static_configs: [ {{ targets: [ {endpoint:?} ] }} ]\n",
            contrib::path("prometheus/alerts.yml"),
        );
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, configuration).unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("data").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{PORT}"))
            .env("GOMAXPROCS", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut prometheus = Self {
            child: namespace.spawn(&mut command).unwrap(),
            namespace,
            folder,
        };
        let ready = wait::until("Prometheus's start", START_LIMIT, || {
            if let Some(status) = prometheus.child.try_wait()? {
                bail!("Prometheus ended: {status}");
            }
            let answer = get(namespace, PORT, "/-/ready").unwrap_or_default();
            Ok(answer.contains("Ready").then_some(()))
        });
        ready.unwrap_or_else(|error| panic!("{error:#}\n{}", prometheus.log()));
        prometheus
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn ask(&self, path: &str) -> anyhow::Result<Value> {
        let answer = get(self.namespace, PORT, path)?;
        let answer: Value = serde_json::from_str(&answer).with_context(|| answer.clone())?;
        if answer["status"] != "success" {
            bail!("{path}: {answer}");
        }
        Ok(answer["data"].clone())
    }

    /// The series that an expression gives now.
    pub(super) fn query(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        let data = self.ask(&format!("/api/v1/query?query={}", escaped(expression)))?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }

    /// Whether an expression gives anything now.
    pub(super) fn has(&self, expression: &str) -> bool {
        let found = self.query(expression);
        !found
            .unwrap_or_else(|error| panic!("{expression}: {error:#}\n{}", self.log()))
            .is_empty()
    }

    /// Fails the test unless an expression soon gives something.
    #[track_caller]
    pub(super) fn await_data(&self, expression: &str, limit: Duration) {
        let found = wait::until("data", limit, || Ok(self.has(expression).then_some(())));
        assert!(
            found.is_ok(),
            "`{expression}` gives nothing; targets: {}\n{}",
            self.ask("/api/v1/targets").unwrap_or_default(),
            self.log()
        );
    }

    /// Fails the test unless each alert rule can be evaluated.
    pub(super) fn assert_rules_are_healthy(&self) {
        let mut rules = Vec::new();
        let evaluated = wait::until("the rules' evaluation", START_LIMIT, || {
            let data = self.ask("/api/v1/rules")?;
            rules = data["groups"][0]["rules"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let healthy = !rules.is_empty() && rules.iter().all(|rule| rule["health"] == "ok");
            Ok(healthy.then_some(()))
        });
        assert!(evaluated.is_ok(), "{rules:?}");
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An expression as part of an address.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
