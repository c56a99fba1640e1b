//! A flow's place among the entries of its set.

use scheduler_common::flow::{DEAD_TICKS, Flow, Half, Story, WAYS};

use crate::parse::Headers;

/// Another CPU's clock may have been ahead of this one's by less than that.
const LATE_TICKS: u32 = 1 << 10;

/// Index of the flow's entry in its set.
///
/// The search begins at an entry that the hash tells, so that mostly one cache line is touched.
#[inline(always)]
pub fn find(flows: &[Flow; WAYS], tag: u64, first_way: u32) -> Option<usize> {
    for step in 0..WAYS {
        let way = (first_way as usize + step) & (WAYS - 1);
        if flows[way].tag == tag {
            return Some(way);
        }
    }
    None
}

/// The entry that a new flow takes: a free one, else the one that was silent for longest.
#[inline(always)]
pub fn victim(flows: &[Flow; WAYS], first_way: u32, now_ticks: u32) -> usize {
    let mut best = 0;
    for step in 0..WAYS {
        let way = (first_way as usize + step) & (WAYS - 1);
        let flow = &flows[way];
        let idle_ticks = u64::from(idle(flow, now_ticks));
        let free = u64::from(flow.tag == 0) << 32;
        // Age above, way below, so that the greater number is the answer, without a branch.
        let rank = (free | idle_ticks) << 8 | (WAYS - step) as u64;
        best = rank.max(best);
    }
    (first_way as usize).wrapping_add(WAYS - (best as usize & 0xff)) & (WAYS - 1)
}

/// Whether the flow of an entry has had traffic of late, so that losing its place costs it its message.
#[inline(always)]
pub fn is_alive(flow: &Flow, now_ticks: u32) -> bool {
    flow.tag != 0 && idle(flow, now_ticks) < DEAD_TICKS + LATE_TICKS
}

/// Ticks since the flow's latest payload in either direction, and [`LATE_TICKS`].
#[inline(always)]
fn idle(flow: &Flow, now_ticks: u32) -> u32 {
    let [a, b] = &flow.halves;
    let now_ticks = now_ticks.wrapping_add(LATE_TICKS);
    let (a_ticks, b_ticks) = (
        now_ticks.wrapping_sub(a.last_ticks),
        now_ticks.wrapping_sub(b.last_ticks),
    );
    a_ticks.min(b_ticks)
}

/// Makes the entry that of a flow whose first packet is this one.
#[inline(always)]
pub fn open(flow: &mut Flow, tag: u64, now_ticks: u32) {
    // Both directions: an idle time that has never begun would be the longest.
    let half = Half {
        last_ticks: now_ticks,
        ..Half::ZERO
    };
    flow.tag = tag;
    flow.halves = [half, half];
}

/// Begins the story of a flow whose first packet is this one.
#[inline(always)]
pub(super) fn begin_story(story: &mut Story, headers: &Headers, half: u32, now_ns: u64) {
    // Until a handshake tells, the lower port is taken for the service's.
    let from_service = headers.src_port < headers.dst_port;
    let service_half = if from_service { half } else { half ^ 1 };
    // Field by field, and no more than is read before a message begins: what the flow before left in the others
    // says nothing while no message has a number.
    story.first_ns = now_ns;
    story.rtt_us = 0;
    story.service_port = if from_service {
        headers.src_port
    } else {
        headers.dst_port
    };
    story.service_half = service_half as u8;
    story.service_known = 0;
    story.halves[0].message = 0;
    story.halves[1].message = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(tag: u64, last_ticks: u32) -> Flow {
        let mut flow = Flow::default();
        open(&mut flow, tag, last_ticks);
        flow
    }

    #[test]
    fn a_flow_is_found_in_any_entry_and_nobody_else_is() {
        let mut flows = [Flow::default(); WAYS];
        for (way, place) in flows.iter_mut().enumerate() {
            *place = flow(way as u64 + 10, 0);
        }
        for first_way in 0..9 {
            for way in 0..WAYS {
                assert_eq!(find(&flows, way as u64 + 10, first_way), Some(way));
            }
            assert_eq!(find(&flows, 99, first_way), None);
        }
    }

    #[test]
    fn a_free_entry_is_taken_first_then_the_one_silent_for_longest() {
        let now_ticks = 5;
        let mut flows = [Flow::default(); WAYS];
        assert_eq!(victim(&flows, 6, now_ticks), 2);
        // The clock has wrapped since.
        for (way, age_ticks) in [(0, 1000), (1, 4000), (2, 3000), (3, 2000)] {
            flows[way] = flow(7, now_ticks.wrapping_sub(age_ticks));
        }
        for first_way in 0..4 {
            assert_eq!(victim(&flows, first_way, now_ticks), 1);
        }
        flows[3].tag = 0;
        assert_eq!(victim(&flows, 0, now_ticks), 3);
    }

    #[test]
    fn a_flow_with_traffic_in_either_direction_is_alive() {
        let mut flow = flow(7, 0);
        assert!(!is_alive(&flow, DEAD_TICKS));
        flow.halves[1].last_ticks = 1;
        assert!(is_alive(&flow, DEAD_TICKS));
        flow.tag = 0;
        assert!(!is_alive(&flow, DEAD_TICKS));
    }
}
