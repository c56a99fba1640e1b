//! Frame → headers; the network headers are read here.

use scheduler_common::counter::Skip;

use crate::{
    fragment::{Fragment, Kind},
    link::{ethernet, link},
    packet::Packet,
    transport::transport_headers,
    tunnel,
};

/// What the later steps need of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Source address as host-order words; IPv4 in the first, the rest zero.
    pub src_addr: [u32; 4],
    /// Destination address likewise.
    pub dst_addr: [u32; 4],
    /// Source port; of an echo request its identifier, so that the answering side is the service.
    pub src_port: u16,
    /// Destination port; of an echo reply its identifier. Other protocols without ports have 0.
    pub dst_port: u16,
    /// IP protocol number: [`TCP`], [`UDP`], [`ICMP`], [`ICMPV6`], or a tunnel's of [`tunnel`].
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Bits of [`flag`] for TCP, of [`quic`] for UDP on port 443, else 0.
    pub tcp_flags: u8,
    /// Bytes behind the transport header.
    pub payload_bytes: u32,
    /// TCP sequence number.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
}

/// A parsed packet; in the kernel it lives in map memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// Its headers. A later fragment has addresses, payload and zeroes until
    /// [`crate::fragment::join`] fills in the rest.
    pub headers: Headers,
    /// Whether it is a fragment.
    pub fragment: Fragment,
    /// 1 if the headers are those inside a tunnel.
    pub inner: u32,
}

/// How a packet is to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// EtherType as the kernel knows it from elsewhere; 0 if it does not say.
    pub ethertype: u16,
    /// Every frame begins with its network header, as on tun and wireguard.
    pub network_frames: bool,
    /// A packet in a tunnel belongs to the flow inside.
    pub inner: bool,
}

/// IP protocol number of ICMP.
pub const ICMP: u8 = 1;
/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;
/// IP protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// TCP flag bits (RFC 9293 §3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number is valid.
    pub const ACK: u8 = 0x10;
}

/// Bits of a QUIC packet's first byte (RFC 9000 §17), which are no bits of [`flag`].
pub mod quic {
    /// UDP port on which they are read.
    pub const PORT: u16 = 443;
    /// Set in a long header: handshake and 0-RTT.
    pub const LONG: u8 = 0x80;
    /// Set in nearly every QUIC packet.
    pub const FIXED: u8 = 0x40;
}

const IPV4_BYTES: u32 = 20;
pub(crate) const IPV6_BYTES: u32 = 40;
const MAX_EXTENSIONS: usize = 4;

pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;

/// The packet from its transport header on, and how many bytes that heads.
#[derive(Clone, Copy)]
pub(crate) struct Transport<P> {
    pub(crate) packet: P,
    pub(crate) bytes: u32,
    pub(crate) protocol: u8,
}

/// Parses a whole Ethernet frame without entering tunnels.
///
/// # Errors
/// The reason for which the packet passes untouched; here that is also being a later fragment.
pub fn headers<P: Packet>(packet: P) -> Result<Headers, Skip> {
    let mut parsed = Parsed::default();
    read(packet, How::default(), &mut parsed)?;
    match parsed.fragment.kind {
        Kind::Later => Err(Skip::LaterFragment),
        Kind::Whole | Kind::First => Ok(parsed.headers),
    }
}

/// Parses a frame into `parsed`, of which nothing is kept.
///
/// # Errors
/// The reason for which the packet passes untouched; `parsed` is then of no use.
#[inline(always)]
pub fn read<P: Packet>(packet: P, how: How, parsed: &mut Parsed) -> Result<(), Skip> {
    parsed.inner = 0;
    let mut transport = network(link(packet, how)?, parsed)?;
    if how.inner
        && matches!(parsed.fragment.kind, Kind::Whole)
        && let Some(inside) = tunnel::inside(transport.packet.skip(0), transport.protocol)
    {
        parsed.inner = 1;
        let inside = match inside {
            (tunnel::ETHERNET, frame) => ethernet(frame)?,
            packet => packet,
        };
        transport = network(inside, parsed)?;
    }
    transport_headers(&transport, parsed)
}

/// Reads the network header; addresses and fragment go to `parsed`.
#[inline(always)]
fn network<P: Packet>(
    (ethertype, packet): (u16, P),
    parsed: &mut Parsed,
) -> Result<Transport<P>, Skip> {
    parsed.fragment.kind = Kind::Whole;
    if ethertype == ETHERTYPE_IPV4 {
        ipv4(packet, parsed)
    } else {
        ipv6(packet, parsed)
    }
}

