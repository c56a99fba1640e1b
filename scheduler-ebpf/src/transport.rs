//! TCP, UDP and ICMP headers; tunnels that stand for themselves.

use scheduler_common::counter::Skip;

use crate::{
    fragment::Kind,
    packet::Packet,
    parse::{Headers, ICMP, ICMPV6, Parsed, TCP, Transport, UDP, quic},
    tunnel,
};

#[inline(always)]
pub(crate) fn transport_headers<P: Packet>(
    transport: &Transport<P>,
    parsed: &mut Parsed,
) -> Result<(), Skip> {
    let Transport {
        bytes, protocol, ..
    } = *transport;
    let headers = &mut parsed.headers;
    headers.protocol = protocol;
    headers.src_port = 0;
    headers.dst_port = 0;
    headers.tcp_flags = 0;
    headers.payload_bytes = bytes;
    headers.seq = 0;
    headers.ack = 0;
    if matches!(parsed.fragment.kind, Kind::Later) {
        return Ok(());
    }
    match protocol {
        TCP => tcp(transport, headers),
        UDP => udp(transport, headers),
        ICMP | ICMPV6 => icmp(transport, headers),
        tunnel::IPV4 | tunnel::IPV6 | tunnel::GRE => Ok(()),
        _ => Err(Skip::OtherProtocol),
    }
}

#[inline(always)]
fn ports<P: Packet>(packet: P, headers: &mut Headers) -> Result<(), Skip> {
    headers.src_port = packet.u16_at(0).ok_or(Skip::Truncated)?;
    headers.dst_port = packet.u16_at(2).ok_or(Skip::Truncated)?;
    Ok(())
}

#[inline(always)]
fn tcp<P: Packet>(transport: &Transport<P>, headers: &mut Headers) -> Result<(), Skip> {
    const TCP_BYTES: u32 = 20;
    let Transport { packet, bytes, .. } = *transport;
    ports(packet, headers)?;
    headers.seq = packet.u32_at(4).ok_or(Skip::Truncated)?;
    headers.ack = packet.u32_at(8).ok_or(Skip::Truncated)?;
    let length_and_flags = packet.u16_at(12).ok_or(Skip::Truncated)?;
    let header_bytes = u32::from(length_and_flags >> 12) << 2;
    headers.tcp_flags = length_and_flags as u8;
    if header_bytes < TCP_BYTES {
        return Err(Skip::Malformed);
    }
    headers.payload_bytes = bytes.checked_sub(header_bytes).ok_or(Skip::Malformed)?;
    Ok(())
}

#[inline(always)]
fn udp<P: Packet>(transport: &Transport<P>, headers: &mut Headers) -> Result<(), Skip> {
    const UDP_BYTES: u32 = 8;
    let Transport { packet, bytes, .. } = *transport;
    ports(packet, headers)?;
    let payload_bytes = bytes.checked_sub(UDP_BYTES).ok_or(Skip::Malformed)?;
    headers.payload_bytes = payload_bytes;
    let on_quic_port = headers.src_port == quic::PORT || headers.dst_port == quic::PORT;
    if on_quic_port && payload_bytes >= 2 {
        // Payload that is not at hand leaves the bits out.
        let first = packet.u16_at(UDP_BYTES as usize).unwrap_or(0);
        headers.tcp_flags = (first >> 8) as u8 & (quic::LONG | quic::FIXED);
    }
    Ok(())
}

#[inline(always)]
fn icmp<P: Packet>(transport: &Transport<P>, headers: &mut Headers) -> Result<(), Skip> {
    const ICMP_BYTES: u32 = 8;
    // Types of an echo (RFC 792, RFC 4443 §4).
    const REQUEST: u8 = 8;
    const REPLY: u8 = 0;
    const REQUEST_V6: u8 = 128;
    const REPLY_V6: u8 = 129;
    let Transport {
        packet,
        bytes,
        protocol,
    } = *transport;
    headers.payload_bytes = bytes.checked_sub(ICMP_BYTES).ok_or(Skip::Malformed)?;
    let kind = (packet.u16_at(0).ok_or(Skip::Truncated)? >> 8) as u8;
    let id = packet.u16_at(4).ok_or(Skip::Truncated)?;
    match (protocol, kind) {
        (ICMP, REQUEST) | (ICMPV6, REQUEST_V6) => headers.src_port = id,
        (ICMP, REPLY) | (ICMPV6, REPLY_V6) => headers.dst_port = id,
        _ => {}
    }
    Ok(())
}
