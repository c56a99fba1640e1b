//! Samples become labelled rows; a bounded window keeps them.

mod join;
mod reading;
pub mod services;
pub mod store;
mod window;

use scheduler_common::{
    features::{Feature, Features},
    sample::Hook,
    tree::TARGET_FLOOR_BYTES,
};

pub use join::{JoinCounts, JoinLimits, Joiner};
pub use reading::{Readings, State};
pub use window::{Heeded, Window, WindowLimits};

/// One decision point with what came after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the kernel program knew.
    pub features: Features,
    /// Payload bytes of the message up to and with this packet.
    pub bytes_at: u64,
    /// The label: payload bytes of the message after this packet.
    pub remaining_bytes: u64,
    /// Payload bytes of the whole message.
    pub total_bytes: u64,
    /// When the decision was taken, monotonic clock.
    pub time_ns: u64,
    /// Keyed hash of the flow.
    pub flow_hash: u64,
    /// Number of the message in its direction.
    pub message: u32,
    /// Direction in the flow.
    pub half: u8,
    /// Which program saw it.
    pub hook: Hook,
    /// Generation that predicted at that moment; 0 = none.
    pub generation: u32,
    /// What it predicted, log2 in 1/256; meaningful if `generation` is not 0.
    pub predicted_log2_q8: u32,
    /// Keyed hash of the far end's network.
    pub network_hash: u32,
    /// Whether the message went on after what is known: the label is a lower bound then.
    pub censored: bool,
    /// Generation of the model that was only watched at that moment; 0 = none.
    pub shadow_generation: u32,
    /// What it predicted, likewise.
    pub shadow_log2_q8: u32,
}

impl Row {
    /// What a model predicts: log2 of the bytes to come and [`TARGET_FLOOR_BYTES`].
    pub fn target(&self) -> f64 {
        (self.remaining_bytes as f64 + f64::from(TARGET_FLOOR_BYTES)).log2()
    }

    /// Value of one feature.
    pub const fn feature(&self, feature: Feature) -> u32 {
        self.features[feature as usize]
    }

    /// Whether this is the first packet of its message.
    ///
    /// By bytes, because the packet count already stands above one when the first packet is a
    /// super-packet of several segments.
    pub const fn is_first_packet(&self) -> bool {
        self.feature(Feature::MessageBytes) == self.feature(Feature::PacketBytes)
    }
}

#[cfg(test)]
pub(crate) mod samples {
    //! Records as the ring buffer delivers them, for tests.

    use scheduler_common::{
        ABI_VERSION,
        features::SLOTS,
        sample::{Sample, SampleKind},
    };

    use super::*;

    pub(crate) fn row(flow_hash: u64, time_ns: u64, port: u32) -> Row {
        let mut features = [0; SLOTS];
        features[Feature::ServicePort as usize] = port;
        Row {
            features,
            bytes_at: 1000,
            remaining_bytes: 0,
            total_bytes: 1000,
            time_ns,
            flow_hash,
            message: 1,
            half: 0,
            hook: Hook::Egress,
            generation: 0,
            predicted_log2_q8: 0,
            // Each flow from a network of its own.
            network_hash: flow_hash as u32,
            censored: false,
            shadow_generation: 0,
            shadow_log2_q8: 0,
        }
    }

    pub(crate) fn decision(flow_hash: u64, message: u32, time_ns: u64, bytes: u64) -> Sample {
        let mut features = [0; SLOTS];
        features[Feature::ServicePort as usize] = 443;
        features[Feature::MessageBytes as usize] = bytes as u32;
        Sample {
            flow_hash,
            time_ns,
            bytes,
            message,
            packets: 1,
            generation: 0,
            predicted_log2_q8: 0,
            abi_version: ABI_VERSION as u16,
            kind: SampleKind::Decision as u16,
            hook: Hook::Egress as u8,
            half: 0,
            band: 0,
            _pad: 0,
            network_hash: flow_hash as u32,
            shadow_generation: 0,
            shadow_log2_q8: 0,
            flow_set: flow_hash as u32 % 16,
            features,
        }
    }

    pub(crate) fn end(flow_hash: u64, message: u32, time_ns: u64, bytes: u64) -> Sample {
        Sample {
            kind: SampleKind::MessageEnd as u16,
            features: [0; SLOTS],
            ..decision(flow_hash, message, time_ns, bytes)
        }
    }
}
