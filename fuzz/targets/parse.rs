//! Any bytes, read in any way, are parsed or refused.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use scheduler_common::counter::Skip;
use scheduler_ebpf::{
    fragment::Kind,
    parse::{self, Headers, How, ICMP, ICMPV6, Parsed, TCP, UDP},
    tunnel,
};

use captures::Start;
use peer::Reading;

mod captures {
    //! How a frame begins, to the parser that the tests compare with.

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Start {
        Ethernet,
        Network,
    }
}

#[path = "../../tests/support/peer.rs"]
mod peer;

/// The first byte says how, the others are the frame.
fn how(choice: u8) -> How {
    How {
        ethertype: [0, 0x0800, 0x86dd, 0x8100][usize::from(choice >> 2 & 3)],
        network_frames: choice & 1 != 0,
        inner: choice & 2 != 0,
    }
}

fn read(frame: &[u8], how: How) -> Result<Parsed, Skip> {
    let mut parsed = Parsed::default();
    parse::read(frame, how, &mut parsed).map(|()| parsed)
}

/// What holds of every packet that is read.
fn hold(frame: &[u8], how: How, parsed: &Parsed) {
    let Headers {
        src_addr,
        dst_addr,
        src_port,
        dst_port,
        protocol,
        ip_version,
        payload_bytes,
        seq,
        ack,
        ..
    } = parsed.headers;
    assert!(payload_bytes as usize <= frame.len(), "{parsed:?}");
    assert!(parsed.inner == 0 || (how.inner && parsed.inner == 1));
    match ip_version {
        4 => assert!(src_addr[1..] == [0; 3] && dst_addr[1..] == [0; 3]),
        6 => {}
        other => panic!("IP version {other}"),
    }
    if protocol != TCP {
        assert_eq!((seq, ack), (0, 0), "{parsed:?}");
    }
    let ports = match protocol {
        // Whether it is one of ours was seen in the first fragment.
        _ if matches!(parsed.fragment.kind, Kind::Later) => false,
        TCP | UDP | ICMP | ICMPV6 => true,
        tunnel::GRE | tunnel::IPV4 | tunnel::IPV6 => false,
        other => panic!("protocol {other}"),
    };
    if !ports {
        assert_eq!((src_port, dst_port), (0, 0), "{parsed:?}");
    }
}

/// Where the other parser reads headers too, they are the same: all of TCP's and IP's, and of the
/// others what the two mean in the same way.
fn compare(frame: &[u8], how: How, parsed: &Parsed) {
    let start = if how.network_frames {
        Start::Network
    } else {
        Start::Ethernet
    };
    let Reading::Headers(theirs) = peer::read(start, frame) else {
        return;
    };
    let ours = parsed.headers;
    let alike = match ours.protocol {
        // There what follows the fragment header of an IPv6 packet is read in every fragment.
        _ if !matches!(parsed.fragment.kind, Kind::Whole) => Headers {
            src_addr: theirs.src_addr,
            dst_addr: theirs.dst_addr,
            ip_version: theirs.ip_version,
            ..ours
        },
        // There a UDP length counts that is below the IP packet's.
        UDP => Headers {
            payload_bytes: ours.payload_bytes,
            tcp_flags: ours.tcp_flags,
            ..theirs
        },
        // There an echo with a code is none, and some messages have longer headers.
        ICMP | ICMPV6 => Headers {
            payload_bytes: ours.payload_bytes,
            src_port: ours.src_port,
            dst_port: ours.dst_port,
            ..theirs
        },
        _ => theirs,
    };
    assert_eq!(ours, alike, "here (left) and there (right)");
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, frame)) = bytes.split_first() else {
        return;
    };
    let how = how(*choice);
    let once = read(frame, how);
    assert_eq!(once, read(frame, how), "the second time differs");
    if let Ok(parsed) = &once {
        hold(frame, how, parsed);
        if how.ethertype == 0 && !how.inner {
            compare(frame, how, parsed);
        }
    }
});
