//! Makes one packet many flows: another far end each time.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use scheduler_common::features::Features;

use crate::{maps::Scratch, path::Between};

/// 1 lets the spread act; read-only data, so that another number leaves no instruction of it. Not 0, which LLVM would
/// merge with the keys that maps are looked up by.
#[unsafe(no_mangle)]
static SPREAD_ON: u32 = OFF;
const OFF: u32 = 0xffff_fffc;

/// How flows are drawn; userspace writes it as five 64-bit words.
#[repr(C)]
pub(crate) struct Spread {
    /// State of the generator, or the number of the next flow.
    state: u64,
    /// Bits of the flow's number that are used.
    mask: u64,
    /// 0: in random order; 1: one after another.
    ordered: u64,
    /// Added to the payload's length.
    payload_bytes: u64,
    /// Added to the segments.
    segments: u64,
}

/// Key: 0. Value: how flows are drawn. Writer: userspace, before a run, and the bench programs.
#[btf_map]
static SPREAD: Array<Spread, 1> = Array::new();

/// Far ports, so that the far port stays the higher one and the service is known.
const PORT_BITS: u32 = 14;
const FIRST_PORT: u16 = 16_384;

/// Every packet gets another far end.
pub(crate) struct On;

impl Between for On {
    #[inline(always)]
    fn apply(scratch: &mut Scratch) {
        apply(scratch);
    }
}

/// Gives the parsed packet the far end of the next flow.
#[inline(always)]
pub(crate) fn apply(scratch: &mut Scratch) {
    // SAFETY: initialised read-only data; volatile keeps the value that was set at load.
    if unsafe { core::ptr::read_volatile(&raw const SPREAD_ON) } != 1 {
        return;
    }
    let Some(spread) = SPREAD.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the bench runs on one CPU.
    let spread = unsafe { &mut *spread };
    let flow = next(spread) & spread.mask;
    let headers = &mut scratch.parsed.headers;
    headers.dst_port = FIRST_PORT + (flow as u16 & ((1 << PORT_BITS) - 1));
    let host = (flow >> PORT_BITS) as u32;
    if headers.ip_version == 4 {
        headers.dst_addr[0] = headers.dst_addr[0].wrapping_add(host);
    } else {
        headers.dst_addr[3] = headers.dst_addr[3].wrapping_add(host);
    }
    headers.payload_bytes = headers
        .payload_bytes
        .wrapping_add(spread.payload_bytes as u32);
    scratch.step.segments = scratch.step.segments.wrapping_add(spread.segments as u32);
}

#[inline(always)]
fn next(spread: &mut Spread) -> u64 {
    if spread.ordered != 0 {
        spread.state = spread.state.wrapping_add(1);
        return spread.state;
    }
    spread.state = xorshift(spread.state);
    spread.state
}

/// Xorshift64 (Marsaglia, 2003).
#[inline(always)]
const fn xorshift(mut x: u64) -> u64 {
    x ^= x << 13;
    x ^= x >> 7;
    x ^ x << 17
}

/// Twelve random features, spread over the orders of magnitude.
///
/// The slots that no tree of the bench tests are not zero: zeroing them would call `memset`.
#[inline(always)]
pub(crate) fn features() -> Option<Features> {
    let spread = SPREAD.get_ptr_mut(0)?;
    // SAFETY: the bench runs on one CPU.
    let spread = unsafe { &mut *spread };
    let a = xorshift(spread.state);
    let b = xorshift(a);
    let c = xorshift(b);
    spread.state = c;
    let shift = |x: u64, by: u32| (x as u32) >> (by & 31);
    Some([
        shift(a, (a >> 59) as u32),
        shift(a >> 8, (a >> 54) as u32),
        shift(a >> 16, (a >> 49) as u32),
        shift(a >> 24, (b >> 59) as u32),
        shift(b, (b >> 54) as u32),
        shift(b >> 8, (b >> 49) as u32),
        shift(b >> 16, (c >> 59) as u32),
        shift(b >> 24, (c >> 54) as u32),
        shift(c, (c >> 49) as u32),
        shift(c >> 8, (a >> 44) as u32),
        shift(c >> 16, (b >> 44) as u32),
        shift(c >> 24, (c >> 44) as u32),
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        a as u32,
        0,
    ])
}
