//! What hierarchy is wanted on an interface.

use super::{MAX_BANDS, MIN_RATE_BPS, QdiscError};

/// Packets that all pfifo leaves together hold unless the plan says otherwise.
const TOTAL_LIMIT_PACKETS: u32 = 1000;
/// Share of the rate that a band gets at least, unless the plan says otherwise.
const GUARANTEE_DIVISOR: u64 = 100;
const MIN_DEFAULT_GUARANTEE_BPS: u64 = 64_000;
const MIN_GUARANTEE_BPS: u64 = 1_000;

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
    /// Rate that each band gets even while higher bands are busy; by default a hundredth of the
    /// link, at least 64 kbit/s, and never more in sum than the link has.
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
            limit_packets: TOTAL_LIMIT_PACKETS / u32::from(MAX_BANDS),
            replace: false,
        }
    }

    /// The rate that a band may send at whatever goes on in the others.
    ///
    /// The top band has what the others leave. It may take as much by its priority; within its own rate it does not wait until
    /// a long packet of a lower band, which the link's class has sent on credit, is paid off.
    pub(super) fn rate_of(&self, band: u8) -> u64 {
        let each = self.guarantee_bps();
        match band {
            0 => each.max(
                self.rate_bps
                    .saturating_sub(each * u64::from(self.bands - 1)),
            ),
            _ => each,
        }
    }

    /// The rate that each band gets at least.
    pub(super) fn guarantee_bps(&self) -> u64 {
        self.guaranteed_bps.unwrap_or_else(|| {
            let share = (self.rate_bps / GUARANTEE_DIVISOR).max(MIN_DEFAULT_GUARANTEE_BPS);
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
        let guaranteed_bps = self.guarantee_bps();
        // HTB serves guarantees first: beyond the rate they would break it.
        let fits = guaranteed_bps <= rate_bps / u64::from(bands);
        if guaranteed_bps < MIN_GUARANTEE_BPS || !fits {
            return Err(QdiscError::BadGuarantee {
                guaranteed_bps,
                bands,
                rate_bps,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guarantees_are_a_hundredth_but_useful_and_never_more_than_the_link() {
        assert_eq!(Plan::new(100_000_000).guarantee_bps(), 1_000_000);
        assert_eq!(Plan::new(1_000_000).guarantee_bps(), 64_000);
        assert_eq!(Plan::new(80_000).guarantee_bps(), 10_000);
        let explicit = Plan {
            guaranteed_bps: Some(5_000),
            ..Plan::new(100_000_000)
        };
        assert_eq!(explicit.guarantee_bps(), 5_000);
    }

    #[test]
    fn the_top_band_has_what_the_others_leave() {
        let rates = |plan: Plan| (0..plan.bands).map(|band| plan.rate_of(band)).sum::<u64>();
        for rate_bps in [80_000, 1_000_000, 95_000_000] {
            assert_eq!(rates(Plan::new(rate_bps)), rate_bps);
        }
        assert_eq!(Plan::new(100_000_000).rate_of(0), 93_000_000);
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
