//! The feature list: index, name and unit, written once.

macro_rules! features {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal, $unit:literal;)+) => {
        /// Index of a feature in [`Features`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Feature {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Feature {
            /// All features in index order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Name in models, logs and `model show`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Unit of the value; empty for codes and counts without one.
            pub const fn unit(self) -> &'static str {
                match self {
                    $(Self::$variant => $unit,)+
                }
            }

            /// What it says, in one sentence.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+),)+
                }
            }
        }
    };
}

features! {
    /// Port of the side that was connected to; the lower port where no handshake was seen.
    ServicePort => "service_port", "";
    /// 1 if the sender of this message is the service, 0 if it is the client.
    FromService => "from_service", "";
    /// IP protocol number: 1 ICMP, 6 TCP, 17 UDP, 58 ICMPv6, and of tunnels.
    Protocol => "protocol", "";
    /// Payload of this packet (of the whole super-packet under GSO).
    PacketBytes => "packet_bytes", "bytes";
    /// Segments of this packet: more than one under GSO.
    Segments => "segments", "packets";
    /// TCP flags of this packet as in the header's byte 13; on UDP port 443 QUIC's header form (128) and fixed bit (64).
    TcpFlags => "tcp_flags", "";
    /// Packets of this message so far, this one included.
    MessagePackets => "message_packets", "packets";
    /// Payload bytes of this message so far, this packet included.
    MessageBytes => "message_bytes", "bytes";
    /// Number of this message among those of its direction, from 1.
    MessageIndex => "message_index", "";
    /// Bytes of the latest message the other way: the request, if this is the reply.
    RequestBytes => "request_bytes", "bytes";
    /// Packets of the latest message the other way.
    RequestPackets => "request_packets", "packets";
    /// Bytes of the message before this one in the same direction.
    PreviousBytes => "previous_bytes", "bytes";
    /// From the last payload of the other side to the start of this message.
    TurnaroundUs => "turnaround_us", "us";
    /// From the previous decision point of this message to this packet; at its first packet, from the payload before it.
    GapUs => "gap_us", "us";
    /// Since the first packet of the flow.
    FlowAgeUs => "flow_age_us", "us";
    /// Mean log2 of earlier messages of this service and direction, in 1/256; 0 if there was none.
    ServiceLog2Q8 => "service_log2_q8", "";
    /// The same for this service and the far end's network (/24, /48 under IPv6).
    PeerLog2Q8 => "peer_log2_q8", "";
    /// One more than the bytes that the local application has written behind this packet; 0 without a local TCP socket.
    SocketUnsentBytes => "socket_unsent_bytes", "bytes";
    /// Congestion window of the local TCP socket; 0 without one.
    SocketWindowPackets => "socket_window_packets", "packets";
    /// Smoothed round-trip time of the local TCP socket; 0 without one.
    SocketRttUs => "socket_rtt_us", "us";
}

/// Slots in a feature vector: a power of two, so that an index is bounded by a mask.
pub const SLOTS: usize = 32;

/// The last slot, always zero: what a block of a tree names where it tests nothing (see [`crate::tree`]).
pub const ZERO_SLOT: u8 = 31;

/// Features of one packet, indexed by [`Feature`]; unused slots are zero.
pub type Features = [u32; SLOTS];

const _: () = assert!(Feature::ALL.len() <= ZERO_SLOT as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_indices_dense() {
        for (index, feature) in Feature::ALL.iter().enumerate() {
            assert_eq!(*feature as usize, index);
            assert_eq!(
                Feature::ALL
                    .iter()
                    .filter(|f| f.name() == feature.name())
                    .count(),
                1
            );
            assert!(!feature.help().is_empty());
        }
    }
}
