//! Fragments: the later ones find the flow of the first.

use crate::parse::{Parsed, TCP, flag};

/// Place of a packet among the fragments of its datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// It is no fragment.
    #[default]
    Whole = 0,
    /// The one with the transport header.
    First = 1,
    /// One without.
    Later = 2,
}

/// What a packet says of its fragmentation; of a whole packet only `kind` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Its place.
    pub kind: Kind,
    /// Identification that the datagram's fragments share.
    pub id: u32,
    /// Its bytes begin here in the datagram.
    pub offset_bytes: u32,
    /// Its bytes of the datagram.
    pub bytes: u32,
}

impl Fragment {
    /// The fragment at `offset_bytes`.
    #[inline(always)]
    pub(crate) const fn new(id: u32, offset_bytes: u16, bytes: u32) -> Self {
        Self {
            kind: if offset_bytes == 0 {
                Kind::First
            } else {
                Kind::Later
            },
            id,
            offset_bytes: offset_bytes as u32,
            bytes,
        }
    }
}

/// A fragmented datagram on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// Source address as in [`crate::parse::Headers`].
    pub src_addr: [u32; 4],
    /// Destination address.
    pub dst_addr: [u32; 4],
    /// Identification.
    pub id: u32,
    /// Interface that the fragments pass.
    pub ifindex: u32,
    /// IP protocol number under IPv4 (RFC 791 §3.2); 0 under IPv6, where it may differ by fragment.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FragmentKey>() == 44 && align_of::<FragmentKey>() == 4);

/// What the first fragment tells the later ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FirstFragment {
    /// Sequence number of the datagram's first byte, as if the transport header had numbers.
    pub seq: u32,
    /// TCP acknowledgement number.
    pub ack: u32,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP flags.
    pub tcp_flags: u8,
    /// Explicit padding.
    pub _pad: [u8; 2],
}

const _: () = assert!(size_of::<FirstFragment>() == 16 && align_of::<FirstFragment>() == 4);

/// Key of the packet's datagram.
#[inline(always)]
pub fn key(parsed: &Parsed, ifindex: u32) -> FragmentKey {
    let headers = &parsed.headers;
    FragmentKey {
        src_addr: headers.src_addr,
        dst_addr: headers.dst_addr,
        id: parsed.fragment.id,
        ifindex,
        protocol: if headers.ip_version == 4 {
            u32::from(headers.protocol)
        } else {
            0
        },
    }
}

/// What to keep of a first fragment.
#[inline(always)]
pub fn first(parsed: &Parsed) -> FirstFragment {
    let headers = &parsed.headers;
    let header_bytes = parsed.fragment.bytes.wrapping_sub(headers.payload_bytes);
    FirstFragment {
        seq: headers.seq.wrapping_sub(header_bytes),
        ack: headers.ack,
        src_port: headers.src_port,
        dst_port: headers.dst_port,
        protocol: headers.protocol,
        tcp_flags: headers.tcp_flags,
        _pad: [0, 0],
    }
}

/// Gives a later fragment the headers that it would have as a packet of its own.
#[inline(always)]
pub fn join(parsed: &mut Parsed, first: &FirstFragment) {
    let offset_bytes = parsed.fragment.offset_bytes;
    let headers = &mut parsed.headers;
    headers.src_port = first.src_port;
    headers.dst_port = first.dst_port;
    headers.protocol = first.protocol;
    if first.protocol == TCP {
        headers.seq = first.seq.wrapping_add(offset_bytes);
        headers.ack = first.ack;
        headers.tcp_flags = first.tcp_flags & flag::ACK;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{self, How, UDP};

    fn read(field: u16, protocol: u8, rest: &[u8]) -> Parsed {
        let mut frame = vec![2; 12];
        let total = (20 + rest.len()) as u16;
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(total.to_be_bytes());
        frame.extend([0, 77]);
        frame.extend(field.to_be_bytes());
        frame.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend(rest);
        let mut parsed = Parsed::default();
        parse::read(frame.as_slice(), How::default(), &mut parsed).unwrap();
        parsed
    }

    #[test]
    fn a_later_fragment_gets_what_it_would_have_as_a_packet() {
        let mut tcp = vec![0x1f, 0x90, 0xc3, 0x50, 0, 0, 0, 7, 0, 0, 0, 9, 0x50, 0x19];
        tcp.resize(120, 0);
        let first_parsed = read(0x2000, TCP, &tcp);
        let mut later = read(120 / 8, TCP, &[0xff; 40]);
        assert_eq!(first_parsed.fragment.kind, Kind::First);
        assert_eq!(later.fragment.kind, Kind::Later);
        assert_eq!(key(&first_parsed, 3), key(&later, 3));
        join(&mut later, &first(&first_parsed));
        assert_eq!(
            (later.headers.src_port, later.headers.dst_port),
            (8080, 50_000)
        );
        assert_eq!((later.headers.seq, later.headers.payload_bytes), (107, 40));
        assert_eq!(later.headers.tcp_flags, flag::ACK);
    }

    #[test]
    fn a_later_fragment_of_udp_has_all_its_bytes_as_payload() {
        let mut udp = vec![0, 53, 0x30, 0x39, 0, 60, 0, 0];
        udp.resize(48, 1);
        let first_parsed = read(0x2000, UDP, &udp);
        let mut later = read(6, UDP, &[0xff; 12]);
        join(&mut later, &first(&first_parsed));
        assert_eq!(later.headers.src_port, 53);
        assert_eq!((later.headers.seq, later.headers.payload_bytes), (0, 12));
        assert_ne!(key(&later, 3), key(&read(6, TCP, &[0; 40]), 3));
    }
}
