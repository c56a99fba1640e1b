//! Where the network header begins: Ethernet, VLAN tags, PPPoE, or nothing.

use scheduler_common::counter::Skip;

use crate::{
    packet::Packet,
    parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, How, IPV6_BYTES},
};

const ETHERNET_BYTES: usize = 14;
const TAG_BYTES: usize = 4;
const MAX_TAGS: usize = 2;
const PPPOE_BYTES: usize = 8;

const ETHERTYPE_CTAG: u16 = 0x8100;
const ETHERTYPE_STAG: u16 = 0x88a8;
const ETHERTYPE_PPPOE: u16 = 0x8864;

#[inline(always)]
const fn is_ip(ethertype: u16) -> bool {
    ethertype == ETHERTYPE_IPV4 || ethertype == ETHERTYPE_IPV6
}

/// EtherType, and the packet from its network header on.
#[inline(always)]
pub(crate) fn link<P: Packet>(packet: P, how: How) -> Result<(u16, P), Skip> {
    let ethertype = packet.u16_at(ETHERNET_BYTES - 2).ok_or(Skip::Truncated)?;
    if !how.network_frames {
        // What the kernel says to be IP and does not look so here has no Ethernet header.
        let headless = is_ip(how.ethertype) && ethertype != how.ethertype;
        if headless {
            return Ok((how.ethertype, packet));
        }
        if is_ip(ethertype) {
            return Ok((ethertype, packet.behind(ETHERNET_BYTES)));
        }
        let tagged = behind_tags(packet.behind(ETHERNET_BYTES), ethertype);
        if how.ethertype != 0 || !matches!(tagged, Err(Skip::NotIp)) {
            return tagged;
        }
    }
    match headless(packet)? {
        Some(ethertype) => Ok((ethertype, packet)),
        None => Err(Skip::NotIp),
    }
}

/// EtherType of a frame that begins with an IP header, told by a length that is the frame's.
#[inline(always)]
fn headless<P: Packet>(packet: P) -> Result<Option<u16>, Skip> {
    let first = packet.u16_at(0).ok_or(Skip::Truncated)?;
    let (ethertype, field_at, more) = match first >> 12 {
        4 => (ETHERTYPE_IPV4, 2, 0),
        6 => (ETHERTYPE_IPV6, 4, IPV6_BYTES as usize),
        _ => return Ok(None),
    };
    let field = packet.u16_at(field_at).ok_or(Skip::Truncated)?;
    let whole = usize::from(field) + more == packet.frame_bytes();
    Ok(whole.then_some(ethertype))
}

/// EtherType and network header of an Ethernet frame in a tunnel.
#[inline(always)]
pub(crate) fn ethernet<P: Packet>(frame: P) -> Result<(u16, P), Skip> {
    let ethertype = frame.u16_at(ETHERNET_BYTES - 2).ok_or(Skip::Truncated)?;
    behind_tags(frame.skip(ETHERNET_BYTES), ethertype)
}

/// Steps over up to two VLAN tags and a PPPoE session header.
#[inline(always)]
fn behind_tags<P: Packet>(mut packet: P, mut ethertype: u16) -> Result<(u16, P), Skip> {
    for _ in 0..MAX_TAGS {
        if ethertype == ETHERTYPE_CTAG || ethertype == ETHERTYPE_STAG {
            ethertype = packet.u16_at(2).ok_or(Skip::Truncated)?;
            packet = packet.skip(TAG_BYTES);
        }
    }
    if ethertype == ETHERTYPE_PPPOE {
        ethertype = point_to_point(packet)?;
        packet = packet.skip(PPPOE_BYTES);
    }
    match ethertype {
        ETHERTYPE_IPV4 | ETHERTYPE_IPV6 => Ok((ethertype, packet)),
        ETHERTYPE_CTAG | ETHERTYPE_STAG => Err(Skip::TooDeep),
        _ => Err(Skip::NotIp),
    }
}

/// EtherType of what a PPPoE session carries (RFC 2516 §4); 0 if it is not IP. A packet that is longer than
/// the session says contradicts itself.
#[inline(always)]
fn point_to_point<P: Packet>(packet: P) -> Result<u16, Skip> {
    const SESSION: u16 = 0x1100;
    const PPP_IPV4: u16 = 0x0021;
    const PPP_IPV6: u16 = 0x0057;
    const PROTOCOL_BYTES: u32 = 2;
    if packet.u16_at(0).ok_or(Skip::Truncated)? != SESSION {
        return Err(Skip::Malformed);
    }
    let (ethertype, field_at, more) = match packet.u16_at(6).ok_or(Skip::Truncated)? {
        PPP_IPV4 => (ETHERTYPE_IPV4, 2, 0),
        PPP_IPV6 => (ETHERTYPE_IPV6, 4, IPV6_BYTES),
        _ => return Ok(0),
    };
    let said = u32::from(packet.u16_at(4).ok_or(Skip::Truncated)?);
    let field = packet
        .u16_at(PPPOE_BYTES + field_at)
        .ok_or(Skip::Truncated)?;
    if u32::from(field) + more + PROTOCOL_BYTES > said {
        return Err(Skip::Malformed);
    }
    Ok(ethertype)
}

#[cfg(test)]
mod tests {
    use scheduler_common::counter::Skip;

    use crate::parse::headers;

    /// UDP over IPv4 or IPv6 in a session that says to carry so many bytes.
    fn session(version: u8, said: u16) -> Result<u32, Skip> {
        let mut frame = vec![0; 12];
        frame.extend([0x88, 0x64, 0x11, 0, 0, 7]);
        frame.extend(said.to_be_bytes());
        let udp = [0, 53, 0, 99, 0, 18, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
        let mut ip = vec![0; if version == 4 { 20 } else { 40 }];
        if version == 4 {
            frame.extend([0, 0x21]);
            (ip[0], ip[3], ip[9]) = (0x45, 38, 17);
        } else {
            frame.extend([0, 0x57]);
            (ip[0], ip[5], ip[6]) = (0x60, 18, 17);
        }
        frame.extend(ip);
        frame.extend(udp);
        headers(frame.as_slice()).map(|headers| headers.payload_bytes)
    }

    #[test]
    fn a_packet_that_is_longer_than_its_session_says_is_malformed() {
        for (version, whole) in [(4, 40), (6, 60)] {
            assert_eq!(session(version, whole), Ok(10));
            assert_eq!(session(version, whole + 6), Ok(10), "padding is no fault");
            assert_eq!(session(version, whole - 1), Err(Skip::Malformed));
            assert_eq!(session(version, 0), Err(Skip::Malformed));
        }
    }
}
