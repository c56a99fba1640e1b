//! A packet's step in its flow: messages in both directions.
//!
//! A message starts when a flow starts, when the other side has answered, or after an idle gap.
//! An answer ends a message only if it acknowledges all of it: a window update in the middle of a
//! bulk transfer is no new request. A gap ends a message only if nothing of it is still unacknowledged:
//! data that waits in a lower band is not idle.
//!
//! Most packets only add to the message under way: [`advance`] does it in the flow's one cache line, by the
//! coarse clock. Where more happens ([`event::PAGE`]) [`turn_page`] goes on, with the fine clock and the flow's
//! story.

mod plain;
mod table;

use scheduler_common::{
    flow::{Flow, Half, Story, StoryHalf, TICK_SHIFT, half_flags},
    settings::Settings,
};

pub use self::plain::{Plain, advance_plainly};
pub use self::table::{find, is_alive, open, victim};
use crate::parse::{Headers, TCP, flag};

/// Round-trip times of silence after which a message may be over.
const IDLE_ROUND_TRIPS: u64 = 4;

/// A difference of times above this is one below zero: the coarse clock is late, and CPUs differ.
const BEFORE_ZERO_TICKS: u32 = u32::MAX - (1 << 20);

/// Flags that end with a message.
const IN_MESSAGE: u8 = half_flags::PREDICTED | half_flags::HELD | half_flags::STREAM;

/// Why a message ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Cause {
    /// It did not end.
    #[default]
    None,
    /// The other side answered.
    Turn,
    /// It fell silent, or was a [stream](crate::stream) that has turned into something else.
    Gap,
    /// FIN or RST.
    Close,
}

/// A message that has just ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Ended {
    /// Why; if [`Cause::None`], none did, and the rest is of no use.
    pub cause: Cause,
    /// Its number in its direction.
    pub message: u32,
    /// Its size.
    pub bytes: u32,
    /// Its segments.
    pub packets: u32,
}

/// Bits of [`Step::events`].
pub mod event {
    /// A bare ACK or a handshake packet: not part of any message.
    pub const CONTROL: u32 = 1;
    /// TCP payload seen before.
    pub const RETRANSMITTED: u32 = 1 << 1;
    /// The flow has just entered the table.
    pub const ENTERED: u32 = 1 << 2;
    /// SYN, or the packet that ends the handshake's round trip.
    pub const HANDSHAKE: u32 = 1 << 3;
    /// The other side's message is answered.
    pub const ANSWERED: u32 = 1 << 4;
    /// Longer silent than the shortest idle bound, with nothing unacknowledged.
    pub const SILENT: u32 = 1 << 5;
    /// A message begins with this packet.
    pub const STARTED: u32 = 1 << 6;
    /// The message is to be looked at afresh.
    pub const DECISION: u32 = 1 << 7;
    /// FIN or RST.
    pub const CLOSING: u32 = 1 << 8;

    /// Those that come before the packet's bytes are added.
    pub(super) const BOUNDARY: u32 = HANDSHAKE | ANSWERED | SILENT | STARTED;
    /// Those that need more than the flow's cache line.
    pub const PAGE: u32 = ENTERED | BOUNDARY | DECISION | CLOSING;
}

/// What one packet does to its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Step {
    /// Direction of the packet: index of the half.
    pub half: u32,
    /// Segments of the packet.
    pub segments: u32,
    /// Coarse clock.
    pub now_ticks: u32,
    /// Payload not seen before.
    pub new_bytes: u32,
    /// Bits of [`event`].
    pub events: u32,
    /// See the feature of that name; set by [`turn_page`], as all below, of which nothing holds before.
    pub gap_us: u32,
    /// Age of the flow.
    pub age_us: u32,
    /// The message of this direction that ended.
    pub own_end: Ended,
    /// The message of the other direction that ended.
    pub other_end: Ended,
}

impl Step {
    /// Whether any of `events` happened.
    #[inline(always)]
    pub const fn has(&self, events: u32) -> bool {
        self.events & events != 0
    }
}

/// The tick that a time in nanoseconds falls in.
#[inline(always)]
pub const fn ticks(now_ns: u64) -> u32 {
    (now_ns >> TICK_SHIFT) as u32
}