#[inline(always)]
fn ipv4<P: Packet>(packet: P, parsed: &mut Parsed) -> Result<Transport<P>, Skip> {
    const MORE_AND_OFFSET: u16 = 0x3fff;
    let first = packet.u16_at(0).ok_or(Skip::Truncated)?;
    let header_bytes = u32::from(first >> 8 & 0x0f) << 2;
    if first >> 12 != 4 || header_bytes < IPV4_BYTES {
        return Err(Skip::Malformed);
    }
    let total = packet.u16_at(2).ok_or(Skip::Truncated)?;
    let ip_bytes = ip_bytes(packet, u32::from(total))?;
    if ip_bytes < header_bytes {
        return Err(Skip::Malformed);
    }
    let bytes = ip_bytes - header_bytes;
    let protocol = packet.u16_at(8).ok_or(Skip::Truncated)? as u8;
    let field = packet.u16_at(6).ok_or(Skip::Truncated)?;
    if field & MORE_AND_OFFSET != 0 {
        let id = packet.u16_at(4).ok_or(Skip::Truncated)?;
        parsed.fragment = Fragment::new(u32::from(id), field << 3, bytes);
    }
    let headers = &mut parsed.headers;
    headers.ip_version = 4;
    headers.src_addr = [packet.u32_at(12).ok_or(Skip::Truncated)?, 0, 0, 0];
    headers.dst_addr = [packet.u32_at(16).ok_or(Skip::Truncated)?, 0, 0, 0];
    let packet = if header_bytes == IPV4_BYTES {
        packet.behind(IPV4_BYTES as usize)
    } else {
        packet.skip(header_bytes as usize)
    };
    Ok(Transport {
        packet,
        bytes,
        protocol,
    })
}

#[inline(always)]
fn ipv6<P: Packet>(packet: P, parsed: &mut Parsed) -> Result<Transport<P>, Skip> {
    let first = packet.u16_at(0).ok_or(Skip::Truncated)?;
    if first >> 12 != 6 {
        return Err(Skip::Malformed);
    }
    let payload = packet.u16_at(4).ok_or(Skip::Truncated)?;
    let total = if payload == 0 {
        0
    } else {
        u32::from(payload) + IPV6_BYTES
    };
    let ip_bytes = ip_bytes(packet, total)?;
    let protocol = (packet.u16_at(6).ok_or(Skip::Truncated)? >> 8) as u8;
    parsed.headers.ip_version = 6;
    parsed.headers.src_addr = address(packet, 8)?;
    parsed.headers.dst_addr = address(packet, 24)?;
    let mut transport = Transport {
        packet: packet.behind(IPV6_BYTES as usize),
        bytes: ip_bytes.checked_sub(IPV6_BYTES).ok_or(Skip::Truncated)?,
        protocol,
    };
    for _ in 0..MAX_EXTENSIONS {
        if !next_extension(&mut transport, &mut parsed.fragment)? {
            return Ok(transport);
        }
    }
    if is_extension(transport.protocol) && !matches!(parsed.fragment.kind, Kind::Later) {
        return Err(Skip::TooDeep);
    }
    Ok(transport)
}

/// Length of the IP packet; a length field of 0 means a super-packet that the field cannot hold.
#[inline(always)]
fn ip_bytes<P: Packet>(packet: P, field: u32) -> Result<u32, Skip> {
    let present = packet.frame_bytes() as u32;
    if field == 0 {
        return Ok(present);
    }
    if field > present {
        return Err(Skip::Truncated);
    }
    Ok(field)
}

#[inline(always)]
fn address<P: Packet>(packet: P, offset: usize) -> Result<[u32; 4], Skip> {
    Ok([
        packet.u32_at(offset).ok_or(Skip::Truncated)?,
        packet.u32_at(offset + 4).ok_or(Skip::Truncated)?,
        packet.u32_at(offset + 8).ok_or(Skip::Truncated)?,
        packet.u32_at(offset + 12).ok_or(Skip::Truncated)?,
    ])
}

const FRAGMENT: u8 = 44;

