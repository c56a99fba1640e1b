//! A link between two namespaces, and what is seen at its far end.

use std::{
    io::{ErrorKind, Read as _},
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use bed::{
    netns::{ACCESS, CLIENT_V4, End, Namespace, SERVER_V4, UPLINK},
    wait,
};
use scheduler_common::settings::Settings;
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::{agent::Site, cards::Card, missing};

/// The port that datagrams are sent to.
pub(super) const PORT: u16 = 4321;
/// Payload of a datagram that fills a packet nearly.
pub(super) const FULL_BYTES: usize = 1400;
/// What is slower than this has gone wrong.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

const NEAR_MAC: &str = "02:00:00:00:99:11";
const FAR_MAC: &str = "02:00:00:00:99:12";

/// Two namespaces; the near end has several transmit queues.
pub(super) struct Wire {
    _card: Option<Card>,
    pub(super) near: Namespace,
    pub(super) far: Namespace,
}

impl Wire {
    pub(super) fn with_queues(queues: u32) -> Self {
        let wire = Self {
            _card: None,
            near: Namespace::new("near").unwrap(),
            far: Namespace::new("far").unwrap(),
        };
        let far = wire.far.name();
        wire.near
            .ip(&format!(
                "link add {UPLINK} address {NEAR_MAC} numtxqueues {queues} type veth \
                 peer name {ACCESS} address {FAR_MAC} netns {far}"
            ))
            .unwrap();
        let near = End {
            namespace: &wire.near,
            interface: UPLINK,
            mac: NEAR_MAC,
            addresses: [SERVER_V4; 2],
        };
        let far = End {
            namespace: &wire.far,
            interface: ACCESS,
            mac: FAR_MAC,
            addresses: [CLIENT_V4; 2],
        };
        for (here, there) in [(near, far), (far, near)] {
            let (address, device) = (here.addresses[0], here.interface);
            for command in [
                format!("addr add dev {device} {address}/24"),
                format!("link set {device} up"),
                format!(
                    "neigh replace {} lladdr {} dev {device} nud permanent",
                    there.addresses[0], there.mac
                ),
            ] {
                here.namespace.ip(&command).unwrap();
            }
        }
        wire
    }

    /// As the near end a card with two queues, whose frames reach nobody; `None` where there is none.
    pub(super) fn on_card() -> Option<Self> {
        let [near, far] = ["near", "far"].map(|tag| Namespace::new(tag).unwrap());
        near.write_sysctl("net/ipv6/conf/default/disable_ipv6", "1")
            .unwrap();
        let card = Card::with_queues(&near, UPLINK)?;
        for command in [
            format!("addr add dev {UPLINK} {SERVER_V4}/24"),
            format!("link set {UPLINK} up"),
            format!("neigh replace {CLIENT_V4} lladdr {FAR_MAC} dev {UPLINK} nud permanent"),
        ] {
            near.ip(&command).unwrap();
        }
        Some(Self {
            _card: Some(card),
            near,
            far,
        })
    }

    /// Whether the kernel takes this root qdisc on the near end; it stays there.
    ///
    /// Where it does not, the test says so: most kernels have these as modules, some not at all.
    pub(super) fn has_root(&self, qdisc: &str) -> bool {
        let added = self
            .near
            .tc(&format!("qdisc add dev {UPLINK} root handle 10: {qdisc}"));
        if let Err(error) = &added {
            let kind = qdisc.split(' ').next().unwrap_or_default();
            let why = format!("this kernel does not take `{qdisc}`: {error}");
            missing(&format!("sch_{kind}"), why);
        }
        added.is_ok()
    }

    /// Packets and bytes of each class of the near end, by minor number from 1 on.
    pub(super) fn classes(&self, count: usize) -> Vec<(u64, u64)> {
        let text = self
            .near
            .tc(&format!("-s class show dev {UPLINK}"))
            .unwrap();
        let mut sent = vec![(0, 0); count];
        let mut minor = 0;
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["class", _, handle, ..] => {
                    let (_, part) = handle.split_once(':').unwrap();
                    minor = usize::from_str_radix(part, 16).unwrap();
                }
                ["Sent", bytes, "bytes", packets, ..] if (1..=count).contains(&minor) => {
                    sent[minor - 1] = (packets.parse().unwrap(), bytes.parse().unwrap());
                }
                _ => {}
            }
        }
        sent
    }
}

/// A socket at the far end that takes datagrams.
///
/// A program that another test starts at this moment has the descriptors of all tests between its
/// fork and its exec, so an earlier socket of this port may live a little longer than its owner.
pub(super) fn receiver(namespace: &Namespace, address: IpAddr) -> UdpSocket {
    let bind = || match UdpSocket::bind((address, PORT)) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => Ok(None),
        bound => Ok(Some(bound?)),
    };
    let socket = namespace
        .enter(|| wait::until("the port's release", LIMIT, bind))
        .unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

/// A socket at the near end, not connected, so that it remembers no queue.
pub(super) fn sender(namespace: &Namespace, address: IpAddr) -> UdpSocket {
    namespace
        .enter(|| Ok(UdpSocket::bind((address, 0))?))
        .unwrap()
}

/// Every frame that arrives at an interface.
pub(super) struct Tap(Socket);

impl Tap {
    pub(super) fn on(namespace: &Namespace) -> Self {
        /// `ETH_P_ALL`, in network order as the socket call takes it.
        const EVERYTHING: u16 = 3_u16.to_be();
        let socket = namespace
            .enter(|| {
                let protocol = Some(Protocol::from(i32::from(EVERYTHING)));
                Ok(Socket::new(Domain::PACKET, Type::RAW, protocol)?)
            })
            .unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Self(socket)
    }

    /// The next frame that `wanted` takes.
    pub(super) fn next(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let deadline = Instant::now() + LIMIT;
        let mut buffer = vec![0; 70_000];
        while Instant::now() < deadline {
            let bytes = self.0.read(&mut buffer).expect("a frame arrives in time");
            if wanted(&buffer[..bytes]) {
                return buffer[..bytes].to_vec();
            }
        }
        panic!("no such frame has arrived");
    }
}

/// Sends a message of full datagrams.
pub(super) fn send_message(socket: &UdpSocket, to: IpAddr, datagrams: usize) {
    let to = SocketAddr::from((to, PORT));
    for _ in 0..datagrams {
        socket.send_to(&[0x11; FULL_BYTES], to).unwrap();
    }
}

/// No pause of a slow machine ends a message.
pub(super) fn never_idle(site: &Site<'_>) {
    let datapath = site.datapath();
    let settings = Settings {
        idle_floor_us: 60_000_000,
        ..datapath.settings().unwrap()
    };
    datapath.set_settings(&settings).unwrap();
}
