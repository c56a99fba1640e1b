//! Headers → flow key, and the flow's messages in both directions.
//!
//! A message starts when a flow starts, when the other side has answered, or after an idle gap.
//! An answer ends a message only if it acknowledges all of it: a window update in the middle of a
//! bulk transfer is no new request. A gap ends a message only if nothing of it is still unacknowledged:
//! data that waits in a lower band is not idle.

use scheduler_common::{
    flow::{FlowKey, FlowState, Half, half_flags},
    settings::Settings,
};

use crate::{
    features::saturate,
    parse::{Headers, TCP, flag},
};

/// Round-trip times of silence after which a message may be over.
const IDLE_ROUND_TRIPS: u64 = 4;

/// Why a message ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// It did not end.
    #[default]
    None,
    /// The other side answered.
    Turn,
    /// It fell silent.
    Gap,
    /// FIN or RST.
    Close,
}

/// A message that has just ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Why; [`Cause::None`] if none did.
    pub cause: Cause,
    /// Its number in its direction.
    pub message: u32,
    /// Its size.
    pub bytes: u64,
    /// Its segments.
    pub packets: u32,
}

/// What one packet did to its flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// Direction of the packet: index of the half.
    pub half: usize,
    /// Segments of the packet.
    pub segments: u32,
    /// A bare ACK or a handshake packet: not part of any message.
    pub control: bool,
    /// A message began with this packet.
    pub started: bool,
    /// The message is to be looked at afresh.
    pub decision: bool,
    /// TCP payload seen before.
    pub retransmitted: bool,
    /// From the previous payload of this direction to this packet.
    pub gap_us: u32,
    /// Age of the flow.
    pub age_us: u32,
    /// The message of this direction that ended.
    pub own_end: Ended,
    /// The message of the other direction that ended.
    pub other_end: Ended,
}

/// Key of the packet's flow and the direction in which the packet travels.
#[inline(always)]
pub fn key(headers: &Headers, ifindex: u32) -> (FlowKey, usize) {
    let forward = source_is_low(headers);
    let (low_addr, low_port, high_addr, high_port) = if forward {
        (
            headers.src_addr,
            headers.src_port,
            headers.dst_addr,
            headers.dst_port,
        )
    } else {
        (
            headers.dst_addr,
            headers.dst_port,
            headers.src_addr,
            headers.src_port,
        )
    };
    let key = FlowKey {
        low_addr,
        high_addr,
        low_port,
        high_port,
        ifindex,
        protocol: headers.protocol,
        ip_version: headers.ip_version,
        _pad: [0, 0, 0, 0, 0, 0],
    };
    (key, usize::from(!forward))
}

#[inline(always)]
fn source_is_low(headers: &Headers) -> bool {
    let (src, dst) = (&headers.src_addr, &headers.dst_addr);
    if src[0] != dst[0] {
        return src[0] < dst[0];
    }
    if src[1] != dst[1] {
        return src[1] < dst[1];
    }
    if src[2] != dst[2] {
        return src[2] < dst[2];
    }
    if src[3] != dst[3] {
        return src[3] < dst[3];
    }
    headers.src_port <= headers.dst_port
}

/// Opens the zeroed entry of a flow whose first packet is this one.
#[inline(always)]
pub fn open(state: &mut FlowState, headers: &Headers, half: usize, hash: u64, now_ns: u64) {
    // Until a handshake tells, the lower port is taken for the service's.
    let from_service = headers.src_port < headers.dst_port;
    let service_half = if from_service { half } else { half ^ 1 };
    state.hash = hash;
    state.first_ns = now_ns;
    state.service_port = if from_service {
        headers.src_port
    } else {
        headers.dst_port
    };
    state.service_half = service_half as u8;
}

