//! The parts of treeline's path one after another: each program does what the one before it does, and one thing more.
//!
//! What a rung costs above the one below it is what that part costs, and the last rung is the path itself.

use scheduler_common::{
    flow::{Flow, FlowSet, WAYS, story_of},
    settings::Settings,
};
use scheduler_ebpf::{
    flow::{self, Plain, Step, event},
    hash::{self, Identity},
    history,
    parse::Headers,
};

use crate::{
    clock,
    maps::{FLOWS, HISTORY, SETTINGS, STORIES},
    secret, sink,
};

/// Parse, and the hash of the flow.
#[inline(always)]
pub(crate) fn hashed(headers: &Headers) -> Option<u32> {
    sink::word(identity(headers).tag as u32);
    None
}

/// The same, and a count in the flow's line: the least that a flow table can do.
#[inline(always)]
pub(crate) fn touched(headers: &Headers) -> Option<u32> {
    let Identity { tag, .. } = identity(headers);
    let flows = set(tag)?;
    Some(count(
        &mut flows[hash::first_way(tag) as usize & (WAYS - 1)],
        1,
    ))
}

/// The same in the entry that bears the flow's tag.
#[inline(always)]
pub(crate) fn found(headers: &Headers) -> Option<u32> {
    let Identity { tag, .. } = identity(headers);
    Some(count(find(tag)?, 1))
}

/// The same, and the coarse clock.
#[inline(always)]
pub(crate) fn timed(headers: &Headers) -> Option<u32> {
    let Identity { tag, .. } = identity(headers);
    let ticks = flow::ticks(clock::coarse_ns());
    Some(count(find(tag)?, ticks))
}

/// The same, and the packet added to its message, by the settings.
#[inline(always)]
pub(crate) fn added(headers: &Headers) -> Option<u32> {
    add(headers).map(|_at| 0)
}

/// The same, and the fine clock.
#[inline(always)]
pub(crate) fn fine(headers: &Headers) -> Option<u32> {
    add(headers)?;
    Some(clock::fine_ns() as u32)
}

/// The same, and what the flow's story says of the packet.
#[inline(always)]
pub(crate) fn storied(headers: &Headers) -> Option<u32> {
    let at = add(headers)?;
    let now_ns = clock::fine_ns();
    let mut step = Step {
        half: at.half,
        ..Step::default()
    };
    // SAFETY: map values live as long as the program runs on this packet, and the bench runs on one CPU.
    let story = unsafe { &mut *STORIES.get_ptr_mut(at.story)? };
    flow::look_page(story, now_ns, &mut step);
    Some(step.gap_us ^ step.age_us)
}

/// Of a new flow: its place among the four of its set.
#[inline(always)]
pub(crate) fn entered(headers: &Headers) -> Option<u32> {
    enter(headers).map(|at| at.story)
}

/// The same, and the fine clock.
#[inline(always)]
pub(crate) fn entered_fine(headers: &Headers) -> Option<u32> {
    enter(headers)?;
    Some(clock::fine_ns() as u32)
}

/// The same, and its story.
#[inline(always)]
pub(crate) fn entered_storied(headers: &Headers) -> Option<u32> {
    begin(headers).map(|_at| 0)
}

/// The same, and what messages like its first one were.
#[inline(always)]
pub(crate) fn entered_recalled(headers: &Headers) -> Option<u32> {
    let at = begin(headers)?;
    // SAFETY: map values live as long as the program runs on this packet, and the bench runs on one CPU.
    let story = unsafe { &*STORIES.get_ptr(at.story)? };
    let places = history::places(
        headers,
        story,
        (at.half, at.half),
        (scheduler_common::sample::Hook::Egress, 1),
        secret::get(),
    );
    let mut sum = 0;
    for place in places {
        let entry = HISTORY.get(place.index)?;
        sum += u32::from(entry.log2_q8) ^ entry.tag ^ place.tag;
    }
    Some(sum)
}

/// Where a packet belongs.
#[derive(Clone, Copy)]
struct At {
    half: u32,
    /// Index of the story.
    story: u32,
}

#[inline(always)]
fn identity(headers: &Headers) -> Identity {
    hash::identify(headers, 1, secret::get())
}

#[inline(always)]
fn set(tag: u64) -> Option<&'static mut [Flow; WAYS]> {
    let set = FLOWS.get_ptr_mut(hash::set_of(tag, secret::get()))?;
    // SAFETY: map values live as long as the program runs on this packet, and the bench runs on one CPU.
    let FlowSet { flows } = unsafe { &mut *set };
    Some(flows)
}

#[inline(always)]
fn find(tag: u64) -> Option<&'static mut Flow> {
    let flows = set(tag)?;
    let way = flow::find(flows, tag, hash::first_way(tag))?;
    Some(&mut flows[way & (WAYS - 1)])
}

/// Counts where no program reads.
#[inline(always)]
fn count(flow: &mut Flow, number: u32) -> u32 {
    let half = &mut flow.halves[0];
    half._pad = half._pad.wrapping_add(number as u8);
    u32::from(half._pad)
}

#[inline(always)]
fn add(headers: &Headers) -> Option<At> {
    let settings: &Settings = SETTINGS.get(0)?;
    let Identity { tag, half } = identity(headers);
    let now_ticks = flow::ticks(clock::coarse_ns());
    let flow = find(tag)?;
    let what = flow::advance_plainly(flow, headers, settings, (half, 1, now_ticks));
    let story = story_of(hash::set_of(tag, secret::get()), hash::first_way(tag));
    (!matches!(what, Plain::No)).then_some(At { half, story })
}

#[inline(always)]
fn enter(headers: &Headers) -> Option<At> {
    let Identity { tag, half } = identity(headers);
    let now_ticks = flow::ticks(clock::coarse_ns());
    let flows = set(tag)?;
    let first_way = hash::first_way(tag);
    if flow::find(flows, tag, first_way).is_some() {
        return None;
    }
    let way = flow::victim(flows, first_way, now_ticks);
    flow::open(&mut flows[way & (WAYS - 1)], tag, now_ticks);
    let story = story_of(hash::set_of(tag, secret::get()), way as u32);
    Some(At { half, story })
}

#[inline(always)]
fn begin(headers: &Headers) -> Option<At> {
    let settings: &Settings = SETTINGS.get(0)?;
    let Identity { tag, half } = identity(headers);
    let now_ticks = flow::ticks(clock::coarse_ns());
    let flows = set(tag)?;
    let at = enter(headers)?;
    let now_ns = clock::fine_ns();
    // SAFETY: map values live as long as the program runs on this packet, and the bench runs on one CPU.
    let story = unsafe { &mut *STORIES.get_ptr_mut(at.story)? };
    let mut step = Step {
        half,
        segments: 1,
        now_ticks,
        new_bytes: headers.payload_bytes,
        events: event::ENTERED | event::STARTED,
        ..Step::default()
    };
    let flow = &mut flows[at.story as usize & (WAYS - 1)];
    flow::turn_page((flow, story), headers, settings, now_ns, &mut step);
    Some(at)
}
