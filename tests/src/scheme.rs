//! What stands on the uplink: FIFO, aging, treeline, or the oracle.

use std::{collections::BTreeMap, num::NonZeroU8};

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use nix::net::if_::if_nametoindex;
use scheduler_common::class::{BANDS, Cuts, QDISC_MAJOR, class_handle};
use serde::{Deserialize, Serialize};
use tokio::runtime::Builder;
use treeline::qdisc;

use crate::{
    netns::{Namespace, UPLINK},
    traffic::Marking,
};

const FIFO_MAJOR: u16 = 0x7d;
/// A band's class handle is this and the band, counted from one.
pub const BANDS_BASE: u32 = class_handle(0) - 1;

/// Who decides which packet goes next.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// One queue in order of arrival.
    Fifo,
    /// The kernel program without a model: priority by bytes sent so far.
    Aging,
    /// The kernel program with the model that the agent learned.
    Treeline,
    /// The sender tells each message's size at its start.
    Oracle,
}

impl Scheme {
    /// In the order of tables.
    pub const ALL: [Self; 4] = [Self::Fifo, Self::Aging, Self::Treeline, Self::Oracle];

    /// Name for tables and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Aging => "aging",
            Self::Treeline => "treeline",
            Self::Oracle => "oracle",
        }
    }
}

/// The oracle's class for a reply, with the cut points that treeline uses; counted from one.
#[must_use]
pub fn oracle_band(reply_bytes: u64) -> NonZeroU8 {
    NonZeroU8::MIN.saturating_add(Cuts::default().band_of(reply_bytes))
}

/// How the oracle's server marks a reply: by the handle of the band's class.
#[must_use]
pub const fn oracle_marking() -> Marking {
    Marking::ByRequest { base: BANDS_BASE }
}

/// A hierarchy set up by the bed itself; dropping it clears the uplink.
#[derive(Debug)]
pub struct Shaper<'a> {
    namespace: &'a Namespace,
}

impl<'a> Shaper<'a> {
    /// One queue at the given rate.
    ///
    /// # Errors
    ///
    /// When `tc` fails.
    pub fn fifo(namespace: &'a Namespace, rate_bps: u64) -> Result<Self> {
        let limit = Self::plan(rate_bps).limit_packets * BANDS as u32;
        Self::one_class(namespace, rate_bps, &format!("pfifo limit {limit}"))
    }

    /// The kernel's `pfifo_fast` behind a limiter, its three bands by `skb->priority` as applications and the
    /// TOS byte set it. Each holds as many packets as the device's transmit queue length says.
    ///
    /// # Errors
    ///
    /// When `tc` fails.
    pub fn pfifo_fast(namespace: &'a Namespace, rate_bps: u64) -> Result<Self> {
        Self::one_class(namespace, rate_bps, "pfifo_fast")
    }

    fn one_class(namespace: &'a Namespace, rate_bps: u64, leaf: &str) -> Result<Self> {
        namespace.tc(&format!(
            "qdisc replace dev {UPLINK} root handle {FIFO_MAJOR:x}: htb default 1"
        ))?;
        let shaper = Self { namespace };
        namespace.tc(&format!(
            "class add dev {UPLINK} parent {FIFO_MAJOR:x}: classid {FIFO_MAJOR:x}:1 htb \
             rate {rate_bps}bit ceil {rate_bps}bit burst 16000 cburst 16000 quantum 60000"
        ))?;
        namespace.tc(&format!(
            "qdisc add dev {UPLINK} parent {FIFO_MAJOR:x}:1 {leaf}"
        ))?;
        Ok(shaper)
    }

    /// The very hierarchy that treeline builds, without its program.
    ///
    /// # Errors
    ///
    /// When the kernel refuses it.
    pub fn bands(namespace: &'a Namespace, rate_bps: u64) -> Result<Self> {
        let shaper = Self { namespace };
        namespace.enter(|| {
            let ifindex = if_nametoindex(UPLINK)?;
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(qdisc::install(ifindex, &Self::plan(rate_bps)))?;
            Ok(())
        })?;
        Ok(shaper)
    }

