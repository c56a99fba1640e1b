//! Bands, cut points, and how a band becomes `skb->priority`.

/// Number of bands; band 0 is served first.
///
/// HTB's `prio` has eight levels (`TC_HTB_NUMPRIO`, kernel 6.18 `include/uapi/linux/pkt_sched.h`).
pub const BANDS: usize = 8;

/// Major number of treeline's root qdisc: `7e:` in `tc`.
pub const QDISC_MAJOR: u16 = 0x7e;

/// Bytes at the start of every message that go in the top band, whatever the prediction.
pub const FIRST_BYTES: u32 = 15_000;

/// Default cut points, bytes: a message larger than `cuts[i]` belongs in band `i + 1` or below.
///
/// They are dense where most bytes of a mixed uplink are, so that services of unlike sizes meet in
/// different bands (`docs/decisions/0001-cuts.md`).
pub const DEFAULT_CUTS_BYTES: [u32; BANDS - 1] = [
    15_000, 40_000, 120_000, 600_000, 1_500_000, 3_000_000, 6_000_000,
];

/// Cut points between bands, bytes, ascending.
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
pub struct Cuts {
    /// `bytes[i]` is the largest message of band `i`.
    pub bytes: [u32; BANDS - 1],
    /// Explicit padding.
    pub _pad: u32,
}

impl Cuts {
    /// Band of a message of `bytes` bytes: the number of cut points it exceeds.
    #[inline(always)]
    pub fn band_of(&self, bytes: u64) -> u8 {
        let bytes = if bytes > u32::MAX as u64 {
            u32::MAX as u64
        } else {
            bytes
        };
        let mut band = 0;
        for cut in &self.bytes {
            // Bit 32 of the difference is the comparison, without a branch: seven branches would
            // be 128 paths for the verifier, at each use.
            band += (u64::from(*cut).wrapping_sub(bytes) >> 32) & 1;
        }
        band as u8
    }
}

impl Cuts {
    /// The largest size that is in `band`.
    #[inline(always)]
    pub fn end_of(&self, band: u8) -> u32 {
        self.bytes
            .get(usize::from(band))
            .copied()
            .unwrap_or(u32::MAX)
    }
}

impl Default for Cuts {
    fn default() -> Self {
        Self {
            bytes: DEFAULT_CUTS_BYTES,
            _pad: 0,
        }
    }
}

/// `skb->priority` that selects the class of `band` below treeline's qdisc.
///
/// HTB takes a priority whose major number is its own handle as a class id
/// (`htb_classify`, kernel 6.18 `net/sched/sch_htb.c`). Minor numbers start at 1.
#[inline(always)]
pub const fn class_handle(band: u8) -> u32 {
    ((QDISC_MAJOR as u32) << 16) | (band as u32 + 1)
}

/// The class of every band below treeline's qdisc.
///
/// `prio` and `ets` read such a priority as HTB does (`prio_classify`, kernel 6.18
/// `net/sched/sch_prio.c`; `ets_classify`, `net/sched/sch_ets.c`).
pub const fn class_handles() -> [u32; BANDS] {
    let mut handles = [0; BANDS];
    let mut band = 0;
    while band < BANDS {
        handles[band] = class_handle(band as u8);
        band += 1;
    }
    handles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_at_a_cut_stays_above_it() {
        let cuts = Cuts::default();
        assert_eq!(cuts.band_of(0), 0);
        assert_eq!(cuts.band_of(15_000), 0);
        assert_eq!(cuts.band_of(15_001), 1);
        assert_eq!(cuts.band_of(u64::MAX), 7);
    }

    #[test]
    fn first_bytes_end_at_the_first_cut() {
        assert_eq!(FIRST_BYTES, DEFAULT_CUTS_BYTES[0]);
    }

    #[test]
    fn handles_are_what_tc_prints() {
        assert_eq!(class_handle(0), 0x007e_0001);
        assert_eq!(class_handle(7), 0x007e_0008);
    }
}
