//! What stands on the uplink: plain queues, aging, treeline.

use std::fmt::{self, Display};

use anyhow::{Context as _, Result};
use bed::netns::{Namespace, UPLINK};
use clap::ValueEnum;
use serde::Serialize;

/// Packets that the FIFO holds: as many as a device's own queue.
const FIFO_PACKETS: u32 = 1000;
/// Packets that the short FIFO holds.
const SHORT_FIFO_PACKETS: u32 = 125;

/// Who decides which packet goes next.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rival {
    /// One queue with the room of all bands.
    Fifo,
    /// One queue with the room of one band, so that greedy senders meet the same limit as under treeline.
    ShortFifo,
    /// HTB over fq_codel with its own defaults.
    FqCodel,
    /// CAKE without classes.
    Cake,
    /// CAKE by DSCP.
    CakeDiffserv4,
    /// The kernel program without a model.
    Aging,
    /// The kernel program with the agent and what it has learned.
    Treeline,
    /// The kernel program without the agent, with the newest model that was learned, even if the judge did not let it act.
    Candidate,
}

impl Rival {
    /// What needs nothing that a kernel may lack.
    pub(crate) const DEFAULT: [Self; 4] =
        [Self::Fifo, Self::ShortFifo, Self::Aging, Self::Treeline];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::ShortFifo => "short-fifo",
            Self::FqCodel => "fq-codel",
            Self::Cake => "cake",
            Self::CakeDiffserv4 => "cake-diffserv4",
            Self::Aging => "aging",
            Self::Treeline => "treeline",
            Self::Candidate => "candidate",
        }
    }

    /// Whether the `treeline` binary makes it.
    pub(crate) const fn is_ours(self) -> bool {
        matches!(self, Self::Aging | Self::Treeline | Self::Candidate)
    }
}

impl Display for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A queue of the kernel's own on the uplink; dropping it clears the uplink.
#[derive(Debug)]
pub(crate) struct Queue<'a> {
    namespace: &'a Namespace,
}

impl<'a> Queue<'a> {
    /// Sets up a rival that is not ours.
    ///
    /// # Errors
    ///
    /// When the kernel lacks it.
    pub(crate) fn stand(namespace: &'a Namespace, rival: Rival, rate_bps: u64) -> Result<Self> {
        let queue = Self { namespace };
        let limit = |packets| format!("pfifo limit {packets}");
        let set = match rival {
            Rival::Fifo => queue.limited(rate_bps, &limit(FIFO_PACKETS)),
            Rival::ShortFifo => queue.limited(rate_bps, &limit(SHORT_FIFO_PACKETS)),
            Rival::FqCodel => queue.limited(rate_bps, "fq_codel"),
            Rival::Cake => queue.root(&format!("cake bandwidth {rate_bps}bit besteffort")),
            Rival::CakeDiffserv4 => queue.root(&format!("cake bandwidth {rate_bps}bit diffserv4")),
            Rival::Aging | Rival::Treeline | Rival::Candidate => {
                anyhow::bail!("{rival} is not set up by tc")
            }
        };
        set.with_context(|| format!("this kernel may lack {rival}: leave it out by --schemes"))?;
        Ok(queue)
    }

    fn root(&self, qdisc: &str) -> Result<()> {
        self.tc(&format!(
            "qdisc replace dev {UPLINK} root handle 7d: {qdisc}"
        ))
    }

    /// The burst is that of the hierarchy that treeline builds.
    fn limited(&self, rate_bps: u64, leaf: &str) -> Result<()> {
        self.root("htb default 1")?;
        self.tc(&format!(
            "class add dev {UPLINK} parent 7d: classid 7d:1 htb rate {rate_bps}bit \
             ceil {rate_bps}bit burst 16000 cburst 16000 quantum 60000"
        ))?;
        self.tc(&format!("qdisc add dev {UPLINK} parent 7d:1 {leaf}"))
    }

    fn tc(&self, arguments: &str) -> Result<()> {
        self.namespace.tc(arguments).map(drop)
    }
}

impl Drop for Queue<'_> {
    fn drop(&mut self) {
        // The namespace is going to be removed anyway; a failure here must not hide another.
        drop(self.namespace.tc(&format!("qdisc del dev {UPLINK} root")));
    }
}
