//! The queueing hierarchy on an interface: install, change, measure, restore.
//!
//! With a rate it is an HTB root `7e:` with one class `7e:ff` at the link's rate and below it one leaf class per
//! band, served in strict priority apart from a small guaranteed share each (see [`Plan`]; the top one has the rest). Without one it is `prio`,
//! `ets` or `fq`, or what an administrator has set up; `mapping` tells how bands are named to it. Everything
//! goes over netlink, in the network namespace of the calling thread.

mod card;
mod clsact;
pub mod commands;
mod error;
mod htb;
mod ifb;
mod mapping;
mod netlink;
mod plan;
mod probe;
mod rate;
mod saved;
mod sorter;
mod tbf;
#[cfg(test)]
mod tests;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use nix::libc;
use tracing::{info, warn};

use self::netlink::{Netlink, ROOT, TcObject, handle_text};
pub use scheduler_common::class::{QDISC_MAJOR, class_handle};

pub use self::{
    card::{Card, card},
    clsact::remove_clsact,
    error::QdiscError,
    ifb::{Device, device, make_ifb, redirect, remove_link, stop_redirect},
    mapping::{Mapping, mapping},
    plan::{LeafChoice, Plan},
    probe::{Ability, RootOwner, ability, check_restorable, filters, root_owner},
    rate::{format_rate, parse_rate},
    saved::Saved,
    sorter::{RootChoice, install_sorter},
};

/// HTB has so many priorities.
pub const MAX_BANDS: u8 = 8;
/// Below this rate a single packet takes over a second.
pub const MIN_RATE_BPS: u64 = 8_000;

/// Kinds that we make a root of.
const OURS: [&str; 4] = ["htb", "prio", "ets", "fq"];

/// What [`install`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Kind of the bands' queues.
    pub leaf: String,
    /// What stood there before; `None` if our hierarchy was there already and was only adjusted,
    /// so that the record kept since the first time stays valid.
    pub saved: Option<Saved>,
}

/// What [`restore`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Restored {
    /// Our hierarchy is gone and the earlier root is back.
    Done,
    /// An administrator has put another root in our place, which stays.
    LeftAlone {
        /// Kind of that root.
        kind: String,
        /// Its handle in tc's notation.
        handle: String,
    },
    /// Our hierarchy was gone already; nothing was changed.
    AlreadyGone,
}

/// Our hierarchy as it is on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstalledState {
    /// Rate of the link class.
    pub rate_bps: u64,
    /// Kind of the bands' queues.
    pub leaf: String,
    /// Number of bands.
    pub bands: u8,
}

/// Counters of one band since it was made.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
pub struct BandStats {
    /// The band, 0 is served first.
    pub band: u8,
    /// Packets sent.
    pub packets: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Packets dropped.
    pub drops: u64,
    /// Packets waiting.
    pub backlog_packets: u64,
    /// Bytes waiting.
    pub backlog_bytes: u64,
}

/// Who made the root qdisc.
enum Root {
    Kernel,
    Ours { kind: String },
    Administrator { kind: String, handle: String },
}
/// Makes the hierarchy on an interface, or adjusts ours without dropping packets.
///
/// A failure leaves the interface as it was. The future is to be polled to its end.
pub async fn install(ifindex: u32, plan: &Plan) -> Result<Installed, QdiscError> {
    install_with(ifindex, plan, plan.leaf.candidates()).await
}

/// Removes our hierarchy, if it is there, and makes the earlier root again.
pub async fn restore(ifindex: u32, saved: &Saved) -> Result<Restored, QdiscError> {
    let netlink = Netlink::open(ifindex).await?;
    match look_at_root(&netlink).await? {
        Root::Ours { .. } => {
            take_down(&netlink, saved).await?;
            info!(ifindex, restored = saved.describe(), "qdisc restored");
            Ok(Restored::Done)
        }
        Root::Administrator { kind, handle } => {
            warn!(
                ifindex,
                kind, handle, "root qdisc was replaced meanwhile and is left alone"
            );
            Ok(Restored::LeftAlone { kind, handle })
        }
        Root::Kernel => Ok(Restored::AlreadyGone),
    }
}

/// The counters of each band; none where our hierarchy is not installed.
pub async fn stats(ifindex: u32) -> Result<Vec<BandStats>, QdiscError> {
    let netlink = Netlink::open(ifindex).await?;
    let classes = netlink.classes().await?;
    let leaves = netlink.qdiscs().await?;
    let mut stats: Vec<BandStats> = classes
        .iter()
        .filter_map(|class| {
            let band = htb::band_of(class.handle)?;
            let (bytes, packets, queue) = class.counters();
            // What a leaf drops after having accepted it, as fq_codel does, only it counts.
            let leaf = leaves.iter().find(|leaf| leaf.parent == class.handle);
            let leaf_drops = leaf.map_or(0, |leaf| leaf.counters().2.drops);
            Some(BandStats {
                band,
                packets,
                bytes,
                drops: queue.drops.max(leaf_drops).into(),
                backlog_packets: queue.qlen.into(),
                backlog_bytes: queue.backlog.into(),
            })
        })
        .collect();
    stats.sort_by_key(|stats| stats.band);
    Ok(stats)
}

