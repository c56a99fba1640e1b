//! What hierarchy is wanted on an interface.

use std::ops::RangeInclusive;

use super::{MAX_BANDS, MIN_RATE_BPS, QdiscError};

/// What a pfifo leaf holds unless the plan says otherwise: full packets that the link carries in this time, within bounds. On
/// a fast link a leaf that overflows costs more than one that is long, for bands are strict and only bulk waits in a long
/// one; on a slow link it would wait for seconds (decision 0014).
const LEAF_MS: u64 = 30;
const FULL_PACKET_BITS: u64 = 1500 * 8;
const LEAF_PACKETS: RangeInclusive<u64> = 125..=1000;
/// What the second and the last band get at least, unless the plan says otherwise: short messages end in the one, and what is
/// in the other waits for all.
const OUTER_GUARANTEE: Guarantee = Guarantee {
    divisor: 100,
    least_bps: 64_000,
};
/// The same for the bands between: enough that no connection dies, and no more. HTB serves what a band is sure of before
/// what a higher one borrows, so the first packet that a flow sends in its next band overtakes those that wait in the one
/// before, and TCP sends the latter again (decision 0014).
const INNER_GUARANTEE: Guarantee = Guarantee {
    divisor: 4_000,
    least_bps: 8_000,
};
const MIN_GUARANTEE_BPS: u64 = 1_000;

/// A share of the link, and what it is at least.
struct Guarantee {
    divisor: u64,
    least_bps: u64,
}

/// The queue that each band gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LeafChoice {
    /// `fq_codel` where the kernel has it, else `pfifo`.
    #[default]
    Auto,
    /// First in, first out, with a limit in packets.
    Pfifo,
    /// Fair among flows, limits itself by delay.
    FqCodel,
}

impl LeafChoice {
    /// Kinds to try, the best first.
    pub(super) fn candidates(self) -> &'static [&'static str] {
        match self {
            Self::Auto => &["fq_codel", "pfifo"],
            Self::Pfifo => &["pfifo"],
            Self::FqCodel => &["fq_codel"],
        }
    }
}

/// The hierarchy that [`install`](super::install) makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// What the link carries at most, in bits per second.
    pub rate_bps: u64,
    /// Number of priorities, 1 to [`MAX_BANDS`].
    pub bands: u8,
    /// Rate that each band but the top one gets even while higher bands are busy. By default the second and the last have a
    /// hundredth of the link, at least 64 kbit/s, and those between a four-thousandth, at least 8 kbit/s; never more in sum
    /// than the link has.
    pub guaranteed_bps: Option<u64>,
    /// The queue of each band.
    pub leaf: LeafChoice,
    /// Packets that one pfifo leaf holds; fq_codel keeps the kernel's limits.
    pub limit_packets: u32,
    /// Put an administrator's root qdisc aside.
    pub replace: bool,
}

impl Plan {
    /// Eight bands at this rate, everything else by default.
    pub fn new(rate_bps: u64) -> Self {
        Self {
            rate_bps,
            bands: MAX_BANDS,
            guaranteed_bps: None,
            leaf: LeafChoice::Auto,
            limit_packets: leaf_packets(rate_bps),
            replace: false,
        }
    }

    /// The rate that a band may send at whatever goes on in the others.
    ///
    /// The top band has what the others leave. It may take as much by its priority; within its own rate it does not wait until
    /// a long packet of a lower band, which the link's class has sent on credit, is paid off.
    pub(super) fn rate_of(&self, band: u8) -> u64 {
        match band {
            0 => {
                let others: u64 = (1..self.bands).map(|band| self.guarantee_bps(band)).sum();
                self.rate_bps.saturating_sub(others)
            }
            _ => self.guarantee_bps(band),
        }
    }

