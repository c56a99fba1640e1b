//! A peer of the bench: two heuristics that qosify publishes.
//!
//! OpenWrt's qosify sorts flows that no rule names by packets a second and by the mean length of packets, and hands them
//! to CAKE's four tins. Here is what its documentation says the two options do, at the values its default configuration
//! shows: more than `bulk_trigger_pps` packets in a second make a flow bulk until it was below for
//! `bulk_trigger_timeout` seconds; a flow that isn't bulk and whose mean length is at most `prio_max_avg_pkt_len` is
//! urgent.

use aya_ebpf::{
    EbpfContext as _,
    btf_maps::LruHashMap,
    helpers::{bpf_get_hash_recalc, bpf_ktime_get_ns},
    macros::btf_map,
    programs::TcContext,
};

const MAX_FLOWS: usize = 8192;
const BULK_TRIGGER_PPS: u32 = 100;
const BULK_TIMEOUT_S: u32 = 5;
const PRIO_MEAN_BYTES: u32 = 500;
const SECOND_NS: u64 = 1_000_000_000;
/// After so long a silence a flow is another one.
const FORGET_NS: u64 = 30 * SECOND_NS;
/// The mean moves by a quarter of the difference, in 1/64 byte.
const MEAN_SHIFT: u32 = 6;

/// Class `7b:` of CAKE's tins, as tc counts them: bulk, best effort, video, voice.
const MAJOR: u32 = 0x7b << 16;
const BULK: u32 = MAJOR | 1;
const BEST_EFFORT: u32 = MAJOR | 2;
const VIDEO: u32 = MAJOR | 3;

/// What is kept of a flow.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct State {
    /// When the current second began.
    since_ns: u64,
    packets: u32,
    mean_bytes: u32,
    /// Seconds that it stays bulk.
    bulk_s: u32,
    _pad: u32,
}

/// Key: the kernel's hash of the flow. Value: its state. Writer and reader: this program. Size: as qosify's table.
#[btf_map]
static QOSIFY_FLOWS: LruHashMap<u32, State, MAX_FLOWS> = LruHashMap::new();

/// The packet's class.
#[inline(always)]
pub(crate) fn classify(ctx: &TcContext) -> u32 {
    // SAFETY: the helper takes no argument and reads a clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the context is the one this program was called with.
    let hash = unsafe { bpf_get_hash_recalc(ctx.as_ptr().cast()) };
    let fresh = State {
        since_ns: now_ns,
        packets: 0,
        mean_bytes: 0,
        bulk_s: 0,
        _pad: 0,
    };
    let Some(state) = QOSIFY_FLOWS.get_ptr_mut(hash).or_else(|| {
        let _full = QOSIFY_FLOWS.insert(hash, fresh, 0);
        QOSIFY_FLOWS.get_ptr_mut(hash)
    }) else {
        return BEST_EFFORT;
    };
    // SAFETY: map values live as long as the program runs on this packet; other CPUs may write the same integers.
    let state = unsafe { &mut *state };
    if now_ns.wrapping_sub(state.since_ns) > FORGET_NS {
        *state = fresh;
    }
    // SAFETY: the context is the one this program was called with.
    let segments = unsafe { (*ctx.skb.skb).gso_segs }.max(1);
    let bytes = ctx.len().checked_div(segments).unwrap_or(0);
    account(state, (bytes, segments), now_ns)
}

#[inline(always)]
fn account(state: &mut State, (bytes, segments): (u32, u32), now_ns: u64) -> u32 {
    state.packets = state.packets.wrapping_add(segments);
    let is_many = state.packets > BULK_TRIGGER_PPS;
    if is_many {
        state.bulk_s = BULK_TIMEOUT_S + 1;
    }
    if now_ns.wrapping_sub(state.since_ns) >= SECOND_NS {
        if !is_many {
            state.bulk_s = state.bulk_s.saturating_sub(1);
        }
        state.packets = 0;
        state.since_ns = now_ns;
    }
    let scaled = bytes << MEAN_SHIFT;
    state.mean_bytes = if state.mean_bytes == 0 {
        scaled
    } else {
        state.mean_bytes - state.mean_bytes / 4 + scaled / 4
    };
    if state.bulk_s > 0 {
        BULK
    } else if state.mean_bytes >> MEAN_SHIFT <= PRIO_MEAN_BYTES {
        VIDEO
    } else {
        BEST_EFFORT
    }
}
