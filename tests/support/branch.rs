//! A branch: client, router and server, and downloads from one to the other.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bed::netns::Namespace;

/// The router's interface towards the server.
pub(crate) const WAN: &str = "wan0";
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 97, 0, 1));

/// A client behind a router, and a server far away.
#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) client: Namespace,
    pub(crate) router: Namespace,
    pub(crate) server: Namespace,
}

impl Branch {
    pub(crate) fn new() -> Result<Self> {
        let branch = Self {
            client: Namespace::new("client")?,
            router: Namespace::new("router")?,
            server: Namespace::new("server")?,
        };
        let Self {
            client,
            router,
            server,
        } = &branch;
        for namespace in [client, router, server] {
            // A device that comes up would speak ICMPv6, which has flows.
            namespace.write_sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        }
        server.ip(&format!(
            "link add far0 type veth peer name {WAN} netns {}",
            router.name()
        ))?;
        client.ip(&format!(
            "link add near0 type veth peer name lan0 netns {}",
            router.name()
        ))?;
        server.ip("addr add 10.97.0.1/24 dev far0")?;
        router.ip(&format!("addr add 10.97.0.2/24 dev {WAN}"))?;
        router.ip("addr add 10.98.0.1/24 dev lan0")?;
        client.ip("addr add 10.98.0.2/24 dev near0")?;
        // Super-packets as large as a provider's line would bring them.
        server.ip("link set far0 up gso_max_size 4400")?;
        for link in [WAN, "lan0"] {
            router.ip(&format!("link set {link} up"))?;
        }
        client.ip("link set near0 up")?;
        client.ip("route add default via 10.98.0.1")?;
        // The host may default to BBR, which hides the queue.
        server.ip("route add 10.98.0.0/24 via 10.97.0.2 congctl cubic")?;
        router.write_sysctl("net/ipv4/ip_forward", "1")?;
        Ok(branch)
    }

    /// Serves on the server until dropped: a request is a number of bytes, as eight bytes.
    pub(crate) fn serve(&self) -> Result<SocketAddr> {
        let listener = self.server.enter(|| Ok(TcpListener::bind((SERVER, 0))?))?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for peer in listener.incoming() {
                let Ok(peer) = peer else { return };
                std::thread::spawn(move || {
                    // A client that has seen enough goes away.
                    drop(answer(peer));
                });
            }
        });
        Ok(address)
    }

    /// A connection from the client.
    pub(crate) fn connect(&self, address: SocketAddr) -> Result<TcpStream> {
        let stream = self.client.enter(|| Ok(TcpStream::connect(address)?))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(stream)
    }

    /// Downloads without end until dropped.
    pub(crate) fn bulk(&self, address: SocketAddr) -> Result<Bulk> {
        let mut stream = self.connect(address)?;
        stream.write_all(&u64::MAX.to_be_bytes())?;
        let (received, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (count, stopped) = (Arc::clone(&received), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !stopped.load(Ordering::Relaxed) {
                match stream.read(&mut buffer) {
                    Ok(bytes) if bytes > 0 => {
                        count.fetch_add(bytes as u64, Ordering::Relaxed);
                    }
                    _ => return,
                }
            }
        });
        Ok(Bulk {
            received,
            stop,
            thread: Some(thread),
        })
    }

    /// Time that a fresh connection takes to ask for so many bytes and get them.
    pub(crate) fn fetch(&self, address: SocketAddr, bytes: u64) -> Result<Duration> {
        let started = Instant::now();
        let mut stream = self.connect(address)?;
        ask(&mut stream, bytes)?;
        Ok(started.elapsed())
    }
}

/// One request and its answer.
pub(crate) fn ask(stream: &mut TcpStream, bytes: u64) -> Result<()> {
    stream.write_all(&bytes.to_be_bytes())?;
    let mut answer = vec![0; usize::try_from(bytes)?];
    stream
        .read_exact(&mut answer)
        .context("the answer broke off")
}

fn answer(mut peer: TcpStream) -> Result<()> {
    let data = vec![3; 1 << 16];
    let mut request = [0; 8];
    loop {
        peer.read_exact(&mut request)?;
        let mut left = u64::from_be_bytes(request);
        while left > 0 {
            let part = left.min(data.len() as u64);
            peer.write_all(&data[..part as usize])?;
            left -= part;
        }
    }
}

/// A download that goes on until dropped.
#[derive(Debug)]
pub(crate) struct Bulk {
    received: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bulk {
    /// Payload bytes that have come so far.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