/// Adds the packet to its flow, or says in `step.events` what must come before.
///
/// `step` comes in with direction, segments, clock, and perhaps [`event::ENTERED`].
#[inline(always)]
pub fn advance(flow: &mut Flow, headers: &Headers, settings: &Settings, step: &mut Step) {
    // Indexed, not chosen: the verifier would follow both ways to the end.
    let (own, other) = (step.half as usize & 1, (step.half as usize & 1) ^ 1);
    let sent_before = (flow.halves[own].seq_end, flow.halves[own].flags);
    let new_bytes = account_sequence(&mut flow.halves[own], headers);
    step.new_bytes = new_bytes;
    let mut events = step.events;
    if headers.tcp_flags & flag::SYN != 0 || sent_before.1 & half_flags::AWAITS_ROUND_TRIP != 0 {
        events |= if headers.protocol == TCP {
            event::HANDSHAKE
        } else {
            0
        };
    }
    let closing = headers.protocol == TCP && headers.tcp_flags & (flag::FIN | flag::RST) != 0;
    if closing {
        events |= event::CLOSING;
    } else if headers.payload_bytes == 0 {
        events |= event::CONTROL;
    }
    if new_bytes > 0 {
        events |= boundary(flow, (own, other), sent_before, settings, step.now_ticks);
        if headers.protocol != TCP {
            events &= !event::ANSWERED;
        }
        if events & event::BOUNDARY == 0 {
            events |= add(&mut flow.halves[own], step);
        }
    } else if headers.payload_bytes > 0 {
        events |= event::RETRANSMITTED;
    }
    step.events = events;
}

/// What comes before new payload: an answer, a silence, a start.
#[inline(always)]
fn boundary(
    flow: &Flow,
    (own, other): (usize, usize),
    (seq_end, flags): (u32, u8),
    settings: &Settings,
    now_ticks: u32,
) -> u32 {
    let mut events = 0;
    let answerable = flow.halves[other].flags & half_flags::OPEN != 0;
    if answerable && !unacknowledged(&flow.halves[other], &flow.halves[own]) {
        events |= event::ANSWERED;
    }
    let own = &flow.halves[own];
    if own.flags & half_flags::OPEN == 0 {
        events |= event::STARTED;
    } else if elapsed(now_ticks, own.last_ticks) > idle_floor_ticks(settings) {
        let sender = Half {
            seq_end,
            flags,
            ..Half::ZERO
        };
        if !unacknowledged(&sender, &flow.halves[other]) {
            events |= event::SILENT;
        }
    }
    events
}

/// Adds the packet to the message under way; answers [`event::DECISION`] or 0.
#[inline(always)]
fn add(own: &mut Half, step: &Step) -> u32 {
    let packets = own.packets;
    own.bytes = own.bytes.saturating_add(step.new_bytes);
    own.packets = packets.saturating_add(step.segments);
    own.last_ticks = step.now_ticks;
    // The number of leading zeros changes where the count doubles.
    let doubled = (own.packets ^ packets) > packets;
    if doubled || own.bytes > own.until_bytes {
        event::DECISION
    } else {
        0
    }
}

/// Goes on where [`Plain::Look`] happened: what [`turn_page`] does where nothing but a decision is due.
#[inline(always)]
pub fn look_page(story: &mut Story, now_ns: u64, step: &mut Step) {
    let page = &mut story.halves[step.half as usize & 1];
    step.events = event::DECISION;
    step.own_end.cause = Cause::None;
    step.age_us = age_us(story.first_ns, now_ns);
    step.gap_us = if page.message == 0 {
        0
    } else {
        to_us(elapsed(ticks(now_ns), page.looked_ticks))
    };
    page.looked_ticks = ticks(now_ns);
}

#[inline(always)]
fn age_us(first_ns: u64, now_ns: u64) -> u32 {
    to_us(saturate(now_ns.saturating_sub(first_ns) >> TICK_SHIFT))
}

