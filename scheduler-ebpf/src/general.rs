//! What few packets need: any header, another entry of the set, a page of the flow's story.
//!
//! Functions of their own for each hook; what they work in is [`Own`], so that the verifier forgets what it knows of the
//! packet where they begin and end.

use aya_ebpf::{
    EbpfContext,
    bindings::{__sk_buff, xdp_md},
    programs::{TcContext, XdpContext},
};
use scheduler_common::{
    counter::{Counter, Counts, Skip},
    flow::{Flow, FlowSet, Story, WAYS, story_of},
    ingress::{Interface, interface_flags},
    sample::Hook,
    settings::{Settings, settings_flags},
};
use scheduler_ebpf::{
    common,
    flow::{self, Step, event},
    fragment::{self, Kind},
    hash,
    parse::{self, How, Parsed},
};

use crate::{
    clock,
    context::Frame,
    count, interface,
    maps::{FRAGMENTS, Own, STORIES, Scratch},
    page::Page,
    path, secret,
    socket::Sender,
};

/// A hook's context, and its functions.
pub(crate) trait Hooked: EbpfContext + Sender {
    const HOOK: Hook;

    /// Accounts the packet to its flow: its band, [`NO_BAND`], or [`DUE`] and the flow's entry of the set.
    fn account(own: &mut Own, place: (&mut FlowSet, u64), settings: &'static Settings) -> u32;

    /// Decides on the message, and ends it if it is over.
    fn decide(&self, own: &mut Own, page: (&mut Flow, &mut Story), settings: &'static Settings);
}

impl Hooked for TcContext {
    const HOOK: Hook = Hook::Egress;

    #[inline(always)]
    fn account(own: &mut Own, (set, tag): (&mut FlowSet, u64), settings: &'static Settings) -> u32 {
        account_skb(own, set, tag, settings)
    }

    #[inline(always)]
    fn decide(
        &self,
        own: &mut Own,
        (flow, story): (&mut Flow, &mut Story),
        settings: &'static Settings,
    ) {
        decide_skb(self.skb.skb, own, flow, story, settings);
    }
}

impl Hooked for XdpContext {
    const HOOK: Hook = Hook::Ingress;

    #[inline(always)]
    fn account(own: &mut Own, (set, tag): (&mut FlowSet, u64), settings: &'static Settings) -> u32 {
        account_xdp(own, set, tag, settings)
    }

    #[inline(always)]
    fn decide(
        &self,
        own: &mut Own,
        (flow, story): (&mut Flow, &mut Story),
        settings: &'static Settings,
    ) {
        decide_xdp(self.ctx, own, flow, story, settings);
    }
}

// Their arguments are what the kernel's instruction set has registers for: five.

#[inline(never)]
fn account_skb(own: &mut Own, set: &mut FlowSet, tag: u64, settings: &'static Settings) -> u32 {
    account::<TcContext>(own, (set, tag), settings)
}

#[inline(never)]
fn account_xdp(own: &mut Own, set: &mut FlowSet, tag: u64, settings: &'static Settings) -> u32 {
    account::<XdpContext>(own, (set, tag), settings)
}

#[inline(never)]
fn decide_skb(
    skb: *mut __sk_buff,
    own: &mut Own,
    flow: &mut Flow,
    story: &mut Story,
    settings: &'static Settings,
) {
    decide(&TcContext::new(skb), own, (flow, story), settings);
}

#[inline(never)]
fn decide_xdp(
    packet: *mut xdp_md,
    own: &mut Own,
    flow: &mut Flow,
    story: &mut Story,
    settings: &'static Settings,
) {
    decide(&XdpContext::new(packet), own, (flow, story), settings);
}

/// In the place of a band: the packet passes untouched, and is counted.
pub(crate) const NO_BAND: u32 = u32::MAX >> 1;

/// In the place of a band, with the flow's entry of the set: a decision is due first.
pub(crate) const DUE: u32 = 1 << 31;

/// Parses any packet that leaves.
#[inline(never)]
pub(crate) fn read_skb(
    skb: *mut __sk_buff,
    own: &mut Own,
    settings: &Settings,
) -> Result<(), Skip> {
    let Own { kept, scratch } = own;
    // SAFETY: the caller's context.
    let ifindex = unsafe { (*skb).ifindex };
    // SAFETY: as above.
    let ethertype = u16::from_be(unsafe { (*skb).protocol } as u16);
    note_interface(settings, ifindex, scratch);
    let frame = Frame::of_skb(&TcContext::new(skb), &mut scratch.forgotten);
    read(frame, ethertype, settings, scratch, &mut kept.counts)
}

/// Parses any packet that comes in.
#[inline(never)]
pub(crate) fn read_xdp(
    packet: *mut xdp_md,
    own: &mut Own,
    settings: &Settings,
) -> Result<(), Skip> {
    let Own { kept, scratch } = own;
    let ctx = XdpContext::new(packet);
    note_interface(settings, ctx.ingress_ifindex() as u32, scratch);
    let frame = Frame::of_xdp(&ctx, &mut scratch.forgotten);
    read(frame, 0, settings, scratch, &mut kept.counts)
}

#[inline(always)]
fn note_interface(settings: &Settings, ifindex: u32, scratch: &mut Scratch) {
    let Interface { key_ifindex, flags } = interface::of(settings, ifindex, &mut scratch.forgotten);
    scratch.ifindex = key_ifindex;
    scratch.interface_flags = flags;
}

/// Parses the packet: the usual ones quickly.
#[inline(always)]
fn read(
    frame: Frame,
    ethertype: u16,
    settings: &Settings,
    scratch: &mut Scratch,
    counts: &mut Counts,
) -> Result<(), Skip> {
    let how = How {
        ethertype,
        network_frames: settings.flags & settings_flags::NETWORK_FRAMES != 0
            || scratch.interface_flags & interface_flags::NETWORK_FRAMES != 0,
        inner: settings.flags & settings_flags::INNER != 0,
    };
    let parsed = &mut scratch.parsed;
    if common::read(frame, how, parsed) {
        return Ok(());
    }
    parse::read(frame, how, parsed)?;
    find_fragment(parsed, counts, scratch.ifindex)?;
    if parsed.inner != 0 {
        count::one(counts, Counter::InnerPackets);
    }
    Ok(())
}

/// Remembers a first fragment, and completes a later one by what its first one said.
#[inline(always)]
fn find_fragment(parsed: &mut Parsed, counts: &mut Counts, ifindex: u32) -> Result<(), Skip> {
    if matches!(parsed.fragment.kind, Kind::Whole) {
        return Ok(());
    }
    let key = fragment::key(parsed, ifindex);
    if matches!(parsed.fragment.kind, Kind::First) {
        // Without room the later ones are counted as such.
        let _full = FRAGMENTS.insert(key, fragment::first(parsed), 0);
        return Ok(());
    }
    let first = FRAGMENTS.get_ptr(key).ok_or(Skip::LaterFragment)?;
    // SAFETY: map values live as long as the program runs on this packet; an entry is written by
    // replacing it.
    fragment::join(parsed, unsafe { &*first });
    count::one(counts, Counter::JoinedFragments);
    Ok(())
}

/// The page of a packet that is more than plain, up to the decision.
#[inline(always)]
fn account<C: Hooked>(
    own: &mut Own,
    (set, tag): (&mut FlowSet, u64),
    settings: &'static Settings,
) -> u32 {
    let Scratch { parsed, step, .. } = &mut own.scratch;
    let way = entry(set, tag, step, &mut own.kept.counts);
    let flow = &mut set.flows[way];
    flow::advance(flow, &parsed.headers, settings, step);
    if step.has(event::PAGE) {
        let Some(story) = story(tag, way as u32) else {
            count::skip(&mut own.kept.counts, Skip::NoSettings);
            return NO_BAND;
        };
        let now_ns = clock::fine_ns();
        flow::turn_page(
            (&mut *flow, &mut *story),
            &parsed.headers,
            settings,
            now_ns,
            step,
        );
        own.scratch.now_ns = now_ns;
        let (mut page, mut report) = Page::of::<C>(own, (&mut *flow, story), settings);
        page.begin(&mut report);
        if page.step.has(event::DECISION) {
            return DUE | way as u32;
        }
        page.end(&mut report);
    }
    let step = &own.scratch.step;
    judge(flow, step, C::HOOK, &mut own.kept.counts)
}

/// Where a decision is due: the message has its packet already, and perhaps its page.
#[inline(always)]
fn decide<C: Hooked>(
    ctx: &C,
    own: &mut Own,
    (flow, story): (&mut Flow, &mut Story),
    settings: &'static Settings,
) {
    if own.scratch.now_ns == 0 {
        let now_ns = clock::fine_ns();
        own.scratch.now_ns = now_ns;
        flow::look_page(story, now_ns, &mut own.scratch.step);
    }
    let (mut page, mut report) = Page::of::<C>(own, (flow, story), settings);
    page.decide(ctx, &mut report);
    page.end(&mut report);
}

/// The story of the flow at `way` of the set that its tag tells.
#[inline(always)]
pub(crate) fn story(tag: u64, way: u32) -> Option<&'static mut Story> {
    let set = hash::set_of(tag, secret::get());
    let story = STORIES.get_ptr_mut(story_of(set, way))?;
    // SAFETY: map values live as long as the program runs on this packet; other CPUs may write the same plain
    // integers (see `Flow`).
    Some(unsafe { &mut *story })
}

/// Index of the flow's entry in its set; a new flow takes one.
#[inline(always)]
fn entry(set: &mut FlowSet, tag: u64, step: &mut Step, counts: &mut Counts) -> usize {
    let FlowSet { flows } = set;
    let first_way = hash::first_way(tag);
    step.events = 0;
    let way = match flow::find(flows, tag, first_way) {
        Some(way) => way,
        None => {
            let way = flow::victim(flows, first_way, step.now_ticks);
            let flow = &mut flows[way & (WAYS - 1)];
            if flow::is_alive(flow, step.now_ticks) {
                count::one(counts, Counter::FlowsEvicted);
            }
            count::one(counts, Counter::FlowsCreated);
            flow::open(flow, tag, step.now_ticks);
            step.events = event::ENTERED;
            way
        }
    };
    way & (WAYS - 1)
}

/// The band of the packet, counted.
#[inline(always)]
fn judge(flow: &Flow, step: &Step, hook: Hook, counts: &mut Counts) -> u32 {
    if step.has(event::RETRANSMITTED) {
        count::one(counts, Counter::RetransmittedPackets);
    }
    if step.has(event::CONTROL) {
        count::one(counts, Counter::ControlPackets);
        return 0;
    }
    path::judge(flow, step.half, hook, counts)
}