/// Our hierarchy's parameters, if it is on the interface.
pub async fn is_installed(ifindex: u32) -> Result<Option<InstalledState>, QdiscError> {
    let netlink = Netlink::open(ifindex).await?;
    if !matches!(look_at_root(&netlink).await?, Root::Ours { kind } if kind == "htb") {
        return Ok(None);
    }
    let classes = netlink.classes().await?;
    let link = classes.iter().find(|class| class.handle == htb::LINK_CLASS);
    let Some(options) = link.and_then(htb::ClassOptions::parse) else {
        return Ok(None);
    };
    let bands = classes
        .iter()
        .filter_map(|class| htb::band_of(class.handle))
        .count();
    Ok(Some(InstalledState {
        rate_bps: options.rate_bps,
        leaf: leaf_kind(&netlink.qdiscs().await?, 0).unwrap_or_else(|| "pfifo".to_owned()),
        bands: u8::try_from(bands).unwrap_or(MAX_BANDS),
    }))
}

async fn look_at_root(netlink: &Netlink) -> Result<Root, QdiscError> {
    let qdiscs = netlink.qdiscs().await?;
    let root = qdiscs.iter().find(|qdisc| qdisc.parent == ROOT);
    Ok(match root {
        // The kernel gives every qdisc that somebody sets a handle.
        None | Some(TcObject { handle: 0, .. }) => Root::Kernel,
        Some(root) if root.handle == htb::ROOT_HANDLE && OURS.contains(&root.kind().as_str()) => {
            Root::Ours { kind: root.kind() }
        }
        Some(root) => Root::Administrator {
            kind: root.kind(),
            handle: handle_text(root.handle),
        },
    })
}

