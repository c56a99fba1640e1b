//! A packet's way through flow, features, tree and verdict.

use aya_ebpf::{
    EbpfContext,
    programs::{TcContext, XdpContext},
};
use scheduler_common::{
    ABI_VERSION,
    counter::{Counter, Counts, Kept, PerCpu, Skip},
    flow::{Flow, FlowSet, Hashing, WAYS, half_flags, story_of},
    ingress::{Interface, interface_flags},
    sample::Hook,
    settings::{Settings, settings_flags},
};
use scheduler_ebpf::{
    common,
    flow::{self, Step, event},
    fragment::{self, Kind},
    hash,
    parse::{self, Headers, How, Parsed},
};

use crate::{
    action, clock,
    context::Frame,
    count, interface,
    maps::{FLOWS, FRAGMENTS, PER_CPU, SETTINGS, STORIES, Scratch},
    page::Page,
    secret,
    socket::Sender,
};

/// What is looked up once a packet.
#[derive(Clone, Copy)]
pub(crate) struct Known {
    pub(crate) settings: &'static Settings,
    pub(crate) hashing: &'static Hashing,
    pub(crate) hook: Hook,
    /// Interface whose name the flow bears.
    pub(crate) ifindex: u32,
    /// Bits of [`interface_flags`].
    pub(crate) interface_flags: u32,
}

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
    if let Some((kept, scratch)) = per_cpu(Hook::Egress) {
        count::one(&mut kept.counts, Counter::EgressPackets);
        if let Err(skip) = classify::<B>(ctx, kept, scratch) {
            count::skip(&mut kept.counts, skip);
        }
    }
}

#[inline(always)]
fn classify<B: Between>(
    ctx: &TcContext,
    kept: &mut Kept,
    scratch: &mut Scratch,
) -> Result<(), Skip> {
    let skb = ctx.skb.skb;
    // SAFETY: the context is the one this program was called with.
    let ifindex = unsafe { (*skb).ifindex };
    let known = known(Hook::Egress, ifindex, &mut scratch.forgotten)?;
    // SAFETY: as above.
    let ethertype = u16::from_be(unsafe { (*skb).protocol } as u16);
    let frame = Frame::of_skb(ctx, &mut scratch.forgotten);
    read(frame, known, ethertype, &mut scratch.parsed)?;
    let scratch = joined(scratch);
    // SAFETY: as above.
    scratch.step.segments = unsafe { (*skb).gso_segs }.max(1);
    B::apply(scratch);
    let band = account(ctx, known, kept, scratch)?;
    action::apply(ctx, known.settings, band);
    Ok(())
}

/// What the acts on ingress go by.
#[derive(Clone, Copy)]
pub(crate) struct Judged {
    /// Bits of [`interface_flags`].
    pub(crate) flags: u32,
    /// The packet's band.
    pub(crate) band: u8,
    /// A bare ACK or a handshake packet.
    pub(crate) control: bool,
}

/// Observes a packet that comes in; `None` if it passes untouched.
#[inline(always)]
pub(crate) fn ingress<B: Between>(ctx: &XdpContext) -> Option<(Judged, &'static Headers)> {
    let (kept, scratch) = per_cpu(Hook::Ingress)?;
    count::one(&mut kept.counts, Counter::IngressPackets);
    match observe::<B>(ctx, kept, scratch) {
        Ok(observed) => Some(observed),
        Err(skip) => {
            count::skip(&mut kept.counts, skip);
            None
        }
    }
}

#[inline(always)]
fn observe<B: Between>(
    ctx: &XdpContext,
    kept: &mut Kept,
    scratch: &'static mut Scratch,
) -> Result<(Judged, &'static Headers), Skip> {
    let ifindex = ctx.ingress_ifindex() as u32;
    let known = known(Hook::Ingress, ifindex, &mut scratch.forgotten)?;
    let frame = Frame::of_xdp(ctx, &mut scratch.forgotten);
    read(frame, known, 0, &mut scratch.parsed)?;
    let scratch = joined(scratch);
    scratch.step.segments = 1;
    B::apply(scratch);
    let band = account(ctx, known, kept, scratch)?;
    let judged = Judged {
        flags: known.interface_flags,
        band,
        control: scratch.step.has(event::CONTROL),
    };
    Ok((judged, &scratch.parsed.headers))
}

/// Settings and secret in force, and what is peculiar to the interface.
#[inline(always)]
fn known(hook: Hook, ifindex: u32, forgotten: &mut u32) -> Result<Known, Skip> {
    match SETTINGS.get(0) {
        Some(settings) if settings.abi_version == ABI_VERSION => {
            let Interface { key_ifindex, flags } = interface::of(settings, ifindex, forgotten);
            Ok(Known {
                settings,
                hashing: secret::get(),
                hook,
                ifindex: key_ifindex,
                interface_flags: flags,
            })
        }
        _ => Err(Skip::NoSettings),
    }
}

