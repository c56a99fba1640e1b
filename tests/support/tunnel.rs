//! Real tun and tap devices in two namespaces, joined by threads.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    sync::Arc,
};

use bed::netns::Namespace;
use tun_tap::{Iface, Mode};

/// The device's name on both sides.
pub(crate) const DEVICE: &str = "tun0";
/// Big enough for what a tun device of ordinary MTU hands out.
const PACKET_BYTES: usize = 2048;

/// Two namespaces whose tun or tap devices are joined by hand.
pub(crate) struct Tunnel {
    pub(crate) near: Namespace,
    pub(crate) far: Namespace,
    addresses: [Ipv4Addr; 2],
}

impl Tunnel {
    /// Addresses end in .1 and .2.
    pub(crate) fn new([a, b, c]: [u8; 3], mode: Mode) -> Self {
        let tunnel = Self {
            near: Namespace::new("near").unwrap(),
            far: Namespace::new("far").unwrap(),
            addresses: [Ipv4Addr::new(a, b, c, 1), Ipv4Addr::new(a, b, c, 2)],
        };
        let devices = [&tunnel.near, &tunnel.far].map(|namespace| {
            namespace
                .write_sysctl("net/ipv6/conf/default/disable_ipv6", "1")
                .unwrap();
            let device = namespace
                .enter(|| Ok(Iface::without_packet_info(DEVICE, mode)?))
                .unwrap();
            Arc::new(device)
        });
        for (namespace, address) in [&tunnel.near, &tunnel.far]
            .into_iter()
            .zip(tunnel.addresses)
        {
            namespace
                .ip(&format!("addr add {address}/24 dev {DEVICE}"))
                .unwrap();
            namespace.ip(&format!("link set {DEVICE} up")).unwrap();
        }
        for (from, to) in [(0, 1), (1, 0)] {
            let (from, to) = (Arc::clone(&devices[from]), Arc::clone(&devices[to]));
            // It ends with the device, which goes with its namespace.
            std::thread::spawn(move || {
                let mut packet = [0; PACKET_BYTES];
                while let Ok(bytes) = from.recv(&mut packet) {
                    if to.send(&packet[..bytes]).is_err() {
                        return;
                    }
                }
            });
        }
        tunnel
    }

    /// A request of 100 bytes and an answer of so many; `near` asks or answers.
    pub(crate) fn exchange(&self, near_answers: bool, bytes: usize) {
        let (ends, address) = if near_answers {
            ((&self.near, &self.far), self.addresses[0])
        } else {
            ((&self.far, &self.near), self.addresses[1])
        };
        answered(ends, IpAddr::from(address), bytes);
    }
}

/// A request of 100 bytes and an answer of so many over TCP, to a server at this address.
pub(crate) fn answered((server, client): (&Namespace, &Namespace), address: IpAddr, bytes: usize) {
    let listener = server
        .enter(|| Ok(TcpListener::bind((address, 0))?))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let answering = std::thread::spawn(move || {
        let (mut peer, _from) = listener.accept().unwrap();
        peer.read_exact(&mut [0; 100]).unwrap();
        peer.write_all(&vec![7; bytes]).unwrap();
    });
    let mut stream = client.enter(|| Ok(TcpStream::connect(address)?)).unwrap();
    stream.write_all(&[1; 100]).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.len() == bytes && answer.iter().all(|byte| *byte == 7));
    answering.join().unwrap();
}
