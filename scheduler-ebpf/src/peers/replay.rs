//! Makes one packet those of a capture, one after another.

use aya_ebpf::{btf_maps::Array, macros::btf_map};

use crate::{maps::Scratch, path::Between};

/// Headers of one packet; userspace writes them as sixteen 32-bit words.
#[repr(C)]
pub(crate) struct Record {
    src_addr: [u32; 4],
    dst_addr: [u32; 4],
    src_port: u32,
    dst_port: u32,
    protocol: u32,
    /// IP version, and TCP flags from bit 8 on.
    version_and_flags: u32,
    payload_bytes: u32,
    seq: u32,
    ack: u32,
    segments: u32,
}

const _: () = assert!(size_of::<Record>() == 64);

/// Where the replay is; userspace writes it as four 32-bit words.
#[repr(C)]
pub(crate) struct Place {
    /// Number of the next packet.
    next: u32,
    /// Packets of the replay.
    packets: u32,
    /// Changes both addresses, so that each pass has flows of its own.
    salt: u32,
    _pad: u32,
}

/// Key: number of the packet. Value: its headers. Writer: the bench, once. Reader: the replaying programs. Size: set
/// by the bench.
#[btf_map]
static REPLAY: Array<Record, 1> = Array::new();

/// Key: 0. Value: where the replay is. Writer: the bench, before a run, and the replaying programs.
#[btf_map]
static REPLAY_PLACE: Array<Place, 1> = Array::new();

/// Every packet is the capture's next.
pub(crate) struct On;

impl Between for On {
    /// Gives the parsed packet the headers of the replay's next one.
    #[inline(always)]
    fn apply(scratch: &mut Scratch) {
        let Some(place) = REPLAY_PLACE.get_ptr_mut(0) else {
            return;
        };
        // SAFETY: the bench runs on one CPU.
        let place = unsafe { &mut *place };
        let Some(record) = REPLAY.get_ptr(place.next) else {
            return;
        };
        // SAFETY: map values live as long as the program runs on this packet, and nobody writes them meanwhile.
        let record = unsafe { &*record };
        let salt = place.salt;
        place.next = place.next.wrapping_add(1);
        if place.next >= place.packets {
            place.next = 0;
            place.salt = salt.wrapping_add(1);
        }
        let headers = &mut scratch.parsed.headers;
        headers.src_addr = record.src_addr;
        headers.dst_addr = record.dst_addr;
        // Alike at both ends: the two directions stay one flow.
        headers.src_addr[0] ^= salt;
        headers.dst_addr[0] ^= salt;
        headers.src_port = record.src_port as u16;
        headers.dst_port = record.dst_port as u16;
        headers.protocol = record.protocol as u8;
        headers.ip_version = record.version_and_flags as u8;
        headers.tcp_flags = (record.version_and_flags >> 8) as u8;
        headers.payload_bytes = record.payload_bytes;
        headers.seq = record.seq;
        headers.ack = record.ack;
        scratch.step.segments = record.segments;
    }
}
