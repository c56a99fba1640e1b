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
mod tests {
    use super::*;
    use crate::parse::UDP;

    const CLIENT: u32 = 0x0a00_0001;
    const SERVER: u32 = 0x0a00_0002;
    const MS: u64 = 1_000_000;

    /// A TCP flow as an observer between the two sides sees it.
    struct Wire {
        state: Option<FlowState>,
        now_ns: u64,
        seq: [u32; 2],
        settings: Settings,
    }

    impl Wire {
        fn new() -> Self {
            Self {
                state: None,
                now_ns: MS,
                seq: [1000, u32::MAX - 5000],
                settings: Settings::default(),
            }
        }

        fn connected() -> Self {
            let mut wire = Self::new();
            wire.send(0, flag::SYN, 0);
            wire.now_ns += 5 * MS;
            wire.send(1, flag::SYN | flag::ACK, 0);
            wire.now_ns += 5 * MS;
            wire.send(0, flag::ACK, 0);
            wire
        }

        /// `side` 0 is the client, which connects to port 80.
        fn send(&mut self, side: usize, flags: u8, payload: u32) -> Step {
            let seq = self.seq[side];
            let marks = u32::from(flags & (flag::SYN | flag::FIN) != 0);
            self.seq[side] = seq.wrapping_add(payload + marks);
            self.raw(side, flags, (seq, self.seq[side ^ 1]), payload)
        }

        fn raw(&mut self, side: usize, flags: u8, (seq, ack): (u32, u32), payload: u32) -> Step {
            let (src, dst) = if side == 0 {
                (CLIENT, SERVER)
            } else {
                (SERVER, CLIENT)
            };
            let (src_port, dst_port) = if side == 0 {
                (50_000, 80)
            } else {
                (80, 50_000)
            };
            let headers = Headers {
                src_addr: [src, 0, 0, 0],
                dst_addr: [dst, 0, 0, 0],
                src_port,
                dst_port,
                protocol: TCP,
                ip_version: 4,
                tcp_flags: flags,
                payload_bytes: payload,
                seq,
                ack,
            };
            let (_, half) = key(&headers, 1);
            let now_ns = self.now_ns;
            let state = self.state.get_or_insert_with(|| {
                let mut state = FlowState::ZERO;
                open(&mut state, &headers, half, 7, now_ns);
                state
            });
            let mut step = Step {
                half,
                segments: 1,
                ..Step::default()
            };
            advance(state, &headers, &self.settings, now_ns, &mut step);
            step
        }

        fn half(&self, side: usize) -> Half {
            self.state.expect("a packet was sent").halves[side]
        }
    }

    #[test]
    fn both_directions_have_one_key() {
        let headers = Headers {
            src_addr: [9, 0, 0, 0],
            dst_addr: [3, 0, 0, 0],
            src_port: 1,
            dst_port: 2,
            protocol: UDP,
            ip_version: 4,
            tcp_flags: 0,
            payload_bytes: 0,
            seq: 0,
            ack: 0,
        };
        let back = Headers {
            src_addr: headers.dst_addr,
            dst_addr: headers.src_addr,
            src_port: 2,
            dst_port: 1,
            ..headers
        };
        let ((there, half_there), (again, half_again)) = (key(&headers, 4), key(&back, 4));
        assert_eq!(there, again);
        assert_eq!((half_there, half_again), (1, 0));
        assert_ne!(key(&headers, 5).0, there);
    }

    #[test]
    fn the_handshake_tells_service_and_round_trip() {
        let wire = Wire::connected();
        let state = wire.state.unwrap();
        assert_eq!(
            (state.service_port, state.service_half, state.service_known),
            (80, 1, 1)
        );
        assert_eq!(state.rtt_us, 10_000);
        assert_eq!(wire.half(0).message, 0);
    }

    #[test]
    fn a_kept_connection_is_one_message_per_request_and_reply() {
        let mut wire = Wire::connected();
        for round in 1..=3 {
            let request = wire.send(0, flag::ACK, 200);
            assert!(request.started && request.decision);
            assert_eq!(
                request.other_end.cause,
                if round == 1 { Cause::None } else { Cause::Turn }
            );
            let reply = wire.send(1, flag::ACK, 1448);
            assert_eq!(
                reply.other_end,
                Ended {
                    cause: Cause::Turn,
                    message: round,
                    bytes: 200,
                    packets: 1
                }
            );
            assert!(reply.started);
            wire.send(1, flag::ACK, 1448);
            assert_eq!(wire.half(1).bytes, 2896);
            assert_eq!(wire.half(1).message, round);
        }
        assert_eq!(wire.half(1).previous_bytes, 2896);
    }

    #[test]
    fn an_answer_that_does_not_acknowledge_all_is_no_turn() {
        let mut wire = Wire::connected();
        wire.send(0, flag::ACK, 100);
        for _ in 0..10 {
            wire.send(1, flag::ACK, 1448);
        }
        let acked = wire.seq[1].wrapping_sub(3000);
        let seq = wire.seq[0];
        let update = wire.raw(0, flag::ACK, (seq, acked), 13);
        assert_eq!(update.other_end.cause, Cause::None);
        assert_eq!(wire.half(1).flags & half_flags::OPEN, half_flags::OPEN);
    }

