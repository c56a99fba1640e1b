//! What userspace tells the programs.

use crate::{
    ABI_VERSION,
    act::KEEP_DSCP,
    class::{BANDS, Cuts, FIRST_BYTES, class_handles},
};

/// What the egress program does with its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Act {
    /// Nothing: watch only.
    Observe = 0,
    /// Set `skb->priority` to the band's entry in [`Settings::priorities`], and do what the flags say.
    Priority = 1,
    /// Leave `skb->priority` alone, and do what the flags say.
    FlagsOnly = 2,
}

/// Settings of the running programs; userspace may change them at any time.
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
pub struct Settings {
    /// [`ABI_VERSION`] of who wrote this; another version makes the programs pass every packet.
    pub abi_version: u32,
    /// [`Act`].
    pub act: u32,
    /// A flow is sampled if `hash & sample_mask == 0`.
    pub sample_mask: u32,
    /// Samples a CPU may emit in a window of [`SAMPLE_WINDOW_NS`]; 0 is none, as while no agent reads.
    pub samples_per_window: u32,
    /// Bytes of a message that stay in the top band, whatever the prediction.
    pub first_bytes: u32,
    /// Shortest idle time that ends a message.
    pub idle_floor_us: u32,
    /// Shortest time in which a stream may send a window of 4 KiB and stay in the top band; 0 = nothing is a stream.
    pub stream_window_us: u32,
    /// Cut points between bands.
    pub cuts: Cuts,
    /// Bits of [`settings_flags`].
    pub flags: u32,
    /// `skb->priority` of each band, in the words of the qdisc that stands on the interface.
    pub priorities: [u32; BANDS],
    /// DSCP of each band, or [`KEEP_DSCP`]; with [`settings_flags::DSCP`].
    pub dscp: [u8; BANDS],
    /// `skb->queue_mapping` of each band: the queue plus 1, or 0 to leave it alone; with
    /// [`settings_flags::QUEUES`].
    pub queues: [u16; BANDS],
    /// Nanoseconds that 256 bytes of each band take, or 0 for a band that is not paced; with
    /// [`settings_flags::PACE`].
    pub pace: [u32; BANDS],
}

/// Bits of [`Settings::flags`].
pub mod settings_flags {
    /// A packet in a VXLAN, Geneve, GRE or IP tunnel belongs to the flow inside, one level deep; without
    /// it to the tunnel's own.
    pub const INNER: u32 = 1;
    /// No interface has an Ethernet header; the agent says it of each one by
    /// [`crate::ingress::interface_flags::NETWORK_FRAMES`]. Without it the programs tell by the
    /// packet: right on egress but for IPv4 sources in 8.0.0.0/16, 134.221.0.0/16 and IPv6 sources with
    /// such words; on ingress where the first bytes are an IP header of the frame's length.
    pub const NETWORK_FRAMES: u32 = 2;
    /// Egress packets get the DSCP of their band.
    pub const DSCP: u32 = 1 << 8;
    /// Egress packets get the transmit queue of their band.
    pub const QUEUES: u32 = 1 << 9;
    /// Egress packets get a departure time by the pace of their band, which `fq` keeps.
    pub const PACE: u32 = 1 << 10;
    /// The acts that few ask for: one look tells that none is on.
    pub const RARE_ACTS: u32 = DSCP | QUEUES | PACE;
    /// Some interface has an entry in `INTERFACES`; without it the programs do not look there.
    pub const INTERFACES: u32 = 1 << 16;
    /// What needs more of a packet than the usual ones' parser reads: one look tells that nothing is on.
    pub const RARE_READS: u32 = INNER | NETWORK_FRAMES | INTERFACES;
}

const _: () = assert!(size_of::<Settings>() == 152 && align_of::<Settings>() == 4);

/// A stream sends 4 KiB in no less: 41 kB a second, enough for voice and for the packets of a fast game.
pub const STREAM_WINDOW_US: u32 = 100_000;

/// Length of a sampling window: 2^27 ns, about 134 ms.
pub const SAMPLE_WINDOW_NS: u64 = 1 << 27;

/// Samples a CPU may emit in a window while an agent reads: about 30 000 a second.
pub const SAMPLES_PER_WINDOW: u32 = 4096;

/// A CPU's samples in the current window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
pub struct SampleBudget {
    /// Number of the window: time / [`SAMPLE_WINDOW_NS`].
    pub window: u64,
    /// Samples emitted in it.
    pub used: u32,
    /// Newest generation this CPU has logged.
    pub logged_generation: u32,
}

const _: () = assert!(size_of::<SampleBudget>() == 16);

impl Default for Settings {
    fn default() -> Self {
        Self {
            abi_version: ABI_VERSION,
            act: Act::Priority as u32,
            sample_mask: 0,
            samples_per_window: 0,
            first_bytes: FIRST_BYTES,
            idle_floor_us: 200_000,
            stream_window_us: STREAM_WINDOW_US,
            cuts: Cuts::default(),
            flags: 0,
            priorities: class_handles(),
            dscp: [KEEP_DSCP; BANDS],
            queues: [0; BANDS],
            pace: [0; BANDS],
        }
    }
}
