//! Answers each request with exactly the bytes it asks for.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    num::NonZeroU8,
};

use anyhow::{Context as _, Result};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

use super::request::{REQUEST_HEADER_BYTES, Request};
use crate::mix::Service;

/// Replies are cut from here, so that sending costs one copy and no thought.
static BLOB: [u8; 128 * 1024] = [0x5a; 128 * 1024];

/// Bytes that may wait unsent in a socket. Enough to keep the link busy between wake-ups.
const UNSENT_BYTES: u32 = 256 * 1024;

/// How a reply's band becomes `SO_PRIORITY`: the class handle is `base + band`.
#[derive(Clone, Copy, Debug)]
pub struct Marking {
    /// Handle of the qdisc, minor number zero.
    pub base: u32,
}

/// Listens on every service's port; opens the sockets in the calling thread's namespace.
///
/// # Errors
///
/// When a port is taken.
pub(super) async fn listen(address: IpAddr) -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    for service in Service::ALL {
        let at = SocketAddr::new(address, service.port());
        let listener = TcpListener::bind(at)
            .await
            .with_context(|| format!("cannot listen on {at}"))?;
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
    SockRef::from(&*stream).set_tcp_notsent_lowat(UNSENT_BYTES)?;
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
        if let (Some(marking), Some(band)) = (marking, request.band) {
            mark(stream, marking, band)?;
        }
        let mut left = request.reply_bytes;
        while left > 0 {
            let part = left.min(BLOB.len() as u64) as usize;
            left -= stream.write(&BLOB[..part]).await? as u64;
        }
    }
}

/// Sets the band of what this socket sends from now on. The client asks again only when it has
/// the whole last reply, so nothing of that one is queued any more and nothing is overtaken.
fn mark(stream: &TcpStream, marking: Marking, band: NonZeroU8) -> io::Result<()> {
    SockRef::from(stream).set_priority(marking.base + u32::from(band.get()))
}