    #[test]
    fn sequence_numbers_may_wrap() {
        let mut wire = Wire::connected();
        wire.send(0, flag::ACK, 100);
        for _ in 0..10 {
            wire.send(1, flag::ACK, 1448);
        }
        assert_eq!(wire.half(1).bytes, 14_480);
    }

    #[test]
    fn what_is_sent_again_is_not_counted_again() {
        let mut wire = Wire::connected();
        wire.send(0, flag::ACK, 100);
        let seq = wire.seq[1];
        wire.send(1, flag::ACK, 1000);
        let again = wire.raw(1, flag::ACK, (seq, wire.seq[0]), 1000);
        assert!(again.retransmitted && !again.decision);
        let half_new = wire.raw(1, flag::ACK, (seq.wrapping_add(500), wire.seq[0]), 1000);
        assert!(!half_new.retransmitted);
        assert_eq!(wire.half(1).bytes, 1500);
    }

    #[test]
    fn data_in_flight_is_not_idle_however_long_it_waits() {
        let mut wire = Wire::connected();
        wire.send(0, flag::ACK, 100);
        wire.send(1, flag::ACK, 1448);
        wire.now_ns += 30_000 * MS;
        let later = wire.send(1, flag::ACK, 1448);
        assert!(!later.started);
        assert_eq!(wire.half(1).message, 1);
    }

    #[test]
    fn silence_after_all_is_acknowledged_ends_a_message() {
        let mut wire = Wire::connected();
        wire.send(0, flag::ACK, 100);
        wire.send(1, flag::ACK, 1448);
        wire.send(0, flag::ACK, 0);
        wire.now_ns += 150 * MS;
        assert!(!wire.send(1, flag::ACK, 1448).started);
        wire.send(0, flag::ACK, 0);
        wire.now_ns += 250 * MS;
        let next = wire.send(1, flag::ACK, 1448);
        assert!(next.started);
        assert_eq!(
            next.own_end,
            Ended {
                cause: Cause::Gap,
                message: 1,
                bytes: 2896,
                packets: 2
            }
        );
        assert_eq!(wire.half(1).message, 2);
    }

    #[test]
    fn a_long_round_trip_stretches_the_gap() {
        let mut wire = Wire::new();
        wire.send(0, flag::SYN, 0);
        wire.now_ns += 200 * MS;
        wire.send(0, flag::ACK, 0);
        wire.send(1, flag::ACK, 10);
        wire.send(0, flag::ACK, 0);
        wire.now_ns += 700 * MS;
        assert!(!wire.send(1, flag::ACK, 10).started);
    }

    #[test]
    fn close_ends_what_is_open() {
        let mut wire = Wire::connected();
        wire.send(0, flag::ACK, 100);
        wire.send(1, flag::ACK, 1448);
        let fin = wire.send(1, flag::ACK | flag::FIN, 52);
        assert_eq!(
            fin.own_end,
            Ended {
                cause: Cause::Close,
                message: 1,
                bytes: 1500,
                packets: 2
            }
        );
        assert!(!fin.control);
        let mut wire = Wire::connected();
        wire.send(0, flag::ACK, 100);
        wire.send(1, flag::ACK, 10);
        let reset = wire.send(1, flag::RST, 0);
        assert_eq!(reset.own_end.cause, Cause::Close);
        assert_eq!(reset.other_end.cause, Cause::None);
    }

    #[test]
    fn bare_acks_and_handshakes_are_control() {
        let mut wire = Wire::new();
        assert!(wire.send(0, flag::SYN, 0).control);
        assert!(wire.send(1, flag::SYN | flag::ACK, 0).control);
        assert!(wire.send(0, flag::ACK, 0).control);
        assert!(!wire.send(0, flag::ACK, 1).control);
        assert!(!wire.send(0, flag::ACK | flag::FIN, 0).control);
    }

    #[test]
    fn decisions_fall_on_powers_of_two_and_on_cuts() {
        let mut wire = Wire::connected();
        wire.send(0, flag::ACK, 100);
        let decisions: Vec<u32> = (1..=40)
            .filter(|_| wire.send(1, flag::ACK, 1448).decision)
            .map(|n: u32| n)
            .collect();
        // 15 000 bytes are passed in packet 11, 40 000 in packet 28.
        assert_eq!(decisions, [1, 2, 4, 8, 11, 16, 28, 32]);
    }

    #[test]
    fn udp_is_cut_by_gaps_alone() {
        let settings = Settings::default();
        let headers = Headers {
            src_addr: [SERVER, 0, 0, 0],
            dst_addr: [CLIENT, 0, 0, 0],
            src_port: 443,
            dst_port: 50_000,
            protocol: UDP,
            ip_version: 4,
            tcp_flags: 0,
            payload_bytes: 1200,
            seq: 0,
            ack: 0,
        };
        let (_, half) = key(&headers, 1);
        let mut state = FlowState::ZERO;
        open(&mut state, &headers, half, 0, 0);
        assert_eq!(
            (state.service_port, usize::from(state.service_half)),
            (443, half)
        );
        let mut starts_at = |now_ns| {
            let mut step = Step {
                half,
                segments: 1,
                ..Step::default()
            };
            advance(&mut state, &headers, &settings, now_ns, &mut step);
            step.started
        };
        assert!(starts_at(MS));
        assert!(!starts_at(100 * MS));
        assert!(starts_at(400 * MS));
    }
}
