//! A packet's way: the usual one, which nearly all packets take, and where it leaves for [`crate::general`].
//!
//! What is not usual stands in functions of their own: in one with everything the compiler had so few registers left
//! that a third of the usual way was spent on putting values by and fetching them again.

use aya_ebpf::programs::{TcContext, XdpContext};
use scheduler_common::{
    ABI_VERSION,
    counter::{Counter, Counts, Skip},
    flow::{Flow, FlowSet, WAYS, half_flags},
    sample::Hook,
    settings::{Settings, settings_flags},
};
use scheduler_ebpf::{
    common,
    flow::{self, Plain, event},
    hash::{self, Identity},
    parse::{Headers, How},
};

use crate::{
    action, clock,
    context::Frame,
    count,
    general::{self, Hooked},
    maps::{FLOWS, Own, PER_CPU, SETTINGS, Scratch},
    secret,
};

/// What comes between parsing and accounting: nothing, but for the bench.
pub(crate) trait Between {
    /// Changes what was parsed.
    fn apply(scratch: &mut Scratch);
}

impl Between for () {
    #[inline(always)]
    fn apply(_scratch: &mut Scratch) {}
}

/// Classifies a packet that leaves.
#[inline(always)]
pub(crate) fn egress<B: Between>(ctx: &TcContext) {
    if let Some(own) = per_cpu(Hook::Egress) {
        count::one(&mut own.kept.counts, Counter::EgressPackets);
        if let Err(skip) = classify::<B>(ctx, own) {
            count::skip(&mut own.kept.counts, skip);
        }
    }
}

#[inline(always)]
fn classify<B: Between>(ctx: &TcContext, own: &mut Own) -> Result<(), Skip> {
    let skb = ctx.skb.skb;
    let settings = settings()?;
    let usual = How {
        // SAFETY: the context is the one this program was called with.
        ethertype: u16::from_be(unsafe { (*skb).protocol } as u16),
        network_frames: false,
        inner: false,
    };
    let frame = Frame::of_linear_skb(ctx, &mut own.scratch.forgotten);
    if settings.flags & settings_flags::RARE_READS == 0
        && common::read(frame, usual, &mut own.scratch.parsed)
    {
        // SAFETY: as above.
        own.scratch.ifindex = unsafe { (*skb).ifindex };
    } else {
        general::read_skb(skb, own, settings)?;
    }
    let own = joined(own);
    // SAFETY: as above.
    own.scratch.step.segments = unsafe { (*skb).gso_segs }.max(1);
    B::apply(&mut own.scratch);
    let (band, _control) = account(ctx, own, settings)?;
    if band != general::NO_BAND {
        action::apply(ctx, settings, band as u8);
    }
    Ok(())
}

/// What the acts on ingress go by.
#[derive(Clone, Copy)]
pub(crate) struct Judged {
    /// Bits of [`scheduler_common::ingress::interface_flags`].
    pub(crate) flags: u32,
    /// The packet's band.
    pub(crate) band: u8,
    /// A bare ACK or a handshake packet.
    pub(crate) control: bool,
}

/// Observes a packet that comes in; `None` if it passes untouched.
#[inline(always)]
pub(crate) fn ingress<B: Between>(ctx: &XdpContext) -> Option<(Judged, &'static Headers)> {
    let own = per_cpu(Hook::Ingress)?;
    count::one(&mut own.kept.counts, Counter::IngressPackets);
    match observe::<B>(ctx, own) {
        Ok(judged) => Some((judged?, &own.scratch.parsed.headers)),
        Err(skip) => {
            count::skip(&mut own.kept.counts, skip);
            None
        }
    }
}

#[inline(always)]
fn observe<B: Between>(ctx: &XdpContext, own: &mut Own) -> Result<Option<Judged>, Skip> {
    let settings = settings()?;
    let frame = Frame::of_linear_xdp(ctx, &mut own.scratch.forgotten);
    if settings.flags & settings_flags::RARE_READS == 0
        && common::read(frame, How::default(), &mut own.scratch.parsed)
    {
        own.scratch.ifindex = ctx.ingress_ifindex() as u32;
        own.scratch.interface_flags = 0;
    } else {
        general::read_xdp(ctx.ctx, own, settings)?;
    }
    let own = joined(own);
    own.scratch.step.segments = 1;
    B::apply(&mut own.scratch);
    let (band, control) = account(ctx, own, settings)?;
    Ok((band != general::NO_BAND).then_some(Judged {
        flags: own.scratch.interface_flags,
        band: band as u8,
        control,
    }))
}

/// The settings in force.
#[inline(always)]
fn settings() -> Result<&'static Settings, Skip> {
    match SETTINGS.get(0) {
        Some(settings) if settings.abi_version == ABI_VERSION => Ok(settings),
        _ => Err(Skip::NoSettings),
    }
}

