//! What a replay tells the programs of a packet.

/// A captured packet, as far as it does not stand in the bytes that the programs are run on.
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
pub struct Moment {
    /// When it passed, by the capture's clock.
    pub now_ns: u64,
    /// Payload of a packet of which only the head is there; 0 = the bytes tell.
    pub payload_bytes: u32,
    /// Segments that it was on the wire.
    pub segments: u32,
}

const _: () = assert!(size_of::<Moment>() == 16 && align_of::<Moment>() == 8);
