//! The frames and conversations that the programs are tried on.

use scheduler_common::{counter::Skip, sample::Hook};

use super::packets::{
    ACK, ETHERNET_BYTES, Ends, Flags, Passing, Talk, tagged, with_extensions, with_ipv4_options,
    without_ports,
};

pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const QINQ: u16 = 0x88a8;
/// Both programs.
pub(crate) const BOTH: [Hook; 2] = [Hook::Egress, Hook::Ingress];

pub(crate) fn udp4() -> Vec<u8> {
    Ends::v4(53, 5353).udp(Hook::Egress, 40)
}

pub(crate) fn tcp4() -> Vec<u8> {
    Ends::v4(80, 1000).tcp(Hook::Egress, (1, 1), ACK, 40)
}

pub(crate) fn udp6() -> Vec<u8> {
    Ends::v6(53, 5353).udp(Hook::Egress, 40)
}

pub(crate) fn tcp6() -> Vec<u8> {
    Ends::v6(80, 1000).tcp(Hook::Egress, (1, 1), ACK, 40)
}

fn changed(mut frame: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    frame[at] = value;
    frame
}

/// The frame's packet in a PPPoE session, under a PPP protocol number.
fn in_session(frame: &[u8], protocol: u16) -> Vec<u8> {
    let packet = &frame[ETHERNET_BYTES..];
    let mut head = frame[..12].to_vec();
    head.extend([0x88, 0x64, 0x11, 0, 0, 1]);
    head.extend((packet.len() as u16 + 2).to_be_bytes());
    head.extend(protocol.to_be_bytes());
    [&head, packet].concat()
}

/// An eight-byte extension header behind its first byte.
pub(crate) fn extension() -> Vec<u8> {
    vec![0; 7]
}

/// Frames with what the parser must say: a reason to skip them, or `None`.
#[expect(clippy::too_many_lines, reason = "it is a table")]
pub(crate) fn table() -> Vec<(&'static str, Vec<u8>, Option<Skip>)> {
    const IP: usize = ETHERNET_BYTES;
    let [echo, echo6, arp] = without_ports();
    let fragment = |offset: u8| vec![0, 0, offset, 0, 0, 0, 9];
    vec![
        ("udp", udp4(), None),
        ("udp over ipv6", udp6(), None),
        ("tcp", tcp4(), None),
        ("tcp over ipv6", tcp6(), None),
        ("vlan", tagged(&tcp4(), &[VLAN]), None),
        ("vlan ipv6", tagged(&udp6(), &[VLAN]), None),
        ("qinq", tagged(&udp4(), &[QINQ, VLAN]), None),
        (
            "three tags",
            tagged(&udp4(), &[QINQ, VLAN, VLAN]),
            Some(Skip::TooDeep),
        ),
        ("tagged arp", tagged(&arp, &[VLAN]), Some(Skip::NotIp)),
        ("arp", arp, Some(Skip::NotIp)),
        ("icmp", echo, None),
        ("icmpv6", echo6, None),
        (
            "another protocol",
            changed(udp4(), IP + 9, 132),
            Some(Skip::OtherProtocol),
        ),
        ("gre", changed(udp4(), IP + 9, 47), None),
        ("pppoe", in_session(&udp4(), 0x21), None),
        (
            "pppoe behind two tags",
            tagged(&in_session(&tcp6(), 0x57), &[QINQ, VLAN]),
            None,
        ),
        (
            "pppoe control",
            in_session(&udp4(), 0xc021),
            Some(Skip::NotIp),
        ),
        ("one word of options", with_ipv4_options(&tcp4(), 1), None),
        ("all options", with_ipv4_options(&udp4(), 10), None),
        (
            "options behind two tags",
            tagged(&with_ipv4_options(&tcp4(), 10), &[QINQ, VLAN]),
            None,
        ),
        ("first fragment", changed(udp4(), IP + 6, 0x20), None),
        (
            "later fragment",
            changed(changed(udp4(), IP + 7, 1), IP + 5, 99),
            Some(Skip::LaterFragment),
        ),
        (
            "later fragment of the first",
            changed(udp4(), IP + 7, 1),
            None,
        ),
        (
            "version 5",
            changed(udp4(), IP, 0x55),
            Some(Skip::Malformed),
        ),
        (
            "header of 4 words",
            changed(udp4(), IP, 0x44),
            Some(Skip::Malformed),
        ),
        ("ipv4 length 0", changed(udp4(), IP + 3, 0), None),
        (
            "ipv4 shorter than its header",
            changed(udp4(), IP + 3, 19),
            Some(Skip::Malformed),
        ),
        (
            "ipv4 longer than the frame",
            changed(udp4(), IP + 3, 200),
            Some(Skip::Truncated),
        ),
        (
            "udp cut by the ip length",
            changed(udp4(), IP + 3, 27),
            Some(Skip::Malformed),
        ),
        (
            "tcp cut by the ip length",
            changed(tcp4(), IP + 3, 39),
            Some(Skip::Malformed),
        ),
        (
            "tcp header of 4 words",
            changed(tcp4(), IP + 32, 0x40),
            Some(Skip::Malformed),
        ),
        (
            "tcp header beyond the packet",
            changed(tcp4(), IP + 32, 0xf0),
            None,
        ),
        (
            "ipv6 of version 4",
            changed(udp6(), IP, 0x40),
            Some(Skip::Malformed),
        ),
        ("ipv6 length 0", changed(udp6(), IP + 5, 0), None),
        (
            "ipv6 longer than the frame",
            changed(udp6(), IP + 5, 99),
            Some(Skip::Truncated),
        ),
        (
            "udp cut by the ipv6 length",
            changed(udp6(), IP + 5, 7),
            Some(Skip::Malformed),
        ),
        (
            "hop by hop",
            with_extensions(&tcp6(), &[(0, extension())]),
            None,
        ),
        (
            "four extensions",
            with_extensions(
                &udp6(),
                &[
                    (0, extension()),
                    (43, extension()),
                    (44, fragment(0)),
                    (60, extension()),
                ],
            ),
            None,
        ),
        (
            "five extensions",
            with_extensions(&udp6(), &vec![(60, extension()); 5]),
            Some(Skip::TooDeep),
        ),
        (
            "ipv6 first fragment with more to come",
            with_extensions(&udp6(), &[(44, vec![0, 0, 1, 0, 0, 0, 9])]),
            None,
        ),
        (
            "ipv6 later fragment",
            with_extensions(&udp6(), &[(44, changed(fragment(8), 6, 99))]),
            Some(Skip::LaterFragment),
        ),
        (
            "ipv6 later fragment of the first",
            with_extensions(&udp6(), &[(44, fragment(8))]),
            None,
        ),
        (
            "a long extension",
            with_extensions(&tcp6(), &[(60, [vec![31], vec![0; 254]].concat())]),
            None,
        ),
        (
            "an extension beyond the packet",
            with_extensions(&udp6(), &[(60, changed(extension(), 0, 20))]),
            Some(Skip::Malformed),
        ),
        (
            "no next header",
            with_extensions(&udp6(), &[(60, extension()), (59, extension())]),
            Some(Skip::OtherProtocol),
        ),
        ("not ip", changed(udp4(), 12, 0x88), Some(Skip::NotIp)),
        (
            "a length instead of an ethertype",
            changed(udp4(), 12, 0),
            Some(Skip::NotIp),
        ),
    ]
}