/// What this program keeps on this CPU, and its work space; `None` never happens, but the verifier does not know.
#[inline(always)]
pub(crate) fn per_cpu(hook: Hook) -> Option<&'static mut Own> {
    let value = PER_CPU.get_ptr_mut(hook as u32)?;
    // SAFETY: the pointer is to this CPU's own value for this hook, large enough and aligned (asserted with the type),
    // and a program is not re-entered on a CPU; zeroes and whatever an earlier packet left are values of every field.
    Some(unsafe { &mut *value.cast() })
}

/// The same work space, whose values must be read from it anew.
///
/// What the parser has just written would stay in registers otherwise, and the verifier would follow each
/// kind of packet through all that comes behind.
#[inline(always)]
pub(crate) fn joined(own: &mut Own) -> &mut Own {
    let mut pointer: *mut Own = own;
    let pointer = &raw mut pointer;
    // SAFETY: the pointer is to the local variable.
    let own = unsafe { pointer.read_volatile() };
    // SAFETY: it was made from a reference that is not used any more.
    unsafe { &mut *own }
}

/// The set of entries that the packet's flow belongs to; direction and time are noted for the step.
#[inline(always)]
fn find(scratch: &mut Scratch) -> Result<(&'static mut FlowSet, Identity), Skip> {
    let hashing = secret::get();
    scratch.step.now_ticks = flow::ticks(clock::coarse_ns());
    let identity = hash::identify(&scratch.parsed.headers, scratch.ifindex, hashing);
    scratch.step.half = identity.half;
    let set = FLOWS
        .get_ptr_mut(hash::set_of(identity.tag, hashing))
        .ok_or(Skip::NoSettings)?;
    // SAFETY: map values live as long as the program runs on this packet; other CPUs may write the same plain
    // integers (see `Flow`).
    Ok((unsafe { &mut *set }, identity))
}

/// Accounts the packet to its flow: its band or [`general::NO_BAND`], and whether it is no part of any message.
#[inline(always)]
fn account<C: Hooked>(
    ctx: &C,
    own: &mut Own,
    settings: &'static Settings,
) -> Result<(u32, bool), Skip> {
    let (set, Identity { tag, half }) = find(&mut own.scratch)?;
    let mut way = hash::first_way(tag);
    let flow = entry(set, way);
    match plainly(flow, (tag, half), &own.scratch, settings) {
        Plain::Payload => return Ok((judge(flow, half, C::HOOK, &mut own.kept.counts), false)),
        Plain::Control => {
            count::one(&mut own.kept.counts, Counter::ControlPackets);
            return Ok((0, true));
        }
        Plain::Look => {
            own.scratch.step.events = event::DECISION;
            // No time yet, as its page is not looked at.
            own.scratch.now_ns = 0;
        }
        Plain::No => {
            let outcome = C::account(own, (set, tag), settings);
            if outcome & general::DUE == 0 {
                return Ok((outcome, own.scratch.step.has(event::CONTROL)));
            }
            way = outcome;
        }
    }
    // One place for both: the verifier follows the decision once for each place that it is called from.
    let story = general::story(tag, way).ok_or(Skip::NoSettings)?;
    let flow = entry(set, way);
    ctx.decide(own, (&mut *flow, story), settings);
    Ok((judge(flow, half, C::HOOK, &mut own.kept.counts), false))
}

/// An entry of the set.
#[inline(always)]
fn entry(set: &mut FlowSet, way: u32) -> &mut Flow {
    &mut set.flows[way as usize & (WAYS - 1)]
}

/// Accounts the packet if that is all there is to do.
#[inline(always)]
fn plainly(
    flow: &mut Flow,
    (tag, half): (u64, u32),
    scratch: &Scratch,
    settings: &Settings,
) -> Plain {
    if flow.tag != tag {
        return Plain::No;
    }
    let step = &scratch.step;
    let headers = &scratch.parsed.headers;
    flow::advance_plainly(
        flow,
        headers,
        settings,
        (half, step.segments, step.now_ticks),
    )
}

/// The band of a packet with payload, counted.
#[inline(always)]
pub(crate) fn judge(flow: &Flow, half: u32, hook: Hook, counts: &mut Counts) -> u32 {
    let own = &flow.halves[half as usize & 1];
    if matches!(hook, Hook::Egress) {
        if own.flags & half_flags::PREDICTED == 0 {
            count::one(counts, Counter::AgingPackets);
        } else {
            count::one(counts, Counter::ModelPackets);
            count::generation(counts, own.generation_slot);
        }
    }
    u32::from(own.band)
}
