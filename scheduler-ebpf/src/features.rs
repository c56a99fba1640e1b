//! Flow state and headers → feature vector.

use scheduler_common::{
    features::{Features, SLOTS},
    flow::FlowState,
};

use crate::{flow::Step, parse::Headers};

/// Describes the packet that `step` has just accounted for.
///
/// The order is that of [`scheduler_common::features::Feature`]; a test holds it.
#[inline(always)]
pub fn extract(headers: &Headers, state: &FlowState, step: &Step) -> Features {
    let own = &state.halves[step.half & 1];
    let other = &state.halves[(step.half & 1) ^ 1];
    let features: [u32; SLOTS] = [
        u32::from(state.service_port),
        u32::from(usize::from(state.service_half) == step.half),
        u32::from(headers.protocol),
        headers.payload_bytes,
        step.segments,
        u32::from(headers.tcp_flags),
        own.packets,
        saturate(own.bytes),
        own.message,
        saturate(other.bytes),
        other.packets,
        own.previous_bytes,
        own.turnaround_us,
        step.gap_us,
        step.age_us,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    features
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
mod tests {
    use scheduler_common::{
        features::{Feature, ZERO_SLOT},
        flow::Half,
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
            bytes: u64::MAX,
            message: 105,
            previous_bytes: 106,
            turnaround_us: 107,
            ..Half::default()
        };
        let other = Half {
            packets: 108,
            bytes: 109,
            ..Half::default()
        };
        let state = FlowState {
            hash: 0,
            first_ns: 0,
            rtt_us: 0,
            service_port: 80,
            service_half: 1,
            service_known: 1,
            halves: [other, own],
        };
        let step = Step {
            half: 1,
            segments: 102,
            gap_us: 110,
            age_us: 111,
            ..Step::default()
        };
        let features = extract(&headers, &state, &step);
        let at = |feature: Feature| features[feature as usize];
        assert_eq!(at(Feature::ServicePort), 80);
        assert_eq!(at(Feature::FromService), 1);
        assert_eq!(at(Feature::Protocol), 6);
        assert_eq!(at(Feature::PacketBytes), 101);
        assert_eq!(at(Feature::Segments), 102);
        assert_eq!(at(Feature::TcpFlags), 0x10);
        assert_eq!(at(Feature::MessagePackets), 103);
        assert_eq!(at(Feature::MessageBytes), u32::MAX);
        assert_eq!(at(Feature::MessageIndex), 105);
        assert_eq!(at(Feature::PreviousBytes), 106);
        assert_eq!(at(Feature::TurnaroundUs), 107);
        assert_eq!(at(Feature::RequestPackets), 108);
        assert_eq!(at(Feature::RequestBytes), 109);
        assert_eq!(at(Feature::GapUs), 110);
        assert_eq!(at(Feature::FlowAgeUs), 111);
        assert_eq!(features[ZERO_SLOT as usize], 0);
    }
}
