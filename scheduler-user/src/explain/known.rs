//! What an entry still tells of the features at its last decision point.

use scheduler_common::{
    features::{Feature, Features, SLOTS},
    flow::{Flow, Story},
};
use scheduler_ebpf::{
    flow::{ticks, to_us},
    parse::{TCP, flag},
};
use serde::{Deserialize, Serialize};

/// How a value of a feature is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// It stands in the entry, or follows from it.
    Known,
    /// As of now; at the decision it was this or less.
    Grown,
    /// The kernel does not keep it: a usual value.
    Assumed,
    /// The person who asks has said so.
    Given,
}

/// Features of a direction with where each comes from.
#[derive(Clone, Copy, Debug)]
pub struct Rebuilt {
    /// The vector.
    pub features: Features,
    /// By index of the feature.
    pub sources: [Source; SLOTS],
}

impl Rebuilt {
    /// The features of direction `half` of a flow of `protocol`.
    pub fn of(flow: &Flow, story: &Story, (half, protocol): (usize, u8)) -> Self {
        let (own, other) = (&flow.halves[half & 1], &flow.halves[(half & 1) ^ 1]);
        let page = &story.halves[half & 1];
        let mut rebuilt = Self {
            features: [0; SLOTS],
            sources: [Source::Assumed; SLOTS],
        };
        let known = [
            (Feature::ServicePort, u32::from(story.service_port)),
            (
                Feature::FromService,
                u32::from(usize::from(story.service_half) == half & 1),
            ),
            (Feature::Protocol, u32::from(protocol)),
            (Feature::MessageIndex, page.message),
            (Feature::RequestBytes, other.bytes),
            (Feature::RequestPackets, other.packets),
            (Feature::PreviousBytes, page.previous_bytes),
            (Feature::TurnaroundUs, page.turnaround_us),
            (
                Feature::FlowAgeUs,
                to_us(page.looked_ticks.wrapping_sub(ticks(story.first_ns))),
            ),
            (Feature::ServiceLog2Q8, u32::from(page.history_log2_q8[0])),
            (Feature::PeerLog2Q8, u32::from(page.history_log2_q8[1])),
        ];
        for (feature, value) in known {
            rebuilt.set(feature, value, Source::Known);
        }
        rebuilt.set(Feature::MessageBytes, own.bytes, Source::Grown);
        rebuilt.set(Feature::MessagePackets, own.packets, Source::Grown);
        // One packet is the message; of several the mean is the best guess.
        let one = own.packets <= 1;
        let source = if one { Source::Known } else { Source::Assumed };
        let mean = own.bytes.checked_div(own.packets).unwrap_or(0);
        rebuilt.set(Feature::PacketBytes, mean, source);
        rebuilt.set(Feature::Segments, 1, source);
        let flags = if protocol == TCP {
            u32::from(flag::ACK)
        } else {
            0
        };
        rebuilt.set(Feature::TcpFlags, flags, Source::Assumed);
        rebuilt
    }

    /// Sets one feature.
    pub const fn set(&mut self, feature: Feature, value: u32, source: Source) {
        self.features[feature as usize] = value;
        self.sources[feature as usize] = source;
    }

    /// Whether the value at the decision may have been one of `low..=high`.
    pub fn may_be_in(&self, feature: Feature, (low, high): (i64, i64)) -> bool {
        let value = i64::from(self.features[feature as usize]);
        match self.sources[feature as usize] {
            Source::Assumed => true,
            Source::Grown => low <= value && high >= 1,
            // An age in ticks is exact to two of them.
            Source::Known if feature as u8 == Feature::FlowAgeUs as u8 => {
                low <= value + 3 && high >= value - 3
            }
            Source::Known | Source::Given => (low..=high).contains(&value),
        }
    }
}
