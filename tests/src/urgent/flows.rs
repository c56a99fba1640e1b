//! Urgent flows on the wire, and the delay of each of their packets.
//!
//! A packet carries the time at which it was sent, its receiver asks the kernel when it came in: both ends are on one
//! machine and read one clock. So neither a late sender nor a late receiver is in the figures, only what lies between.

use std::{
    io::{IoSliceMut, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, AsRawFd as _},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use bed::{
    beds::Bed,
    netns::{CLIENT_V4, SERVER_V4},
};
use nix::{
    sys::{
        socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt::ReceiveTimestampns},
        time::TimeSpec,
    },
    time::{ClockId, clock_gettime},
};
use socket2::SockRef;

use crate::{
    bulk::{is_timeout, listener},
    kind::{Kind, Packet, SSH},
};

/// Time and number of a packet, at the start of its payload.
const STAMP_BYTES: usize = 16;
const MOST_BYTES: usize = 256;
const LOOK_EVERY: Duration = Duration::from_millis(200);
const NS: i64 = 1_000_000_000;

/// A packet that came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) kind: Kind,
    pub(crate) flow: usize,
    /// When it was sent, from the start of the run.
    pub(crate) sent: Duration,
    /// From sender to receiver.
    pub(crate) delay: Duration,
}

/// What the urgent flows of a run gave.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    /// In the order in which they came in, by flow.
    pub(crate) packets: Vec<Delivery>,
    /// Packets sent from the server, by time.
    pub(crate) sent: Vec<(Kind, Duration)>,
    /// When each left, and how much later than planned.
    pub(crate) late: Vec<(Duration, Duration)>,
}

/// Flows under way.
pub(crate) struct Flows {
    stop: Arc<AtomicBool>,
    gathered: Arc<Mutex<Delivered>>,
    senders: Vec<JoinHandle<()>>,
    receivers: Vec<JoinHandle<()>>,
}

/// How the flows of a run are set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) length: Duration,
    /// Whether senders mark their packets.
    pub(crate) marked: bool,
    pub(crate) seed: u64,
}

/// What the threads of a run share.
#[derive(Clone)]
struct Shared {
    stop: Arc<AtomicBool>,
    gathered: Arc<Mutex<Delivered>>,
    start: Instant,
    start_ns: i64,
}

impl Flows {
    /// Starts all of them; also answers with the listener of the terminals' port, on which others may come.
    pub(crate) fn start(bed: &Bed, setup: Setup) -> Result<(Self, TcpListener)> {
        let shared = Shared {
            stop: Arc::default(),
            gathered: Arc::default(),
            start: Instant::now(),
            start_ns: now_ns()?,
        };
        let mut flows = Self {
            stop: Arc::clone(&shared.stop),
            gathered: Arc::clone(&shared.gathered),
            senders: Vec::new(),
            receivers: Vec::new(),
        };
        for kind in [Kind::Voice, Kind::Game] {
            flows.datagrams(bed, kind, setup, &shared)?;
        }
        let listener = flows.terminals(bed, setup, &shared)?;
        Ok((flows, listener))
    }

    fn datagrams(&mut self, bed: &Bed, kind: Kind, setup: Setup, shared: &Shared) -> Result<()> {
        let (mut down, mut up) = (Vec::new(), Vec::new());
        for flow in 0..kind.flows() {
            let at = SocketAddr::new(SERVER_V4, kind.port(flow));
            let server = bed.server.enter(|| Ok(UdpSocket::bind(at)?))?;
            let client = bed.client.enter(|| Ok(UdpSocket::bind((CLIENT_V4, 0))?))?;
            server.connect(client.local_addr()?)?;
            client.connect(at)?;
            if setup.marked {
                SockRef::from(&server).set_tos_v4(kind.tos())?;
                SockRef::from(&client).set_tos_v4(kind.tos())?;
            }
            stamped(&client)?;
            let (receiver, shared) = (client.try_clone()?, shared.clone());
            client.set_read_timeout(Some(LOOK_EVERY))?;
            self.receivers.push(thread::spawn(move || {
                receive(&receiver, (kind, flow), &shared);
            }));
            down.push(server);
            up.push(client);
        }
        let packets = kind.packets(setup.length, setup.seed);
        let note = shared.clone();
        self.senders.push(thread::spawn(move || {
            send(&packets, &note, Some(kind), |packet, bytes| {
                // A full queue drops it, as the network would.
                drop(down[packet.flow].send(bytes));
            });
        }));
        let packets = kind.packets(setup.length, !setup.seed);
        let note = shared.clone();
        self.senders.push(thread::spawn(move || {
            send(&packets, &note, None, |packet, bytes| {
                drop(up[packet.flow].send(bytes));
            });
        }));
        Ok(())
    }

