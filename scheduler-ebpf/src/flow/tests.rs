//! Messages as an observer between client and server sees them.

use super::*;
use crate::{parse::UDP, verdict::settle};

const CLIENT: u32 = 0x0a00_0001;
const SERVER: u32 = 0x0a00_0002;
const MS: u64 = 1_000_000;

/// A TCP flow as an observer between the two sides sees it.
struct Wire {
    entry: Option<(Flow, Story)>,
    now_ns: u64,
    seq: [u32; 2],
    settings: Settings,
}

/// Runs one packet through the entry as the programs do, the coarse clock being exact.
fn pass(
    entry: &mut Option<(Flow, Story)>,
    headers: &Headers,
    half: u32,
    now_ns: u64,
    settings: &Settings,
) -> Step {
    let mut step = Step {
        half,
        segments: 1,
        now_ticks: ticks(now_ns),
        ..Step::default()
    };
    let (flow, story) = entry.get_or_insert_with(|| {
        step.events = event::ENTERED;
        let mut flow = Flow::default();
        open(&mut flow, 7, ticks(now_ns));
        (flow, Story::default())
    });
    advance(flow, headers, settings, &mut step);
    if step.has(event::PAGE) {
        turn_page((flow, story), headers, settings, now_ns, &mut step);
        if step.has(event::DECISION) {
            let half = half as usize;
            settle(&mut flow.halves[half], &story.halves[half], settings);
        }
    }
    step
}

impl Wire {
    fn new() -> Self {
        Self {
            entry: None,
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
        pass(
            &mut self.entry,
            &headers,
            side as u32,
            self.now_ns,
            &self.settings,
        )
    }

    fn half(&self, side: usize) -> Half {
        self.entry.expect("a packet was sent").0.halves[side]
    }

    fn page(&self, side: usize) -> StoryHalf {
        self.entry.expect("a packet was sent").1.halves[side]
    }
}

#[test]
fn the_handshake_tells_service_and_round_trip() {
    let wire = Wire::connected();
    let (_, state) = wire.entry.unwrap();
    assert_eq!(
        (state.service_port, state.service_half, state.service_known),
        (80, 1, 1)
    );
    assert!((9_998..=10_000).contains(&state.rtt_us), "{state:?}");
    assert_eq!(wire.page(0).message, 0);
}

#[test]
fn a_kept_connection_is_one_message_per_request_and_reply() {
    let mut wire = Wire::connected();
    for round in 1..=3 {
        let request = wire.send(0, flag::ACK, 200);
        assert!(request.has(event::STARTED) && request.has(event::DECISION));
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
        assert!(reply.has(event::STARTED));
        wire.send(1, flag::ACK, 1448);
        assert_eq!(wire.half(1).bytes, 2896);
        assert_eq!(wire.page(1).message, round);
    }
    assert_eq!(wire.page(1).previous_bytes, 2896);
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
    assert!(again.has(event::RETRANSMITTED) && !again.has(event::DECISION));
    let half_new = wire.raw(1, flag::ACK, (seq.wrapping_add(500), wire.seq[0]), 1000);
    assert!(!half_new.has(event::RETRANSMITTED));
    assert_eq!(wire.half(1).bytes, 1500);
}

#[test]
fn data_in_flight_is_not_idle_however_long_it_waits() {
    let mut wire = Wire::connected();
    wire.send(0, flag::ACK, 100);
    wire.send(1, flag::ACK, 1448);
    wire.now_ns += 30_000 * MS;
    let later = wire.send(1, flag::ACK, 1448);
    assert!(!later.has(event::STARTED));
    assert_eq!(wire.page(1).message, 1);
}

#[test]
fn silence_after_all_is_acknowledged_ends_a_message() {
    let mut wire = Wire::connected();
    wire.send(0, flag::ACK, 100);
    wire.send(1, flag::ACK, 1448);
    wire.send(0, flag::ACK, 0);
    wire.now_ns += 150 * MS;
    assert!(!wire.send(1, flag::ACK, 1448).has(event::STARTED));
    wire.send(0, flag::ACK, 0);
    wire.now_ns += 250 * MS;
    let next = wire.send(1, flag::ACK, 1448);
    assert!(next.has(event::STARTED));
    assert_eq!(
        next.own_end,
        Ended {
            cause: Cause::Gap,
            message: 1,
            bytes: 2896,
            packets: 2
        }
    );
    assert_eq!(wire.page(1).message, 2);
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
    assert!(!wire.send(1, flag::ACK, 10).has(event::STARTED));
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
    assert!(!fin.has(event::CONTROL));
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
    assert!(wire.send(0, flag::SYN, 0).has(event::CONTROL));
    assert!(wire.send(1, flag::SYN | flag::ACK, 0).has(event::CONTROL));
    assert!(wire.send(0, flag::ACK, 0).has(event::CONTROL));
    assert!(!wire.send(0, flag::ACK, 1).has(event::CONTROL));
    assert!(!wire.send(0, flag::ACK | flag::FIN, 0).has(event::CONTROL));
}

#[test]
fn decisions_fall_on_powers_of_two_and_on_cuts() {
    let mut wire = Wire::connected();
    wire.send(0, flag::ACK, 100);
    let decisions: Vec<u32> = (1..=40)
        .filter(|_| wire.send(1, flag::ACK, 1448).has(event::DECISION))
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
    let mut entry = None;
    let mut starts_at =
        |now_ns| pass(&mut entry, &headers, 1, now_ns, &settings).has(event::STARTED);
    assert!(starts_at(MS));
    assert!(!starts_at(100 * MS));
    assert!(starts_at(400 * MS));
    let (_, story) = entry.unwrap();
    assert_eq!((story.service_port, story.service_half), (443, 1));
}

#[test]
fn times_hold_when_the_ticks_wrap() {
    let wrap_ns = 1 << (32 + TICK_SHIFT);
    let mut wire = Wire::connected();
    wire.now_ns = wrap_ns - 50 * MS;
    wire.send(0, flag::ACK, 100);
    wire.now_ns += 100 * MS;
    assert!(!wire.send(0, flag::ACK, 100).has(event::SILENT));
    wire.send(1, flag::ACK, 10);
    assert_eq!(wire.page(1).turnaround_us, 0);
    wire.now_ns += 3 * MS;
    wire.send(0, flag::ACK, 10);
    assert!((2990..3010).contains(&wire.page(0).turnaround_us));
}

#[test]
fn a_coarse_clock_that_is_late_makes_no_gap() {
    assert_eq!(elapsed(100, 104), 0);
    assert_eq!(elapsed(3, u32::MAX), 4);
    assert_eq!(later(u32::MAX, 3), 3);
    assert_eq!(later(3, u32::MAX), 3);
}
