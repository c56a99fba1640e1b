//! A copy of this system that is thrown away, with its own processes, network and control groups.

use std::{
    env, fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use bed::wait;

use crate::support::{agent::Done, left_out, privileged};

const LIMIT: Duration = Duration::from_secs(120);
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/package/throwaway.sh");
const SYSTEMD: &str = "/lib/systemd/systemd";

/// The package that `cargo xtask test` has made; says why a test can't run without.
pub(super) fn package() -> Option<PathBuf> {
    let path = env::var_os("TREELINE_PACKAGE").map(PathBuf::from);
    match &path {
        Some(path) => assert!(path.exists(), "no package was made at {}", path.display()),
        None => left_out(format_args!(
            "no package was made; `cargo xtask test` makes it"
        )),
    }
    path
}

/// The copy. Dropping it ends what runs there, and its changes are gone.
pub(super) struct Throwaway {
    outer: Child,
    first: u32,
    folder: tempfile::TempDir,
    cgroup: String,
}

impl Throwaway {
    /// With nothing but a process that waits.
    pub(super) fn still() -> Option<Self> {
        Self::start(&["sleep", "infinity"])
    }

    /// With systemd at work.
    pub(super) fn booted() -> Option<Self> {
        if !fs::exists(SYSTEMD).unwrap() {
            left_out(format_args!("there is no systemd here"));
            return None;
        }
        let words = [
            SYSTEMD,
            "--system",
            "--unit=basic.target",
            "--log-target=null",
            "--show-status=0",
        ];
        let this = Self::start(&words)?;
        let is_up = || {
            let state = this.call("systemctl is-system-running").stdout;
            let up = ["running\n", "degraded\n"].contains(&state.as_str());
            Ok(up.then_some(()))
        };
        wait::until("systemd's start", LIMIT, is_up).unwrap();
        Some(this)
    }

    fn start(words: &[&str]) -> Option<Self> {
        if !privileged() {
            return None;
        }
        let known = fs::read_to_string("/proc/filesystems").unwrap();
        if ["overlay", "cgroup2"].iter().any(|name| {
            !known
                .lines()
                .any(|line| line.ends_with(&format!("\t{name}")))
        }) {
            left_out(format_args!("this kernel has no overlayfs or no cgroup2"));
            return None;
        }
        let package = package()?;
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let cgroup = format!("treeline-throwaway-{}-{number}", std::process::id());
        let folder = tempfile::tempdir().unwrap();
        let mut outer = Command::new("unshare")
            .args(["--mount", "sh", SCRIPT])
            .arg(folder.path())
            .arg(&cgroup)
            .args(words)
            .env("PACKAGE", package)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let children = format!("/proc/{0}/task/{0}/children", outer.id());
        let first = wait::until("the throw-away root", LIMIT, || {
            let ended = outer.try_wait()?;
            assert!(ended.is_none(), "it could not be made: {ended:?}");
            let first = fs::read_to_string(&children).ok();
            let first: Option<u32> = first.and_then(|text| text.trim().parse().ok());
            // Until its last `exec` the script is what runs.
            let entered = |pid: &u32| {
                fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|name| ["sleep\n", "systemd\n"].contains(&name.as_str()))
            };
            Ok(first.filter(entered))
        })
        .unwrap();
        Some(Self {
            outer,
            first,
            folder,
            cgroup,
        })
    }

    /// Runs a line of shell inside.
    pub(super) fn call(&self, line: &str) -> Done {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--all",
                "--root",
                "--wd",
                "--target",
                &self.first.to_string(),
            ])
            .args(["sh", "-c", line])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        Done::of(&mut command)
    }

    /// Files that are there and were not before, or are others than before; and folders that were not there.
    pub(super) fn changes(&self) -> Vec<String> {
        let upper = self.folder.path().join("upper");
        let target = self.first.to_string();
        // What was removed stands there as a device of numbers 0 and 0.
        let mut find = Command::new("nsenter");
        find.args(["--mount", "--target", &target, "find"])
            .arg(&upper)
            .args(["-not", "-type", "c", "-printf", "%y /%P\\n"]);
        let found = Done::of(&mut find).expect(0).stdout;
        found
            .lines()
            .filter_map(|line| {
                let (kind, path) = line.split_once(' ')?;
                let is_new = kind != "d" || !fs::exists(path).unwrap();
                is_new.then(|| path.to_owned())
            })
            .collect()
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        // The first process ends with the outer one, all others with the first, and the mounts with the last.
        drop(self.outer.kill());
        drop(self.outer.wait());
        let line = format!(
            "mount -t cgroup2 cgroup2 {0} && find {0}/{1} -depth -type d -exec rmdir {{}} +",
            self.folder.path().display(),
            self.cgroup
        );
        drop(wait::until("the control group's end", LIMIT, || {
            let mut remove = Command::new("unshare");
            remove.args(["--mount", "sh", "-c", &line]);
            Ok((Done::of(&mut remove).code == Some(0)).then_some(()))
        }));
    }
}
