//! What a band does to a packet: fitted to the root qdisc, told to the programs.

use scheduler_common::{
    act::KEEP_DSCP,
    class::BANDS,
    settings::{Act, Settings, settings_flags},
};
use tracing::info;

use crate::{
    datapath::Datapath,
    instance::{Instance, Record},
    qdisc::{self, Installed, Mapping, Plan, QdiscError, RootChoice},
    uplink::{self, UplinkError, Wanted},
};

/// Lower effort (RFC 8622): what may wait for all else.
const LOWER_EFFORT: u8 = 1;

/// DSCPs that `--dscp` gives unless it is told others: the last two bands ask for less, none for more.
///
/// Networks do not trust marks from hosts that ask for more, and some police them; a mark that asks for less
/// needs no trust, and where it is not known it is ordinary traffic.
pub const DEFAULT_DSCP: [u8; BANDS] = {
    let mut dscp = [KEEP_DSCP; BANDS];
    dscp[BANDS - 2] = LOWER_EFFORT;
    dscp[BANDS - 1] = LOWER_EFFORT;
    dscp
};

/// Acts on egress that hold for all interfaces of an instance; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acts {
    /// `skb->priority` of each band, whatever the qdisc.
    pub priorities: Option<[u32; BANDS]>,
    /// DSCP of each band, or [`KEEP_DSCP`].
    pub dscp: Option<[u8; BANDS]>,
    /// Transmit queue of each band plus 1, or 0.
    pub queues: Option<[u16; BANDS]>,
    /// Pace of each band ([`scheduler_common::act::pace_of`]), or 0.
    pub pace: Option<[u32; BANDS]>,
}

impl Acts {
    /// The settings with these acts, and priorities as the qdisc reads them.
    pub fn fitted(&self, mapping: &Mapping, before: &Settings) -> Settings {
        let none = Settings::default();
        let mut flags = before.flags & !settings_flags::RARE_ACTS;
        for (asked, flag) in [
            (self.dscp.is_some(), settings_flags::DSCP),
            (self.queues.is_some(), settings_flags::QUEUES),
            (self.pace.is_some(), settings_flags::PACE),
        ] {
            if asked {
                flags |= flag;
            }
        }
        let act = if mapping.priorities.is_some() {
            Act::Priority
        } else {
            Act::FlagsOnly
        };
        Settings {
            act: act as u32,
            flags,
            priorities: mapping.priorities.unwrap_or(none.priorities),
            dscp: self.dscp.unwrap_or(none.dscp),
            queues: self.queues.unwrap_or(none.queues),
            pace: self.pace.unwrap_or(none.pace),
            ..*before
        }
    }
}

/// Makes the root that is wanted; one that is kept is only looked at.
///
/// # Errors
/// If the kernel refuses; the interface is as it was then.
pub async fn install_root(ifindex: u32, wanted: &Wanted) -> Result<Installed, QdiscError> {
    let plan = Plan {
        leaf: wanted.leaf,
        replace: wanted.replace,
        ..wanted.rate_bps.map_or_else(Plan::without_rate, Plan::new)
    };
    match wanted.root {
        RootChoice::Htb => qdisc::install(ifindex, &plan).await,
        RootChoice::Keep => Ok(Installed {
            leaf: qdisc::mapping(ifindex).await?.kind,
            saved: None,
        }),
        sorter => qdisc::install_sorter(ifindex, sorter, &plan).await,
    }
}

