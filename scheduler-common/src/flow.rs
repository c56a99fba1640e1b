//! The flow table: sets of entries, of a cache line each; their stories apart.
//!
//! Most packets touch no story. The entries stand close together without them, for what a packet of one among many
//! flows waits for is memory, and the page tables on the way to it.

/// Entries of a set.
pub const WAYS: usize = 4;

/// Entries of a table unless asked otherwise.
pub const DEFAULT_ENTRIES: u32 = 1 << 16;

/// The largest table: 2 GiB.
pub const MAX_ENTRIES: u32 = 1 << 24;

/// Times in the table are 2^10 ns = 1.024 µs, 32 bits of them: differences hold for 73 minutes.
pub const TICK_SHIFT: u32 = 10;

/// An idle time from which an entry is taken for dead when another flow needs its place: 8.6 s.
pub const DEAD_TICKS: u32 = 1 << 23;

/// Direction of a flow: what each packet reads and writes of its current message.
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
pub struct Half {
    /// Time of the latest packet with payload, coarse clock.
    pub last_ticks: u32,
    /// New payload bytes of the current message; more than 4 GiB are 4 GiB.
    pub bytes: u32,
    /// The message is looked at afresh when it has more bytes than this.
    pub until_bytes: u32,
    /// Segments of the current message.
    pub packets: u32,
    /// End of the highest sequence number sent (TCP).
    pub seq_end: u32,
    /// Highest acknowledgement number sent (TCP).
    pub ack: u32,
    /// Band of the current message: only ever falls before the next message.
    pub band: u8,
    /// Bits of [`half_flags`].
    pub flags: u8,
    /// Generation of the model behind the band, modulo [`crate::counter::GENERATION_SLOTS`].
    pub generation_slot: u8,
    /// Explicit padding.
    pub _pad: u8,
}

impl Half {
    /// A direction in which nothing was sent yet.
    pub const ZERO: Self = Self {
        last_ticks: 0,
        bytes: 0,
        until_bytes: 0,
        packets: 0,
        seq_end: 0,
        ack: 0,
        band: 0,
        flags: 0,
        generation_slot: 0,
        _pad: 0,
    };
}

const _: () = assert!(size_of::<Half>() == 28 && align_of::<Half>() == 4);

/// Bits of [`Half::flags`].
pub mod half_flags {
    /// A message is under way.
    pub const OPEN: u8 = 1;
    /// `seq_end` is valid.
    pub const SEQ_VALID: u8 = 2;
    /// `ack` is valid.
    pub const ACK_VALID: u8 = 4;
    /// This side has sent a SYN; its next other packet comes one round trip later.
    pub const AWAITS_ROUND_TRIP: u8 = 8;
    /// A model has judged the current message.
    pub const PREDICTED: u8 = 16;
    /// What acted was exchanged while the current message was under way: only a clear guess lowers its band.
    pub const HELD: u8 = 32;
    /// The current message is small packets at a low rate, and stays in the top band as long as it is.
    pub const STREAM: u8 = 64;
}

/// A flow: both directions of a 5-tuple on one interface. One cache line.
///
/// Entries are not locked. Two CPUs may write one entry at the same time: ingress and egress of a flow, or two
/// flows that take the same place at once. What can be lost is a byte count, a boundary of a message, or
/// a place that the second flow takes from the first; never memory safety, and the next packet goes on from
/// whatever stands there. Two that miss one flow at once may give it two places, never more than there are CPUs: the
/// place found first goes on, the other falls silent and is the next to make room. `tests/table` runs it.
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
pub struct Flow {
    /// Keyed hash of 5-tuple and interface, never 0; 0 is a free place.
    pub tag: u64,
    /// By direction: `halves[0]` is sent by the end whose hash is the lower one.
    pub halves: [Half; 2],
}

const _: () = assert!(size_of::<Flow>() == 64);

/// Direction of a flow: what only decision points and ends of messages read and write.
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
pub struct StoryHalf {
    /// Number of the current message, from 1; 0 = none yet.
    pub message: u32,
    /// Size of the message before.
    pub previous_bytes: u32,
    /// From the other side's last payload to the start of this message, saturated.
    pub turnaround_us: u32,
    /// Predicted size of the whole message, saturated.
    pub predicted_bytes: u32,
    /// Time of the latest decision point, fine clock.
    pub looked_ticks: u32,
    /// When the message began: what messages like it were ([`crate::history`]).
    pub history_log2_q8: [u16; 2],
}

const _: () = assert!(size_of::<StoryHalf>() == 24);

/// A flow: what only decision points and ends of messages read and write. One cache line.
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
pub struct Story {
    /// Time of the first packet, monotonic clock.
    pub first_ns: u64,
    /// Round-trip time of the handshake; 0 = not seen.
    pub rtt_us: u32,
    /// Port of the service, host order.
    pub service_port: u16,
    /// Index of the direction that the service sends in.
    pub service_half: u8,
    /// 1 once the handshake has told the service; 0 while it is a guess by port number.
    pub service_known: u8,
    /// By direction.
    pub halves: [StoryHalf; 2],
}

const _: () = assert!(size_of::<Story>() == 64);

/// Entries that flows of one hash share: a flow stands in any of them, the oldest makes room.
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
pub struct FlowSet {
    /// The flows.
    pub flows: [Flow; WAYS],
}

const _: () = assert!(size_of::<FlowSet>() == 256 && WAYS.is_power_of_two());

/// Index of the story of the flow that stands at `way` of `set`.
pub const fn story_of(set: u32, way: u32) -> u32 {
    set.wrapping_mul(WAYS as u32) | way & (WAYS as u32 - 1)
}

/// What a tick of the kernel's is: by it the programs read a coarse clock.
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
pub struct Clock {
    /// Monotonic clock when the tick count was 0, wrapping.
    pub offset_ns: u64,
    /// Length of a tick; [`NO_TICK_NS`] where it is not known.
    pub tick_ns: u32,
    /// Explicit padding.
    pub _pad: u32,
}

const _: () = assert!(size_of::<Clock>() == 16);

/// See [`Clock::tick_ns`].
pub const NO_TICK_NS: u32 = 0xffff_fffb;

/// Multipliers of the flow hash.
pub const MULTIPLIERS: usize = 10;

/// Secret of a load, and the size of its table.
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
pub struct Hashing {
    /// Multipliers of the flow hash.
    pub multipliers: [u64; MULTIPLIERS],
    /// Key of what samples name flows by.
    pub sample_key: [u64; 2],
    /// Sets of the table less one: a power of two less one.
    pub set_mask: u32,
    /// Explicit padding.
    pub _pad: u32,
}

const _: () = assert!(size_of::<Hashing>() == 104);
