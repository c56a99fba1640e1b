//! One level of VXLAN, Geneve, GRE and IP in IP.

use crate::{
    packet::Packet,
    parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, UDP},
};

/// IP protocol number of IPv4 in IP (RFC 2003).
pub const IPV4: u8 = 4;
/// IP protocol number of IPv6 in IP (RFC 4213).
pub const IPV6: u8 = 41;
/// IP protocol number of GRE (RFC 2784).
pub const GRE: u8 = 47;

/// EtherType of an Ethernet frame in a tunnel.
pub(crate) const ETHERNET: u16 = 0x6558;

const VXLAN_PORT: u16 = 4789;
const GENEVE_PORT: u16 = 6081;
const UDP_BYTES: usize = 8;

/// EtherType and bytes of the packet in a tunnel; `None` if this is none that is known.
#[inline(always)]
pub(crate) fn inside<P: Packet>(packet: P, protocol: u8) -> Option<(u16, P)> {
    let (ethertype, bytes) = match protocol {
        IPV4 => (ETHERTYPE_IPV4, 0),
        IPV6 => (ETHERTYPE_IPV6, 0),
        GRE => gre(packet)?,
        UDP => match packet.u16_at(2)? {
            VXLAN_PORT => vxlan(packet)?,
            GENEVE_PORT => geneve(packet)?,
            _ => return None,
        },
        _ => return None,
    };
    matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6 | ETHERNET)
        .then(|| (ethertype, packet.skip(bytes)))
}

/// RFC 2784 with the key and sequence number of RFC 2890.
#[inline(always)]
fn gre<P: Packet>(packet: P) -> Option<(u16, usize)> {
    const UNKNOWN: u16 = 0x4fff;
    let flags = packet.u16_at(0)?;
    if flags & UNKNOWN != 0 {
        return None;
    }
    // Checksum, key and sequence number take a word each.
    let words = 1 + (flags >> 15 & 1) + (flags >> 13 & 1) + (flags >> 12 & 1);
    let ethertype = packet.u16_at(2)?;
    Some((ethertype, usize::from(words) << 2))
}

/// RFC 7348 §5.
#[inline(always)]
fn vxlan<P: Packet>(packet: P) -> Option<(u16, usize)> {
    const HAS_NETWORK: u16 = 0x0800;
    const VXLAN_BYTES: usize = 8;
    let flags = packet.u16_at(UDP_BYTES)?;
    (flags == HAS_NETWORK).then_some((ETHERNET, UDP_BYTES + VXLAN_BYTES))
}

/// RFC 8926 §3.4.
#[inline(always)]
fn geneve<P: Packet>(packet: P) -> Option<(u16, usize)> {
    const GENEVE_BYTES: usize = 8;
    let first = packet.u16_at(UDP_BYTES)?;
    if first >> 14 != 0 {
        return None;
    }
    let ethertype = packet.u16_at(UDP_BYTES + 2)?;
    let options_bytes = usize::from(first >> 8 & 0x3f) << 2;
    Some((ethertype, UDP_BYTES + GENEVE_BYTES + options_bytes))
}
