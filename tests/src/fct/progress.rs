//! Tells whoever waits how far the bench is, and how long it will take.

use std::time::{Duration, Instant};

/// Runs done, and those to come.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    to_do: Duration,
    planned: Duration,
}

impl Progress {
    /// Begins a bench whose runs take `planned` all together, by their nominal lengths.
    pub(crate) fn new(planned: Duration) -> Self {
        Self {
            started: Instant::now(),
            to_do: planned,
            planned,
        }
    }

    /// So much of the plan is done.
    pub(crate) fn done(&mut self, nominal: Duration) {
        self.to_do = self.to_do.saturating_sub(nominal);
    }

    /// Time that the rest will take, if it goes on as it went.
    fn left(&self) -> Duration {
        let done = self.planned.saturating_sub(self.to_do);
        if done.is_zero() {
            return self.to_do;
        }
        let pace = self.started.elapsed().as_secs_f64() / done.as_secs_f64();
        self.to_do.mul_f64(pace)
    }

    #[expect(clippy::print_stderr, reason = "progress is for the person who waits")]
    pub(crate) fn say(&self, what: &str) {
        let minutes =
            |time: Duration| format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60);
        eprintln!(
            "[{}, {} left] {what}",
            minutes(self.started.elapsed()),
            minutes(self.left())
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_when_all_is_done() {
        let mut progress = Progress::new(Duration::from_secs(60));
        assert_eq!(progress.left(), Duration::from_secs(60));
        progress.done(Duration::from_secs(45));
        progress.done(Duration::from_secs(45));
        assert_eq!(progress.left(), Duration::ZERO);
    }
}
