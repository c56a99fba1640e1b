//! What single tests look at, and skip with a line where it can't be had.

use anyhow::Result;

use super::packages;
use crate::{
    console::{Outcome, Step},
    machine::Machine,
};

/// Browsers, any of which serves; `tests/support/browser.rs` knows the same.
const BROWSERS: [&str; 4] = [
    "chromium-headless-shell",
    "chromium",
    "chromium-browser",
    "google-chrome",
];
/// Debian's smallest package with one: 90 MB to fetch with what it needs; and a font, without which no text has a size.
const DEBIAN: [&str; 2] = ["chromium-headless-shell", "fonts-dejavu-core"];

/// Installs a browser for the test of the report's page; that this fails hinders no test.
pub(super) fn browser(machine: &Machine, step: &Step) -> Result<Outcome> {
    if BROWSERS.iter().any(|name| machine.find(name).is_some()) {
        return Ok(Outcome::Present);
    }
    if machine.find("apt-get").is_none() || !machine.is_root() {
        let why = "no browser is here, and only root can get one, of Debian's packages";
        return Ok(Outcome::Skipped(why.to_owned()));
    }
    step.doing(format_args!("installing {}", DEBIAN.join(", ")));
    let words = ["install", "--yes", "--no-install-recommends"];
    let words: Vec<_> = words.into_iter().chain(DEBIAN).collect();
    Ok(match packages::by_manager(machine, "apt-get", &words) {
        Ok(()) => Outcome::Done,
        Err(error) => Outcome::Skipped(format!("{error:#}")),
    })
}
