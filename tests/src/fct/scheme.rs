//! The schemes that are compared, and what each sets up.

use anyhow::{Result, ensure};
use bed::{
    agent::Treeline,
    beds::Bed,
    netns::UPLINK,
    peers::{Guard, Kernel, Peer, Plan, PortRule, Rank},
    scheme::{BANDS_BASE, Shaper},
    traffic::{Counted, MARKED_SERVICES, Mark, Marking},
    workload::{FIRST_PORT, Service, Usually},
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
    /// HTB classes by fixed ports, as a careful administrator writes them.
    PortRules,
    /// Two heuristics of qosify.
    Qosify,
    /// fq_codel, where the kernel has it.
    FqCodel,
    /// fq, where the kernel has it.
    Fq,
    /// CAKE without classes, where the kernel has it.
    CakeBesteffort,
    /// CAKE with four tins, servers marking by service, where the kernel has it.
    #[value(name = "cake-diffserv4")]
    #[serde(rename = "cake-diffserv4")]
    CakeDiffserv4,
    /// sch_prio by the same ports, where the kernel has it.
    Prio,
    /// ets by the same ports, where the kernel has it.
    Ets,
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
    pub(crate) const ALL: [Self; 16] = [
        Self::Fifo,
        Self::PfifoFast,
        Self::PortRules,
        Self::Qosify,
        Self::FqCodel,
        Self::Fq,
        Self::CakeBesteffort,
        Self::CakeDiffserv4,
        Self::Prio,
        Self::Ets,
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
            Self::PortRules => "port-rules",
            Self::Qosify => "qosify",
            Self::FqCodel => "fq-codel",
            Self::Fq => "fq",
            Self::CakeBesteffort => "cake-besteffort",
            Self::CakeDiffserv4 => "cake-diffserv4",
            Self::Prio => "prio",
            Self::Ets => "ets",
            Self::Aging100k => "aging-100k",
            Self::AgingDefault => "aging-default",
            Self::Aging => "aging",
            Self::Treeline => "treeline",
            Self::Oracle => "oracle",
            Self::OracleSrpt => "oracle-srpt",
        }
    }

    /// The kernel's own discipline that it is, if it is one.
    pub(crate) const fn peer(self) -> Option<Peer> {
        Some(match self {
            Self::PortRules => Peer::PortRules,
            Self::Qosify => Peer::Qosify,
            Self::FqCodel => Peer::FqCodel,
            Self::Fq => Peer::Fq,
            Self::CakeBesteffort => Peer::CakeBesteffort,
            Self::CakeDiffserv4 => Peer::CakeDiffserv4,
            Self::Prio => Peer::Prio,
            Self::Ets => Peer::Ets,
            _ => return None,
        })
    }

    /// Whether every kernel has it; the others run where they are asked for.
    pub(crate) const fn is_everywhere(self) -> bool {
        matches!(self.peer(), None | Some(Peer::PortRules | Peer::Qosify))
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
    /// What an administrator writes rules for.
    pub(crate) services: &'static [Service],
}

impl Tuned {
    /// Cut points that a scheme runs with, as far as the bench decides.
    pub(crate) fn of(&self, scheme: Scheme) -> Option<Cuts> {
        match scheme {
            Scheme::Fifo
            | Scheme::PfifoFast
            | Scheme::PortRules
            | Scheme::Qosify
            | Scheme::FqCodel
            | Scheme::Fq
            | Scheme::CakeBesteffort
            | Scheme::CakeDiffserv4
            | Scheme::Prio
            | Scheme::Ets
            | Scheme::Treeline => None,
            Scheme::Aging100k => Some(self.two_bands),
            Scheme::AgingDefault => Some(Cuts::default()),
            Scheme::Aging => Some(self.aging),
            Scheme::Oracle | Scheme::OracleSrpt => Some(self.oracle),
        }
    }

    /// A careful administrator's rules for the workload's ports.
    fn rules(&self) -> Vec<PortRule> {
        (FIRST_PORT..)
            .zip(self.services)
            .map(|(port, service)| PortRule {
                port,
                rank: match service.usually {
                    Usually::Interactive => Rank::Interactive,
                    Usually::Ordinary => Rank::Normal,
                    Usually::Bulk => Rank::Bulk,
                },
            })
            .collect()
    }

