//! Real captures beside the repository, where there are any.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pcap_parser::{
    Block, Linktype, PcapBlockOwned, PcapError, create_reader, traits::PcapNGPacketBlock as _,
};

/// Where captures are looked for, from the workspace on.
const PLACE: &str = "../shared/data/captures";

/// How a captured packet begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Start {
    /// With an Ethernet header.
    Ethernet,
    /// With the network header.
    Network,
}

/// A capture file.
#[derive(Debug)]
pub(crate) struct Capture {
    pub(crate) name: String,
    /// Frames in order; what was cut off is zeroes here, so that lengths are those of the wire.
    pub(crate) frames: Vec<(Start, Vec<u8>)>,
}

/// A captured packet.
#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) start: Start,
    /// The frame; what was cut off is zeroes here.
    pub(crate) frame: Vec<u8>,
    /// By the capture's own clock. 0 in pcapng files, where nobody has asked for it yet.
    pub(crate) time_ns: u64,
}

fn place() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PLACE)
}

/// The captures that are whole, payload and all; none, with a line that says so, where they are absent.
pub(crate) fn full() -> Vec<PathBuf> {
    let entries = fs::read_dir(place().join("full"));
    let mut files: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .map(|entry| entry.expect("the directory can be read").path())
        .collect();
    files.sort();
    if files.is_empty() {
        eprintln!("not run: there are no captures in {PLACE}/full");
    }
    files
}

/// Where one capture is; none, with a line that says so, where it is absent.
pub(crate) fn path(name: &str) -> Option<PathBuf> {
    let path = place().join(name);
    let present = path.exists();
    if !present {
        eprintln!("not run: there is no capture {PLACE}/{name}");
    }
    present.then_some(path)
}

/// The packets of one capture in order; none, with a line that says so, where it is absent.
pub(crate) fn packets(name: &str) -> Option<Vec<Packet>> {
    path(name).map(|path| read_packets(&path))
}

/// Every capture, or none with a line that says so.
pub(crate) fn all() -> Vec<Capture> {
    let place = place();
    let paths = names().into_iter().map(|name| place.join(name));
    paths.map(|path| read(&path)).collect()
}

/// Names of all captures, or none with a line that says so.
pub(crate) fn names() -> Vec<String> {
    let place = place();
    let mut files: Vec<PathBuf> = ["full", "headers"]
        .iter()
        .filter_map(|part| fs::read_dir(place.join(part)).ok())
        .flatten()
        .map(|entry| entry.expect("the directory can be read").path())
        .collect();
    files.sort();
    if files.is_empty() {
        eprintln!("not run: there are no captures in {PLACE}");
    }
    let names = files.iter().map(|path| name(path));
    names.collect()
}

fn name(path: &Path) -> String {
    let inside = path.strip_prefix(place()).unwrap_or(path);
    inside.display().to_string()
}

fn read(path: &Path) -> Capture {
    let frames = read_packets(path)
        .into_iter()
        .map(|packet| (packet.start, packet.frame))
        .collect();
    Capture {
        name: name(path),
        frames,
    }
}

fn read_packets(path: &Path) -> Vec<Packet> {
    const BUFFER_BYTES: usize = 1 << 20;
    let bytes = fs::read(path).expect("the capture can be read");
    let mut reader =
        create_reader(BUFFER_BYTES, io::Cursor::new(bytes)).expect("the file is a capture");
    let mut links = Vec::new();
    let mut packets = Vec::new();
    loop {
        let used = match reader.next() {
            Ok((used, block)) => {
                take(&block, &mut links, &mut packets);
                used
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => {
                reader.refill().expect("the buffer holds any block");
                continue;
            }
            Err(error) => panic!("{}: {error}", path.display()),
        };
        reader.consume(used);
    }
    packets
}

/// Link type of an interface, and nanoseconds in a unit of its clock's fraction.
struct Link {
    kind: Linktype,
    fraction_ns: u64,
}

fn take(block: &PcapBlockOwned<'_>, links: &mut Vec<Link>, packets: &mut Vec<Packet>) {
    let (link, bytes, wire_bytes, time_ns) = match block {
        PcapBlockOwned::LegacyHeader(header) => {
            return links.push(Link {
                kind: header.network,
                fraction_ns: if header.is_nanosecond_precision() {
                    1
                } else {
                    1000
                },
            });
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            return links.push(Link {
                kind: interface.linktype,
                fraction_ns: 0,
            });
        }
        PcapBlockOwned::Legacy(packet) => {
            let seconds_ns = u64::from(packet.ts_sec) * 1_000_000_000;
            let time_ns = seconds_ns + u64::from(packet.ts_usec) * links[0].fraction_ns;
            (&links[0], packet.data, packet.origlen, time_ns)
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => (
            &links[packet.if_id as usize],
            packet.packet_data(),
            packet.origlen,
            0,
        ),
        PcapBlockOwned::NG(_) => return,
    };
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(wire_bytes as usize), 0);
    let (start, frame) = as_seen(link.kind, bytes);
    packets.push(Packet {
        start,
        frame,
        time_ns,
    });
}

/// The packet as an interface would show it.
fn as_seen(link: Linktype, bytes: Vec<u8>) -> (Start, Vec<u8>) {
    const COOKED_BYTES: usize = 16;
    const FAMILY_BYTES: usize = 4;
    match link {
        Linktype::ETHERNET => (Start::Ethernet, bytes),
        Linktype::NULL => (Start::Network, bytes[FAMILY_BYTES..].to_vec()),
        // The EtherType ends the cooked header as it ends an Ethernet one.
        Linktype::LINUX_SLL => {
            let ethertype = &bytes[COOKED_BYTES - 2..];
            (Start::Ethernet, [&[2; 12], ethertype].concat())
        }
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 => (Start::Network, bytes),
        other => panic!("link type {other}"),
    }
}
