//! Parser of the packets that nearly all are, with one check each.
//!
//! TCP or UDP straight over IPv4 without options or IPv6, untagged and whole. What it reads it reads as
//! [`crate::parse::read`] does, which takes everything else and everything doubtful; a test compares the two.

use crate::{
    fragment::Kind,
    packet::{Head, Packet},
    parse::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Headers, How, Parsed, TCP, UDP, quic},
};

const ETHERNET_BYTES: u32 = 14;
/// Ethernet, IPv4, TCP.
const HEAD_V4: usize = 54;
/// Ethernet, IPv6, TCP.
const HEAD_V6: usize = 74;

/// Fields of a transport header where it stands behind the usual headers; each is read where it is needed.
trait Fields: Copy {
    fn src_port(self) -> u16;
    fn dst_port(self) -> u16;
    fn seq(self) -> u32;
    fn ack(self) -> u32;
    fn length_and_flags(self) -> u16;
    /// The first payload byte of UDP, which stands where TCP has its acknowledgement number.
    fn udp_payload(self) -> u8;
}

macro_rules! fields {
    ($name:ident, $head:ident, $($at:literal)+) => {
        #[derive(Clone, Copy)]
        struct $name<H>(H);

        fields!(@read $name, $head, $($at)+);
    };
    (@read $name:ident, $head:ident, $src:literal $dst:literal $seq:literal $seq_low:literal
        $ack:literal $ack_low:literal $flags:literal) => {
        impl<H: Head<$head>> Fields for $name<H> {
            #[inline(always)]
            fn src_port(self) -> u16 {
                self.0.u16::<$src>()
            }

            #[inline(always)]
            fn dst_port(self) -> u16 {
                self.0.u16::<$dst>()
            }

            #[inline(always)]
            fn seq(self) -> u32 {
                self.0.u32::<$seq, $seq_low>()
            }

            #[inline(always)]
            fn ack(self) -> u32 {
                self.0.u32::<$ack, $ack_low>()
            }

            #[inline(always)]
            fn length_and_flags(self) -> u16 {
                self.0.u16::<$flags>()
            }

            #[inline(always)]
            fn udp_payload(self) -> u8 {
                (self.0.u16::<$ack>() >> 8) as u8
            }
        }
    };
}

fields!(OverV4, HEAD_V4, 34 36 38 40 42 44 46);
fields!(OverV6, HEAD_V6, 54 56 58 60 62 64 66);

/// Parses the packet if it is such a one; `parsed` is of no use if not.
#[inline(always)]
pub fn read<P: Packet>(packet: P, how: How, parsed: &mut Parsed) -> bool {
    if how.network_frames {
        return false;
    }
    let present = (packet.frame_bytes() as u32).wrapping_sub(ETHERNET_BYTES);
    let Some(head) = packet.head::<HEAD_V4>() else {
        return false;
    };
    let ethertype = head.u16::<12>();
    // What the kernel says to be IP of the other version has no Ethernet header.
    let other = if ethertype == ETHERTYPE_IPV4 {
        ETHERTYPE_IPV6
    } else {
        ETHERTYPE_IPV4
    };
    if how.ethertype == other {
        return false;
    }
    parsed.inner = 0;
    parsed.fragment.kind = Kind::Whole;
    if ethertype == ETHERTYPE_IPV4 {
        return ipv4(head, (present, how.inner), &mut parsed.headers);
    }
    if ethertype != ETHERTYPE_IPV6 {
        return false;
    }
    let Some(head) = packet.head::<HEAD_V6>() else {
        return false;
    };
    ipv6(head, (present, how.inner), &mut parsed.headers)
}

#[inline(always)]
fn ipv4<H: Head<HEAD_V4>>(head: H, (present, inner): (u32, bool), headers: &mut Headers) -> bool {
    const HEADER_BYTES: u32 = 20;
    const MORE_AND_OFFSET: u16 = 0x3fff;
    let ip_bytes = u32::from(head.u16::<16>());
    let plain = head.u16::<14>() >> 8 == 0x45 && head.u16::<20>() & MORE_AND_OFFSET == 0;
    // A length of 0 is a super-packet's.
    if !plain || ip_bytes < HEADER_BYTES || ip_bytes > present {
        return false;
    }
    headers.ip_version = 4;
    headers.src_addr = [head.u32::<26, 28>(), 0, 0, 0];
    headers.dst_addr = [head.u32::<30, 32>(), 0, 0, 0];
    let protocol = head.u16::<22>() as u8;
    let bytes = ip_bytes - HEADER_BYTES;
    transport(OverV4(head), protocol, (bytes, inner), headers)
}

