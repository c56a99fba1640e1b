//! What fills the link: downloads without end, and pages in an open loop.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bed::{
    beds::Bed,
    netns::{Namespace, SERVER_V4},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use socket2::SockRef;

use crate::kind::{DOWNLOADS, SSH, WEB};

/// Ports of the downloads without end; the last one is a file copied over ssh.
const LONG: [u16; 4] = [DOWNLOADS, DOWNLOADS, DOWNLOADS, SSH];
/// Type of service of a download where marks are right: CS1, as scp sets it.
const BULK_TOS: u32 = 0x20;
/// How often a blocked thread looks whether it is time to end.
const LOOK_EVERY: Duration = Duration::from_millis(200);
const ENDLESS: u64 = u64::MAX;

/// Web search (DCTCP, SIGCOMM 2010): bytes and the share of flows up to there, as `TrafficGenerator` ships it.
const WEB_SEARCH: [(f64, f64); 12] = [
    (0.0, 0.0),
    (1e4, 0.15),
    (2e4, 0.2),
    (3e4, 0.3),
    (5e4, 0.4),
    (8e4, 0.53),
    (2e5, 0.6),
    (1e6, 0.7),
    (2e6, 0.8),
    (5e6, 0.9),
    (1e7, 0.97),
    (3e7, 1.0),
];

/// How much is offered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    /// Link rate.
    pub(crate) rate_bps: u64,
    /// Share of it that pages take.
    pub(crate) web_load: f64,
    /// Factor on the published sizes.
    pub(crate) scale: f64,
    /// Whether downloads are marked.
    pub(crate) marked: bool,
    pub(crate) seed: u64,
}

/// Traffic that runs until it is stopped.
pub(crate) struct Bulk {
    stop: Arc<AtomicBool>,
    received: Arc<[AtomicU64; 2]>,
    since: Instant,
    threads: Vec<JoinHandle<()>>,
}

/// Mbit/s of payload that came through.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Goodput {
    pub(crate) downloads_mbps: f64,
    pub(crate) web_mbps: f64,
}

impl Bulk {
    /// Starts servers, downloads and pages.
    pub(crate) fn start(bed: &Bed, offer: Offer, ssh: TcpListener) -> Result<Self> {
        let mut bulk = Self {
            stop: Arc::default(),
            received: Arc::default(),
            since: Instant::now(),
            threads: Vec::new(),
        };
        let listen = |port| listener(&bed.server, port);
        for (listener, tos) in [
            (listen(DOWNLOADS)?, offer.marked.then_some(BULK_TOS)),
            (ssh, offer.marked.then_some(BULK_TOS)),
            (listen(WEB)?, None),
        ] {
            let stop = Arc::clone(&bulk.stop);
            bulk.threads
                .push(thread::spawn(move || serve(&listener, tos, &stop)));
        }
        for port in LONG {
            bulk.fetch(&bed.client, port)?;
        }
        bulk.pages(&bed.client, offer)?;
        bulk.since = Instant::now();
        Ok(bulk)
    }

    /// One download without end.
    fn fetch(&mut self, client: &Namespace, port: u16) -> Result<()> {
        let (stop, received) = (Arc::clone(&self.stop), Arc::clone(&self.received));
        let thread = client.thread("download", move || {
            let at = SocketAddr::new(SERVER_V4, port);
            take(at, ENDLESS, &received[0], &stop)
        })?;
        self.threads
            .push(thread::spawn(move || drop(thread.join())));
        Ok(())
    }

