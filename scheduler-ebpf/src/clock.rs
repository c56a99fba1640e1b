//! The clocks that packets are timed by: the kernel's.

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_ktime_get_coarse_ns};

/// A few milliseconds a step, and cheap: read for every packet.
#[inline(always)]
pub(crate) fn coarse_ns() -> u64 {
    // SAFETY: the helper takes no argument and reads a clock.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Exact, and dear: read where a message is looked at.
#[inline(always)]
pub(crate) fn fine_ns() -> u64 {
    // SAFETY: as above.
    unsafe { bpf_ktime_get_ns() }
}