/// Goes on where [`event::PAGE`] happened: handshake, ends and starts of messages.
#[inline(always)]
pub fn turn_page(
    (flow, story): (&mut Flow, &mut Story),
    headers: &Headers,
    settings: &Settings,
    now_ns: u64,
    step: &mut Step,
) {
    let (own, other) = (step.half as usize & 1, (step.half as usize & 1) ^ 1);
    step.own_end.cause = Cause::None;
    step.other_end.cause = Cause::None;
    step.gap_us = 0;
    if step.has(event::ENTERED) {
        table::begin_story(story, headers, step.half, now_ns);
    }
    step.age_us = age_us(story.first_ns, now_ns);
    if step.has(event::HANDSHAKE) {
        learn_service(flow, story, headers, step);
    }
    if step.new_bytes > 0 {
        if step.has(event::ANSWERED) {
            end((flow, story), other, Cause::Turn, &mut step.other_end);
        }
        let idle_ticks = elapsed(step.now_ticks, flow.halves[own].last_ticks);
        if step.has(event::SILENT) && to_us(idle_ticks) > idle_bound_us(settings, story.rtt_us) {
            end((flow, story), own, Cause::Gap, &mut step.own_end);
        }
        let started = flow.halves[own].flags & half_flags::OPEN == 0;
        let looked_ticks = story.halves[own].looked_ticks;
        let since_ticks = if started {
            later(flow.halves[own].last_ticks, looked_ticks)
        } else {
            looked_ticks
        };
        if story.halves[own].message != 0 {
            step.gap_us = to_us(elapsed(ticks(now_ns), since_ticks));
        }
        if started {
            step.events |= event::STARTED;
            begin((flow, story), own, ticks(now_ns));
        } else {
            step.events &= !event::STARTED;
        }
        if step.has(event::BOUNDARY) {
            step.events |= add(&mut flow.halves[own], step);
        }
        if step.has(event::DECISION) {
            story.halves[own].looked_ticks = ticks(now_ns);
        }
    }
    if step.has(event::CLOSING) {
        end((flow, story), own, Cause::Close, &mut step.own_end);
        if headers.tcp_flags & flag::RST != 0 {
            end((flow, story), other, Cause::Close, &mut step.other_end);
        }
    }
}

/// Takes the service and the round-trip time from the handshake.
#[inline(always)]
fn learn_service(flow: &mut Flow, story: &mut Story, headers: &Headers, step: &Step) {
    let own = step.half as usize & 1;
    if headers.tcp_flags & flag::SYN != 0 {
        let answer = headers.tcp_flags & flag::ACK != 0;
        story.service_port = if answer {
            headers.src_port
        } else {
            headers.dst_port
        };
        story.service_half = (if answer { own } else { own ^ 1 }) as u8;
        story.service_known = 1;
        if !answer {
            flow.halves[own].flags |= half_flags::AWAITS_ROUND_TRIP;
        }
    } else {
        // The client's first packet after its SYN: one round trip later, wherever we stand.
        flow.halves[own].flags &= !half_flags::AWAITS_ROUND_TRIP;
        story.rtt_us = step.age_us;
    }
}

#[inline(always)]
const fn idle_floor_ticks(settings: &Settings) -> u32 {
    ((settings.idle_floor_us as u64 * 1000) >> TICK_SHIFT) as u32
}

/// Silence from which a message is over, in microseconds.
#[inline(always)]
pub const fn idle_bound_us(settings: &Settings, rtt_us: u32) -> u32 {
    let round_trips = saturate(rtt_us as u64 * IDLE_ROUND_TRIPS);
    if round_trips > settings.idle_floor_us {
        round_trips
    } else {
        settings.idle_floor_us
    }
}

/// Whether `sender` has data out that `receiver` has not acknowledged, as far as can be seen.
#[inline(always)]
pub const fn unacknowledged(sender: &Half, receiver: &Half) -> bool {
    let seen =
        sender.flags & half_flags::SEQ_VALID != 0 && receiver.flags & half_flags::ACK_VALID != 0;
    seen && (sender.seq_end.wrapping_sub(receiver.ack) as i32) > 0
}

