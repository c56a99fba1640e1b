//! Capture files: pcap and pcapng → Ethernet frames with times.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use pcap_parser::{
    Block, Linktype, PcapBlockOwned, PcapError, create_reader, traits::PcapNGPacketBlock as _,
};

/// Larger than any block of a capture that has a sane snapshot length.
const BUFFER_BYTES: usize = 1 << 20;

const LINK_LOOP: Linktype = Linktype(108);
const LINK_RAW_BSD: Linktype = Linktype(12);
const LINK_RAW_OPENBSD: Linktype = Linktype(14);

/// Why a capture could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The file can't be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no capture.
    #[error("{} is neither pcap nor pcapng", path.display())]
    NoCapture {
        /// The file.
        path: PathBuf,
    },
    /// It is one up to some packet.
    #[error("{} is damaged behind packet {packets}: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Packets before the damage.
        packets: u64,
        /// What the reader said.
        reason: String,
    },
    /// Its packets begin with headers that nobody here reads.
    #[error(
        "{} has link type {link}, which treeline does not read: Ethernet, Linux cooked (1 and 2), BSD loopback and raw IP it does",
        path.display()
    )]
    LinkType {
        /// The file.
        path: PathBuf,
        /// The link type's number.
        link: i32,
    },
}

/// A captured packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// It as an Ethernet frame, as far as it was captured.
    pub frame: Vec<u8>,
    /// Length of that frame on the wire.
    pub wire_bytes: usize,
    /// By the capture's clock; never before the packet in front of it.
    pub time_ns: u64,
}

/// How an interface of a capture tells times and packets.
#[derive(Clone, Copy, Debug)]
struct Link {
    kind: Linktype,
    /// Units of a second.
    resolution: u64,
    offset_s: i64,
}

impl Link {
    fn time_ns(self, units: u64) -> u64 {
        let ns = u128::from(units) * 1_000_000_000 / u128::from(self.resolution.max(1));
        let offset_ns = i128::from(self.offset_s) * 1_000_000_000;
        u64::try_from(ns.cast_signed() + offset_ns).unwrap_or(0)
    }
}

/// Reads a capture packet by packet, and hands each to `take`, which may break off.
///
/// # Errors
/// See [`CaptureError`]; and what `take` says.
pub fn read<E: From<CaptureError>>(
    path: &Path,
    mut take: impl FnMut(Packet) -> Result<(), E>,
) -> Result<u64, E> {
    let file = File::open(path).map_err(|source| CaptureError::Open {
        path: path.to_owned(),
        source,
    })?;
    let mut reader =
        create_reader(BUFFER_BYTES, file).map_err(|_error| CaptureError::NoCapture {
            path: path.to_owned(),
        })?;
    let damaged = |packets, reason: String| CaptureError::Damaged {
        path: path.to_owned(),
        packets,
        reason,
    };
    let mut links = Vec::new();
    let (mut packets, mut latest_ns) = (0, 0);
    loop {
        let used = match reader.next() {
            Ok((used, block)) => {
                let found = packet(&block, &mut links).map_err(|fault| match fault {
                    Fault::LinkType(link) => CaptureError::LinkType {
                        path: path.to_owned(),
                        link,
                    },
                    Fault::Damage(reason) => damaged(packets, reason.to_owned()),
                })?;
                if let Some(mut packet) = found {
                    packets += 1;
                    // A clock that a scheduler goes by never goes back.
                    latest_ns = packet.time_ns.max(latest_ns);
                    packet.time_ns = latest_ns;
                    take(packet)?;
                }
                used
            }
            Err(PcapError::Eof) => return Ok(packets),
            Err(PcapError::Incomplete(_)) => {
                if reader.reader_exhausted() {
                    return Err(damaged(packets, "it was cut off".to_owned()).into());
                }
                reader
                    .refill()
                    .map_err(|error| damaged(packets, error.to_string()))?;
                continue;
            }
            Err(error) => return Err(damaged(packets, error.to_string()).into()),
        };
        reader.consume(used);
    }
}

