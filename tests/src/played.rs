//! One run of one scheme: what the messages, the queues and TCP say.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::{
    beds::Bed,
    mix::Arrival,
    netns::Segments,
    scheme::{self, Queues},
    traffic::{self, Exchange, Marking, Play, Run},
};

/// How often the queue's backlog is looked at during a run.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What one run of one scheme gave.
#[derive(Clone, Debug)]
pub struct Played<A = Arrival> {
    /// Outcomes of the messages, and how the generator fared.
    pub run: Run<A>,
    /// What the queues counted.
    pub queues: Queues,
    /// What the server's TCP sent.
    pub segments: Segments,
    /// Most bytes seen waiting.
    pub backlog_peak_bytes: u64,
}

/// Plays messages over a bed whose hierarchy stands already; `check` is called some times a second meanwhile.
///
/// # Errors
///
/// When there is no hierarchy, when the run fails, or when `check` does.
pub fn play<A: Exchange>(
    bed: &Bed,
    arrivals: Vec<A>,
    play: Play,
    marking: Option<Marking>,
    check: &mut dyn FnMut() -> Result<()>,
) -> Result<Played<A>> {
    let shaped = bed.shaped();
    let (before, sent_before) = (scheme::queues(shaped)?, bed.server.segments()?);
    ensure!(
        !before.packets.is_empty(),
        "the scheme left no HTB leaves on the uplink"
    );
    let mut backlog_peak_bytes = 0;
    let mut looked = Instant::now();
    let run = traffic::run(bed, arrivals, play, marking, &mut || {
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            backlog_peak_bytes = scheme::queues(shaped)?
                .backlog_bytes
                .max(backlog_peak_bytes);
        }
        check()
    })?;
    let sent = bed.server.segments()?;
    Ok(Played {
        run,
        queues: scheme::queues(shaped)?.since(&before),
        segments: Segments {
            sent: sent.sent.saturating_sub(sent_before.sent),
            retransmitted: sent.retransmitted.saturating_sub(sent_before.retransmitted),
        },
        backlog_peak_bytes,
    })
}