/// Accounts a packet to its flow; `step` comes in with direction and segments, and goes out
/// with what happened.
///
/// The result is written through a reference and directions are reached by index: in the
/// kernel both live in map memory, so the verifier forgets which way was taken and does not
/// follow every combination to the end.
#[inline(always)]
pub fn advance(
    state: &mut FlowState,
    headers: &Headers,
    settings: &Settings,
    now_ns: u64,
    step: &mut Step,
) {
    let Step { half, segments, .. } = *step;
    let (own, other) = (half & 1, (half & 1) ^ 1);
    *step = Step {
        half,
        segments,
        ..Step::default()
    };
    step.age_us = elapsed_us(now_ns, state.first_ns);
    learn_service(state, headers, half, step.age_us);
    let idle_ns = idle_bound_ns(settings, state.rtt_us);
    let halves = &mut state.halves;

    let in_flight = unacknowledged(&halves[own], &halves[other]);
    let new_bytes = account_sequence(&mut halves[own], headers);
    let closing = headers.tcp_flags & (flag::FIN | flag::RST) != 0;
    step.control = headers.payload_bytes == 0 && !closing;
    step.retransmitted = headers.payload_bytes > 0 && new_bytes == 0;
    if new_bytes > 0 {
        if headers.protocol == TCP && !unacknowledged(&halves[other], &halves[own]) {
            end(&mut halves[other], Cause::Turn, &mut step.other_end);
        }
        let last_ns = halves[own].last_ns;
        step.gap_us = if last_ns == 0 {
            0
        } else {
            elapsed_us(now_ns, last_ns)
        };
        if !in_flight && now_ns.saturating_sub(last_ns) > idle_ns {
            end(&mut halves[own], Cause::Gap, &mut step.own_end);
        }
        if halves[own].flags & half_flags::OPEN == 0 {
            let other_last_ns = halves[other].last_ns;
            begin(&mut halves[own], other_last_ns, now_ns);
            step.started = true;
        }
        let half = &mut halves[own];
        let before = (half.packets, settings.cuts.band_of(half.bytes));
        half.bytes += u64::from(new_bytes);
        half.packets = half.packets.saturating_add(segments);
        half.last_ns = now_ns;
        // The number of leading zeros changes where the count doubles.
        let doubled = (half.packets ^ before.0) > before.0;
        step.decision = doubled || settings.cuts.band_of(half.bytes) != before.1;
    }
    if closing {
        end(&mut halves[own], Cause::Close, &mut step.own_end);
        if headers.tcp_flags & flag::RST != 0 {
            end(&mut halves[other], Cause::Close, &mut step.other_end);
        }
    }
}

/// Takes the service and the round-trip time from the handshake.
#[inline(always)]
fn learn_service(state: &mut FlowState, headers: &Headers, half: usize, age_us: u32) {
    if headers.tcp_flags & flag::SYN != 0 {
        let answer = headers.tcp_flags & flag::ACK != 0;
        state.service_port = if answer {
            headers.src_port
        } else {
            headers.dst_port
        };
        state.service_half = (if answer { half } else { half ^ 1 }) as u8;
        state.service_known = 1;
    } else if state.rtt_us == 0
        && state.service_known == 1
        && usize::from(state.service_half) != half
    {
        // The client's first packet after its SYN: one round trip later, wherever we stand.
        state.rtt_us = age_us;
    }
}

#[inline(always)]
const fn idle_bound_ns(settings: &Settings, rtt_us: u32) -> u64 {
    let floor = settings.idle_floor_us as u64;
    let round_trips = rtt_us as u64 * IDLE_ROUND_TRIPS;
    (if round_trips > floor {
        round_trips
    } else {
        floor
    }) * 1000
}

/// Whether `sender` has data out that `receiver` has not acknowledged, as far as can be seen.
#[inline(always)]
const fn unacknowledged(sender: &Half, receiver: &Half) -> bool {
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
    let marks = u32::from(headers.tcp_flags & flag::SYN != 0)
        + u32::from(headers.tcp_flags & flag::FIN != 0);
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
fn begin(own: &mut Half, other_last_ns: u64, now_ns: u64) {
    own.previous_bytes = saturate(own.bytes);
    own.turnaround_us = if other_last_ns == 0 {
        0
    } else {
        elapsed_us(now_ns, other_last_ns)
    };
    own.bytes = 0;
    own.packets = 0;
    own.predicted_bytes = 0;
    own.generation = 0;
    own.band = 0;
    own.message = own.message.wrapping_add(1);
    own.flags |= half_flags::OPEN;
}

/// Ends the message of `half` if one is open; a message that was ended before in this step stays
/// reported.
#[inline(always)]
fn end(half: &mut Half, cause: Cause, ended: &mut Ended) {
    if half.flags & half_flags::OPEN != 0 {
        half.flags &= !half_flags::OPEN;
        if ended.cause == Cause::None {
            *ended = Ended {
                cause,
                message: half.message,
                bytes: half.bytes,
                packets: half.packets,
            };
        }
    }
}

#[inline(always)]
const fn elapsed_us(now_ns: u64, since_ns: u64) -> u32 {
    saturate(now_ns.saturating_sub(since_ns) / 1000)
}

#[cfg(test)]
mod tests;