async fn install_with(
    ifindex: u32,
    plan: &Plan,
    leaf_kinds: &[&'static str],
) -> Result<Installed, QdiscError> {
    plan.check()?;
    let netlink = Netlink::open(ifindex).await?;
    match look_at_root(&netlink).await? {
        Root::Ours { .. } => adjust(&netlink, plan, leaf_kinds).await,
        Root::Kernel => make(&netlink, plan, leaf_kinds, Saved::kernel_default()).await,
        Root::Administrator { .. } if plan.replace => {
            let saved = Saved::capture(&netlink).await?;
            make(&netlink, plan, leaf_kinds, saved).await
        }
        Root::Administrator { kind, handle } => Err(QdiscError::Occupied { kind, handle }),
    }
}

async fn make(
    netlink: &Netlink,
    plan: &Plan,
    leaf_kinds: &[&'static str],
    saved: Saved,
) -> Result<Installed, QdiscError> {
    let exclusive = if saved.is_kernel_default() {
        NLM_F_EXCL
    } else {
        NLM_F_REPLACE
    };
    let flags = NLM_F_CREATE | exclusive;
    netlink
        .change(
            "install the htb root qdisc",
            libc::RTM_NEWQDISC,
            flags,
            &htb::root_qdisc(),
        )
        .await
        .map_err(|error| {
            if error.is_not_found() {
                QdiscError::NoHtb
            } else {
                error
            }
        })?;
    match set_bands(netlink, plan, leaf_kinds).await {
        Ok(leaf) => {
            let (ifindex, rate) = (netlink.ifindex, format_rate(plan.rate_bps));
            info!(
                ifindex,
                rate,
                bands = plan.bands,
                leaf,
                was = saved.describe(),
                "qdisc made"
            );
            Ok(Installed {
                leaf,
                saved: Some(saved),
            })
        }
        Err(failure) => Err(undone(failure, take_down(netlink, &saved).await)),
    }
}

/// Brings a hierarchy of ours in line with the plan, in place.
async fn adjust(
    netlink: &Netlink,
    plan: &Plan,
    leaf_kinds: &[&'static str],
) -> Result<Installed, QdiscError> {
    let before = Saved::snapshot(netlink).await?;
    let present = leaf_kind(&netlink.qdiscs().await?, 0);
    // A leaf of another kind would lose the packets of the present one: keep it if it will do.
    let kept = leaf_kinds
        .iter()
        .find(|kind| present.as_deref() == Some(**kind));
    let kinds = kept.map_or(leaf_kinds, std::slice::from_ref);
    match set_exactly(netlink, plan, kinds).await {
        Ok(leaf) => {
            let (ifindex, rate) = (netlink.ifindex, format_rate(plan.rate_bps));
            info!(ifindex, rate, bands = plan.bands, leaf, "qdisc adjusted");
            Ok(Installed { leaf, saved: None })
        }
        Err(failure) => Err(undone(failure, set_back(netlink, &before).await)),
    }
}

async fn set_exactly(
    netlink: &Netlink,
    plan: &Plan,
    leaf_kinds: &[&'static str],
) -> Result<String, QdiscError> {
    let leaf = set_bands(netlink, plan, leaf_kinds).await?;
    let kept: Vec<u8> = (0..plan.bands).collect();
    remove_other_bands(netlink, &kept).await?;
    Ok(leaf)
}

async fn set_back(netlink: &Netlink, before: &Saved) -> Result<(), QdiscError> {
    before.replay_changed(netlink).await?;
    let kept: Vec<u8> = (0..MAX_BANDS)
        .filter(|band| before.has_class(class_handle(*band)))
        .collect();
    remove_other_bands(netlink, &kept).await
}

/// Sets every class and leaf; those that exist are changed.
async fn set_bands(
    netlink: &Netlink,
    plan: &Plan,
    leaf_kinds: &[&'static str],
) -> Result<String, QdiscError> {
    for class in htb::classes(plan) {
        netlink
            .change(
                "set an htb class",
                libc::RTM_NEWTCLASS,
                NLM_F_CREATE,
                &class,
            )
            .await?;
    }
    let leaf = set_first_leaf(netlink, plan, leaf_kinds).await?;
    for band in 1..plan.bands {
        set_leaf(netlink, plan, band, leaf).await?;
    }
    Ok(leaf.to_owned())
}

/// Gives band 0 the first kind of leaf that the kernel knows.
async fn set_first_leaf(
    netlink: &Netlink,
    plan: &Plan,
    leaf_kinds: &[&'static str],
) -> Result<&'static str, QdiscError> {
    let ifindex = netlink.ifindex;
    let mut missing = None;
    for kind in leaf_kinds {
        match set_leaf(netlink, plan, 0, kind).await {
            Err(error) if error.is_not_found() => missing = Some(*kind),
            Err(error) => return Err(error),
            Ok(()) => {
                let reason = missing.map_or("first choice", |_| "the kernel lacks a better one");
                info!(ifindex, kind, missing, reason, "leaf qdisc chosen");
                return Ok(kind);
            }
        }
    }
    Err(QdiscError::NoLeaf {
        kind: missing.unwrap_or("leaf"),
    })
}

async fn set_leaf(netlink: &Netlink, plan: &Plan, band: u8, kind: &str) -> Result<(), QdiscError> {
    let options = (kind == "pfifo").then(|| plan.limit_packets.to_ne_bytes().to_vec());
    // Handle 0: the kernel picks one, or changes the leaf that is there if its kind is the same.
    let leaf = TcObject::new(0, class_handle(band), kind, options);
    let flags = NLM_F_CREATE | NLM_F_REPLACE;
    netlink
        .change("set a band's leaf qdisc", libc::RTM_NEWQDISC, flags, &leaf)
        .await
}

async fn remove_other_bands(netlink: &Netlink, kept: &[u8]) -> Result<(), QdiscError> {
    for class in netlink.classes().await? {
        if htb::band_of(class.handle).is_some_and(|band| !kept.contains(&band)) {
            let surplus = TcObject::named(class.handle, class.parent);
            netlink
                .change("remove a band", libc::RTM_DELTCLASS, 0, &surplus)
                .await?;
        }
    }
    Ok(())
}

/// Removes our root and makes the saved one. Ours goes first, so that no handle is taken.
async fn take_down(netlink: &Netlink, saved: &Saved) -> Result<(), QdiscError> {
    let ours = TcObject::named(htb::ROOT_HANDLE, ROOT);
    netlink
        .change("remove our root qdisc", libc::RTM_DELQDISC, 0, &ours)
        .await?;
    saved.replay(netlink).await
}

fn undone(failure: QdiscError, undo: Result<(), QdiscError>) -> QdiscError {
    match undo {
        Ok(()) => failure,
        Err(undo) => QdiscError::UndoFailed {
            failure: Box::new(failure),
            undo: Box::new(undo),
        },
    }
}

fn leaf_kind(qdiscs: &[TcObject], band: u8) -> Option<String> {
    qdiscs
        .iter()
        .find(|qdisc| qdisc.parent == class_handle(band))
        .map(TcObject::kind)
}
