//! Flow key and flow state, as the flow table holds them.

/// A flow: both directions of a 5-tuple on one interface.
///
/// The endpoints are ordered so that both directions have the same key. The interface is part of the
/// key, because a forwarded flow passes two interfaces and must not be counted twice.
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
pub struct FlowKey {
    /// Lower endpoint's address, network order; IPv4 in the first word, the rest zero.
    pub low_addr: [u32; 4],
    /// Higher endpoint's address.
    pub high_addr: [u32; 4],
    /// Lower endpoint's port, host order.
    pub low_port: u16,
    /// Higher endpoint's port, host order.
    pub high_port: u16,
    /// Interface that the packets pass.
    pub ifindex: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// 4 or 6.
    pub ip_version: u8,
    /// Explicit padding.
    pub _pad: [u8; 6],
}

const _: () = assert!(size_of::<FlowKey>() == 48 && align_of::<FlowKey>() == 4);

/// One direction of a flow: the state of its current message.
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
    /// Time of the latest packet with payload, monotonic clock; 0 = none yet.
    pub last_ns: u64,
    /// New payload bytes of the current message.
    pub bytes: u64,
    /// Predicted size of the whole message in bytes; 0 = no prediction.
    pub predicted_bytes: u64,
    /// Segments of the current message.
    pub packets: u32,
    /// Number of the current message, from 1; 0 = none yet.
    pub message: u32,
    /// Size of the message before, saturated.
    pub previous_bytes: u32,
    /// From the other side's last payload to the start of this message, saturated.
    pub turnaround_us: u32,
    /// End of the highest sequence number sent (TCP).
    pub seq_end: u32,
    /// Highest acknowledgement number sent (TCP).
    pub ack: u32,
    /// Generation of the model behind the prediction; 0 = none.
    pub generation: u32,
    /// Band of the current message: only ever falls before the next message.
    pub band: u8,
    /// Bits of [`half_flags`].
    pub flags: u8,
    /// Explicit padding.
    pub _pad: [u8; 2],
}

impl Half {
    /// A direction in which nothing was sent yet.
    pub const ZERO: Self = Self {
        last_ns: 0,
        bytes: 0,
        predicted_bytes: 0,
        packets: 0,
        message: 0,
        previous_bytes: 0,
        turnaround_us: 0,
        seq_end: 0,
        ack: 0,
        generation: 0,
        band: 0,
        flags: 0,
        _pad: [0, 0],
    };
}

const _: () = assert!(size_of::<Half>() == 56 && align_of::<Half>() == 8);

/// Bits of [`Half::flags`].
pub mod half_flags {
    /// A message is under way.
    pub const OPEN: u8 = 1;
    /// `seq_end` is valid.
    pub const SEQ_VALID: u8 = 2;
    /// `ack` is valid.
    pub const ACK_VALID: u8 = 4;
}

/// State of a flow in both directions.
///
/// Entries are not locked. Two CPUs may update one entry at the same time (ingress and egress of the
/// same flow, say); what can be lost is a byte count or one boundary of a message, never memory
/// safety, and the next packet goes on from whatever stands there.
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
pub struct FlowState {
    /// Keyed hash of the flow: says whether it is sampled, and joins its samples.
    pub hash: u64,
    /// Time of the first packet, monotonic clock.
    pub first_ns: u64,
    /// Round-trip time of the handshake; 0 = not seen.
    pub rtt_us: u32,
    /// Port of the service, host order.
    pub service_port: u16,
    /// Index in `halves` of the direction that the service sends in.
    pub service_half: u8,
    /// 1 once the handshake has told the service; 0 while it is a guess by port number.
    pub service_known: u8,
    /// State by direction: `halves[0]` is sent by the lower endpoint.
    pub halves: [Half; 2],
}

impl FlowState {
    /// The state of an entry that nobody has opened yet.
    pub const ZERO: Self = Self {
        hash: 0,
        first_ns: 0,
        rtt_us: 0,
        service_port: 0,
        service_half: 0,
        service_known: 0,
        halves: [Half::ZERO, Half::ZERO],
    };
}

const _: () = assert!(size_of::<FlowState>() == 136 && align_of::<FlowState>() == 8);