/// Moves sequence and acknowledgement numbers on; returns the payload bytes not seen before.
#[inline(always)]
fn account_sequence(own: &mut Half, headers: &Headers) -> u32 {
    if headers.protocol != TCP {
        return headers.payload_bytes;
    }
    if headers.tcp_flags & flag::ACK != 0 {
        let newer = (headers.ack.wrapping_sub(own.ack) as i32) > 0;
        if newer || own.flags & half_flags::ACK_VALID == 0 {
            own.ack = headers.ack;
            own.flags |= half_flags::ACK_VALID;
        }
    }
    // SYN and FIN take a sequence number each.
    let marks = u32::from(headers.tcp_flags >> 1 & 1) + u32::from(headers.tcp_flags & 1);
    let end = headers
        .seq
        .wrapping_add(headers.payload_bytes)
        .wrapping_add(marks);
    if own.flags & half_flags::SEQ_VALID == 0 || headers.tcp_flags & flag::SYN != 0 {
        own.seq_end = end;
        own.flags |= half_flags::SEQ_VALID;
        return headers.payload_bytes;
    }
    let ahead = end.wrapping_sub(own.seq_end) as i32;
    if ahead <= 0 {
        return 0;
    }
    own.seq_end = end;
    // A packet that was lost before it came here leaves a hole, which is no payload of this one.
    headers.payload_bytes.min(ahead as u32)
}

#[inline(always)]
fn begin((flow, story): (&mut Flow, &mut Story), own: usize, now_ticks: u32) {
    let other = own ^ 1;
    let other_seen = story.halves[other].message != 0;
    let other_ticks = later(
        flow.halves[other].last_ticks,
        story.halves[other].looked_ticks,
    );
    let half = &mut flow.halves[own];
    let page = &mut story.halves[own];
    *page = StoryHalf {
        message: page.message.wrapping_add(1),
        previous_bytes: half.bytes,
        turnaround_us: if other_seen {
            to_us(elapsed(now_ticks, other_ticks))
        } else {
            0
        },
        predicted_bytes: 0,
        looked_ticks: now_ticks,
        history_log2_q8: [0, 0],
    };
    half.bytes = 0;
    half.packets = 0;
    half.until_bytes = 0;
    half.band = 0;
    half.generation_slot = 0;
    half.flags = half.flags & !IN_MESSAGE | half_flags::OPEN;
}

/// Ends the message that the packet belongs to, with it: the next one begins another.
#[inline(always)]
pub fn cut(flow_and_story: (&mut Flow, &Story), step: &mut Step) {
    let own = step.half as usize & 1;
    end(flow_and_story, own, Cause::Gap, &mut step.own_end);
}

/// Ends the message of `half` if one is open; a message that was ended before in this step stays
/// reported.
#[inline(always)]
fn end((flow, story): (&mut Flow, &Story), half: usize, cause: Cause, ended: &mut Ended) {
    let (page, half) = (&story.halves[half], &mut flow.halves[half]);
    if half.flags & half_flags::OPEN != 0 {
        half.flags &= !half_flags::OPEN;
        if matches!(ended.cause, Cause::None) {
            *ended = Ended {
                cause,
                message: page.message,
                bytes: half.bytes,
                packets: half.packets,
            };
        }
    }
}

/// From `since` to `now`; none if the clock that gave `now` is the later one.
#[inline(always)]
pub(crate) const fn elapsed(now_ticks: u32, since_ticks: u32) -> u32 {
    let ticks = now_ticks.wrapping_sub(since_ticks);
    if ticks > BEFORE_ZERO_TICKS { 0 } else { ticks }
}

/// The later of two times.
#[inline(always)]
const fn later(a_ticks: u32, b_ticks: u32) -> u32 {
    if (b_ticks.wrapping_sub(a_ticks) as i32) > 0 {
        b_ticks
    } else {
        a_ticks
    }
}

/// Microseconds of so many ticks, saturated.
#[inline(always)]
pub const fn to_us(ticks: u32) -> u32 {
    // 1.024, to 2 in a million: the kernel's instruction set divides slowly.
    saturate(ticks as u64 + ((ticks as u64 * 3146) >> 17))
}

/// The value as `u32`, at most `u32::MAX`.
#[inline(always)]
pub const fn saturate(value: u64) -> u32 {
    if value > u32::MAX as u64 {
        u32::MAX
    } else {
        value as u32
    }
}

#[cfg(test)]
mod tests;