    fn terminals(&mut self, bed: &Bed, setup: Setup, shared: &Shared) -> Result<TcpListener> {
        let kind = Kind::Terminal;
        let listener = listener(&bed.server, SSH)?;
        let mut keyboards = Vec::new();
        for flow in 0..kind.flows() {
            let at = SocketAddr::new(SERVER_V4, SSH);
            let client = bed.client.enter(|| Ok(TcpStream::connect(at)?))?;
            let (server, _) = listener.accept().context("a terminal was not accepted")?;
            for stream in [&client, &server] {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(LOOK_EVERY))?;
                if setup.marked {
                    SockRef::from(stream).set_tos_v4(kind.tos())?;
                }
            }
            stamped(&client)?;
            let (screen, on_client) = (client.try_clone()?, shared.clone());
            self.receivers.push(thread::spawn(move || {
                receive(&screen, (kind, flow), &on_client);
            }));
            let on_server = shared.clone();
            self.receivers.push(thread::spawn(move || {
                drop(echo(server, &on_server));
            }));
            keyboards.push(client);
        }
        let packets = kind.packets(setup.length, setup.seed);
        let note = shared.clone();
        self.senders.push(thread::spawn(move || {
            send(&packets, &note, None, |packet, bytes| {
                let mut framed = [0; MOST_BYTES];
                framed[..bytes.len()].copy_from_slice(bytes);
                drop((&keyboards[packet.flow]).write_all(&framed[..bytes.len()]));
            });
        }));
        Ok(listener)
    }

    /// Waits until all is sent, then a moment for what is under way.
    pub(crate) fn finish(self, drain: Duration) -> Result<Delivered> {
        for sender in self.senders {
            sender
                .join()
                .map_err(|_panic| anyhow!("a sender of urgent packets panicked"))?;
        }
        // Nothing tells that no more packets are under way.
        let (_keep, never) = mpsc::channel::<()>();
        let _timeout = never.recv_timeout(drain);
        self.stop.store(true, Ordering::Relaxed);
        for receiver in self.receivers {
            receiver
                .join()
                .map_err(|_panic| anyhow!("a receiver of urgent packets panicked"))?;
        }
        let mut gathered = self
            .gathered
            .lock()
            .map_err(|_poison| anyhow!("a thread of the run panicked"))?;
        Ok(std::mem::take(&mut gathered))
    }
}

/// The kernel notes when a packet comes in, before anybody waits for a processor.
fn stamped(socket: &impl AsFd) -> Result<()> {
    setsockopt(socket, ReceiveTimestampns, &true).context("the kernel does not note arrivals")
}

fn now_ns() -> Result<i64> {
    Ok(nanoseconds(clock_gettime(ClockId::CLOCK_REALTIME)?))
}

const fn nanoseconds(time: TimeSpec) -> i64 {
    time.tv_sec() * NS + time.tv_nsec()
}

/// Sends each packet at its time; of a kind, notes what and how late.
fn send(
    packets: &[Packet],
    shared: &Shared,
    noted: Option<Kind>,
    mut out: impl FnMut(&Packet, &[u8]),
) {
    let mut payload = [0x20; MOST_BYTES];
    let (mut sent, mut late) = (Vec::new(), Vec::new());
    for packet in packets {
        thread::sleep(packet.at.saturating_sub(shared.start.elapsed()));
        let Ok(time_ns) = now_ns() else { return };
        payload[..8].copy_from_slice(&time_ns.to_be_bytes());
        payload[8..STAMP_BYTES].copy_from_slice(&(packet.bytes as u64).to_be_bytes());
        out(packet, &payload[..packet.bytes]);
        if let Some(kind) = noted {
            let at = shared.start.elapsed();
            sent.push((kind, at));
            late.push((at, at.saturating_sub(packet.at)));
        }
    }
    if let Ok(mut gathered) = shared.gathered.lock() {
        gathered.sent.extend(sent);
        gathered.late.extend(late);
    }
}

