//! Frames: ordinary ones by `etherparse`, odd ones by hand.

use std::net::IpAddr;

use etherparse::PacketBuilder;
use scheduler_common::sample::Hook;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_BYTES: usize = 14;

const NEAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// TCP flags as the tests name them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flags {
    pub(crate) syn: bool,
    pub(crate) ack: bool,
    pub(crate) fin: bool,
    pub(crate) rst: bool,
}

/// Acknowledgement only.
pub(crate) const ACK: Flags = Flags {
    syn: false,
    ack: true,
    fin: false,
    rst: false,
};

/// A frame and the program that sees it.
#[derive(Clone, Debug)]
pub(crate) struct Passing {
    pub(crate) hook: Hook,
    pub(crate) frame: Vec<u8>,
    /// More than one under GSO; always one at XDP.
    pub(crate) segments: u32,
}

/// Two hosts; the near one has the interface that treeline is on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ends {
    pub(crate) near: (IpAddr, u16),
    pub(crate) far: (IpAddr, u16),
}

impl Ends {
    /// Over IPv4, apart from others by the far port.
    pub(crate) fn v4(near_port: u16, far_port: u16) -> Self {
        Self {
            near: ([10, 1, 0, 1].into(), near_port),
            far: ([10, 1, 0, 2].into(), far_port),
        }
    }

    /// Over IPv6 likewise.
    pub(crate) fn v6(near_port: u16, far_port: u16) -> Self {
        Self {
            near: ([0xfd00, 0, 0, 0, 0, 0, 0, 1].into(), near_port),
            far: ([0xfd00, 0, 0, 0, 0, 0, 0, 2].into(), far_port),
        }
    }

    fn towards(self, hook: Hook) -> [(IpAddr, u16); 2] {
        match hook {
            Hook::Egress => [self.near, self.far],
            Hook::Ingress => [self.far, self.near],
        }
    }

    /// A TCP frame as `hook` sees it.
    pub(crate) fn tcp(
        self,
        hook: Hook,
        (seq, ack): (u32, u32),
        flags: Flags,
        payload: usize,
    ) -> Vec<u8> {
        const WINDOW: u16 = 500;
        let [from, to] = self.towards(hook);
        let ip = ip(from.0, to.0);
        let mut tcp = ip.tcp(from.1, to.1, seq, WINDOW);
        if flags.syn {
            tcp = tcp.syn();
        }
        if flags.ack {
            tcp = tcp.ack(ack);
        }
        if flags.fin {
            tcp = tcp.fin();
        }
        if flags.rst {
            tcp = tcp.rst();
        }
        let mut frame = Vec::new();
        tcp.write(&mut frame, &vec![0xa5; payload])
            .expect("the payload fits a packet");
        frame
    }

    /// A UDP frame as `hook` sees it.
    pub(crate) fn udp(self, hook: Hook, payload: usize) -> Vec<u8> {
        let [from, to] = self.towards(hook);
        let mut frame = Vec::new();
        ip(from.0, to.0)
            .udp(from.1, to.1)
            .write(&mut frame, &vec![0x5a; payload])
            .expect("the payload fits a packet");
        frame
    }
}

fn ip(from: IpAddr, to: IpAddr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    const HOPS: u8 = 64;
    let ethernet = PacketBuilder::ethernet2(NEAR_MAC, FAR_MAC);
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ethernet.ipv4(from.octets(), to.octets(), HOPS),
        (IpAddr::V6(from), IpAddr::V6(to)) => ethernet.ipv6(from.octets(), to.octets(), HOPS),
        _ => panic!("both ends are of one family"),
    }
}

/// An echo request and an ARP request, which have no ports.
pub(crate) fn without_ports() -> [Vec<u8>; 3] {
    let mut echo = Vec::new();
    PacketBuilder::ethernet2(NEAR_MAC, FAR_MAC)
        .ipv4([10, 1, 0, 1], [10, 1, 0, 2], 64)
        .icmpv4_echo_request(1, 1)
        .write(&mut echo, &[7; 32])
        .expect("the payload fits a packet");
    let mut echo6 = Vec::new();
    PacketBuilder::ethernet2(NEAR_MAC, FAR_MAC)
        .ipv6([1; 16], [2; 16], 64)
        .icmpv6_echo_request(1, 1)
        .write(&mut echo6, &[7; 32])
        .expect("the payload fits a packet");
    let arp = etherparse::ArpPacket::new(
        etherparse::ArpHardwareId::ETHERNET,
        etherparse::EtherType::IPV4,
        etherparse::ArpOperation::REQUEST,
        &NEAR_MAC,
        &[10, 1, 0, 1],
        &[0; 6],
        &[10, 1, 0, 2],
    )
    .expect("address lengths agree");
    let mut ask = Vec::new();
    PacketBuilder::ethernet2(NEAR_MAC, FAR_MAC)
        .arp(arp)
        .write(&mut ask)
        .expect("it fits");
    [echo, echo6, ask]
}

/// The frame behind VLAN tags, the outermost first.
pub(crate) fn tagged(frame: &[u8], ethertypes: &[u16]) -> Vec<u8> {
    let mut tags = Vec::new();
    for (id, ethertype) in (1u16..).zip(ethertypes) {
        tags.extend(ethertype.to_be_bytes());
        tags.extend(id.to_be_bytes());
    }
    [&frame[..12], &tags, &frame[12..]].concat()
}