    /// Lets the hierarchy of [`Self::bands`] read bands from the DSCP, counted from one, as
    /// [`crate::traffic::Mark::Dscp`] writes them: a router sees no `SO_PRIORITY`.
    ///
    /// # Errors
    ///
    /// When `tc` fails.
    pub fn read_dscp(&self) -> Result<()> {
        for band in 1..=BANDS {
            self.namespace.tc(&format!(
                "filter add dev {UPLINK} parent {major:x}: protocol ip prio 1 u32 \
                 match ip tos {:#04x} 0xfc flowid {major:x}:{band}",
                band << 2,
                major = QDISC_MAJOR
            ))?;
        }
        Ok(())
    }

    fn plan(rate_bps: u64) -> qdisc::Plan {
        qdisc::Plan::new(rate_bps)
    }
}

impl Drop for Shaper<'_> {
    fn drop(&mut self) {
        // The namespace is going to be removed anyway; a failure here must not hide another.
        drop(self.namespace.tc(&format!("qdisc del dev {UPLINK} root")));
    }
}

/// What the leaves of the uplink's hierarchy have counted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Queues {
    /// Packets sent by each leaf, in the order of their classes.
    pub packets: Vec<u64>,
    /// Packets dropped by all leaves.
    pub drops: u64,
    /// Bytes waiting now.
    pub backlog_bytes: u64,
}

impl Queues {
    /// What was counted since an earlier look at the same hierarchy.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let before = earlier.packets.iter().copied().chain(std::iter::repeat(0));
        Self {
            packets: self
                .packets
                .iter()
                .zip(before)
                .map(|(now, then)| now - then.min(*now))
                .collect(),
            drops: self.drops.saturating_sub(earlier.drops),
            backlog_bytes: self.backlog_bytes,
        }
    }
}

/// Reads the leaves' counters of whatever HTB stands on the uplink.
///
/// # Errors
///
/// When `tc` fails or answers in another form.
pub fn queues(namespace: &Namespace) -> Result<Queues> {
    parse_queues(&namespace.tc(&format!("-s -j qdisc show dev {UPLINK}"))?)
}

#[derive(Deserialize)]
struct Listed {
    kind: String,
    parent: Option<String>,
    packets: u64,
    drops: u64,
    backlog: u64,
}

fn parse_queues(json: &str) -> Result<Queues> {
    let listed: Vec<Listed> = serde_json::from_str(json).context("cannot read tc's answer")?;
    let mut leaves = BTreeMap::new();
    for qdisc in listed {
        let minor = qdisc
            .parent
            .as_deref()
            .and_then(|parent| parent.split_once(':')?.1.parse().ok())
            // It shapes by itself and has no leaves.
            .or_else(|| (qdisc.kind == "cake").then_some(0));
        if let Some(minor) = minor {
            let minor: u16 = minor;
            leaves.insert(minor, qdisc);
        }
    }
    Ok(Queues {
        packets: leaves.values().map(|leaf| leaf.packets).collect(),
        drops: leaves.values().map(|leaf| leaf.drops).sum(),
        backlog_bytes: leaves.values().map(|leaf| leaf.backlog).sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Bed;

    #[test]
    fn the_oracle_names_classes_from_one() {
        assert_eq!(oracle_band(1).get(), 1);
        assert_eq!(oracle_band(15_001).get(), 2);
        assert_eq!(oracle_band(u64::MAX).get(), 8);
        assert_eq!(BANDS_BASE + 8, 0x007e_0008);
    }

    #[test]
    fn cake_is_its_own_leaf_and_no_queue_is_none() {
        let root = |kind: &str| {
            format!(r#"[{{"kind":"{kind}","root":true,"packets":7,"drops":2,"backlog":30}}]"#)
        };
        let cake = parse_queues(&root("cake")).unwrap();
        assert_eq!(
            (cake.packets, cake.drops, cake.backlog_bytes),
            (vec![7], 2, 30)
        );
        assert_eq!(parse_queues(&root("noqueue")).unwrap(), Queues::default());
    }

    #[test]
    fn leaves_are_read_in_the_order_of_their_classes() {
        let bed = Bed::host().unwrap();
        let shaper = Shaper::bands(&bed.server, 100_000_000).unwrap();
        // The kernel's own neighbour discovery may have sent a packet by now.
        assert_eq!(queues(&bed.server).unwrap().packets.len(), BANDS);
        drop(shaper);
        let shaper = Shaper::fifo(&bed.server, 100_000_000).unwrap();
        assert_eq!(queues(&bed.server).unwrap().packets.len(), 1);
        drop(shaper);
        assert_eq!(queues(&bed.server).unwrap(), Queues::default());
    }
}