/// Conversations that come past every branch of the flow step.
pub(crate) fn conversations() -> Vec<Vec<Passing>> {
    let mut kept = Talk::new(Ends::v4(80, 2001));
    kept.exchange(200, 40).exchange(3000, 3).exchange(1, 1);
    let mut closed = Talk::new(Ends::v6(443, 2002));
    closed.exchange(500, 12);
    closed.say(Hook::Egress, Flags { fin: true, ..ACK }, 52);
    closed.say(Hook::Ingress, Flags { fin: true, ..ACK }, 0);
    closed.say(Hook::Egress, ACK, 0);
    let mut reset = Talk::new(Ends::v4(8080, 2003));
    reset
        .say(Hook::Ingress, ACK, 100)
        .say(Hook::Egress, ACK, 1448);
    let rst = Flags {
        rst: true,
        ..Flags::default()
    };
    reset.say(Hook::Ingress, rst, 0);
    let mut again = Talk::new(Ends::v4(25, 2004));
    again.say(Hook::Ingress, ACK, 100);
    let numbers = (again.seq(Hook::Egress), again.seq(Hook::Ingress));
    again
        .say(Hook::Egress, ACK, 1448)
        .say(Hook::Egress, ACK, 1448);
    again.out_of_order(Hook::Egress, numbers, ACK, 1448);
    again.out_of_order(
        Hook::Egress,
        (numbers.0.wrapping_add(2000), numbers.1),
        ACK,
        1448,
    );
    let ahead = again.seq(Hook::Egress).wrapping_add(20_000);
    again.out_of_order(Hook::Egress, (ahead, numbers.1), ACK, 1448);
    let mut super_packets = Talk::new(Ends::v4(80, 2005));
    super_packets.say(Hook::Ingress, ACK, 300);
    for segments in [2, 5, 1, 17, 40] {
        super_packets
            .say(Hook::Egress, ACK, 1448)
            .in_segments(segments);
    }
    let datagrams = (0..40)
        .map(|number| Passing {
            hook: BOTH[number % 2],
            frame: Ends::v6(443, 2006).udp(BOTH[number % 2], 1200),
            segments: 1,
        })
        .collect();
    let mut passed: Vec<Vec<Passing>> = [kept, closed, reset, again, super_packets]
        .iter_mut()
        .map(Talk::take)
        .collect();
    passed.push(datagrams);
    passed
}
