//! Facts of an interface, and what ingress may do beyond watching.

use crate::class::BANDS;

/// What the programs must know of one interface; those without an entry have none of it.
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
pub struct Interface {
    /// Interface in whose name flows are kept. The IFB that shapes a downlink bears the downlink's, so
    /// that both directions of a flow meet in one entry.
    pub key_ifindex: u32,
    /// Bits of [`interface_flags`].
    pub flags: u32,
}

const _: () = assert!(size_of::<Interface>() == 8 && align_of::<Interface>() == 4);

/// Bits of [`Interface::flags`].
pub mod interface_flags {
    /// Frames begin with the network header: tun, wireguard, PPP.
    pub const NETWORK_FRAMES: u32 = 1;
    /// Ingress packets are handed to a CPU by their band.
    pub const STEER: u32 = 2;
    /// Ingress packets carry their band in front of them as [`super::Metadata`].
    pub const METADATA: u32 = 4;
    /// Ingress packets beyond the rate of their band are dropped.
    pub const POLICE: u32 = 8;
}

/// What lies between `data_meta` and `data` of an ingress packet; TC programs read it there.
///
/// The kernel merges packets of a flow (GRO) only where these bytes are alike, so a flow whose band falls
/// makes one super-packet more.
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
pub struct Metadata {
    /// [`METADATA_MAGIC`].
    pub magic: u32,
    /// [`METADATA_VERSION`].
    pub version: u8,
    /// The packet's band; 0 is served first.
    pub band: u8,
    /// Explicit padding.
    pub _pad: [u8; 2],
}

const _: () = assert!(size_of::<Metadata>() == 8 && align_of::<Metadata>() == 4);

/// Tells [`Metadata`] from what other programs leave there: "TLNE".
pub const METADATA_MAGIC: u32 = 0x544c_4e45;
/// Layout of [`Metadata`].
pub const METADATA_VERSION: u8 = 1;

/// One band's rate limit on ingress, a token bucket kept as the time at which it will be full again.
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
pub struct Policer {
    /// Time that a byte takes at this rate, 16 binary places; 0 is no limit.
    pub ns_per_byte_q16: u64,
    /// How far ahead of its rate the band may be.
    pub burst_ns: u64,
    /// Monotonic clock: up to here the rate is spoken for.
    pub spent_until_ns: u64,
}

const _: () = assert!(size_of::<Policer>() == 24 && align_of::<Policer>() == 8);

impl Policer {
    /// The limit of so many bits per second, with a burst of so many bytes.
    pub fn new(rate_bps: u64, burst_bytes: u64) -> Self {
        let rate = u128::from(if rate_bps == 0 { 1 } else { rate_bps });
        let saturated = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        Self {
            ns_per_byte_q16: saturated(((8_000_000_000 << 16) / rate).max(1)),
            burst_ns: saturated(u128::from(burst_bytes) * 8_000_000_000 / rate),
            spent_until_ns: 0,
        }
    }

    /// Time that so many bytes take.
    #[inline(always)]
    pub const fn cost_ns(&self, bytes: u64) -> u64 {
        self.ns_per_byte_q16.wrapping_mul(bytes) >> 16
    }
}

/// The CPUs among which a group of bands is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Group {
    /// Bands below [`FIRST_BULK_BAND`].
    Urgent = 0,
    /// The others.
    Bulk = 1,
}

/// The first band of [`Group::Bulk`].
pub const FIRST_BULK_BAND: u8 = 4;

/// Entries that a group has in the table of CPUs: a flow's hash picks one, so that no division is needed.
pub const STEER_SLOTS: u32 = 64;

macro_rules! ingress_counters {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal,)+) => {
        /// Index in the per-CPU map of what ingress did.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum IngressCounter {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl IngressCounter {
            /// All counters in index order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Name in `status` and in metrics.
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

ingress_counters! {
    /// Ingress packets dropped because band 0 was beyond its rate.
    PolicedBand0 => "policed_band_0",
    /// Ingress packets dropped because band 1 was beyond its rate.
    PolicedBand1 => "policed_band_1",
    /// Ingress packets dropped because band 2 was beyond its rate.
    PolicedBand2 => "policed_band_2",
    /// Ingress packets dropped because band 3 was beyond its rate.
    PolicedBand3 => "policed_band_3",
    /// Ingress packets dropped because band 4 was beyond its rate.
    PolicedBand4 => "policed_band_4",
    /// Ingress packets dropped because band 5 was beyond its rate.
    PolicedBand5 => "policed_band_5",
    /// Ingress packets dropped because band 6 was beyond its rate.
    PolicedBand6 => "policed_band_6",
    /// Ingress packets dropped because band 7 was beyond its rate.
    PolicedBand7 => "policed_band_7",
    /// Ingress packets handed to a CPU of the urgent group.
    SteeredUrgent => "steered_urgent",
    /// Ingress packets handed to a CPU of the bulk group.
    SteeredBulk => "steered_bulk",
    /// Ingress packets that stayed on their CPU because the chosen one is not to be had.
    SteerFailed => "steer_failed",
    /// Ingress packets that carry their band.
    MetadataSet => "metadata_set",
    /// Ingress packets whose driver has no room for metadata.
    MetadataFailed => "metadata_failed",
}

impl IngressCounter {
    /// Number of counters.
    pub const COUNT: usize = Self::ALL.len();
}

const _: () = assert!(IngressCounter::PolicedBand7 as usize == BANDS - 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policer_counts_in_the_time_that_bytes_take() {
        let policer = Policer::new(8_000_000, 10_000);
        assert_eq!(policer.cost_ns(1), 1_000);
        assert_eq!(policer.cost_ns(1_500), 1_500_000);
        assert_eq!(policer.burst_ns, 10_000_000);
        let fast = Policer::new(100_000_000_000, 1);
        // 0.08 ns a byte: the rounding is far below what a rate is told by.
        assert!((119..=120).contains(&fast.cost_ns(1_500)));
        assert!(
            Policer::new(u64::MAX, 0).ns_per_byte_q16 > 0,
            "0 is no limit"
        );
        assert!(Policer::new(8_000, 0).cost_ns(65_535) > 65_000_000_000);
    }

    #[test]
    fn names_are_unique_and_indices_dense() {
        for (index, counter) in IngressCounter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
            let alike = IngressCounter::ALL
                .iter()
                .filter(|other| other.name() == counter.name());
            assert_eq!(alike.count(), 1);
        }
    }
}
