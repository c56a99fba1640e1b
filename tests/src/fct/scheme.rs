//! The schemes that are compared, and what each sets up.

use anyhow::Result;
use bed::{
    agent::Treeline,
    beds::Bed,
    netns::UPLINK,
    scheme::{BANDS_BASE, Shaper},
    traffic::{Counted, Mark, Marking},
};
use clap::ValueEnum;
use scheduler_common::class::{BANDS, Cuts};
use serde::Serialize;

use crate::options::BedKind;

/// Who decides which packet goes next.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scheme {
    /// One queue in order of arrival.
    Fifo,
    /// The kernel's three bands by TOS, which nobody sets here.
    PfifoFast,
    /// The kernel program without a model, two bands: up to 100 KB sent, and beyond.
    #[value(name = "aging-100k")]
    #[serde(rename = "aging-100k")]
    Aging100k,
    /// The kernel program without a model, with treeline's default cut points.
    AgingDefault,
    /// The kernel program without a model, with the best cut points for the workload's sizes.
    Aging,
    /// The kernel program with the model that the agent learned, and the agent.
    Treeline,
    /// Bands by each message's size, known at its start, with the best cut points.
    Oracle,
    /// Bands by each message's remaining bytes.
    OracleSrpt,
}

impl Scheme {
    /// In the order of tables.
    pub(crate) const ALL: [Self; 8] = [
        Self::Fifo,
        Self::PfifoFast,
        Self::Aging100k,
        Self::AgingDefault,
        Self::Aging,
        Self::Treeline,
        Self::Oracle,
        Self::OracleSrpt,
    ];
    /// Those of the short form.
    pub(crate) const QUICK: [Self; 4] = [Self::Fifo, Self::Aging, Self::Treeline, Self::Oracle];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::PfifoFast => "pfifo-fast",
            Self::Aging100k => "aging-100k",
            Self::AgingDefault => "aging-default",
            Self::Aging => "aging",
            Self::Treeline => "treeline",
            Self::Oracle => "oracle",
            Self::OracleSrpt => "oracle-srpt",
        }
    }

    /// Whether the treeline binary is needed.
    pub(crate) const fn needs_treeline(self) -> bool {
        matches!(
            self,
            Self::Aging100k | Self::AgingDefault | Self::Aging | Self::Treeline
        )
    }
}

/// Cut points for one workload at one load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuned {
    pub(crate) aging: Cuts,
    pub(crate) oracle: Cuts,
    /// 100 KB, scaled.
    pub(crate) two_bands: Cuts,
}

impl Tuned {
    /// Cut points that a scheme runs with, as far as the bench decides.
    pub(crate) fn of(&self, scheme: Scheme) -> Option<Cuts> {
        match scheme {
            Scheme::Fifo | Scheme::PfifoFast | Scheme::Treeline => None,
            Scheme::Aging100k => Some(self.two_bands),
            Scheme::AgingDefault => Some(Cuts::default()),
            Scheme::Aging => Some(self.aging),
            Scheme::Oracle | Scheme::OracleSrpt => Some(self.oracle),
        }
    }
}

/// What stands on the uplink while a scheme is measured; dropping it clears the uplink.
pub(crate) enum Standing<'a> {
    Shaper {
        _shaper: Shaper<'a>,
        marking: Option<Marking>,
    },
    Programs(&'a Treeline<'a>),
}

impl Standing<'_> {
    pub(crate) const fn marking(&self) -> Option<Marking> {
        match self {
            Self::Shaper { marking, .. } => *marking,
            Self::Programs(_) => None,
        }
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        if let Self::Programs(treeline) = self {
            // The bed goes next; a failure here must not hide the first one.
            drop(treeline.down());
        }
    }
}

/// Sets up a scheme that needs no agent.
///
/// # Errors
/// When `tc` or the treeline binary refuses.
pub(crate) fn set_up<'a>(
    scheme: Scheme,
    bed: &'a Bed,
    rate_bps: u64,
    tuned: &Tuned,
    treeline: &'a Treeline<'a>,
) -> Result<Standing<'a>> {
    let uplink = bed.shaped();
    let plain = |shaper| Standing::Shaper {
        _shaper: shaper,
        marking: None,
    };
    Ok(match scheme {
        Scheme::Fifo => plain(Shaper::fifo(uplink, rate_bps)?),
        Scheme::PfifoFast => plain(Shaper::pfifo_fast(uplink, rate_bps)?),
        Scheme::Oracle => oracle(bed, rate_bps, tuned.oracle, Counted::Whole)?,
        Scheme::OracleSrpt => oracle(bed, rate_bps, tuned.oracle, Counted::Remaining)?,
        Scheme::Aging100k | Scheme::AgingDefault | Scheme::Aging | Scheme::Treeline => {
            let cuts = tuned.of(scheme).unwrap_or_default();
            treeline.up_with_cuts(cuts)?;
            Standing::Programs(treeline)
        }
    })
}

fn oracle(bed: &Bed, rate_bps: u64, cuts: Cuts, counted: Counted) -> Result<Standing<'_>> {
    let shaper = Shaper::bands(bed.shaped(), rate_bps)?;
    let mark = if bed.router.is_some() {
        shaper.read_dscp()?;
        Mark::Dscp
    } else {
        Mark::Priority(BANDS_BASE)
    };
    Ok(Standing::Shaper {
        _shaper: shaper,
        marking: Some(Marking::BySize {
            cuts,
            mark,
            counted,
        }),
    })
}

/// A scheme's settings in words and commands, for the report.
pub(crate) fn describe(scheme: Scheme, bed: BedKind, rate_bps: u64) -> Vec<String> {
    let rate = format!("{rate_bps}bit");
    let one = |leaf: &str| {
        vec![
            format!("tc qdisc replace dev {UPLINK} root handle 7d: htb default 1"),
            format!(
                "tc class add dev {UPLINK} parent 7d: classid 7d:1 htb rate {rate} ceil {rate} \
                 burst 16000 cburst 16000 quantum 60000"
            ),
            format!("tc qdisc add dev {UPLINK} parent 7d:1 {leaf}"),
        ]
    };
    let bands = format!(
        "treeline's HTB 7e: at {rate}: {BANDS} classes in strict priority, each sure of a hundredth, pfifo leaves of 125 packets"
    );
    match scheme {
        Scheme::Fifo => one("pfifo limit 1000"),
        Scheme::PfifoFast => one("pfifo_fast"),
        Scheme::Aging100k | Scheme::AgingDefault | Scheme::Aging => vec![
            bands,
            format!("treeline up {UPLINK} --rate {rate} --model none, cut points as listed"),
        ],
        Scheme::Treeline => vec![
            bands,
            format!("treeline run {UPLINK} --rate {rate}, with the model learned before"),
        ],
        Scheme::Oracle | Scheme::OracleSrpt => vec![
            bands,
            match bed {
                BedKind::Host => "the server marks by SO_PRIORITY".to_owned(),
                BedKind::Router => {
                    "the server marks by DSCP, u32 filters on the router read it".to_owned()
                }
            },
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_has_one_name_and_says_what_it_sets() {
        for (place, scheme) in Scheme::ALL.into_iter().enumerate() {
            let value = scheme.to_possible_value().unwrap();
            assert_eq!(value.get_name(), scheme.name());
            assert_eq!(serde_json::to_value(scheme).unwrap(), scheme.name());
            assert!(
                Scheme::ALL[..place]
                    .iter()
                    .all(|other| other.name() != scheme.name())
            );
            for bed in [BedKind::Host, BedKind::Router] {
                assert!(!describe(scheme, bed, 200_000_000).is_empty());
            }
        }
    }
}