enum Fault {
    LinkType(i32),
    Damage(&'static str),
}

fn packet(block: &PcapBlockOwned<'_>, links: &mut Vec<Link>) -> Result<Option<Packet>, Fault> {
    let (link, bytes, wire_bytes, units) = match block {
        PcapBlockOwned::LegacyHeader(header) => {
            links.push(Link {
                kind: header.network,
                resolution: if header.is_nanosecond_precision() {
                    1_000_000_000
                } else {
                    1_000_000
                },
                offset_s: 0,
            });
            return Ok(None);
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            // Interfaces are numbered within their section.
            links.clear();
            return Ok(None);
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
            links.push(Link {
                kind: interface.linktype,
                resolution: interface
                    .ts_resolution()
                    .ok_or(Fault::Damage("an interface has no sane clock"))?,
                offset_s: interface.ts_offset(),
            });
            return Ok(None);
        }
        PcapBlockOwned::Legacy(packet) => {
            let link = links.first().ok_or(Fault::Damage("it has no header"))?;
            let units = u64::from(packet.ts_sec) * link.resolution + u64::from(packet.ts_usec);
            (link, packet.data, packet.origlen, units)
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
            let link = links
                .get(packet.if_id as usize)
                .ok_or(Fault::Damage("a packet is of an unknown interface"))?;
            let units = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
            (link, packet.packet_data(), packet.origlen, units)
        }
        PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
            let link = links
                .first()
                .ok_or(Fault::Damage("a packet is of an unknown interface"))?;
            // It has no time: that of the packet before.
            (link, packet.packet_data(), packet.origlen, 0)
        }
        PcapBlockOwned::NG(_) => return Ok(None),
    };
    let (head, body) = as_ethernet(link.kind, bytes).ok_or(Fault::LinkType(link.kind.0))?;
    let cut_bytes = (wire_bytes as usize).saturating_sub(bytes.len());
    let frame = [head.as_slice(), body].concat();
    Ok(Some(Packet {
        wire_bytes: frame.len() + cut_bytes,
        frame,
        time_ns: link.time_ns(units),
    }))
}

/// What an Ethernet interface would show of it: header bytes to put in front, and the rest.
fn as_ethernet(link: Linktype, bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    const COOKED_BYTES: usize = 16;
    const COOKED_2_BYTES: usize = 20;
    const FAMILY_BYTES: usize = 4;
    let raw = |bytes| Some((ethernet_header(ip_ethertype(bytes)), bytes));
    match link {
        Linktype::ETHERNET => Some((Vec::new(), bytes)),
        Linktype::NULL | LINK_LOOP => raw(bytes.get(FAMILY_BYTES..).unwrap_or_default()),
        // The EtherType ends the first cooked header and begins the second.
        Linktype::LINUX_SLL => {
            let ethertype = bytes.get(COOKED_BYTES - 2..COOKED_BYTES).unwrap_or(&[0, 0]);
            let header = ethernet_header([ethertype[0], ethertype[1]]);
            Some((header, bytes.get(COOKED_BYTES..).unwrap_or_default()))
        }
        Linktype::LINUX_SLL2 => {
            let ethertype = bytes.get(..2).unwrap_or(&[0, 0]);
            let header = ethernet_header([ethertype[0], ethertype[1]]);
            Some((header, bytes.get(COOKED_2_BYTES..).unwrap_or_default()))
        }
        Linktype::RAW | Linktype::IPV4 | Linktype::IPV6 | LINK_RAW_BSD | LINK_RAW_OPENBSD => {
            raw(bytes)
        }
        _ => None,
    }
}

fn ethernet_header(ethertype: [u8; 2]) -> Vec<u8> {
    const ADDRESSES: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    [&ADDRESSES[..], &ethertype].concat()
}

