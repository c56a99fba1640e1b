//! Frame → headers: Ethernet, VLAN, IPv4, IPv6, TCP, UDP.

use scheduler_common::counter::Skip;

use crate::packet::Packet;

/// What the later steps need of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// Source address as host-order words; IPv4 in the first, the rest zero.
    pub src_addr: [u32; 4],
    /// Destination address likewise.
    pub dst_addr: [u32; 4],
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Bits of [`flag`]; 0 for UDP.
    pub tcp_flags: u8,
    /// Bytes behind the TCP or UDP header.
    pub payload_bytes: u32,
    /// TCP sequence number.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
}

/// IP protocol number of TCP.
pub const TCP: u8 = 6;
/// IP protocol number of UDP.
pub const UDP: u8 = 17;

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

const ETHERNET_BYTES: usize = 14;
const TAG_BYTES: usize = 4;
const MAX_TAGS: usize = 2;
const IPV6_BYTES: usize = 40;
const MAX_EXTENSIONS: usize = 4;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_CTAG: u16 = 0x8100;
const ETHERTYPE_STAG: u16 = 0x88a8;

/// The transport header's place, and how many bytes of the packet it heads.
struct Transport {
    offset: usize,
    bytes: u32,
    protocol: u8,
}

/// Parses a frame.
///
/// # Errors
/// The reason for which the packet passes untouched.
#[inline(always)]
pub fn headers<P: Packet + ?Sized>(packet: &P) -> Result<Headers, Skip> {
    let (ethertype, offset) = network(packet)?;
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(packet, offset),
        ETHERTYPE_IPV6 => ipv6(packet, offset),
        _ => Err(Skip::NotIp),
    }
}

/// EtherType and offset of the network header, behind up to two VLAN tags.
#[inline(always)]
fn network<P: Packet + ?Sized>(packet: &P) -> Result<(u16, usize), Skip> {
    let mut ethertype = packet.u16_at(ETHERNET_BYTES - 2).ok_or(Skip::Truncated)?;
    let mut offset = ETHERNET_BYTES;
    for _ in 0..MAX_TAGS {
        if ethertype != ETHERTYPE_CTAG && ethertype != ETHERTYPE_STAG {
            return Ok((ethertype, offset));
        }
        ethertype = packet.u16_at(offset + 2).ok_or(Skip::Truncated)?;
        offset += TAG_BYTES;
    }
    match ethertype {
        ETHERTYPE_CTAG | ETHERTYPE_STAG => Err(Skip::TooDeep),
        _ => Ok((ethertype, offset)),
    }
}

#[inline(always)]
fn ipv4<P: Packet + ?Sized>(packet: &P, offset: usize) -> Result<Headers, Skip> {
    let first = packet.u16_at(offset).ok_or(Skip::Truncated)?;
    let header_bytes = u32::from(first >> 8 & 0x0f) << 2;
    if first >> 12 != 4 || header_bytes < 20 {
        return Err(Skip::Malformed);
    }
    let total = packet.u16_at(offset + 2).ok_or(Skip::Truncated)?;
    let ip_bytes = ip_bytes(packet, offset, u32::from(total))?;
    if ip_bytes < header_bytes {
        return Err(Skip::Malformed);
    }
    let fragment = packet.u16_at(offset + 6).ok_or(Skip::Truncated)?;
    if fragment & 0x1fff != 0 {
        return Err(Skip::LaterFragment);
    }
    let protocol = packet.u16_at(offset + 8).ok_or(Skip::Truncated)? as u8;
    let src = packet.u32_at(offset + 12).ok_or(Skip::Truncated)?;
    let dst = packet.u32_at(offset + 16).ok_or(Skip::Truncated)?;
    let transport = Transport {
        offset: offset + header_bytes as usize,
        bytes: ip_bytes - header_bytes,
        protocol,
    };
    let addresses = ([src, 0, 0, 0], [dst, 0, 0, 0]);
    transport_headers(packet, &transport, addresses, 4)
}

