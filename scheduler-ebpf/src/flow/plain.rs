//! The packets that only add to the message under way, or acknowledge: nearly all.

use scheduler_common::{
    flow::{Flow, half_flags},
    settings::Settings,
};

use super::{idle_floor_ticks, unacknowledged};
use crate::parse::{Headers, TCP, flag};

/// Sequence numbers so far apart, and payload so large, are nothing plain: below it no sum wraps.
const FAR: u32 = 1 << 30;

/// What a packet was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// Something for [`super::advance`]; nothing was changed.
    No,
    /// Payload of the message under way, which goes on as it was.
    Payload,
    /// The same, and the message is to be looked at afresh: [`super::event::DECISION`] and nothing else.
    Look,
    /// A bare ACK.
    Control,
}

/// Does to the flow what [`super::advance`] does, where that is little; one test for each doubt.
///
/// `half` is the packet's direction; the rest is as in [`super::Step`].
#[inline(always)]
pub fn advance_plainly(
    flow: &mut Flow,
    headers: &Headers,
    settings: &Settings,
    (half, segments, now_ticks): (u32, u32, u32),
) -> Plain {
    let own = half as usize & 1;
    if headers.protocol != TCP {
        return added(
            flow,
            own,
            headers.payload_bytes,
            settings,
            segments,
            now_ticks,
        );
    }
    const KNOWN: u8 = half_flags::SEQ_VALID | half_flags::ACK_VALID;
    const MARKS: u8 = flag::SYN | flag::FIN | flag::RST | flag::ACK;
    let sender = &flow.halves[own];
    if headers.tcp_flags & MARKS != flag::ACK
        || sender.flags & (KNOWN | half_flags::AWAITS_ROUND_TRIP) != KNOWN
    {
        return Plain::No;
    }
    let ahead = headers.seq.wrapping_sub(sender.seq_end);
    let newer = headers.ack.wrapping_sub(sender.ack) as i32 > 0;
    if headers.payload_bytes == 0 {
        if ahead as i32 > 0 {
            return Plain::No;
        }
        if newer {
            flow.halves[own].ack = headers.ack;
        }
        return Plain::Control;
    }
    if ahead >= FAR || headers.payload_bytes >= FAR {
        return Plain::No;
    }
    let receiver = &flow.halves[own ^ 1];
    if receiver.flags & half_flags::OPEN != 0 {
        let mut sender = *sender;
        if newer {
            sender.ack = headers.ack;
        }
        if !unacknowledged(receiver, &sender) {
            return Plain::No;
        }
    }
    let plain = added(
        flow,
        own,
        headers.payload_bytes,
        settings,
        segments,
        now_ticks,
    );
    if !matches!(plain, Plain::No) {
        let sender = &mut flow.halves[own];
        sender.seq_end = headers.seq.wrapping_add(headers.payload_bytes);
        if newer {
            sender.ack = headers.ack;
        }
    }
    plain
}

