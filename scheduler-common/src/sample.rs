//! One record of the ring buffer.

use crate::features::Features;

/// What a [`Sample`] reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum SampleKind {
    /// The features at a decision point.
    Decision = 1,
    /// A message ended; `bytes` is its size.
    MessageEnd = 2,
}

impl TryFrom<u16> for SampleKind {
    type Error = u16;

    fn try_from(value: u16) -> Result<Self, u16> {
        match value {
            1 => Ok(Self::Decision),
            2 => Ok(Self::MessageEnd),
            other => Err(other),
        }
    }
}

/// Which program saw the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hook {
    /// TC on egress: the direction that is scheduled.
    Egress = 0,
    /// XDP on ingress: observed.
    Ingress = 1,
}

/// A sample: metadata of one packet or of one finished message. It holds no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct Sample {
    /// Keyed hash of the flow; the key changes with every load of the programs.
    pub flow_hash: u64,
    /// Monotonic clock.
    pub time_ns: u64,
    /// New payload bytes of the message so far (decision) or in all (end).
    pub bytes: u64,
    /// Number of the message in its direction.
    pub message: u32,
    /// Segments of the message so far or in all.
    pub packets: u32,
    /// Generation that predicted; 0 = none.
    pub generation: u32,
    /// Predicted [`crate::tree::Leaf::log2_q8`]; meaningful if `generation` is not 0.
    pub predicted_log2_q8: u32,
    /// [`crate::ABI_VERSION`].
    pub abi_version: u16,
    /// [`SampleKind`].
    pub kind: u16,
    /// [`Hook`].
    pub hook: u8,
    /// Direction in the flow: index of the half.
    pub half: u8,
    /// Band given.
    pub band: u8,
    /// Explicit padding.
    pub _pad: u8,
    /// Keyed hash of the far end's network, a /24 or a /48; the key changes with every load of the programs.
    pub network_hash: u32,
    /// Generation of the model that is only watched; 0 = none.
    pub shadow_generation: u32,
    /// What it predicts, as [`Sample::predicted_log2_q8`]; meaningful if `shadow_generation` is not 0.
    pub shadow_log2_q8: u32,
    /// Set of the flow table in which the flow has its place: where the agent looks for it. It goes into no row.
    pub flow_set: u32,
    /// Features at a decision point; zero in an end record.
    pub features: Features,
}

const _: () = assert!(size_of::<Sample>() == 192 && align_of::<Sample>() == 8);
