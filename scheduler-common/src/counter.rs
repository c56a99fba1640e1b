//! Every way a packet can leave the programs, one index each.

use crate::settings::SampleBudget;

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Index in the per-CPU counter map.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Counter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Counter {
            /// All counters in index order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Name in `status`, in logs and in metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it counts, in one sentence.
            pub const fn help(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+),)+
                }
            }
        }
    };
}

counters! {
    /// Packets (not segments) seen by the egress program.
    EgressPackets => "egress_packets",
    /// Packets seen by the ingress program.
    IngressPackets => "ingress_packets",
    /// Passed untouched: neither IPv4 nor IPv6.
    NotIp => "skip_not_ip",
    /// Passed untouched: the packet ends inside a header.
    Truncated => "skip_truncated",
    /// Passed untouched: a header contradicts itself.
    Malformed => "skip_malformed",
    /// Passed untouched: a later fragment of a packet whose first one was not seen before.
    LaterFragment => "skip_later_fragment",
    /// Passed untouched: no protocol that has flows here (TCP, UDP, ICMP, tunnels).
    OtherProtocol => "skip_other_protocol",
    /// Passed untouched: more extension headers or tags than are followed.
    TooDeep => "skip_too_deep",
    /// Passed untouched: settings or a map absent, or of another ABI version.
    NoSettings => "skip_no_settings",
    /// The table of the active generation was refused (ABI version); aging ruled.
    TableRefused => "table_refused",
    /// Egress packets whose band rests on bytes sent alone, those on top by the first bytes included.
    AgingPackets => "aging_packets",
    /// Egress packets whose message has a prediction of the model.
    ModelPackets => "model_packets",
    /// Bare ACKs and handshakes: top band.
    ControlPackets => "control_packets",
    /// Times a message was looked at afresh (packet 1, 2, 4, 8 and so on, and at cut points).
    DecisionPoints => "decision_points",
    /// Flows that entered the table.
    FlowsCreated => "flows_created",
    /// Flows that lost their place in the table to another one within 8.6 s of their last payload: it is too small.
    FlowsEvicted => "flows_evicted",
    /// Messages begun.
    MessagesStarted => "messages_started",
    /// Messages ended because the other side answered.
    EndedByTurn => "messages_ended_turn",
    /// Messages ended by an idle gap.
    EndedByGap => "messages_ended_gap",
    /// Messages ended by FIN or RST.
    EndedByClose => "messages_ended_close",
    /// TCP payload sent again, not counted as new bytes.
    RetransmittedPackets => "retransmitted_packets",
    /// Samples handed to the ring buffer.
    SamplesSent => "samples_sent",
    /// Samples lost because the ring buffer was full.
    SamplesLost => "samples_lost",
    /// Samples not made because the CPU's budget was spent.
    SamplesLimited => "samples_limited",
    /// Later fragments that found the flow of the first.
    JoinedFragments => "joined_fragments",
    /// Packets that were accounted to a flow inside a tunnel.
    InnerPackets => "inner_packets",
    /// Egress packets whose DSCP was rewritten to that of their band.
    DscpRewritten => "dscp_rewritten",
    /// Egress packets that got a later departure time by the pace of their band.
    PacedPackets => "paced_packets",
    /// Paced packets that were to depart beyond the horizon, and depart at it.
    PacedAtHorizon => "paced_at_horizon",
}

impl Counter {
    /// Number of counters.
    pub const COUNT: usize = Self::ALL.len();
}

/// Why a packet was passed untouched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Skip {
    /// See [`Counter::NotIp`].
    NotIp = Counter::NotIp as u32,
    /// See [`Counter::Truncated`].
    Truncated = Counter::Truncated as u32,
    /// See [`Counter::Malformed`].
    Malformed = Counter::Malformed as u32,
    /// See [`Counter::LaterFragment`].
    LaterFragment = Counter::LaterFragment as u32,
    /// See [`Counter::OtherProtocol`].
    OtherProtocol = Counter::OtherProtocol as u32,
    /// See [`Counter::TooDeep`].
    TooDeep = Counter::TooDeep as u32,
    /// See [`Counter::NoSettings`].
    NoSettings = Counter::NoSettings as u32,
}

/// Slots in which packets are counted by generation; a slot is reused every so many generations.
pub const GENERATION_SLOTS: u32 = 16;

/// What one program counts on one CPU.
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
pub struct Counts {
    /// By [`Counter`].
    pub counters: [u64; Counter::COUNT],
    /// By generation modulo [`GENERATION_SLOTS`].
    pub generations: [GenerationCount; GENERATION_SLOTS as usize],
}

/// What outlives a packet on a CPU.
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
pub struct Kept {
    /// Counts.
    pub counts: Counts,
    /// Samples in the current window.
    pub budget: SampleBudget,
}

/// Everything that one program has on one CPU, in one map value: a packet looks it up once.
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
pub struct PerCpu {
    /// What outlives a packet.
    pub kept: Kept,
    /// What one packet is worked out in; of no use to anyone else.
    pub scratch: [u64; SCRATCH_WORDS],
}

/// Words of [`PerCpu::scratch`].
pub const SCRATCH_WORDS: usize = 40;

/// Packets that one generation has classified, on one CPU.
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
pub struct GenerationCount {
    /// Egress packets whose prediction came from this generation.
    pub packets: u64,
    /// The generation that owns the slot now.
    pub generation: u32,
    /// Explicit padding.
    pub _pad: u32,
}

const _: () = assert!(size_of::<GenerationCount>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_indices_dense() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
            assert_eq!(
                Counter::ALL
                    .iter()
                    .filter(|c| c.name() == counter.name())
                    .count(),
                1
            );
        }
    }

    #[test]
    fn a_skip_is_the_counter_of_the_same_name() {
        assert_eq!(
            Counter::ALL[Skip::LaterFragment as usize].name(),
            "skip_later_fragment"
        );
        assert_eq!(
            Counter::ALL[Skip::NoSettings as usize].name(),
            "skip_no_settings"
        );
    }
}