    /// The same administrator's marks, by RFC 4594: low-latency data AF21, bulk CS1, the rest unmarked.
    fn marks(&self) -> Marking {
        let mut marks = [0; MARKED_SERVICES];
        for (mark, service) in marks.iter_mut().zip(self.services) {
            *mark = match service.usually {
                Usually::Interactive => 0x48,
                Usually::Ordinary => 0,
                Usually::Bulk => 0x20,
            };
        }
        Marking::ByService(marks)
    }
}

/// What stands on the uplink while a scheme is measured; dropping it clears the uplink.
pub(crate) enum Standing<'a> {
    Shaper {
        _shaper: Shaper<'a>,
        marking: Option<Marking>,
    },
    Programs(&'a Treeline<'a>),
    Peer {
        _guard: Guard<'a>,
        marking: Option<Marking>,
    },
}

impl Standing<'_> {
    pub(crate) const fn marking(&self) -> Option<Marking> {
        match self {
            Self::Shaper { marking, .. } | Self::Peer { marking, .. } => *marking,
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
    if let Some(peer) = scheme.peer() {
        let rules = tuned.rules();
        let plan = plan(peer, rate_bps, &rules)?;
        let guard = plan.install(uplink, UPLINK)?;
        return Ok(Standing::Peer {
            _guard: guard,
            marking: peer.reads_marks().then(|| tuned.marks()),
        });
    }
    let plain = |shaper| Standing::Shaper {
        _shaper: shaper,
        marking: None,
    };
    Ok(match scheme {
        Scheme::Fifo => plain(Shaper::fifo(uplink, rate_bps)?),
        Scheme::PfifoFast => plain(Shaper::pfifo_fast(uplink, rate_bps)?),
        Scheme::Oracle => oracle(bed, rate_bps, tuned.oracle, Counted::Whole)?,
        Scheme::OracleSrpt => oracle(bed, rate_bps, tuned.oracle, Counted::Remaining)?,
        _ => {
            let cuts = tuned.of(scheme).unwrap_or_default();
            treeline.up_with_cuts(cuts)?;
            Standing::Programs(treeline)
        }
    })
}

fn plan(peer: Peer, rate_bps: u64, rules: &[PortRule]) -> Result<Plan<'_>> {
    let kernel = Kernel::ask()?;
    ensure!(
        peer.is_there(kernel),
        "this kernel has no {}; leave it out of --schemes",
        peer.name()
    );
    Ok(Plan {
        peer,
        rate_bps,
        rules,
        kernel,
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
///
/// # Errors
/// When the kernel lacks it, or can't be asked.
pub(crate) fn describe(
    scheme: Scheme,
    bed: BedKind,
    rate_bps: u64,
    tuned: &Tuned,
) -> Result<Vec<String>> {
    if let Some(peer) = scheme.peer() {
        let mut commands = plan(peer, rate_bps, &tuned.rules())?.commands(UPLINK);
        if peer.reads_marks() {
            commands.push("the server marks by service: interactive AF21, bulk CS1".to_owned());
        }
        return Ok(commands);
    }
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
        "treeline's HTB 7e: at {rate}: {BANDS} classes in strict priority, the second and the last sure of a hundredth, pfifo leaves that hold 30 ms"
    );
    Ok(match scheme {
        Scheme::Fifo => one("pfifo limit 1000"),
        Scheme::PfifoFast => one("pfifo_fast"),
        Scheme::Aging100k | Scheme::AgingDefault | Scheme::Aging => vec![
            bands,
            format!("treeline up {UPLINK} --rate {rate} --model none, cut points as listed"),
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
        _ => vec![
            bands,
            format!("treeline run {UPLINK} --rate {rate}, with the model learned before"),
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scheme_has_one_name_and_says_what_it_sets() {
        let tuned = Tuned {
            aging: Cuts::default(),
            oracle: Cuts::default(),
            two_bands: Cuts::default(),
            services: bed::workload::WORKLOADS[0].services,
        };
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
                if scheme.is_everywhere() {
                    let settings = describe(scheme, bed, 200_000_000, &tuned).unwrap();
                    assert!(!settings.is_empty());
                }
            }
        }
    }
}
