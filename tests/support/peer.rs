//! What etherparse makes of a frame, and why it may differ.

use std::net::{Ipv4Addr, Ipv6Addr};

use etherparse::{Icmpv4Type, Icmpv6Type, LaxPacketHeaders, NetHeaders, TransportHeader};
use scheduler_common::counter::Skip;
use scheduler_ebpf::{
    fragment::Kind,
    parse::{Headers, ICMP, ICMPV6, Parsed, TCP, UDP, flag},
    tunnel,
};

use super::captures::Start;

/// What etherparse says.
#[derive(Debug, PartialEq)]
pub(crate) enum Reading {
    /// Headers up to the transport's.
    Headers(Headers),
    /// Less than that, and what stopped it.
    Nothing(String),
}

/// Reads a frame by etherparse, put in our words.
pub(crate) fn read(start: Start, frame: &[u8]) -> Reading {
    let packet = match start {
        Start::Ethernet => LaxPacketHeaders::from_ethernet(frame).map_err(|e| e.to_string()),
        Start::Network => LaxPacketHeaders::from_ip(frame).map_err(|e| e.to_string()),
    };
    let packet = match packet {
        Ok(packet) => packet,
        Err(error) => return Reading::Nothing(error),
    };
    let Some(mut headers) = packet.net.as_ref().and_then(addresses) else {
        return Reading::Nothing("no ip".to_owned());
    };
    let payload = packet.payload.slice();
    headers.payload_bytes = payload.len() as u32;
    match packet.transport {
        Some(TransportHeader::Tcp(tcp)) => {
            headers.protocol = TCP;
            (headers.src_port, headers.dst_port) = (tcp.source_port, tcp.destination_port);
            (headers.seq, headers.ack) = (tcp.sequence_number, tcp.acknowledgment_number);
            headers.tcp_flags = tcp_flags(&tcp);
        }
        Some(TransportHeader::Udp(udp)) => {
            headers.protocol = UDP;
            (headers.src_port, headers.dst_port) = (udp.source_port, udp.destination_port);
            if (udp.source_port == 443 || udp.destination_port == 443) && payload.len() >= 2 {
                headers.tcp_flags = payload[0] & 0xc0;
            }
        }
        Some(TransportHeader::Icmpv4(icmp)) => {
            headers.protocol = ICMP;
            match icmp.icmp_type {
                Icmpv4Type::EchoRequest(echo) => headers.src_port = echo.id,
                Icmpv4Type::EchoReply(echo) => headers.dst_port = echo.id,
                _ => {}
            }
        }
        Some(TransportHeader::Icmpv6(icmp)) => {
            headers.protocol = ICMPV6;
            match icmp.icmp_type {
                Icmpv6Type::EchoRequest(echo) => headers.src_port = echo.id,
                Icmpv6Type::EchoReply(echo) => headers.dst_port = echo.id,
                _ => {}
            }
        }
        None => return Reading::Nothing(format!("{:?}", packet.stop_err)),
    }
    Reading::Headers(headers)
}

fn addresses(net: &NetHeaders) -> Option<Headers> {
    let v4 = |octets: [u8; 4]| [Ipv4Addr::from(octets).to_bits(), 0, 0, 0];
    let v6 = |octets: [u8; 16]| {
        let bits = Ipv6Addr::from(octets).to_bits();
        [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
    };
    let (src_addr, dst_addr, ip_version) = match net {
        NetHeaders::Ipv4(ip, _) => (v4(ip.source), v4(ip.destination), 4),
        NetHeaders::Ipv6(ip, _) => (v6(ip.source), v6(ip.destination), 6),
        NetHeaders::Arp(_) => return None,
    };
    Some(Headers {
        src_addr,
        dst_addr,
        ip_version,
        ..Headers::default()
    })
}

fn tcp_flags(tcp: &etherparse::TcpHeader) -> u8 {
    const PSH: u8 = 0x08;
    const URG: u8 = 0x20;
    const ECE: u8 = 0x40;
    const CWR: u8 = 0x80;
    [
        (tcp.fin, flag::FIN),
        (tcp.syn, flag::SYN),
        (tcp.rst, flag::RST),
        (tcp.psh, PSH),
        (tcp.ack, flag::ACK),
        (tcp.urg, URG),
        (tcp.ece, ECE),
        (tcp.cwr, CWR),
    ]
    .iter()
    .filter(|(set, _)| *set)
    .map(|(_, bit)| bit)
    .sum()
}

/// Why the two may differ on this frame; `None` if nothing explains it.
pub(crate) fn explained(
    start: Start,
    frame: &[u8],
    ours: &Result<Parsed, Skip>,
    theirs: &Reading,
) -> Option<&'static str> {
    match (ours, theirs) {
        (Ok(parsed), Reading::Nothing(_)) => extra(start, frame, parsed),
        (Ok(parsed), Reading::Headers(headers)) => lengths(parsed, headers),
        (Err(Skip::Truncated), Reading::Headers(_)) => {
            Some("a packet longer than its frame passes here, and is read as far as it goes there")
        }
        _ => None,
    }
}

/// What we read and etherparse does not.
fn extra(start: Start, frame: &[u8], parsed: &Parsed) -> Option<&'static str> {
    match (parsed.fragment.kind, parsed.headers.protocol) {
        (Kind::First, _) => return Some("ports of a first fragment, which etherparse leaves out"),
        (Kind::Later, _) => {
            return Some("a later fragment, for which the first's flow is looked up");
        }
        (Kind::Whole, tunnel::GRE | tunnel::IPV4 | tunnel::IPV6) => {
            return Some("a tunnel's own flow, which has no ports");
        }
        (Kind::Whole, _) => {}
    }
    // The session's IP packet by itself must be read alike.
    const SESSION: [u8; 4] = [0x88, 0x64, 0x11, 0];
    let at = frame[..30.min(frame.len())]
        .windows(4)
        .position(|found| found == SESSION)?;
    let alike = start == Start::Ethernet
        && read(Start::Network, &frame[at + 10..]) == Reading::Headers(parsed.headers);
    alike.then_some(
        "a PPPoE session, which etherparse does not enter; the packet inside is the same",
    )
}

/// Headers that differ in what counts as payload.
fn lengths(parsed: &Parsed, theirs: &Headers) -> Option<&'static str> {
    let ours = parsed.headers;
    let same_otherwise = Headers {
        payload_bytes: ours.payload_bytes,
        tcp_flags: if ours.protocol == UDP {
            ours.tcp_flags
        } else {
            theirs.tcp_flags
        },
        ..*theirs
    } == ours;
    match ours.protocol {
        UDP if same_otherwise => Some("a UDP length below that of the IP packet"),
        ICMP if same_otherwise && theirs.payload_bytes + 12 == ours.payload_bytes => {
            Some("an ICMP timestamp, whose fields are no payload to etherparse")
        }
        _ => None,
    }
}
