//! The textbook peer: LRU hash, a clock read and a full walk every packet.

use aya_ebpf::{
    btf_maps::{Array, LruHashMap},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use scheduler_ebpf::parse::Headers;

const MAX_FLOWS: usize = 131_072;
const MAX_NODES: usize = 1024;
/// Splits on every path.
const DEPTH: u32 = 8;

/// The 40 bytes that tell a flow.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Tuple {
    src_addr: [u32; 4],
    dst_addr: [u32; 4],
    src_port: u16,
    dst_port: u16,
    protocol: u8,
    ip_version: u8,
    _pad: [u8; 2],
}

const _: () = assert!(size_of::<Tuple>() == 40);

impl Tuple {
    #[inline(always)]
    pub(crate) const fn of(headers: &Headers) -> Self {
        Self {
            src_addr: headers.src_addr,
            dst_addr: headers.dst_addr,
            src_port: headers.src_port,
            dst_port: headers.dst_port,
            protocol: headers.protocol,
            ip_version: headers.ip_version,
            _pad: [0, 0],
        }
    }
}

/// What is kept of a flow.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct State {
    first_ns: u64,
    last_ns: u64,
    packets: u64,
    bytes: u64,
    gaps_ns: u64,
    largest_bytes: u32,
    smallest_bytes: u32,
    longest_gap_us: u32,
    flags: u32,
    class: u64,
}

const _: () = assert!(size_of::<State>() == 64);

/// A node as userspace writes it: four 32-bit words.
#[repr(C)]
pub(crate) struct Node {
    feature: u32,
    threshold: u32,
    left: u32,
    right: u32,
}

/// Key: tuple. Value: state. Writer and reader: this program. Size: set by the bench.
#[btf_map]
static TEXTBOOK_FLOWS: LruHashMap<Tuple, State, MAX_FLOWS> = LruHashMap::new();

/// Key: number of the node. Value: node. Writer: the bench. Reader: this program, one look-up a level.
#[btf_map]
static TEXTBOOK_NODES: Array<Node, MAX_NODES> = Array::new();

#[inline(always)]
pub(crate) fn classify(headers: &Headers) -> Option<u32> {
    // SAFETY: the helper takes no argument and reads a clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let tuple = Tuple::of(headers);
    let state = match TEXTBOOK_FLOWS.get_ptr_mut(tuple) {
        Some(state) => state,
        None => {
            TEXTBOOK_FLOWS.insert(tuple, new(headers, now_ns), 0).ok()?;
            TEXTBOOK_FLOWS.get_ptr_mut(tuple)?
        }
    };
    // SAFETY: map values live as long as the program runs on this packet.
    let state = unsafe { &mut *state };
    let features = describe(state, headers, now_ns);
    let class = walk(&features)?;
    state.class = u64::from(class);
    Some(class)
}

#[inline(always)]
const fn new(headers: &Headers, now_ns: u64) -> State {
    State {
        first_ns: now_ns,
        last_ns: now_ns,
        packets: 0,
        bytes: 0,
        gaps_ns: 0,
        largest_bytes: 0,
        smallest_bytes: u32::MAX,
        longest_gap_us: 0,
        flags: headers.tcp_flags as u32,
        class: 0,
    }
}

/// Accounts the packet and makes the twelve features.
#[inline(always)]
fn describe(state: &mut State, headers: &Headers, now_ns: u64) -> [u32; 16] {
    let gap_ns = now_ns.wrapping_sub(state.last_ns);
    let gap_us = (gap_ns / 1000) as u32;
    let bytes = headers.payload_bytes;
    state.last_ns = now_ns;
    state.packets += 1;
    state.bytes += u64::from(bytes);
    state.gaps_ns += gap_ns;
    state.largest_bytes = state.largest_bytes.max(bytes);
    state.smallest_bytes = state.smallest_bytes.min(bytes);
    state.longest_gap_us = state.longest_gap_us.max(gap_us);
    state.flags |= u32::from(headers.tcp_flags);
    [
        u32::from(headers.src_port),
        u32::from(headers.dst_port),
        u32::from(headers.protocol),
        bytes,
        state.packets as u32,
        state.bytes as u32,
        state.largest_bytes,
        state.smallest_bytes,
        gap_us,
        state.longest_gap_us,
        (now_ns.wrapping_sub(state.first_ns) / 1000) as u32,
        state.bytes.checked_div(state.packets).unwrap_or(0) as u32,
        0,
        0,
        0,
        0,
    ]
}

#[inline(always)]
fn walk(features: &[u32; 16]) -> Option<u32> {
    let mut at = 0;
    for _ in 0..DEPTH {
        let node = TEXTBOOK_NODES.get(at)?;
        at = if features[(node.feature & 15) as usize] <= node.threshold {
            node.left
        } else {
            node.right
        };
    }
    TEXTBOOK_NODES.get(at).map(|leaf| leaf.threshold)
}
