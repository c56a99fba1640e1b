//! Progress of what takes longer than a moment, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::journal::terminal;

/// The bar moves so often where nothing is counted.
const TICK: Duration = Duration::from_millis(120);

/// A bar on standard error for so many steps; without a terminal it is silent.
pub(super) fn bar(steps: u64, what: &str) -> ProgressBar {
    let bar = terminal::add(ProgressBar::new(steps));
    if let Ok(style) =
        ProgressStyle::with_template("{spinner} {msg} [{wide_bar}] {pos}/{len} {eta}")
    {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(TICK);
    bar
}

/// A sign of life for what can't be counted.
pub(super) fn spinner(what: &str) -> ProgressBar {
    let spinner = terminal::add(ProgressBar::new_spinner());
    spinner.set_message(what.to_owned());
    spinner.enable_steady_tick(TICK);
    spinner
}

/// A clock behind what goes on until it is told to end, or for `length`.
pub(super) fn clock(what: &str, length: Option<Duration>) -> ProgressBar {
    let clock = spinner(what);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}, {elapsed}{prefix}") {
        clock.set_style(style);
    }
    clock.set_prefix(length.map_or_else(String::new, |length| {
        format!(" of {}", humantime::format_duration(length))
    }));
    clock
}
