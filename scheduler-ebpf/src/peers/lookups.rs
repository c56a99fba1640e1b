//! The method of Bachl et al. (2021), written anew: every node five array look-ups.
//!
//! A tree as five arrays of 64-bit numbers, features in an array map of their own, running means by
//! division, the clock and an LRU hash, all on every packet.

use aya_ebpf::{
    btf_maps::{Array, LruHashMap},
    helpers::bpf_ktime_get_ns,
    macros::btf_map,
};
use scheduler_ebpf::parse::Headers;

use crate::textbook::Tuple;

const MAX_FLOWS: usize = 131_072;
const MAX_NODES: usize = 1024;
const MAX_LEVELS: u32 = 20;
/// The left child of a leaf.
const LEAF: i64 = -1;
/// Means are kept with these many bits behind the point.
const POINT: u32 = 16;

/// What is kept of a flow.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Sums {
    packets: u64,
    last_ns: u64,
    bytes: u64,
    gaps_us: u64,
    forwards: u64,
    bytes_off: u64,
    gaps_off: u64,
    forwards_off: u64,
}

const NEW: Sums = Sums {
    packets: 0,
    last_ns: 0,
    bytes: 0,
    gaps_us: 0,
    forwards: 0,
    bytes_off: 0,
    gaps_off: 0,
    forwards_off: 0,
};

/// Key: tuple. Value: sums. Writer and reader: this program. Size: set by the bench.
#[btf_map]
static LOOKUPS_FLOWS: LruHashMap<Tuple, Sums, MAX_FLOWS> = LruHashMap::new();
/// Key: node. Value: left child.
#[btf_map]
static LOOKUPS_LEFT: Array<i64, MAX_NODES> = Array::new();
/// Key: node. Value: right child.
#[btf_map]
static LOOKUPS_RIGHT: Array<i64, MAX_NODES> = Array::new();
/// Key: node. Value: feature.
#[btf_map]
static LOOKUPS_FEATURE: Array<i64, MAX_NODES> = Array::new();
/// Key: node. Value: threshold.
#[btf_map]
static LOOKUPS_THRESHOLD: Array<i64, MAX_NODES> = Array::new();
/// Key: node. Value: class of a leaf.
#[btf_map]
static LOOKUPS_VALUE: Array<i64, MAX_NODES> = Array::new();
/// Key: feature. Value: its value for the packet at hand.
#[btf_map]
static LOOKUPS_ALL: Array<i64, 12> = Array::new();

#[inline(always)]
pub(crate) fn classify(headers: &Headers) -> Option<u32> {
    // SAFETY: the helper takes no argument and reads a clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let tuple = Tuple::of(headers);
    let sums = match LOOKUPS_FLOWS.get_ptr_mut(tuple) {
        Some(sums) => sums,
        None => {
            LOOKUPS_FLOWS.insert(tuple, NEW, 0).ok()?;
            LOOKUPS_FLOWS.get_ptr_mut(tuple)?
        }
    };
    // SAFETY: map values live as long as the program runs on this packet.
    describe(unsafe { &mut *sums }, headers, now_ns)?;
    walk()
}

/// Accounts the packet and writes its features into their map, six of them by division.
#[inline(always)]
fn describe(sums: &mut Sums, headers: &Headers, now_ns: u64) -> Option<()> {
    let bytes = u64::from(headers.payload_bytes) << POINT;
    let gap_us = if sums.last_ns == 0 {
        0
    } else {
        (now_ns.wrapping_sub(sums.last_ns) >> 10) << POINT
    };
    let forward = u64::from(headers.src_port <= headers.dst_port) << POINT;
    sums.last_ns = now_ns;
    sums.packets += 1;
    let count = sums.packets;
    sums.bytes += bytes;
    sums.gaps_us += gap_us;
    sums.forwards += forward;
    let mean_bytes = sums.bytes.checked_div(count)?;
    let mean_gap = sums.gaps_us.checked_div(count)?;
    let mean_forward = sums.forwards.checked_div(count)?;
    sums.bytes_off += bytes.abs_diff(mean_bytes);
    sums.gaps_off += gap_us.abs_diff(mean_gap);
    sums.forwards_off += forward.abs_diff(mean_forward);
    put(0, u64::from(headers.src_port) << POINT)?;
    put(1, u64::from(headers.dst_port) << POINT)?;
    put(2, u64::from(headers.protocol) << POINT)?;
    put(3, bytes)?;
    put(4, gap_us)?;
    put(5, forward)?;
    put(6, mean_bytes)?;
    put(7, mean_gap)?;
    put(8, mean_forward)?;
    put(9, sums.bytes_off.checked_div(count)?)?;
    put(10, sums.gaps_off.checked_div(count)?)?;
    put(11, sums.forwards_off.checked_div(count)?)
}

#[inline(always)]
fn put(feature: u32, value: u64) -> Option<()> {
    LOOKUPS_ALL.set(feature, value as i64, 0).ok()
}

#[inline(always)]
fn walk() -> Option<u32> {
    let mut at = 0u32;
    for _ in 0..MAX_LEVELS {
        let left = *LOOKUPS_LEFT.get(at)?;
        let right = *LOOKUPS_RIGHT.get(at)?;
        let feature = *LOOKUPS_FEATURE.get(at)?;
        let threshold = *LOOKUPS_THRESHOLD.get(at)?;
        if left == LEAF {
            break;
        }
        let value = *LOOKUPS_ALL.get(feature as u32)?;
        at = if value <= threshold { left } else { right } as u32;
    }
    LOOKUPS_VALUE.get(at).map(|class| *class as u32)
}
