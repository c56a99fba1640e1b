//! What can go wrong with the queueing hierarchy, and what to do.

use std::io;

use nix::libc;

use super::{MAX_BANDS, MIN_RATE_BPS};

/// An error of the qdisc module.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QdiscError {
    /// The interface does not exist in this network namespace.
    #[error("no interface with index {ifindex} in this network namespace: see `ip link`")]
    NoSuchInterface {
        /// The index that was asked for.
        ifindex: u32,
    },
    /// An administrator's root qdisc is in place.
    #[error(
        "an administrator set the root qdisc {kind} {handle}: pass `--replace` to put it aside \
         while this runs, it is restored afterwards"
    )]
    Occupied {
        /// Kind of the root qdisc.
        kind: String,
        /// Its handle in tc's notation.
        handle: String,
    },
    /// The present root could not be put back as it was, so it is not touched.
    #[error("the present root qdisc could not be restored faithfully, so it stays: {reason}")]
    NotRestorable {
        /// What stands in the way.
        reason: String,
    },
    /// The kernel refused for lack of rights.
    #[error("not permitted to {op}: run as root or with CAP_NET_ADMIN")]
    NoPermission {
        /// What was attempted.
        op: &'static str,
    },
    /// The kernel has no HTB.
    #[error("this kernel has no htb qdisc: it needs CONFIG_NET_SCH_HTB (module sch_htb)")]
    NoHtb,
    /// The kernel has not the root qdisc that was asked for.
    #[error(
        "this kernel has no {kind} qdisc: load module sch_{kind} (CONFIG_NET_SCH_*), or let `--rate` shape by \
         htb, or use what the interface has by `--qdisc keep`"
    )]
    NoSorter {
        /// The kind.
        kind: &'static str,
    },
    /// The kernel has none of the leaf qdiscs that the plan allows.
    #[error("this kernel has no {kind} qdisc: load module sch_{kind} or choose another leaf")]
    NoLeaf {
        /// The last kind that was tried.
        kind: &'static str,
    },
    /// The kernel has no IFB device.
    #[error(
        "this kernel has no IFB device, so ingress can't be shaped: it needs CONFIG_IFB (`modprobe \
         ifb numifbs=0`), or leave out `--ingress-rate`"
    )]
    NoIfb,
    /// The kernel can't redirect ingress.
    #[error(
        "this kernel can't redirect ingress: it needs CONFIG_NET_CLS_U32 and CONFIG_NET_ACT_MIRRED \
         (modules cls_u32 and act_mirred), or leave out `--ingress-rate`"
    )]
    NoRedirect,
    /// A device that is not ours has the name that the IFB would have.
    #[error(
        "{name} is not a device of this treeline: rename it (`ip link set {name} name …`) or remove \
         it (`ip link delete {name}`)"
    )]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The plan asks for something HTB can't do.
    #[error("bands must be 1 to {MAX_BANDS} (htb has {MAX_BANDS} priorities), not {bands}")]
    BadBands {
        /// The number that was asked for.
        bands: u8,
    },
    /// The link rate is too low to schedule.
    #[error("the rate must be at least {MIN_RATE_BPS} bit/s, not {rate_bps}")]
    RateTooLow {
        /// The rate that was asked for.
        rate_bps: u64,
    },
    /// The guaranteed shares don't fit into the rate.
    #[error(
        "a guarantee of {guaranteed_bps} bit/s for each of {bands} bands must be at least 1 kbit/s \
         each and at most {rate_bps} bit/s in sum"
    )]
    BadGuarantee {
        /// The guarantee per band.
        guaranteed_bps: u64,
        /// Number of bands.
        bands: u8,
        /// The link rate.
        rate_bps: u64,
    },
    /// A rate's text is not in tc's grammar.
    #[error("`{text}` is not a rate: write for example 100mbit, 1.5gbit, 800kibit or 12500kbps")]
    BadRate {
        /// The text that was given.
        text: String,
    },
    /// The kernel's answer could not be understood.
    #[error("cannot understand the kernel's answer: {what}")]
    Malformed {
        /// What did not parse.
        what: String,
    },
    /// The kernel refused a request.
    #[error("cannot {op}")]
    Netlink {
        /// What was attempted.
        op: &'static str,
        /// The kernel's errno.
        #[source]
        source: io::Error,
    },
    /// Something failed and the earlier state could not be put back either.
    #[error("{failure}; and undoing failed: {undo}: check with `tc qdisc show`")]
    UndoFailed {
        /// The failure that made undoing necessary.
        failure: Box<Self>,
        /// The failure while undoing.
        undo: Box<Self>,
    },
}

impl QdiscError {
    /// Gives the errno of a request its meaning.
    pub(super) fn from_io(op: &'static str, ifindex: u32, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::EPERM) => Self::NoPermission { op },
            Some(libc::ENODEV) => Self::NoSuchInterface { ifindex },
            _ => Self::Netlink { op, source },
        }
    }

    /// Whether the kernel answered "no such kind" (or parent).
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::Netlink { source, .. } if source.raw_os_error() == Some(libc::ENOENT))
    }
}
