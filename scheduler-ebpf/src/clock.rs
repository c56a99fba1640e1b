//! The clocks that packets are timed by: the kernel's.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns},
    },
};
use scheduler_common::flow::{Clock, NO_TICK_NS};

/// What a tick is. Set before the programs are loaded; until then the kernel is asked for the time.
#[unsafe(no_mangle)]
static CLOCK: Clock = Clock {
    // No numbers that a program has elsewhere, for LLVM merges equal constants.
    offset_ns: 0x5eed_c10c_0000_0001,
    tick_ns: NO_TICK_NS,
    _pad: 0x5eed,
};

/// Time of the latest tick, a few milliseconds apart, and cheap: read for every packet.
///
/// The kernel's helper for it is a call; the tick count, which moves at the same moment, is one read that the kernel
/// puts in place of the helper (6.18 `kernel/bpf/verifier.c`, `do_misc_fixups`).
#[inline(always)]
pub(crate) fn coarse_ns() -> u64 {
    // SAFETY: initialised read-only data; volatile keeps the value that was set at load, by which the verifier
    // leaves out the way that is not taken.
    let tick_ns = unsafe { (&raw const CLOCK.tick_ns).read_volatile() };
    if tick_ns == NO_TICK_NS {
        // SAFETY: the helper takes no argument and reads a clock.
        return unsafe { bpf_ktime_get_coarse_ns() };
    }
    // SAFETY: as above.
    let offset_ns = unsafe { (&raw const CLOCK.offset_ns).read_volatile() };
    // SAFETY: the helper takes no argument and reads a number.
    let ticks = unsafe { bpf_jiffies64() };
    ticks.wrapping_mul(tick_ns as u64).wrapping_add(offset_ns)
}

/// Exact, and dear: read where a message is looked at.
#[inline(always)]
pub(crate) fn fine_ns() -> u64 {
    // SAFETY: the helper takes no argument and reads a clock.
    unsafe { bpf_ktime_get_ns() }
}

/// Tells userspace what the tick count and the coarse clock are: ticks, time, and the ticks' lower half again, by which
/// userspace knows that no tick came between.
#[inline(always)]
pub(crate) fn tell(skb: *mut __sk_buff) {
    // SAFETY: the helper takes no argument and reads a number.
    let before = unsafe { bpf_jiffies64() };
    // SAFETY: likewise, a clock.
    let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
    // SAFETY: as the first.
    let after = unsafe { bpf_jiffies64() };
    // SAFETY: the context is the one the program was called with; a TC program may write the field.
    let told = unsafe { &mut (*skb).cb };
    told[0] = before as u32;
    told[1] = (before >> 32) as u32;
    told[2] = now_ns as u32;
    told[3] = (now_ns >> 32) as u32;
    told[4] = after as u32;
}
