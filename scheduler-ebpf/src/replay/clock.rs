//! The clock of a capture, in the place of the kernel's.

use aya_ebpf::{btf_maps::Array, macros::btf_map};
use scheduler_common::replay::Moment;

use crate::{maps::Scratch, path::Between};

/// Key: 0. Value: what is not in the bytes of the packet that comes next. Writer: userspace, before each packet.
/// Reader: the replaying programs. Size: one packet at a time.
#[btf_map]
static MOMENT: Array<Moment, 1> = Array::new();

#[inline(always)]
fn moment() -> Moment {
    match MOMENT.get(0) {
        Some(moment) => *moment,
        None => Moment {
            now_ns: 0,
            payload_bytes: 0,
            segments: 1,
        },
    }
}

#[inline(always)]
pub(crate) fn coarse_ns() -> u64 {
    moment().now_ns
}

#[inline(always)]
pub(crate) fn fine_ns() -> u64 {
    moment().now_ns
}

/// What the capture says of a packet besides its bytes.
pub(crate) struct Captured;

impl Between for Captured {
    #[inline(always)]
    fn apply(scratch: &mut Scratch) {
        let moment = moment();
        scratch.step.segments = moment.segments;
        // A test run takes no packet larger than a page: of such a one only the head comes by.
        if moment.payload_bytes != 0 {
            scratch.parsed.headers.payload_bytes = moment.payload_bytes;
        }
    }
}