#[inline(always)]
fn ipv6<P: Packet + ?Sized>(packet: &P, offset: usize) -> Result<Headers, Skip> {
    let first = packet.u16_at(offset).ok_or(Skip::Truncated)?;
    if first >> 12 != 6 {
        return Err(Skip::Malformed);
    }
    let payload = packet.u16_at(offset + 4).ok_or(Skip::Truncated)?;
    let total = if payload == 0 {
        0
    } else {
        u32::from(payload) + IPV6_BYTES as u32
    };
    let ip_bytes = ip_bytes(packet, offset, total)?;
    let mut transport = Transport {
        offset: offset + IPV6_BYTES,
        bytes: ip_bytes
            .checked_sub(IPV6_BYTES as u32)
            .ok_or(Skip::Truncated)?,
        protocol: (packet.u16_at(offset + 6).ok_or(Skip::Truncated)? >> 8) as u8,
    };
    let src = address(packet, offset + 8)?;
    let dst = address(packet, offset + 24)?;
    for _ in 0..MAX_EXTENSIONS {
        if !next_extension(packet, &mut transport)? {
            return transport_headers(packet, &transport, (src, dst), 6);
        }
    }
    match transport.protocol {
        TCP | UDP => transport_headers(packet, &transport, (src, dst), 6),
        _ => Err(Skip::TooDeep),
    }
}

/// Length of the IP packet; a length field of 0 means a super-packet that the field cannot hold.
#[inline(always)]
fn ip_bytes<P: Packet + ?Sized>(packet: &P, offset: usize, field: u32) -> Result<u32, Skip> {
    let present = packet.frame_bytes().saturating_sub(offset) as u32;
    if field == 0 {
        return Ok(present);
    }
    if field > present {
        return Err(Skip::Truncated);
    }
    Ok(field)
}

#[inline(always)]
fn address<P: Packet + ?Sized>(packet: &P, offset: usize) -> Result<[u32; 4], Skip> {
    Ok([
        packet.u32_at(offset).ok_or(Skip::Truncated)?,
        packet.u32_at(offset + 4).ok_or(Skip::Truncated)?,
        packet.u32_at(offset + 8).ok_or(Skip::Truncated)?,
        packet.u32_at(offset + 12).ok_or(Skip::Truncated)?,
    ])
}

/// Steps over one IPv6 extension header (RFC 8200 §4); false if there is none.
#[inline(always)]
fn next_extension<P: Packet + ?Sized>(packet: &P, transport: &mut Transport) -> Result<bool, Skip> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    if !matches!(
        transport.protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION
    ) {
        return Ok(false);
    }
    let first = packet.u16_at(transport.offset).ok_or(Skip::Truncated)?;
    let bytes = match transport.protocol {
        FRAGMENT => {
            let field = packet.u16_at(transport.offset + 2).ok_or(Skip::Truncated)?;
            if field >> 3 != 0 {
                return Err(Skip::LaterFragment);
            }
            8
        }
        _ => (u32::from(first & 0xff) + 1) << 3,
    };
    transport.protocol = (first >> 8) as u8;
    transport.bytes = transport.bytes.checked_sub(bytes).ok_or(Skip::Malformed)?;
    transport.offset += bytes as usize;
    Ok(true)
}

#[inline(always)]
fn transport_headers<P: Packet + ?Sized>(
    packet: &P,
    transport: &Transport,
    (src_addr, dst_addr): ([u32; 4], [u32; 4]),
    ip_version: u8,
) -> Result<Headers, Skip> {
    const TCP_BYTES: u32 = 20;
    const UDP_BYTES: u32 = 8;
    let Transport {
        offset,
        bytes,
        protocol,
    } = *transport;
    if protocol != TCP && protocol != UDP {
        return Err(Skip::OtherProtocol);
    }
    let src_port = packet.u16_at(offset).ok_or(Skip::Truncated)?;
    let dst_port = packet.u16_at(offset + 2).ok_or(Skip::Truncated)?;
    let mut headers = Headers {
        src_addr,
        dst_addr,
        src_port,
        dst_port,
        protocol,
        ip_version,
        tcp_flags: 0,
        payload_bytes: 0,
        seq: 0,
        ack: 0,
    };
    if protocol == UDP {
        headers.payload_bytes = bytes.checked_sub(UDP_BYTES).ok_or(Skip::Malformed)?;
        return Ok(headers);
    }
    headers.seq = packet.u32_at(offset + 4).ok_or(Skip::Truncated)?;
    headers.ack = packet.u32_at(offset + 8).ok_or(Skip::Truncated)?;
    let length_and_flags = packet.u16_at(offset + 12).ok_or(Skip::Truncated)?;
    let header_bytes = u32::from(length_and_flags >> 12) << 2;
    headers.tcp_flags = length_and_flags as u8;
    if header_bytes < TCP_BYTES {
        return Err(Skip::Malformed);
    }
    headers.payload_bytes = bytes.checked_sub(header_bytes).ok_or(Skip::Malformed)?;
    Ok(headers)
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
        assert_eq!(reason(|f| f[23] = 1), Skip::OtherProtocol);
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