/// Whether an IPv6 next header is one that is stepped over (RFC 8200 §4).
#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// Steps over one IPv6 extension header; false if there is none that can be read.
#[inline(always)]
fn next_extension<P: Packet>(
    transport: &mut Transport<P>,
    fragment: &mut Fragment,
) -> Result<bool, Skip> {
    let packet = transport.packet;
    // What follows in a later fragment is no header.
    if !is_extension(transport.protocol) || matches!(fragment.kind, Kind::Later) {
        return Ok(false);
    }
    let fragmented = transport.protocol == FRAGMENT;
    let first = packet.u16_at(0).ok_or(Skip::Truncated)?;
    let bytes = if fragmented {
        8
    } else {
        (u32::from(first & 0xff) + 1) << 3
    };
    transport.protocol = (first >> 8) as u8;
    transport.bytes = transport.bytes.checked_sub(bytes).ok_or(Skip::Malformed)?;
    if fragmented {
        let field = packet.u16_at(2).ok_or(Skip::Truncated)?;
        let id = packet.u32_at(4).ok_or(Skip::Truncated)?;
        // A fragment header on a whole packet is one that a translator has put in (RFC 6946).
        if field & 0xfff9 != 0 {
            *fragment = Fragment::new(id, field & 0xfff8, transport.bytes);
        }
    }
    transport.packet = packet.skip(bytes as usize);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(ethertype: u16, rest: &[u8]) -> Vec<u8> {
        let mut frame = vec![2; 12];
        frame.extend(ethertype.to_be_bytes());
        frame.extend(rest);
        frame
    }

    fn ipv4_tcp(payload: usize) -> Vec<u8> {
        let mut bytes = vec![0x45, 0];
        bytes.extend(((40 + payload) as u16).to_be_bytes());
        bytes.extend([0, 1, 0x40, 0, 64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        bytes.extend([0x1f, 0x90, 0xc3, 0x50]);
        bytes.extend([0, 0, 0, 7, 0, 0, 0, 9, 0x50, flag::ACK, 1, 0, 0, 0, 0, 0]);
        bytes.extend(vec![0; payload]);
        bytes
    }

    #[test]
    fn a_plain_tcp_packet_is_read() {
        let headers = headers(frame(0x0800, &ipv4_tcp(100)).as_slice()).unwrap();
        assert_eq!(headers.src_addr, [0x0a00_0001, 0, 0, 0]);
        assert_eq!((headers.src_port, headers.dst_port), (8080, 50000));
        assert_eq!(
            (headers.seq, headers.ack, headers.payload_bytes),
            (7, 9, 100)
        );
        assert_eq!(headers.tcp_flags, flag::ACK);
    }

    #[test]
    fn padding_of_a_short_frame_is_no_payload() {
        let mut frame = frame(0x0800, &ipv4_tcp(0));
        frame.resize(60, 0);
        assert_eq!(headers(frame.as_slice()).unwrap().payload_bytes, 0);
    }

    #[test]
    fn two_tags_are_followed_and_three_are_not() {
        let inner = ipv4_tcp(1);
        let tagged = |tags: usize| {
            let mut rest = Vec::new();
            for tag in 0..tags {
                rest.extend([0, 1]);
                let next: u16 = if tag + 1 == tags { 0x0800 } else { 0x8100 };
                rest.extend(next.to_be_bytes());
            }
            rest.extend(&inner);
            headers(frame(0x88a8, &rest).as_slice())
        };
        assert_eq!(tagged(1).unwrap().payload_bytes, 1);
        assert_eq!(tagged(2).unwrap().payload_bytes, 1);
        assert_eq!(tagged(3), Err(Skip::TooDeep));
    }

    #[test]
    fn each_doubt_has_its_reason() {
        let reason = |change: fn(&mut Vec<u8>)| {
            let mut frame = frame(0x0800, &ipv4_tcp(10));
            change(&mut frame);
            headers(frame.as_slice()).unwrap_err()
        };
        assert_eq!(reason(|f| f.truncate(13)), Skip::Truncated);
        assert_eq!(reason(|f| f.truncate(40)), Skip::Truncated);
        assert_eq!(reason(|f| f[13] = 6), Skip::NotIp);
        assert_eq!(reason(|f| f[14] = 0x44), Skip::Malformed);
        assert_eq!(reason(|f| f[14] = 0x65), Skip::Malformed);
        assert_eq!(reason(|f| f[17] = 19), Skip::Malformed);
        assert_eq!(reason(|f| f[21] = 5), Skip::LaterFragment);
        assert_eq!(reason(|f| f[23] = 132), Skip::OtherProtocol);
        assert_eq!(reason(|f| f[46] = 0x40), Skip::Malformed);
        assert_eq!(reason(|f| f[46] = 0xf0), Skip::Malformed);
    }

    #[test]
    fn ipv6_extension_headers_are_stepped_over() {
        let udp = [0, 53, 0x30, 0x39, 0, 12, 0, 0, 1, 2, 3, 4];
        let packet = |extensions: &[(u8, [u8; 8])]| {
            let payload = extensions.len() * 8 + udp.len();
            let first = extensions.first().map_or(UDP, |(kind, _)| *kind);
            let mut bytes = vec![0x60, 0, 0, 0, 0, payload as u8, first, 64];
            bytes.extend([0x20; 16]);
            bytes.extend([0x30; 16]);
            for (index, (_, body)) in extensions.iter().enumerate() {
                let next = extensions.get(index + 1).map_or(UDP, |(kind, _)| *kind);
                bytes.push(next);
                bytes.extend(&body[1..]);
            }
            bytes.extend(udp);
            headers(frame(0x86dd, &bytes).as_slice())
        };
        let plain = packet(&[]).unwrap();
        assert_eq!(
            (plain.src_port, plain.payload_bytes, plain.ip_version),
            (53, 4, 6)
        );
        assert_eq!(plain.src_addr, [0x2020_2020; 4]);
        assert_eq!(packet(&[(0, [0; 8]), (60, [0; 8])]).unwrap(), plain);
        assert_eq!(packet(&[(44, [0; 8])]).unwrap(), plain);
        assert_eq!(
            packet(&[(44, [0, 0, 0, 8, 0, 0, 0, 0])]),
            Err(Skip::LaterFragment)
        );
        assert_eq!(packet(&[(0, [0; 8]); 4]).unwrap(), plain);
        assert_eq!(packet(&[(0, [0; 8]); 5]), Err(Skip::TooDeep));
    }

    #[test]
    fn a_session_of_pppoe_is_entered_behind_tags() {
        let session = |protocol: u16, tags: usize| {
            let mut rest = Vec::new();
            for tag in 0..tags {
                let next: u16 = if tag + 1 == tags { 0x8864 } else { 0x8100 };
                rest.extend([0, 1, (next >> 8) as u8, next as u8]);
            }
            rest.extend([0x11, 0, 0, 7, 0, 52]);
            rest.extend(protocol.to_be_bytes());
            rest.extend(ipv4_tcp(10));
            let first = if tags == 0 { 0x8864 } else { 0x88a8 };
            headers(frame(first, &rest).as_slice())
        };
        for tags in 0..=2 {
            assert_eq!(session(0x21, tags).unwrap().payload_bytes, 10);
        }
        assert_eq!(session(0x57, 0), Err(Skip::Malformed));
        assert_eq!(session(0xc021, 1), Err(Skip::NotIp));
    }

    #[test]
    fn echoes_of_one_identifier_are_one_flow() {
        let echo = |kind: u8, protocol: u8| {
            let mut bytes = ipv4_tcp(0);
            (bytes[9], bytes[20], bytes[24], bytes[25]) = (protocol, kind, 0x12, 0x34);
            let headers = headers(frame(0x0800, &bytes).as_slice()).unwrap();
            (headers.src_port, headers.dst_port, headers.payload_bytes)
        };
        assert_eq!(echo(8, ICMP), (0x1234, 0, 12));
        assert_eq!(echo(0, ICMP), (0, 0x1234, 12));
        assert_eq!(echo(128, ICMPV6), (0x1234, 0, 12));
        assert_eq!(echo(3, ICMP), (0, 0, 12));
    }

    #[test]
    fn a_quic_header_shows_its_form() {
        let form = |port: u16, first: u8| {
            let mut bytes = ipv4_tcp(0);
            bytes[9] = UDP;
            bytes[20..22].copy_from_slice(&port.to_be_bytes());
            bytes[28] = first;
            headers(frame(0x0800, &bytes).as_slice()).unwrap().tcp_flags
        };
        assert_eq!(form(443, 0xc3), quic::LONG | quic::FIXED);
        assert_eq!(form(443, 0x5f), quic::FIXED);
        assert_eq!(form(444, 0xff), 0);
    }

    #[test]
    fn a_frame_may_begin_with_its_network_header() {
        let bytes = ipv4_tcp(10);
        let plain = headers(frame(0x0800, &bytes).as_slice()).unwrap();
        let read = |bytes: &[u8], ethertype, network_frames| {
            let mut parsed = Parsed::default();
            let how = How {
                ethertype,
                network_frames,
                inner: false,
            };
            read(bytes, how, &mut parsed).map(|()| parsed.headers)
        };
        assert_eq!(read(&bytes, 0, true), Ok(plain));
        assert_eq!(read(&bytes, 0x0800, false), Ok(plain));
        assert_eq!(read(&bytes, 0, false), Ok(plain));
        assert_eq!(read(&frame(0x0800, &bytes), 0x0800, false), Ok(plain));
        // A length that is not the frame's is no sign of an IP header.
        assert_eq!(read(&bytes[..48], 0, false), Err(Skip::NotIp));
        assert_eq!(read(&bytes, 0x0806, false), Err(Skip::NotIp));
    }

    #[test]
    fn the_flow_inside_a_tunnel_is_found_when_asked_for() {
        let inner = ipv4_tcp(10);
        let ethernet = frame(0x0800, &inner);
        let tunnel = |protocol: u8, head: &[u8], packet: &[u8]| {
            let mut bytes = ipv4_tcp(0)[..20].to_vec();
            let total = (20 + head.len() + packet.len()) as u16;
            bytes[2..4].copy_from_slice(&total.to_be_bytes());
            bytes[9] = protocol;
            bytes[19] = 9;
            frame(0x0800, &[&bytes, head, packet].concat())
        };
        let udp = |port: u16, head: &[u8]| {
            let mut bytes = vec![0x11, 0x11, (port >> 8) as u8, port as u8, 0, 0, 0, 0];
            bytes.extend(head);
            bytes
        };
        let plain = headers(ethernet.as_slice()).unwrap();
        let inside = |frame: &[u8]| {
            let mut parsed = Parsed::default();
            let how = How {
                inner: true,
                ..How::default()
            };
            read(frame, how, &mut parsed).unwrap();
            (parsed.inner, parsed.headers)
        };
        let tunnels = [
            tunnel(tunnel::IPV4, &[], &inner),
            tunnel(tunnel::GRE, &[0, 0, 8, 0], &inner),
            tunnel(
                tunnel::GRE,
                &[0xb0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 2],
                &inner,
            ),
            tunnel(tunnel::GRE, &[0, 0, 0x65, 0x58], &ethernet),
            tunnel(UDP, &udp(4789, &[8, 0, 0, 0, 0, 0, 1, 0]), &ethernet),
            tunnel(UDP, &udp(6081, &[0, 0, 0x65, 0x58, 0, 0, 1, 0]), &ethernet),
            tunnel(
                UDP,
                &udp(6081, &[1, 0, 8, 0, 0, 0, 1, 0, 1, 2, 3, 4]),
                &inner,
            ),
        ];
        for (number, frame) in tunnels.iter().enumerate() {
            assert_eq!(inside(frame), (1, plain), "tunnel {number}");
            assert_eq!(headers(frame.as_slice()).unwrap().dst_addr[0], 0x0a00_0009);
        }
        // What is not understood stays the tunnel's own flow.
        let foreign = [
            tunnel(tunnel::GRE, &[0, 1, 8, 0], &inner),
            tunnel(UDP, &udp(4789, &[0; 8]), &ethernet),
            tunnel(UDP, &udp(6081, &[0x40, 0, 8, 0, 0, 0, 1, 0]), &inner),
            tunnel(UDP, &udp(4790, &[8, 0, 0, 0, 0, 0, 1, 0]), &ethernet),
        ];
        for (number, frame) in foreign.iter().enumerate() {
            assert_eq!(inside(frame).0, 0, "tunnel {number}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_fail(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            // A panic is what would fail here.
            let _outcome = headers(bytes.as_slice());
        }

        #[test]
        fn a_damaged_packet_is_never_larger_than_its_frame(
            at in 12usize..80, value: u8, cut in 14usize..80,
        ) {
            let mut frame = frame(0x0800, &ipv4_tcp(26));
            frame[at.min(79)] = value;
            frame.truncate(cut);
            if let Ok(headers) = headers(frame.as_slice()) {
                prop_assert!(headers.payload_bytes as usize <= frame.len());
            }
        }
    }
}