    /// Poisson arrivals, each over a connection of its own.
    fn pages(&mut self, client: &Namespace, offer: Offer) -> Result<()> {
        let (stop, received) = (Arc::clone(&self.stop), Arc::clone(&self.received));
        let thread = client.thread("pages", move || {
            let mut rng = StdRng::seed_from_u64(offer.seed);
            let a_second =
                offer.web_load * offer.rate_bps as f64 / 8.0 / (mean_bytes() * offer.scale * 1.045);
            let mut at = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                at += Duration::from_secs_f64(-(1.0 - rng.random::<f64>()).ln() / a_second);
                let bytes = (size_at(rng.random()) * offer.scale).max(1.0) as u64;
                thread::sleep(at.saturating_duration_since(Instant::now()));
                let (stop, received) = (Arc::clone(&stop), Arc::clone(&received));
                // In this thread's namespace; it ends with its message or with the run.
                thread::spawn(move || {
                    let server = SocketAddr::new(SERVER_V4, WEB);
                    drop(take(server, bytes, &received[1], &stop));
                });
            }
            Ok(())
        })?;
        self.threads
            .push(thread::spawn(move || drop(thread.join())));
        Ok(())
    }

    /// Ends everything; what came through since the start.
    pub(crate) fn finish(self) -> Goodput {
        let seconds = self.since.elapsed().as_secs_f64();
        let mbps =
            |received: &AtomicU64| received.load(Ordering::Relaxed) as f64 * 8.0 / 1e6 / seconds;
        let goodput = Goodput {
            downloads_mbps: mbps(&self.received[0]),
            web_mbps: mbps(&self.received[1]),
        };
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            drop(thread.join());
        }
        goodput
    }
}

/// Listens inside a namespace without blocking for long.
pub(crate) fn listener(namespace: &Namespace, port: u16) -> Result<TcpListener> {
    let address: IpAddr = SERVER_V4;
    namespace.enter(|| {
        TcpListener::bind((address, port)).with_context(|| format!("cannot listen on port {port}"))
    })
}

fn serve(listener: &TcpListener, tos: Option<u32>, stop: &Arc<AtomicBool>) {
    // Nothing wakes a thread that accepts.
    if listener.set_nonblocking(true).is_err() {
        return;
    }
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let stop = Arc::clone(stop);
                // The client sees a failure as bytes that do not come.
                thread::spawn(move || drop(give(stream, tos, &stop)));
            }
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Sends as many bytes as the client asks for.
fn give(mut stream: TcpStream, tos: Option<u32>, stop: &AtomicBool) -> Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(LOOK_EVERY))?;
    if let Some(tos) = tos {
        SockRef::from(&stream).set_tos_v4(tos)?;
    }
    let mut asked = [0; 8];
    stream.read_exact(&mut asked)?;
    let mut left = u64::from_be_bytes(asked);
    let blob = [0x5a; 64 * 1024];
    while left > 0 && !stop.load(Ordering::Relaxed) {
        let chunk = blob.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match stream.write(&blob[..chunk]) {
            Ok(sent) => left = left.saturating_sub(sent as u64),
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Asks for so many bytes and takes them in.
fn take(server: SocketAddr, bytes: u64, received: &AtomicU64, stop: &AtomicBool) -> Result<()> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(LOOK_EVERY))?;
    stream.write_all(&bytes.to_be_bytes())?;
    let mut buffer = vec![0; 64 * 1024];
    while !stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => {
                received.fetch_add(got as u64, Ordering::Relaxed);
            }
            Err(error) if is_timeout(&error) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(crate) fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

/// Size at a quantile, straight between the published points.
fn size_at(quantile: f64) -> f64 {
    let after = WEB_SEARCH.partition_point(|(_, share)| *share < quantile);
    let (Some(low), Some(high)) = (
        WEB_SEARCH.get(after.saturating_sub(1)),
        WEB_SEARCH.get(after),
    ) else {
        return WEB_SEARCH.last().map_or(0.0, |(bytes, _)| *bytes);
    };
    let width = high.1 - low.1;
    if width <= 0.0 {
        return high.0;
    }
    low.0 + (high.0 - low.0) * (quantile - low.1) / width
}

fn mean_bytes() -> f64 {
    WEB_SEARCH
        .windows(2)
        .map(|pair| (pair[1].1 - pair[0].1) * f64::midpoint(pair[0].0, pair[1].0))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_the_published_ones() {
        assert!((size_at(0.15) - 1e4).abs() < 1.0);
        assert!((size_at(0.85) - 3.5e6).abs() < 1.0);
        assert!((size_at(1.0) - 3e7).abs() < 1.0 && size_at(0.0) < 1.0);
        assert!((1.6e6..1.8e6).contains(&mean_bytes()), "{}", mean_bytes());
    }
}