    /// The rate that a band below the top one gets at least.
    fn guarantee_bps(&self, band: u8) -> u64 {
        self.guaranteed_bps.unwrap_or_else(|| {
            let is_outer = band == 1 || band + 1 == self.bands;
            let Guarantee { divisor, least_bps } = if is_outer {
                OUTER_GUARANTEE
            } else {
                INNER_GUARANTEE
            };
            let share = (self.rate_bps / divisor).max(least_bps);
            share.min(self.rate_bps / u64::from(self.bands.max(1)))
        })
    }

    pub(crate) fn check(&self) -> Result<(), QdiscError> {
        let Self {
            rate_bps, bands, ..
        } = *self;
        if !(1..=MAX_BANDS).contains(&bands) {
            return Err(QdiscError::BadBands { bands });
        }
        if rate_bps < MIN_RATE_BPS {
            return Err(QdiscError::RateTooLow { rate_bps });
        }
        // HTB serves guarantees first: beyond the rate they would break it. What is not asked for fits.
        let fits = |each| (MIN_GUARANTEE_BPS..=rate_bps / u64::from(bands)).contains(&each);
        if let Some(guaranteed_bps) = self.guaranteed_bps.filter(|each| !fits(*each)) {
            return Err(QdiscError::BadGuarantee {
                guaranteed_bps,
                bands,
                rate_bps,
            });
        }
        Ok(())
    }
}

fn leaf_packets(rate_bps: u64) -> u32 {
    let packets = rate_bps / 1000 * LEAF_MS / FULL_PACKET_BITS;
    // Within bounds that fit.
    packets.clamp(*LEAF_PACKETS.start(), *LEAF_PACKETS.end()) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_holds_what_the_link_carries_in_a_while() {
        let limit = |rate_bps| Plan::new(rate_bps).limit_packets;
        assert_eq!(limit(10_000_000), 125);
        assert_eq!(limit(100_000_000), 250);
        assert_eq!(limit(10_000_000_000), 1000);
    }

    #[test]
    fn guarantees_are_small_but_useful_and_never_more_than_the_link() {
        let sure = |plan: Plan| [1, 2, 6, 7].map(|band| plan.rate_of(band));
        assert_eq!(
            sure(Plan::new(100_000_000)),
            [1_000_000, 25_000, 25_000, 1_000_000]
        );
        assert_eq!(sure(Plan::new(1_000_000)), [64_000, 8_000, 8_000, 64_000]);
        assert_eq!(sure(Plan::new(80_000)), [10_000, 8_000, 8_000, 10_000]);
        let explicit = Plan {
            guaranteed_bps: Some(5_000),
            ..Plan::new(100_000_000)
        };
        assert_eq!(sure(explicit), [5_000; 4]);
    }

    #[test]
    fn the_top_band_has_what_the_others_leave() {
        let rates = |plan: Plan| (0..plan.bands).map(|band| plan.rate_of(band)).sum::<u64>();
        for rate_bps in [80_000, 1_000_000, 95_000_000] {
            assert_eq!(rates(Plan::new(rate_bps)), rate_bps);
        }
        assert_eq!(Plan::new(100_000_000).rate_of(0), 97_875_000);
        let one = Plan {
            bands: 1,
            ..Plan::new(100_000_000)
        };
        assert_eq!(one.rate_of(0), 100_000_000);
    }

    #[test]
    fn plans_that_htb_cannot_keep_are_refused() {
        let good = Plan::new(MIN_RATE_BPS);
        good.check().unwrap();
        for bands in [0, 9, 16] {
            let error = Plan { bands, ..good }.check().unwrap_err();
            assert!(matches!(error, QdiscError::BadBands { .. }), "{error}");
        }
        let error = Plan::new(MIN_RATE_BPS - 1).check().unwrap_err();
        assert!(matches!(error, QdiscError::RateTooLow { .. }), "{error}");
        for guaranteed_bps in [999, 1_250_001] {
            let plan = Plan {
                guaranteed_bps: Some(guaranteed_bps),
                ..Plan::new(10_000_000)
            };
            let error = plan.check().unwrap_err();
            assert!(matches!(error, QdiscError::BadGuarantee { .. }), "{error}");
        }
    }
}
