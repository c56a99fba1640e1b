//! Acts of the ingress program: police, hand on the band, steer.
//!
//! All are off unless the interface's entry in `INTERFACES` asks for them. The band is the one that
//! [`crate::path`] settled; today that rests on aging, and once it asks the model on ingress too
//! nothing changes here.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    helpers::{
        bpf_ktime_get_ns,
        generated::{bpf_xdp_adjust_meta, bpf_xdp_get_buff_len},
    },
    programs::XdpContext,
};
use scheduler_common::{
    class::BANDS,
    ingress::{
        FIRST_BULK_BAND, Group, IngressCounter, METADATA_MAGIC, METADATA_VERSION, Metadata,
        Policer, STEER_SLOTS, interface_flags,
    },
};
use scheduler_ebpf::parse::Headers;

use crate::{
    maps::{CPUS, INGRESS_COUNTERS, POLICERS, STEERING},
    path::Judged,
};

/// Does what the interface is set up for, and answers with the program's verdict.
#[inline(always)]
pub(crate) fn act(ctx: &XdpContext, judged: Judged, headers: &Headers) -> u32 {
    let Judged {
        flags,
        band,
        control,
    } = judged;
    // A dropped ACK or handshake would cost far more than it saves.
    if flags & interface_flags::POLICE != 0 && !control && is_beyond_rate(ctx, band) {
        count(IngressCounter::PolicedBand0 as u32 + u32::from(band) % BANDS as u32);
        return XDP_DROP;
    }
    // Behind all that reads the packet: its pointers do not outlive the helper.
    if flags & interface_flags::METADATA != 0 {
        hand_on(ctx, band);
    }
    if flags & interface_flags::STEER != 0 {
        return steer(headers, band);
    }
    XDP_PASS
}

/// Whether the band has spent its rate; if not, the packet is charged.
///
/// Several CPUs share a bucket without a lock. While it is overdrawn they only ever add, which loses
/// nothing; each may let one packet more through than it should, having looked before the others added. An
/// idle bucket is set to now, which may wipe out what another CPU has just added: one packet for free, when
/// the rate was not used up anyway.
#[inline(always)]
fn is_beyond_rate(ctx: &XdpContext, band: u8) -> bool {
    let Some(policer) = POLICERS.get_ptr_mut(u32::from(band)) else {
        return false;
    };
    // SAFETY: the pointer is to a map value, which outlives the program's run; the limits are plain
    // integers that userspace writes.
    let limits: Policer = unsafe { *policer };
    if limits.ns_per_byte_q16 == 0 {
        return false;
    }
    // SAFETY: the helper takes no argument and reads a clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: the context is the one this program was called with; the helper only reads it.
    let bytes = unsafe { bpf_xdp_get_buff_len(ctx.ctx) };
    // SAFETY: as above; the field has the address of its own.
    let spent_until = unsafe { &raw mut (*policer).spent_until_ns };
    // SAFETY: as above.
    let before = unsafe { spent_until.read_volatile() };
    if before < now_ns {
        // SAFETY: as above.
        unsafe {
            spent_until.write_volatile(now_ns);
        }
    } else if before - now_ns > limits.burst_ns {
        return true;
    }
    // `core::sync::atomic` has no arithmetic for targets without compare-and-swap, which BPF has only since
    // its third version; adding is as old as BPF.
    // SAFETY: the pointer is aligned and to map memory.
    unsafe {
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(spent_until, limits.cost_ns(bytes));
    }
    false
}

/// Puts the band in front of the packet.
#[inline(always)]
fn hand_on(ctx: &XdpContext, band: u8) {
    const BYTES: usize = size_of::<Metadata>();
    // SAFETY: the context is the one this program was called with.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -(BYTES as i32)) } != 0 {
        count(IngressCounter::MetadataFailed as u32);
        return;
    }
    let at = ctx.metadata();
    if at + BYTES > ctx.metadata_end() {
        count(IngressCounter::MetadataFailed as u32);
        return;
    }
    // SAFETY: the bounds were compared just above, and the kernel aligns metadata to words.
    unsafe {
        *(at as *mut Metadata) = Metadata {
            magic: METADATA_MAGIC,
            version: METADATA_VERSION,
            band,
            _pad: [0; 2],
        };
    }
    count(IngressCounter::MetadataSet as u32);
}

/// Hands the packet to a CPU of its band's group.
///
/// Within a group a flow keeps its CPU. A flow changes groups at most once a message, downwards, as a
/// band only falls: there a packet may overtake what still waits on the CPU before, a queue of
/// microseconds. Back up it comes only with a new message, and a message does not begin while anything of the
/// one before is unacknowledged, so nothing is left to be overtaken.
#[inline(always)]
fn steer(headers: &Headers, band: u8) -> u32 {
    let (group, steered) = if band < FIRST_BULK_BAND {
        (Group::Urgent, IngressCounter::SteeredUrgent)
    } else {
        (Group::Bulk, IngressCounter::SteeredBulk)
    };
    let slot = group as u32 * STEER_SLOTS + (mix(headers) & (STEER_SLOTS - 1));
    let cpu = match STEERING.get(slot) {
        Some(cpu) => *cpu,
        None => u32::MAX,
    };
    // The flags are the verdict for a CPU that has no queue.
    match CPUS.redirect(cpu, u64::from(XDP_PASS)) {
        Ok(verdict) => {
            count(steered as u32);
            verdict
        }
        Err(verdict) => {
            count(IngressCounter::SteerFailed as u32);
            verdict
        }
    }
}

/// A number that is the same for all packets of a direction.
#[inline(always)]
fn mix(headers: &Headers) -> u32 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut sum = u64::from(headers.src_port) << 32
        | u64::from(headers.dst_port) << 16
        | u64::from(headers.protocol);
    for (near, far) in headers.src_addr.iter().zip(&headers.dst_addr) {
        sum = (sum ^ (u64::from(*near) << 32 | u64::from(*far))).wrapping_mul(ODD);
        sum ^= sum >> 32;
    }
    sum as u32
}

#[inline(always)]
fn count(index: u32) {
    if let Some(value) = INGRESS_COUNTERS.get_ptr_mut(index) {
        // SAFETY: the pointer is to this CPU's own value, and programs are not re-entered on a CPU.
        unsafe {
            *value += 1;
        }
    }
}
