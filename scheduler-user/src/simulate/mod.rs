//! One link, replayed under a discipline of queueing.
//!
//! The model is a fluid one: a message is there as a whole when it arrives, the link is never idle while
//! something waits, and a byte of one message may follow any byte of another. There is no TCP in it, no loss and
//! no driver queue: what it tells is what the order of service alone is worth. Time is counted in bytes that
//! the link could have sent, so that one replay holds for every rate.

mod bands;
mod expected;
mod foreground;
mod outcome;
mod path;
mod shortest;
mod traffic;
mod walk;

#[cfg(test)]
pub(crate) mod cdf;
#[cfg(test)]
mod closed_forms;

pub use bands::Within;
pub(crate) use expected::{Expected, Weighed, banded, expected};
pub use outcome::{Bottleneck, CLASS_BOUNDS_BYTES, Figures, Replay};
pub(crate) use outcome::{CLASSES, Tally, felt};
pub use path::{Guessed, Paths, Segment};
pub use traffic::{Message, Traffic};

/// One message on its way over the link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Job {
    /// When it arrives, in bytes that the link could have sent by then; ascending in a list.
    pub arrival: f64,
    /// Its size.
    pub bytes: f64,
    /// Index of its path in [`Paths`].
    pub message: usize,
}

/// In which order the link serves what waits.
#[derive(Clone, Copy, Debug)]
pub enum Scheme<'a> {
    /// As it came.
    Fifo,
    /// Everything at once, at equal rates (processor sharing): the ideal that fair queueing nears.
    Fair,
    /// Least attained service first (foreground-background): aging with bands without number.
    Las,
    /// Shortest remaining size first (Schrage 1968): the optimum in mean completion time.
    Srpt,
    /// Strict priority between bands; a message goes through the bands of its path.
    Bands(&'a Paths, Within),
}

/// Serves `jobs` and returns how long each was under way, in bytes that the link could have sent.
///
/// Takes O(n log n) in the number of jobs and segments. Every discipline is preemptive and loses no work.
///
/// # Panics
/// A path names a band from [`scheduler_common::class::BANDS`] up, or does not exist.
pub fn replay(jobs: &[Job], scheme: Scheme<'_>) -> Vec<f64> {
    match scheme {
        Scheme::Fifo => bands::whole(jobs, Within::Fifo),
        Scheme::Fair => bands::whole(jobs, Within::Fair),
        Scheme::Las => foreground::replay(jobs),
        Scheme::Srpt => shortest::replay(jobs),
        Scheme::Bands(paths, within) => bands::replay(jobs, within, |job| paths.of(job.message)),
    }
}