/// Tells the programs what the bands do on an interface; returns whether that is new to them.
///
/// # Errors
/// If the root cannot do what is asked, or other interfaces of the instance need other priorities.
pub async fn set(
    instance: &Instance,
    datapath: &Datapath,
    (interface, ifindex): (&str, u32),
    wanted: &Wanted,
) -> Result<bool, UplinkError> {
    let mapping = mapping_on(interface, ifindex, &wanted.acts).await?;
    if wanted.acts.pace.is_some() && !mapping.paces {
        return Err(UplinkError::NoPacing {
            interface: interface.to_owned(),
            kind: mapping.kind,
        });
    }
    let before = datapath.settings()?;
    if wanted.observe {
        return observe(interface, datapath, &before);
    }
    let after = wanted.acts.fitted(&mapping, &before);
    if (after.act, after.priorities) != (before.act, before.priorities) {
        check_others(instance, ifindex, &wanted.acts, &mapping).await?;
    }
    if mapping.priorities.is_none() {
        info!(
            interface,
            what = "skb->priority is left alone",
            why = mapping.described
        );
    }
    if after == before {
        return Ok(false);
    }
    datapath.set_settings(&after)?;
    info!(interface, qdisc = mapping.described, acts = ?wanted.acts, "acts set");
    Ok(true)
}

/// Tells the programs to leave every packet alone.
fn observe(interface: &str, datapath: &Datapath, before: &Settings) -> Result<bool, UplinkError> {
    if before.act == Act::Observe as u32 {
        return Ok(false);
    }
    datapath.set_act(Act::Observe)?;
    info!(
        interface,
        what = "packets are watched and left alone",
        "acts set"
    );
    Ok(true)
}

/// How bands are told to what stands on the interface.
///
/// # Errors
/// If its qdiscs can't be read.
pub async fn mapping_on(
    interface: &str,
    ifindex: u32,
    acts: &Acts,
) -> Result<Mapping, UplinkError> {
    let mapping = qdisc::mapping(ifindex)
        .await
        .map_err(|source| UplinkError::Qdisc {
            interface: interface.to_owned(),
            source,
        })?;
    Ok(match acts.priorities {
        Some(priorities) => mapping.by_hand(priorities),
        None => mapping,
    })
}

/// One table of priorities serves all interfaces of an instance: fails where another needs its own.
async fn check_others(
    instance: &Instance,
    ifindex: u32,
    acts: &Acts,
    mapping: &Mapping,
) -> Result<(), UplinkError> {
    let is_other = |record: &Record| record.ifindex != ifindex && uplink::is_present(record);
    for other in instance.records()?.into_iter().filter(is_other) {
        let theirs = mapping_on(&other.name, other.ifindex, acts).await?;
        if theirs.priorities != mapping.priorities {
            return Err(UplinkError::OtherPriorities {
                other: other.name,
                theirs: theirs.described,
                ours: mapping.described.clone(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(priorities: Option<[u32; BANDS]>) -> Mapping {
        Mapping {
            kind: "prio".to_owned(),
            priorities,
            paces: false,
            described: String::new(),
        }
    }

    #[test]
    fn what_is_not_asked_for_is_off_again() {
        let settings = Settings {
            flags: settings_flags::INNER,
            ..Settings::default()
        };
        let acts = Acts {
            dscp: Some(DEFAULT_DSCP),
            pace: Some([5; BANDS]),
            ..Acts::default()
        };
        let on = acts.fitted(&mapping(Some([9; BANDS])), &settings);
        assert_eq!(
            on.flags,
            settings_flags::INNER | settings_flags::DSCP | settings_flags::PACE
        );
        assert_eq!((on.priorities, on.dscp), ([9; BANDS], DEFAULT_DSCP));
        let off = Acts::default().fitted(&mapping(Some(settings.priorities)), &on);
        assert_eq!(off, settings);
    }

    #[test]
    fn a_priority_that_means_nothing_is_left_alone() {
        let fitted = Acts::default().fitted(&mapping(None), &Settings::default());
        assert_eq!(fitted.act, Act::FlagsOnly as u32);
    }

    #[test]
    fn marks_by_default_ask_for_less_only() {
        assert_eq!(DEFAULT_DSCP[..BANDS - 2], [KEEP_DSCP; BANDS - 2]);
        assert_eq!(DEFAULT_DSCP[BANDS - 2..], [LOWER_EFFORT; 2]);
    }
}
