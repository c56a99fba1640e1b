//! Ring buffer → samples, without ever making the kernel wait.

use std::{io, os::fd::AsRawFd, time::Duration};

use aya::maps::{MapData, RingBuf};
use scheduler_common::sample::Sample;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use zerocopy::FromBytes as _;

/// The programs wake the reader only when the ring fills; otherwise it looks by itself.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Records handed on at once.
const BATCH: usize = 1024;

/// Reads samples until `stop`, and hands them on in batches.
///
/// If the receiver lags, this task waits and the ring fills; the kernel programs count what they
/// lose then, and never wait themselves.
///
/// # Errors
/// If the ring can't be polled.
pub async fn read(
    ring: RingBuf<MapData>,
    batches: mpsc::Sender<Vec<Sample>>,
    stop: CancellationToken,
) -> io::Result<()> {
    tracing::debug!(fd = ring.as_raw_fd(), "sampling");
    let mut ring = pollable(ring)?;
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused = 0u64;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = look.tick() => {}
            ready = ring.readable_mut() => ready?.clear_ready(),
        }
        loop {
            let batch = drain(ring.get_mut(), &mut refused);
            if batch.is_empty() {
                break;
            }
            if batches.send(batch).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// Registers a ring buffer's reader with the runtime.
///
/// # Errors
/// If the descriptor can't be polled.
#[expect(
    deprecated,
    reason = "its successor is unsafe; aya's readers own one descriptor for life"
)]
pub fn pollable<T: AsRawFd>(reader: T) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(reader, Interest::READABLE)
}

/// Takes up to a batch of what waits in the ring.
pub(crate) fn drain(ring: &mut RingBuf<MapData>, refused: &mut u64) -> Vec<Sample> {
    let mut batch = Vec::new();
    while batch.len() < BATCH {
        let Some(record) = ring.next() else { break };
        match Sample::read_from_bytes(&record) {
            Ok(sample) => batch.push(sample),
            Err(_wrong_size) => {
                *refused += 1;
                if refused.is_power_of_two() {
                    warn!(
                        bytes = record.len(),
                        refused, "sample of another size refused"
                    );
                }
            }
        }
    }
    batch
}