/// The terminal's far end: each keystroke comes back, with the time at which it does.
fn echo(mut stream: TcpStream, shared: &Shared) -> Result<()> {
    let mut waiting = Vec::new();
    let mut buffer = [0; 4096];
    let mut sent = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => waiting.extend_from_slice(&buffer[..got]),
            Err(error) if is_timeout(&error) => continue,
            Err(error) => return Err(error.into()),
        }
        while let Some(bytes) = framed(&waiting) {
            let mut key: Vec<u8> = waiting.drain(..bytes).collect();
            key[..8].copy_from_slice(&now_ns()?.to_be_bytes());
            stream.write_all(&key)?;
            sent.push((Kind::Terminal, shared.start.elapsed()));
        }
    }
    if let Ok(mut gathered) = shared.gathered.lock() {
        gathered.sent.extend(sent);
    }
    Ok(())
}

/// Length of the first frame, if all of it is there.
fn framed(waiting: &[u8]) -> Option<usize> {
    let length = waiting.get(8..STAMP_BYTES)?.try_into().ok()?;
    let bytes = usize::try_from(u64::from_be_bytes(length)).ok()?;
    (STAMP_BYTES..=waiting.len())
        .contains(&bytes)
        .then_some(bytes)
}

/// Notes the delay of all that comes in on a socket.
fn receive(socket: &impl AsFd, (kind, flow): (Kind, usize), shared: &Shared) {
    let fd = socket.as_fd().as_raw_fd();
    let mut packets = Vec::new();
    let mut waiting = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let mut buffer = [0; 4096];
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let mut space = nix::cmsg_space!(TimeSpec);
        let Ok(message) = recvmsg::<()>(fd, &mut parts, Some(&mut space), MsgFlags::empty()) else {
            // Nothing for a while; another fault shows as packets that are missing.
            continue;
        };
        let arrived = message.cmsgs().ok().and_then(|mut said| {
            said.find_map(|one| match one {
                ControlMessageOwned::ScmTimestampns(time) => Some(nanoseconds(time)),
                _ => None,
            })
        });
        let got = message.bytes;
        if got == 0 && kind == Kind::Terminal {
            break;
        }
        waiting.extend_from_slice(&buffer[..got]);
        while let Some(bytes) = framed(&waiting) {
            let stamp = waiting[..8].try_into().map_or(0, i64::from_be_bytes);
            waiting.drain(..bytes);
            let Some(arrived_ns) = arrived else { continue };
            let after = |later: i64, earlier: i64| {
                Duration::from_nanos(u64::try_from(later - earlier).unwrap_or(0))
            };
            packets.push(Delivery {
                kind,
                flow,
                sent: after(stamp, shared.start_ns),
                delay: after(arrived_ns, stamp),
            });
        }
    }
    if let Ok(mut gathered) = shared.gathered.lock() {
        gathered.packets.extend(packets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_an_idle_link_every_packet_comes_in_soon() {
        let bed = Bed::host().unwrap();
        let setup = Setup {
            length: Duration::from_millis(700),
            marked: true,
            seed: 5,
        };
        let (flows, listener) = Flows::start(&bed, setup).unwrap();
        let delivered = flows.finish(Duration::from_millis(300)).unwrap();
        drop(listener);
        for kind in Kind::ALL {
            let sent = delivered.sent.iter().filter(|(of, _)| *of == kind).count();
            let mut delays: Vec<Duration> = delivered
                .packets
                .iter()
                .filter(|packet| packet.kind == kind)
                .map(|packet| packet.delay)
                .collect();
            delays.sort_unstable();
            assert!(sent > 0 && sent == delays.len(), "{kind:?}: {sent}");
            let median = delays[delays.len() / 2];
            assert!(median < Duration::from_millis(20), "{kind:?}: {median:?}");
        }
    }

    #[test]
    fn frames_are_cut_where_they_say() {
        let mut bytes = vec![0; 40];
        bytes[8..16].copy_from_slice(&20_u64.to_be_bytes());
        assert_eq!(framed(&bytes), Some(20));
        assert_eq!(framed(&bytes[..19]), None);
        assert_eq!(framed(&bytes[..10]), None);
    }
}