/// What this program keeps on this CPU, and its work space; `None` never happens, but the verifier does not know.
#[inline(always)]
pub(crate) fn per_cpu(hook: Hook) -> Option<(&'static mut Kept, &'static mut Scratch)> {
    let value = PER_CPU.get_ptr_mut(hook as u32)?;
    // SAFETY: the pointer is to this CPU's own value for this hook, and a program is not
    // re-entered on a CPU; zeroes are a value of every field.
    let PerCpu { kept, scratch } = unsafe { &mut *value };
    // SAFETY: the space is large enough and aligned (asserted with the type), borrowed by nobody else, and zeroes
    // and whatever an earlier packet left are values of every field.
    let scratch = unsafe { &mut *scratch.as_mut_ptr().cast() };
    Some((kept, scratch))
}

/// Parses the packet: the usual ones quickly.
#[inline(always)]
fn read(frame: Frame, known: Known, ethertype: u16, parsed: &mut Parsed) -> Result<(), Skip> {
    let how = How {
        ethertype,
        network_frames: known.settings.flags & settings_flags::NETWORK_FRAMES != 0
            || known.interface_flags & interface_flags::NETWORK_FRAMES != 0,
        inner: known.settings.flags & settings_flags::INNER != 0,
    };
    if common::read(frame, how, parsed) {
        return Ok(());
    }
    parse::read(frame, how, parsed)
}

/// The same work space, whose values must be read from it anew.
///
/// What the parser has just written would stay in registers otherwise, and the verifier would follow each
/// kind of packet through all that comes behind.
#[inline(always)]
pub(crate) fn joined(scratch: &mut Scratch) -> &mut Scratch {
    let mut pointer: *mut Scratch = scratch;
    let pointer = &raw mut pointer;
    // SAFETY: the pointer is to the local variable.
    let scratch = unsafe { pointer.read_volatile() };
    // SAFETY: it was made from a reference that is not used any more.
    unsafe { &mut *scratch }
}

/// Accounts the packet to its flow and returns its band.
#[inline(always)]
fn account<C: EbpfContext + Sender>(
    ctx: &C,
    known: Known,
    Kept { counts, budget }: &mut Kept,
    Scratch {
        parsed,
        step,
        socket,
        features,
        ..
    }: &mut Scratch,
) -> Result<u8, Skip> {
    find_fragment(parsed, counts, known.ifindex)?;
    if parsed.inner != 0 {
        count::one(counts, Counter::InnerPackets);
    }
    let headers = &parsed.headers;
    step.now_ticks = flow::ticks(clock::coarse_ns());
    let identity = hash::identify(headers, known.ifindex, known.hashing);
    step.half = identity.half;
    let (flow, story) = entry(identity.tag, known.hashing, step, counts)?;
    flow::advance(flow, headers, known.settings, step);
    if step.has(event::PAGE) {
        let story = STORIES.get_ptr_mut(story).ok_or(Skip::NoSettings)?;
        // SAFETY: as for the entry.
        let story = unsafe { &mut *story };
        let mut page = Page {
            known,
            headers,
            flow: &mut *flow,
            story,
            step: &mut *step,
            socket,
            features,
        };
        page.turn(ctx, counts, budget);
    }
    Ok(judge(flow, step, known.hook, counts))
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

/// The flow's entry, and the index of its story; a new flow takes one.
#[inline(always)]
fn entry(
    tag: u64,
    hashing: &Hashing,
    step: &mut Step,
    counts: &mut Counts,
) -> Result<(&'static mut Flow, u32), Skip> {
    let index = hash::set_of(tag, hashing);
    let set = FLOWS.get_ptr_mut(index).ok_or(Skip::NoSettings)?;
    // SAFETY: map values live as long as the program runs on this packet; other CPUs may write the same plain
    // integers (see `Flow`).
    let FlowSet { flows } = unsafe { &mut *set };
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
    } & (WAYS - 1);
    Ok((&mut flows[way], story_of(index, way as u32)))
}

/// The band of the packet, counted.
#[inline(always)]
fn judge(flow: &Flow, step: &Step, hook: Hook, counts: &mut Counts) -> u8 {
    let own = &flow.halves[step.half as usize & 1];
    if step.has(event::RETRANSMITTED) {
        count::one(counts, Counter::RetransmittedPackets);
    }
    if step.has(event::CONTROL) {
        count::one(counts, Counter::ControlPackets);
        return 0;
    }
    if matches!(hook, Hook::Egress) {
        if own.flags & half_flags::PREDICTED == 0 {
            count::one(counts, Counter::AgingPackets);
        } else {
            count::one(counts, Counter::ModelPackets);
            count::generation(counts, own.generation_slot);
        }
    }
    own.band
}