/// The frame in VXLAN, Geneve and GRE, and its packet in GRE (IPv4) and IP in IP.
pub(crate) fn tunnelled(frame: &[u8]) -> Vec<Vec<u8>> {
    const UDP: u8 = 17;
    const GRE: u8 = 47;
    const IP_IN_IP: u8 = 4;
    let packet = &frame[ETHERNET_BYTES..];
    let udp = |port: u16, head: [u8; 8]| {
        let ports = [0x99, 0x99, (port >> 8) as u8, port as u8, 0, 0, 0, 0];
        [ports, head].concat()
    };
    let outer = |protocol: u8, head: &[u8], inner: &[u8]| {
        let total = (20 + head.len() + inner.len()) as u16;
        let mut outer = [&NEAR_MAC[..], &FAR_MAC, &[8, 0, 0x45, 0]].concat();
        outer.extend(total.to_be_bytes());
        outer.extend([0, 0, 0, 0, 64, protocol, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]);
        [&outer, head, inner].concat()
    };
    vec![
        outer(UDP, &udp(4789, [8, 0, 0, 0, 0, 0, 1, 0]), frame),
        outer(UDP, &udp(6081, [0, 0, 0x65, 0x58, 0, 0, 1, 0]), frame),
        outer(GRE, &[0, 0, 0x65, 0x58], frame),
        outer(GRE, &[0x20, 0, 8, 0, 0, 0, 0, 5], packet),
        outer(IP_IN_IP, &[], packet),
    ]
}

/// The IPv4 frame with so many words of options.
pub(crate) fn with_ipv4_options(frame: &[u8], words: u8) -> Vec<u8> {
    const NO_OPERATION: u8 = 1;
    let bytes = usize::from(words) * 4;
    let at = ETHERNET_BYTES + 20;
    let mut frame = [&frame[..at], &vec![NO_OPERATION; bytes], &frame[at..]].concat();
    frame[ETHERNET_BYTES] += words;
    grow(&mut frame, ETHERNET_BYTES + 2, bytes);
    frame
}

/// The IPv6 frame with extension headers: kind, and all its bytes but the first (next header).
pub(crate) fn with_extensions(frame: &[u8], extensions: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let at = ETHERNET_BYTES + 40;
    let last = frame[ETHERNET_BYTES + 6];
    let kinds = extensions.iter().map(|(kind, _)| *kind).chain([last]);
    let mut inserted = Vec::new();
    for ((_, rest), next) in extensions.iter().zip(kinds.clone().skip(1)) {
        inserted.push(next);
        inserted.extend(rest);
    }
    let mut frame = [&frame[..at], &inserted, &frame[at..]].concat();
    frame[ETHERNET_BYTES + 6] = kinds.clone().next().unwrap_or(last);
    grow(&mut frame, ETHERNET_BYTES + 4, inserted.len());
    frame
}

fn grow(frame: &mut [u8], at: usize, by: usize) {
    let length = u16::from_be_bytes([frame[at], frame[at + 1]]) + by as u16;
    frame[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

/// A TCP conversation of which the near end is the server.
#[derive(Debug)]
pub(crate) struct Talk {
    ends: Ends,
    seq: [u32; 2],
    passed: Vec<Passing>,
}

impl Talk {
    /// Begins with the handshake; sequence numbers wrap soon.
    pub(crate) fn new(ends: Ends) -> Self {
        let mut talk = Self {
            ends,
            seq: [u32::MAX - 4000, 77],
            passed: Vec::new(),
        };
        let syn = Flags {
            syn: true,
            ..Flags::default()
        };
        talk.say(Hook::Ingress, syn, 0);
        talk.say(Hook::Egress, Flags { syn: true, ..ACK }, 0);
        talk.say(Hook::Ingress, ACK, 0);
        talk
    }

    /// One packet in order.
    pub(crate) fn say(&mut self, hook: Hook, flags: Flags, payload: usize) -> &mut Self {
        let side = hook as usize;
        let numbers = (self.seq[side], self.seq[side ^ 1]);
        self.seq[side] = self.seq[side]
            .wrapping_add(payload as u32)
            .wrapping_add(u32::from(flags.syn) + u32::from(flags.fin));
        self.out_of_order(hook, numbers, flags, payload)
    }

    /// A packet with sequence and acknowledgement number of the caller's.
    pub(crate) fn out_of_order(
        &mut self,
        hook: Hook,
        numbers: (u32, u32),
        flags: Flags,
        payload: usize,
    ) -> &mut Self {
        self.passed.push(Passing {
            hook,
            frame: self.ends.tcp(hook, numbers, flags, payload),
            segments: 1,
        });
        self
    }

    /// The number of the next byte in this direction.
    pub(crate) fn seq(&self, hook: Hook) -> u32 {
        self.seq[hook as usize]
    }

    /// A request and a reply in full segments, every second one acknowledged.
    pub(crate) fn exchange(&mut self, request: usize, reply_segments: usize) -> &mut Self {
        self.say(Hook::Ingress, ACK, request);
        for segment in 1..=reply_segments {
            self.say(Hook::Egress, ACK, 1448);
            if segment % 2 == 0 {
                self.say(Hook::Ingress, ACK, 0);
            }
        }
        self.say(Hook::Ingress, ACK, 0)
    }

    /// The last packet was a super-packet of so many segments.
    pub(crate) fn in_segments(&mut self, segments: u32) -> &mut Self {
        if let Some(last) = self.passed.last_mut() {
            last.segments = segments;
        }
        self
    }

    /// All packets so far.
    pub(crate) fn take(&mut self) -> Vec<Passing> {
        std::mem::take(&mut self.passed)
    }
}
