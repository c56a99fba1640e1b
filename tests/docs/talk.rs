//! Traffic of the stage: conversations that go on while commands run, and a capture for `treeline replay`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use bed::netns::Namespace;
use socket2::{Domain, Socket, Type};

use crate::{
    replay::pcap,
    support::packets::{ACK, Ends, Flags},
};

/// The flow that documents explain.
const NEAR: ([u8; 4], u16) = ([10, 0, 0, 1], 5000);
const FAR: ([u8; 4], u16) = ([10, 0, 0, 2], 80);

/// A service that answers for as long as the stage stands.
struct Service {
    /// Where it listens.
    at: ([u8; 4], u16),
    /// Who asks.
    asks: ([u8; 4], u16),
    reply_bytes: usize,
    /// From an answer to the next request.
    pause: Duration,
}

/// The flow that documents explain, and two services of this host: short answers and long ones.
const SERVICES: [Service; 3] = [
    Service {
        at: FAR,
        asks: NEAR,
        reply_bytes: 3000,
        pause: Duration::from_millis(100),
    },
    Service {
        at: ([10, 0, 0, 1], 22),
        asks: ([10, 0, 0, 2], 5022),
        reply_bytes: 20_000,
        pause: Duration::from_millis(30),
    },
    Service {
        at: ([10, 0, 0, 1], 443),
        asks: ([10, 0, 0, 2], 50_000),
        reply_bytes: 900_000,
        pause: Duration::from_millis(150),
    },
];

pub(super) type Talk = Vec<JoinHandle<anyhow::Result<()>>>;

pub(super) fn conversation([near, far]: [&Namespace; 2], over: &Arc<AtomicBool>) -> Talk {
    let side = |address: [u8; 4]| if address == NEAR.0 { near } else { far };
    let threads = SERVICES.into_iter().flat_map(|service| {
        let Service {
            at,
            asks,
            reply_bytes,
            pause,
        } = service;
        let (server, client) = (side(at.0), side(asks.0));
        let listener = server
            .enter(|| Ok(TcpListener::bind(SocketAddr::from(at))?))
            .unwrap();
        let mut asking = client
            .enter(|| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
                socket.set_reuse_address(true)?;
                socket.bind(&SocketAddr::from(asks).into())?;
                socket.connect(&SocketAddr::from(at).into())?;
                Ok(TcpStream::from(socket))
            })
            .unwrap();
        let (mut answering, _) = listener.accept().unwrap();
        let answers = server.thread("answers", move || {
            let mut request = [0; 300];
            while answering.read_exact(&mut request).is_ok() {
                answering.write_all(&vec![0; reply_bytes])?;
            }
            Ok(())
        });
        let until = Arc::clone(over);
        let asks = client.thread("asks", move || {
            let mut reply = vec![0; reply_bytes];
            while !until.load(Ordering::Relaxed) {
                asking.write_all(&[0; 300])?;
                asking.read_exact(&mut reply)?;
                std::thread::sleep(pause);
            }
            Ok(())
        });
        [answers.unwrap(), asks.unwrap()]
    });
    threads.collect()
}

/// Captures some hundred connections: what comes from port 80 is short, what comes from 443 is not.
pub(super) fn capture(path: &Path) {
    const SUPER_BYTES: u32 = 50_000;
    let mut frames = Vec::new();
    for flow in 0..500u32 {
        let at_us = u64::from(flow) * 200_000;
        let far = if flow % 4 == 0 { 443 } else { 80 };
        let ends = Ends::v4(20_000 + flow as u16, far);
        use scheduler_common::sample::Hook::{Egress, Ingress};
        let syn = Flags {
            syn: true,
            ..Flags::default()
        };
        let syn_ack = Flags { ack: true, ..syn };
        frames.push((at_us, ends.tcp(Egress, (100, 0), syn, 0)));
        frames.push((at_us + 1000, ends.tcp(Ingress, (500, 101), syn_ack, 0)));
        frames.push((at_us + 2000, ends.tcp(Egress, (101, 501), ACK, 300)));
        let parts = if far == 443 { 6 } else { 1 };
        for part in 0..parts {
            let seq = 501 + part * SUPER_BYTES;
            let length = if far == 443 {
                SUPER_BYTES as usize
            } else {
                2000 + flow as usize
            };
            let at_us = at_us + 10_000 + u64::from(part) * 2000;
            frames.push((at_us, ends.tcp(Ingress, (seq, 401), ACK, length)));
        }
    }
    frames.sort_by_key(|(at_us, _)| *at_us);
    fs::write(path, pcap(&frames)).unwrap();
}
