//! Flow state and headers → feature vector.

use scheduler_common::{
    features::{Feature, Features},
    flow::{Flow, Story},
};

use crate::{flow::Step, parse::Headers};

/// What the socket says that sent the packet, if it is a TCP one of this host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Socket {
    /// 1 if there is one and `write_seq` is known.
    pub known: u32,
    /// Sequence number behind the last byte that the application has written.
    pub write_seq: u32,
    /// Congestion window.
    pub window_packets: u32,
    /// Smoothed round-trip time.
    pub rtt_us: u32,
}

/// Describes the packet that `step` has just accounted for.
///
/// Slots without a feature are left as they are: zero, in a vector that nobody else writes.
#[inline(always)]
pub fn extract(
    headers: &Headers,
    (flow, story): (&Flow, &Story),
    (step, socket): (&Step, &Socket),
    features: &mut Features,
) {
    let own = step.half as usize & 1;
    let other = own ^ 1;
    let page = &story.halves[own];
    // One by one: a whole vector would be made on the stack first.
    features[Feature::ServicePort as usize] = u32::from(story.service_port);
    features[Feature::FromService as usize] = u32::from(u32::from(story.service_half) == step.half);
    features[Feature::Protocol as usize] = u32::from(headers.protocol);
    features[Feature::PacketBytes as usize] = headers.payload_bytes;
    features[Feature::Segments as usize] = step.segments;
    features[Feature::TcpFlags as usize] = u32::from(headers.tcp_flags);
    features[Feature::MessagePackets as usize] = flow.halves[own].packets;
    features[Feature::MessageBytes as usize] = flow.halves[own].bytes;
    features[Feature::MessageIndex as usize] = page.message;
    features[Feature::RequestBytes as usize] = flow.halves[other].bytes;
    features[Feature::RequestPackets as usize] = flow.halves[other].packets;
    features[Feature::PreviousBytes as usize] = page.previous_bytes;
    features[Feature::TurnaroundUs as usize] = page.turnaround_us;
    features[Feature::GapUs as usize] = step.gap_us;
    features[Feature::FlowAgeUs as usize] = step.age_us;
    features[Feature::ServiceLog2Q8 as usize] = u32::from(page.history_log2_q8[0]);
    features[Feature::PeerLog2Q8 as usize] = u32::from(page.history_log2_q8[1]);
    // The socket counts the packet as sent only after it has passed here.
    let unsent = socket.write_seq.wrapping_sub(flow.halves[own].seq_end) as i32;
    let unsent = if unsent > 0 { unsent as u32 } else { 0 };
    features[Feature::SocketUnsentBytes as usize] = (unsent + 1) * (socket.known & 1);
    features[Feature::SocketWindowPackets as usize] = socket.window_packets;
    features[Feature::SocketRttUs as usize] = socket.rtt_us;
}

#[cfg(test)]
mod tests {
    use scheduler_common::{
        features::SLOTS,
        flow::{Half, StoryHalf},
    };

    use super::*;
    use crate::parse::{TCP, flag};

    #[test]
    fn every_value_stands_at_its_index() {
        let headers = Headers {
            src_addr: [0; 4],
            dst_addr: [0; 4],
            src_port: 80,
            dst_port: 5000,
            protocol: TCP,
            ip_version: 4,
            tcp_flags: flag::ACK,
            payload_bytes: 101,
            seq: 0,
            ack: 0,
        };
        let own = Half {
            packets: 103,
            bytes: 104,
            seq_end: 20_000,
            ..Half::default()
        };
        let other = Half {
            packets: 108,
            bytes: 109,
            ..Half::default()
        };
        let flow = Flow {
            tag: 1,
            halves: [other, own],
        };
        let page = StoryHalf {
            message: 105,
            previous_bytes: 106,
            turnaround_us: 107,
            history_log2_q8: [112, 113],
            ..StoryHalf::default()
        };
        let story = Story {
            service_port: 80,
            service_half: 1,
            halves: [StoryHalf::default(), page],
            ..Story::default()
        };
        let step = Step {
            half: 1,
            segments: 102,
            gap_us: 110,
            age_us: 111,
            ..Step::default()
        };
        let socket = Socket {
            known: 1,
            write_seq: 20_113,
            window_packets: 115,
            rtt_us: 116,
        };
        let mut features = [0; SLOTS];
        let entry = (&flow, &story);
        extract(&headers, entry, (&step, &socket), &mut features);
        let at = |feature: Feature| features[feature as usize];
        assert_eq!(at(Feature::ServicePort), 80);
        assert_eq!(at(Feature::FromService), 1);
        assert_eq!(at(Feature::Protocol), 6);
        assert_eq!(at(Feature::PacketBytes), 101);
        assert_eq!(at(Feature::Segments), 102);
        assert_eq!(at(Feature::TcpFlags), 0x10);
        assert_eq!(at(Feature::MessagePackets), 103);
        assert_eq!(at(Feature::MessageBytes), 104);
        assert_eq!(at(Feature::MessageIndex), 105);
        assert_eq!(at(Feature::PreviousBytes), 106);
        assert_eq!(at(Feature::TurnaroundUs), 107);
        assert_eq!(at(Feature::RequestPackets), 108);
        assert_eq!(at(Feature::RequestBytes), 109);
        assert_eq!(at(Feature::GapUs), 110);
        assert_eq!(at(Feature::FlowAgeUs), 111);
        assert_eq!(at(Feature::ServiceLog2Q8), 112);
        assert_eq!(at(Feature::PeerLog2Q8), 113);
        assert!(
            features[Feature::ALL.len()..]
                .iter()
                .all(|value| *value == 0)
        );
    }
}