/// Adds new payload to an open message that has not been silent.
#[inline(always)]
fn added(
    flow: &mut Flow,
    own: usize,
    payload_bytes: u32,
    settings: &Settings,
    segments: u32,
    now_ticks: u32,
) -> Plain {
    let sender = &mut flow.halves[own];
    let packets_before = u64::from(sender.packets);
    let packets = packets_before + u64::from(segments);
    let bytes = u64::from(sender.bytes) + u64::from(payload_bytes);
    if sender.flags & half_flags::OPEN == 0
        || payload_bytes == 0
        || now_ticks.wrapping_sub(sender.last_ticks) > idle_floor_ticks(settings)
        || (bytes | packets) >> 32 != 0
    {
        return Plain::No;
    }
    sender.packets = packets as u32;
    sender.bytes = bytes as u32;
    sender.last_ticks = now_ticks;
    // As in `super::add`.
    if bytes > u64::from(sender.until_bytes) || (packets ^ packets_before) > packets_before {
        Plain::Look
    } else {
        Plain::Payload
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use scheduler_common::flow::Half;

    use super::*;
    use crate::{
        flow::{Step, advance, event},
        parse::UDP,
    };

    const ACKED: u8 = flag::ACK;

    /// Numbers near one another, so that what differs differs by little.
    fn near() -> impl Strategy<Value = u32> {
        prop_oneof![
            8 => 0u32..4000,
            1 => any::<u32>(),
            1 => (u32::MAX - 4000)..=u32::MAX,
            1 => (FAR - 2)..(FAR + 2),
        ]
    }

    fn half() -> impl Strategy<Value = Half> {
        (
            (near(), near(), near(), near()),
            (near(), near(), 0u8..8, any::<u8>(), any::<bool>()),
        )
            .prop_map(
                |((last, bytes, until, packets), (seq, ack, band, flags, usual))| Half {
                    last_ticks: last,
                    bytes,
                    until_bytes: until,
                    packets,
                    seq_end: seq,
                    ack,
                    band,
                    flags: if usual {
                        half_flags::OPEN | half_flags::SEQ_VALID | half_flags::ACK_VALID
                    } else {
                        flags
                    },
                    generation_slot: 0,
                    _pad: 0,
                },
            )
    }

    fn headers() -> impl Strategy<Value = Headers> {
        (
            any::<bool>(),
            prop_oneof![Just(ACKED), any::<u8>()],
            prop_oneof![2 => Just(0), 5 => near()],
            near(),
            near(),
        )
            .prop_map(|(tcp, tcp_flags, payload_bytes, seq, ack)| Headers {
                protocol: if tcp { TCP } else { UDP },
                ip_version: 4,
                tcp_flags,
                payload_bytes,
                seq,
                ack,
                ..Headers::default()
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn what_is_plain_is_what_the_long_way_does(
            halves in (half(), half()),
            headers in headers(),
            (direction, segments, now_ticks) in (0u32..2, 1u32..50, near()),
            idle_floor_us in prop_oneof![Just(200_000u32), Just(u32::MAX), 0u32..2000],
        ) {
            let settings = Settings { idle_floor_us, ..Settings::default() };
            let before = Flow { tag: 7, halves: [halves.0, halves.1] };
            let (mut plain, mut long) = (before, before);
            let mut step = Step { half: direction, segments, now_ticks, ..Step::default() };
            let what = advance_plainly(
                &mut plain, &headers, &settings, (direction, segments, now_ticks),
            );
            advance(&mut long, &headers, &settings, &mut step);
            let expected = match what {
                Plain::No => {
                    prop_assert_eq!(plain, before);
                    return Ok(());
                }
                Plain::Payload => 0,
                Plain::Look => event::DECISION,
                Plain::Control => event::CONTROL,
            };
            prop_assert_eq!(step.events, expected);
            let new_bytes = if what == Plain::Control { 0 } else { headers.payload_bytes };
            prop_assert_eq!(step.new_bytes, new_bytes);
            prop_assert_eq!(plain, long);
        }
    }

    fn sent(headers: &Headers, halves: [Half; 2]) -> (Plain, Flow) {
        let mut flow = Flow { tag: 7, halves };
        let plain = advance_plainly(&mut flow, headers, &Settings::default(), (0, 1, 10));
        (plain, flow)
    }

    #[test]
    fn the_usual_packets_are_plain() {
        let open = Half {
            bytes: 3000,
            until_bytes: 15_000,
            packets: 5,
            seq_end: 1000,
            ack: 500,
            flags: half_flags::OPEN | half_flags::SEQ_VALID | half_flags::ACK_VALID,
            ..Half::default()
        };
        let peer = Half {
            seq_end: 600,
            flags: half_flags::SEQ_VALID,
            ..Half::default()
        };
        let segment = Headers {
            protocol: TCP,
            tcp_flags: ACKED,
            payload_bytes: 1448,
            seq: 1000,
            ack: 600,
            ..Headers::default()
        };
        let (plain, flow) = sent(&segment, [open, peer]);
        let [own, _] = flow.halves;
        assert_eq!(plain, Plain::Payload);
        assert_eq!(
            (own.bytes, own.packets, own.seq_end, own.ack, own.last_ticks),
            (4448, 6, 2448, 600, 10)
        );
        let acknowledgement = Headers {
            payload_bytes: 0,
            ..segment
        };
        let (plain, flow) = sent(&acknowledgement, [open, peer]);
        assert_eq!((plain, flow.halves[0].ack), (Plain::Control, 600));
        let datagram = Headers {
            protocol: UDP,
            tcp_flags: 0,
            ..segment
        };
        assert_eq!(sent(&datagram, [open, peer]).0, Plain::Payload);
        let eighth = Half { packets: 7, ..open };
        assert_eq!(sent(&segment, [eighth, peer]).0, Plain::Look);
        let at_its_end = Half {
            until_bytes: 4447,
            ..open
        };
        assert_eq!(sent(&segment, [at_its_end, peer]).0, Plain::Look);
        // Each of these is more than that.
        let answer = [
            open,
            Half {
                flags: half_flags::OPEN,
                ..peer
            },
        ];
        assert_eq!(sent(&segment, answer).0, Plain::No);
        let again = Headers {
            seq: 900,
            ..segment
        };
        assert_eq!(sent(&again, [open, peer]).0, Plain::No);
        let last = Headers {
            tcp_flags: ACKED | flag::FIN,
            ..segment
        };
        assert_eq!(sent(&last, [open, peer]).0, Plain::No);
    }
}
