//! What several integration tests need.

pub(crate) mod agent;
pub(crate) mod branch;
pub(crate) mod browser;
pub(crate) mod captures;
pub(crate) mod cards;
pub(crate) mod frames;
pub(crate) mod guests;
pub(crate) mod host;
pub(crate) mod json;
pub(crate) mod kernel;
pub(crate) mod packets;
pub(crate) mod peer;
pub(crate) mod tables;
pub(crate) mod tunnel;

use std::{
    env,
    fmt::Display,
    fs::{self, File},
    io::Write as _,
    ops::Deref,
    sync::atomic::{AtomicU32, Ordering},
};

use scheduler_common::settings::Settings;
use treeline::instance::Instance;

/// Whether this process may load programs and make namespaces.
///
/// Without root a test says why it does nothing; where `TREELINE_REQUIRE_ROOT` is 1 it fails.
pub(crate) fn privileged() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        let why = "this test loads kernel programs and makes network namespaces: run it as root";
        assert!(
            env::var_os("TREELINE_REQUIRE_ROOT").is_none_or(|value| value != "1"),
            "{why}"
        );
        left_out(why);
    }
    root
}

/// Says that a test, or a part of one, is left out: to who watches, and to `cargo xtask test`, which tells of all at its end.
pub(crate) fn left_out(why: impl Display) {
    eprintln!("not run: {why}");
    if let Some(path) = env::var_os("TREELINE_LEFT_OUT") {
        let file = File::options().create(true).append(true).open(path);
        // One write a line: other tests append to it at the same time.
        file.unwrap()
            .write_all(format!("{why}\n").as_bytes())
            .unwrap();
    }
}

/// Says why a test can't run; fails it where the machine is known to have that kernel module.
pub(crate) fn missing(module: &str, why: impl Display) {
    let present = env::var("TREELINE_MODULES").unwrap_or_default();
    assert!(
        present.split(',').all(|name| name != module),
        "module {module} is here, and yet {why}"
    );
    left_out(why);
}

/// Settings under which every decision leaves a sample.
pub(crate) fn unlimited() -> Settings {
    Settings {
        samples_per_window: u32::MAX,
        ..Settings::default()
    }
}

/// An instance of this test alone; dropping it removes its files and pins.
#[derive(Debug)]
pub(crate) struct OwnInstance(Instance);

impl OwnInstance {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("itest-{}-{number}", std::process::id());
        Self(Instance::new(&name).expect("the name is made of letters, digits and dashes"))
    }
}

impl Deref for OwnInstance {
    type Target = Instance;

    fn deref(&self) -> &Instance {
        &self.0
    }
}

impl Drop for OwnInstance {
    fn drop(&mut self) {
        for directory in [self.pins(), self.runtime(), self.state()] {
            // Most tests make only some of them.
            drop(fs::remove_dir_all(directory));
        }
    }
}
