//! Traffic at full speed from one thread to another, for a slice of time.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use bed::netns::{Bed, CLIENT_V4, SERVER_V4};

use crate::{measure, pin};

/// Before the slice: the congestion window opens.
const WARM_UP: Duration = Duration::from_millis(150);
const CHUNK_BYTES: usize = 1 << 17;
/// Payload of a frame of 64 bytes.
const DATAGRAM_BYTES: usize = 22;
const SENDER_CPU: usize = 0;
const RECEIVER_CPU: usize = 1;

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const OVER: u8 = 2;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One TCP connection.
    Bulk,
    /// Small datagrams to a socket that nobody reads, one call each.
    Datagrams,
}

/// What went through in a slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flown {
    /// Bytes of TCP, or datagrams, a second.
    pub(crate) per_second: f64,
    /// CPU time of the sending and the receiving thread for each of them.
    pub(crate) cpu_ns_each: f64,
}

/// Sends for a slice; what arrives counts.
///
/// # Errors
///
/// When a socket fails.
pub(crate) fn run(bed: &Bed, kind: Kind, slice: Duration) -> Result<Flown> {
    let phase = Arc::new(AtomicU8::new(WARMING));
    let (sender, receiver) = match kind {
        Kind::Bulk => bulk(bed, &phase)?,
        Kind::Datagrams => (datagrams(bed, &phase)?, None),
    };
    thread::sleep(WARM_UP);
    phase.store(MEASURING, Ordering::Relaxed);
    thread::sleep(slice);
    phase.store(OVER, Ordering::Relaxed);
    let sent = joined(sender)?;
    let received = receiver.map(joined).transpose()?;
    let counted = received.unwrap_or(sent);
    ensure!(counted.items > 0, "nothing went through");
    let cpu_us = sent.cpu_us + received.map_or(0, |received| received.cpu_us);
    Ok(Flown {
        per_second: counted.items as f64 / counted.elapsed.as_secs_f64(),
        cpu_ns_each: cpu_us as f64 * 1e3 / counted.items as f64,
    })
}

/// What one thread did while it was measured.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    items: u64,
    elapsed: Duration,
    cpu_us: i64,
}

type Worker = JoinHandle<Result<Tally>>;

fn joined(worker: Worker) -> Result<Tally> {
    worker
        .join()
        .map_err(|_panic| anyhow!("a thread of the load panicked"))?
}

/// Repeats `step`, which tells how much it moved, until the phase is over.
fn tally(phase: &AtomicU8, mut step: impl FnMut() -> Result<u64>) -> Result<Tally> {
    while phase.load(Ordering::Relaxed) == WARMING {
        step()?;
    }
    let (began, cpu_us) = (Instant::now(), measure::cpu_us()?);
    let mut items = 0;
    while phase.load(Ordering::Relaxed) == MEASURING {
        items += step()?;
    }
    Ok(Tally {
        items,
        elapsed: began.elapsed(),
        cpu_us: measure::cpu_us()? - cpu_us,
    })
}

/// From the server, whose link is the one under test, to the client.
fn bulk(bed: &Bed, phase: &Arc<AtomicU8>) -> Result<(Worker, Option<Worker>)> {
    let listener = bed
        .server
        .enter(|| Ok(TcpListener::bind((SERVER_V4, 0))?))?;
    let address = listener.local_addr()?;
    let mut receiving = bed.client.enter(|| Ok(TcpStream::connect(address)?))?;
    let (mut sending, _) = listener.accept()?;
    let patience = Some(Duration::from_secs(5));
    receiving.set_read_timeout(patience)?;
    sending.set_write_timeout(patience)?;
    let phase_of_sender = Arc::clone(phase);
    let sender = thread::spawn(move || {
        pin(Some(SENDER_CPU))?;
        let chunk = vec![0x5a; CHUNK_BYTES];
        tally(&phase_of_sender, || match sending.write(&chunk) {
            Ok(bytes) => Ok(bytes as u64),
            // The receiver ends when the slice does.
            Err(error) if is_end(error.kind()) => Ok(0),
            Err(error) => Err(error).context("cannot send"),
        })
    });
    let phase = Arc::clone(phase);
    let receiver = thread::spawn(move || {
        pin(Some(RECEIVER_CPU))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        tally(&phase, || {
            let bytes = receiving.read(&mut chunk).context("cannot receive")?;
            Ok(bytes as u64)
        })
    });
    Ok((sender, Some(receiver)))
}

fn is_end(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// A veth carries a datagram to the far socket within the sender's call; there it is dropped once the buffer is full.
fn datagrams(bed: &Bed, phase: &Arc<AtomicU8>) -> Result<Worker> {
    let sink = bed.client.enter(|| Ok(UdpSocket::bind((CLIENT_V4, 0))?))?;
    let address: SocketAddr = sink.local_addr()?;
    let sending = bed.server.enter(|| {
        let socket = UdpSocket::bind((SERVER_V4, 0))?;
        socket.connect(address)?;
        Ok(socket)
    })?;
    let phase = Arc::clone(phase);
    Ok(thread::spawn(move || {
        pin(Some(SENDER_CPU))?;
        let datagram = [0x5a; DATAGRAM_BYTES];
        let tally = tally(&phase, || {
            sending.send(&datagram).context("cannot send")?;
            Ok(1)
        });
        drop(sink);
        tally
    }))
}
