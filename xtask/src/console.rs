//! What a person sees on stderr: progress lines and durations.

#![expect(clippy::print_stderr, reason = "progress is this program's output")]

use std::{
    fmt::{self, Display, Formatter},
    time::{Duration, Instant},
};

/// Prints one line.
pub(crate) fn say(line: impl Display) {
    eprintln!("{line}");
}

/// A duration as a person says it: `0.4 s`, `12 s`, `2 min 5 s`.
pub(crate) struct Spoken(pub(crate) Duration);

impl Display for Spoken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(duration) = self;
        match duration.as_secs() {
            0..10 => write!(f, "{:.1} s", duration.as_secs_f64()),
            seconds @ 10..60 => write!(f, "{seconds} s"),
            seconds => write!(f, "{} min {} s", seconds / 60, seconds % 60),
        }
    }
}

/// How a step of setup ended when it did not fail.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing had to be done.
    Present,
    /// It was missing and now is there.
    Done,
    /// It is missing, and the rest can go on without it.
    Skipped(String),
}

/// One progress line, written piece by piece as its step goes on.
pub(crate) struct Step {
    started: Instant,
}

impl Step {
    /// Starts the line: `[2/4] rust-src`.
    pub(crate) fn start(number: usize, of: usize, name: &str) -> Self {
        eprint!("[{number}/{of}] {name}");
        Self {
            started: Instant::now(),
        }
    }

    /// Adds what is now being tried.
    pub(crate) fn doing(&self, what: impl Display) {
        eprint!(" … {what}");
    }

    /// Ends the line with what came of it.
    pub(crate) fn end(self, outcome: &anyhow::Result<Outcome>) {
        let Self { started } = self;
        match outcome {
            Ok(Outcome::Present) => eprintln!(" … already there"),
            Ok(Outcome::Done) => eprintln!(" … done in {}", Spoken(started.elapsed())),
            Ok(Outcome::Skipped(why)) => eprintln!(" … left out: {why}"),
            Err(_) => eprintln!(" … failed after {}", Spoken(started.elapsed())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spoken_in_the_unit_that_fits() {
        for (millis, spoken) in [
            (400, "0.4 s"),
            (12_345, "12 s"),
            (60_000, "1 min 0 s"),
            (125_900, "2 min 5 s"),
        ] {
            assert_eq!(Spoken(Duration::from_millis(millis)).to_string(), spoken);
        }
    }
}