/// EtherType by the version that an IP header begins with; 0 if it is neither.
fn ip_ethertype(bytes: &[u8]) -> [u8; 2] {
    match bytes.first().map_or(0, |first| first >> 4) {
        4 => [0x08, 0x00],
        6 => [0x86, 0xdd],
        _ => [0, 0],
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Packet>, CaptureError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("capture");
        fs::write(&path, bytes).unwrap();
        let mut packets = Vec::new();
        read(&path, |packet| {
            packets.push(packet);
            Ok::<(), CaptureError>(())
        })?;
        Ok(packets)
    }

    /// A pcap file of `link`, with packets of (seconds, fraction, captured bytes, length on the wire).
    fn pcap(magic: u32, link: u32, packets: &[(u32, u32, &[u8], u32)]) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [magic, 0x0004_0002, 0, 0, 65_535, link] {
            file.extend(word.to_le_bytes());
        }
        for (seconds, fraction, bytes, wire) in packets {
            for word in [*seconds, *fraction, bytes.len() as u32, *wire] {
                file.extend(word.to_le_bytes());
            }
            file.extend_from_slice(bytes);
        }
        file
    }

    const MICROSECONDS: u32 = 0xa1b2_c3d4;
    const NANOSECONDS: u32 = 0xa1b2_3c4d;

    #[test]
    fn times_are_nanoseconds_and_never_go_back() {
        let frame = [7; 60];
        let packets = [
            (10, 5, &frame[..], 60),
            (9, 0, &frame, 60),
            (11, 1, &frame, 2000),
        ];
        let times = |magic| {
            let packets = all(&pcap(magic, 1, &packets)).unwrap();
            assert_eq!((packets[2].frame.len(), packets[2].wire_bytes), (60, 2000));
            packets.iter().map(|p| p.time_ns).collect::<Vec<_>>()
        };
        assert_eq!(
            times(MICROSECONDS),
            [10_000_005_000, 10_000_005_000, 11_000_001_000]
        );
        assert_eq!(
            times(NANOSECONDS),
            [10_000_000_005, 10_000_000_005, 11_000_000_001]
        );
    }

    #[test]
    fn every_link_type_becomes_ethernet() {
        let ip = [0x45, 0, 0, 20];
        let behind = |length: usize, at: usize, ethertype: [u8; 2]| {
            let mut bytes = vec![0; length];
            if length > 4 {
                bytes[at..at + 2].copy_from_slice(&ethertype);
            }
            bytes.extend(ip);
            bytes
        };
        let ethertype = [0x08, 0x00];
        for (link, bytes) in [
            (0, behind(4, 0, ethertype)),
            (108, behind(4, 0, ethertype)),
            (113, behind(16, 14, ethertype)),
            (276, behind(20, 0, ethertype)),
            (101, ip.to_vec()),
            (228, ip.to_vec()),
            (12, ip.to_vec()),
        ] {
            let file = pcap(
                MICROSECONDS,
                link,
                &[(1, 0, &bytes, bytes.len() as u32 + 9)],
            );
            let packets = all(&file).unwrap();
            assert_eq!(
                packets[0].frame[12..],
                [8, 0, 0x45, 0, 0, 20],
                "link {link}"
            );
            assert_eq!(packets[0].wire_bytes, 14 + 4 + 9, "link {link}");
        }
        let error = all(&pcap(MICROSECONDS, 105, &[(1, 0, &ip, 4)])).unwrap_err();
        assert!(error.to_string().contains("105"), "{error}");
    }

    #[test]
    fn pcapng_has_a_clock_for_each_interface() {
        let mut file = Vec::new();
        let mut block = |kind: u32, body: &[u8]| {
            let length = (12 + body.len()) as u32;
            file.extend(kind.to_le_bytes());
            file.extend(length.to_le_bytes());
            file.extend_from_slice(body);
            file.extend(length.to_le_bytes());
        };
        let words = |words: &[u32]| {
            words
                .iter()
                .flat_map(|w| w.to_le_bytes())
                .collect::<Vec<_>>()
        };
        block(0x0a0d_0d0a, &words(&[0x1a2b_3c4d, 1, u32::MAX, u32::MAX]));
        block(1, &words(&[1, 65_535]));
        // The option of code 9 says nanoseconds.
        block(1, &words(&[101, 65_535, 0x0001_0009, 9, 0]));
        let ip = 0x1400_0045;
        block(6, &words(&[0, 0, 5_000_000, 4, 4, ip]));
        block(6, &words(&[1, 2, 5, 4, 4, ip]));
        let packets = all(&file).unwrap();
        let times: Vec<u64> = packets.iter().map(|packet| packet.time_ns).collect();
        assert_eq!(times, [5_000_000_000, (2 << 32) + 5]);
        assert_eq!(packets[0].frame.len(), 4);
        assert_eq!(packets[1].frame[12..], [8, 0, 0x45, 0, 0, 20]);
    }

    #[test]
    fn what_is_no_capture_or_cut_off_says_so() {
        let error = |bytes: &[u8]| all(bytes).unwrap_err().to_string();
        assert!(error(b"hello, this is no capture at all, not even nearly").contains("neither"));
        assert!(error(b"").contains("neither"));
        let frame = [7; 60];
        let file = pcap(MICROSECONDS, 1, &[(1, 0, &frame, 60), (1, 0, &frame, 60)]);
        let cut = error(&file[..file.len() - 10]);
        assert!(cut.contains("behind packet 1"), "{cut}");
    }
}