#[inline(always)]
fn ipv6<H: Head<HEAD_V6>>(head: H, (present, inner): (u32, bool), headers: &mut Headers) -> bool {
    const HEADER_BYTES: u32 = 40;
    let bytes = u32::from(head.u16::<18>());
    if head.u16::<14>() >> 12 != 6 || bytes == 0 || bytes + HEADER_BYTES > present {
        return false;
    }
    headers.ip_version = 6;
    headers.src_addr = [
        head.u32::<22, 24>(),
        head.u32::<26, 28>(),
        head.u32::<30, 32>(),
        head.u32::<34, 36>(),
    ];
    headers.dst_addr = [
        head.u32::<38, 40>(),
        head.u32::<42, 44>(),
        head.u32::<46, 48>(),
        head.u32::<50, 52>(),
    ];
    let protocol = (head.u16::<20>() >> 8) as u8;
    transport(OverV6(head), protocol, (bytes, inner), headers)
}

#[inline(always)]
fn transport<F: Fields>(
    fields: F,
    protocol: u8,
    (bytes, inner): (u32, bool),
    headers: &mut Headers,
) -> bool {
    const UDP_BYTES: u32 = 8;
    const TCP_BYTES: u32 = 20;
    let (src_port, dst_port) = (fields.src_port(), fields.dst_port());
    headers.protocol = protocol;
    headers.src_port = src_port;
    headers.dst_port = dst_port;
    if protocol == TCP {
        let length_and_flags = fields.length_and_flags();
        let header_bytes = u32::from(length_and_flags >> 12) << 2;
        headers.tcp_flags = length_and_flags as u8;
        headers.seq = fields.seq();
        headers.ack = fields.ack();
        headers.payload_bytes = bytes.wrapping_sub(header_bytes);
        return header_bytes >= TCP_BYTES && bytes >= header_bytes;
    }
    headers.tcp_flags = 0;
    headers.seq = 0;
    headers.ack = 0;
    headers.payload_bytes = bytes.wrapping_sub(UDP_BYTES);
    let on_quic_port = src_port == quic::PORT || dst_port == quic::PORT;
    if on_quic_port && bytes >= UDP_BYTES + 2 {
        headers.tcp_flags = fields.udp_payload() & (quic::LONG | quic::FIXED);
    }
    // What may be a tunnel takes the longer way.
    protocol == UDP && bytes >= UDP_BYTES && !inner
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::parse;

    /// A frame that is nearly right, so that most of the checks matter.
    fn frame(v6: bool, tcp: bool, ports: (u16, u16), payload: usize) -> Vec<u8> {
        let transport_bytes = if tcp { 20 } else { 8 } + payload;
        let mut frame = vec![2; 12];
        let protocol = if tcp { TCP } else { UDP };
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend((transport_bytes as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(0..32);
        } else {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((20 + transport_bytes as u16).to_be_bytes());
            frame.extend([0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        frame.extend(ports.0.to_be_bytes());
        frame.extend(ports.1.to_be_bytes());
        if tcp {
            frame.extend([1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 0, 0, 0, 0, 0, 0]);
        } else {
            frame.extend(((8 + payload) as u16).to_be_bytes());
            frame.extend([0, 0]);
        }
        frame.extend(vec![0xc3; payload]);
        frame
    }

    fn agrees(frame: &[u8], how: How) -> bool {
        let (mut fast, mut slow) = (Parsed::default(), Parsed::default());
        if !read(frame, how, &mut fast) {
            return false;
        }
        assert_eq!(parse::read(frame, how, &mut slow), Ok(()), "{frame:02x?}");
        assert_eq!(fast, slow, "{frame:02x?}");
        true
    }

    #[test]
    fn it_takes_the_packets_that_nearly_all_are() {
        for (v6, tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            let plain = frame(v6, tcp, (5000, 80), 100);
            assert!(agrees(&plain, How::default()), "{v6} {tcp}");
            let ethertype = if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_IPV4 };
            let told = How {
                ethertype,
                ..How::default()
            };
            assert!(agrees(&plain, told), "{v6} {tcp}");
        }
    }

    proptest! {
        #[test]
        fn what_it_reads_is_what_the_whole_parser_reads(
            (v6, tcp, inner) in any::<(bool, bool, bool)>(),
            ports in (prop_oneof![Just(443u16), any::<u16>()], any::<u16>()),
            payload in 0usize..80,
            changes in proptest::collection::vec((0usize..80, any::<u8>()), 0..3),
            cut in 0usize..200,
            ethertype in prop_oneof![Just(0u16), Just(0x800), Just(0x86dd), Just(0x8100)],
        ) {
            let mut frame = frame(v6, tcp, ports, payload);
            for (at, byte) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = byte;
                }
            }
            frame.truncate(cut);
            agrees(&frame, How { ethertype, inner, ..How::default() });
        }
    }
}
