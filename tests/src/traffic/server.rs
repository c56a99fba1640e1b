//! Answers each request with exactly the bytes it asks for.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU8,
};

use anyhow::{Context as _, Result};
use scheduler_common::class::Cuts;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

use super::request::{REQUEST_HEADER_BYTES, Request};
use crate::workload::FIRST_PORT;

/// Replies are cut from here, so that sending costs one copy and no thought.
static BLOB: [u8; 128 * 1024] = [0x5a; 128 * 1024];

/// Bytes that may wait unsent in a socket. Enough to keep the link busy between wake-ups.
const UNSENT_BYTES: u32 = 256 * 1024;

/// Bytes that may wait unsent where the mark follows what is left: a mark holds for what is sent after it.
const UNSENT_WHILE_MARKING_BYTES: u32 = 16 * 1024;

/// How replies are marked for a hierarchy that knows their sizes.
#[derive(Clone, Copy, Debug)]
pub enum Marking {
    /// By `SO_PRIORITY`: the class handle is `base` and the band that the request asks for.
    ByRequest {
        /// Handle of the qdisc, minor number zero.
        base: u32,
    },
    /// By the reply's own length, and these cut points.
    BySize {
        /// Where bands end.
        cuts: Cuts,
        /// What carries the band.
        mark: Mark,
        /// Whose bytes count.
        counted: Counted,
    },
    /// By the service alone, as an administrator marks them: the type of service of each port from
    /// [`FIRST_PORT`] on. A listener's holds for all that it accepts, from the handshake on.
    ByService([u8; MARKED_SERVICES]),
}

/// Services that can have a mark.
pub const MARKED_SERVICES: usize = 8;

/// What carries a band to the queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mark {
    /// `SO_PRIORITY`, which ends with the host: the class handle is this and the band, counted from one.
    Priority(u32),
    /// The DSCP, which crosses the wire: the band, counted from one.
    Dscp,
}

/// Which of a reply's bytes decide its band.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Counted {
    /// All of them: the band is settled at the start.
    Whole,
    /// Those still to be written: the band rises towards the end.
    Remaining,
}

/// Listens on these ports; opens the sockets in the calling thread's namespace.
///
/// # Errors
///
/// When a port is taken.
pub(super) async fn listen(
    address: IpAddr,
    ports: BTreeSet<u16>,
    marking: Option<Marking>,
) -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for port in ports {
        let at = SocketAddr::new(address, port);
        let listener = TcpListener::bind(at)
            .await
            .with_context(|| format!("cannot listen on {at}"))?;
        if let Some(Marking::ByService(marks)) = marking
            && let Some(tos) = port
                .checked_sub(FIRST_PORT)
                .and_then(|place| marks.get(usize::from(place)))
        {
            SockRef::from(&listener).set_tos_v4(u32::from(*tos))?;
        }
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Serves until `stop` completes.
pub(super) async fn serve(
    listeners: Vec<TcpListener>,
    marking: Option<Marking>,
    stop: impl Future<Output = ()>,
) {
    let local = LocalSet::new();
    for listener in listeners {
        local.spawn_local(async move {
            loop {
                // A refused accept (out of descriptors) shows as errors at the client.
                if let Ok((stream, _)) = listener.accept().await {
                    tokio::task::spawn_local(converse(stream, marking));
                } else {
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    local.run_until(stop).await;
}

async fn converse(mut stream: TcpStream, marking: Option<Marking>) {
    // The peer's end of the connection is how a conversation ends.
    drop(answer_all(&mut stream, marking).await);
}

async fn answer_all(stream: &mut TcpStream, marking: Option<Marking>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let remarks = matches!(
        marking,
        Some(Marking::BySize {
            counted: Counted::Remaining,
            ..
        })
    );
    let unsent = if remarks {
        UNSENT_WHILE_MARKING_BYTES
    } else {
        UNSENT_BYTES
    };
    SockRef::from(&*stream).set_tcp_notsent_lowat(unsent)?;
    let mut header = [0; REQUEST_HEADER_BYTES];
    let mut scratch = [0; 4096];
    loop {
        stream.read_exact(&mut header).await?;
        let request = Request::decode(&header)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a request"))?;
        let mut rest = (request.request_bytes as usize).saturating_sub(REQUEST_HEADER_BYTES);
        while rest > 0 {
            let part = rest.min(scratch.len());
            rest -= stream.read_exact(&mut scratch[..part]).await?;
        }
        if let Some(marking) = marking {
            mark(stream, marking, &request)?;
        }
        let mut left = request.reply_bytes;
        let mut marked_band = None;
        while left > 0 {
            let mut part = left.min(BLOB.len() as u64) as usize;
            if let Some(Marking::BySize { cuts, mark, .. }) = marking.filter(|_| remarks) {
                let band = cuts.band_of(left);
                if marked_band.replace(band) != Some(band) {
                    carry(stream, mark, NonZeroU8::MIN.saturating_add(band))?;
                }
                part = part.min(UNSENT_WHILE_MARKING_BYTES as usize);
            }
            left -= stream.write(&BLOB[..part]).await? as u64;
        }
    }
}

/// Sets the band of what this socket sends from now on. The client asks again only when it has
/// the whole last reply, so nothing of that one is queued any more and nothing is overtaken.
fn mark(stream: &TcpStream, marking: Marking, request: &Request) -> io::Result<()> {
    match marking {
        Marking::ByRequest { base } => match request.band {
            Some(band) => carry(stream, Mark::Priority(base), band),
            None => Ok(()),
        },
        Marking::ByService(_) => Ok(()),
        Marking::BySize { cuts, mark, .. } => {
            let band = NonZeroU8::MIN.saturating_add(cuts.band_of(request.reply_bytes));
            carry(stream, mark, band)
        }
    }
}

fn carry(stream: &TcpStream, mark: Mark, band: NonZeroU8) -> io::Result<()> {
    let socket = SockRef::from(stream);
    match mark {
        Mark::Priority(base) => socket.set_priority(base + u32::from(band.get())),
        // The two lowest bits of the byte are ECN's.
        Mark::Dscp => socket.set_tos_v4(u32::from(band.get()) << 2),
    }
}
