//! Namespaces, a veth pair between them, and `tc` as second witness.

use std::{
    fs::File,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::sched::{CloneFlags, setns};

use super::super::{Installed, Plan, QdiscError, Restored, Saved};

/// The sending end's and the receiving end's addresses.
pub(super) const SENDER: &str = "10.78.0.1";
pub(super) const RECEIVER: &str = "10.78.0.2";

/// A veth pair, its ends in two namespaces; the qdisc goes onto the near one.
pub(super) struct Link {
    pub(super) near: String,
    pub(super) far: String,
    pub(super) ifindex: u32,
}

impl Drop for Link {
    fn drop(&mut self) {
        for namespace in [&self.near, &self.far] {
            let deleted = Command::new("ip")
                .args(["netns", "del", namespace])
                .status();
            assert!(
                thread::panicking() || deleted.unwrap().success(),
                "{namespace} stays"
            );
        }
    }
}

impl Link {
    /// A link that is up, or `None` (with the reason on stderr) where root is missing.
    pub(super) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            assert!(
                std::env::var_os("TREELINE_REQUIRE_ROOT").is_none(),
                "TREELINE_REQUIRE_ROOT is set, but this is not root"
            );
            eprintln!("skipped: network namespaces need root");
            return None;
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("treeline-qdisc-{}-{number}", std::process::id());
        let (near, far) = (format!("{name}-a"), format!("{name}-b"));
        run("ip", &["netns", "add", &near]);
        run("ip", &["netns", "add", &far]);
        let mut link = Self {
            near,
            far,
            ifindex: 0,
        };
        link.ip("link add near numtxqueues 2 numrxqueues 2 type veth peer name far");
        let far = link.far.clone();
        link.ip(&format!("link set far netns {far}"));
        link.ip("link set near addrgenmode none");
        run(
            "ip",
            &["-n", &far, "link", "set", "far", "addrgenmode", "none"],
        );
        link.ip(&format!("addr add {SENDER}/24 dev near"));
        run(
            "ip",
            &[
                "-n",
                &far,
                "addr",
                "add",
                &format!("{RECEIVER}/24"),
                "dev",
                "far",
            ],
        );
        link.ip("link set near up");
        run("ip", &["-n", &far, "link", "set", "far", "up"]);
        let shown: serde_json::Value = serde_json::from_str(&link.ip("-j link show near")).unwrap();
        link.ifindex = shown[0]["ifindex"].as_u64().unwrap().try_into().unwrap();
        Some(link)
    }

    /// Runs `ip` on the near side.
    pub(super) fn ip(&self, arguments: &str) -> String {
        let mut all = vec!["-n", &self.near];
        all.extend(arguments.split_whitespace());
        run("ip", &all)
    }

    /// Runs `tc` on the near side.
    pub(super) fn tc(&self, arguments: &str) -> String {
        let mut all = vec!["-n", &self.near];
        all.extend(arguments.split_whitespace());
        run("tc", &all)
    }

    /// Whether `tc` succeeds on the near side.
    pub(super) fn tc_accepts(&self, arguments: &str) -> bool {
        let mut command = Command::new("tc");
        command
            .args(["-n", &self.near])
            .args(arguments.split_whitespace());
        command.output().unwrap().status.success()
    }

    /// Everything that tc shows of the interface, without counters and reference counts.
    pub(super) fn shown(&self) -> String {
        let mut text = self.tc("-d qdisc show dev near");
        let mut classes: Vec<String> = self
            .tc("-d class show dev near")
            .lines()
            .map(str::to_owned)
            .collect();
        classes.sort();
        text.push_str(&classes.join("\n"));
        let mut words: Vec<&str> = text.split(' ').collect();
        for at in 1..words.len() {
            if ["refcnt", "direct_packets_stat"].contains(&words[at - 1]) {
                words[at] = "-";
            }
        }
        words.join(" ")
    }

    /// Runs a future on the near side, on a single-threaded runtime.
    pub(super) fn near<F: Future<Output: Send> + Send>(&self, future: F) -> F::Output {
        within(&self.near, || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(future)
        })
    }

    pub(super) fn install(&self, plan: &Plan) -> Result<Installed, QdiscError> {
        self.near(super::super::install(self.ifindex, plan))
    }

    pub(super) fn restore(&self, saved: &Saved) -> Result<Restored, QdiscError> {
        self.near(super::super::restore(self.ifindex, saved))
    }
}

/// Runs a closure in a namespace, on a thread of its own.
pub(super) fn within<T: Send>(namespace: &str, act: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let file = File::open(format!("/run/netns/{namespace}")).unwrap();
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            act()
        });
        thread
            .join()
            .unwrap_or_else(|cause| std::panic::resume_unwind(cause))
    })
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
