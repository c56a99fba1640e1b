//! What the kernel can queue with, found by trying where nobody is disturbed.

use std::{io, thread};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use nix::{
    libc,
    sched::{CloneFlags, unshare},
};

use super::{
    QdiscError, Root, ifb, look_at_root,
    netlink::{CLSACT, Netlink, ROOT, TcObject},
};

/// Index of the loopback in every network namespace.
const LOOPBACK: u32 = 1;
/// Kinds that treeline makes or can tell bands to.
const KINDS: [&str; 6] = ["htb", "fq_codel", "fq", "prio", "ets", "cake"];

/// What the kernel can queue with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ability {
    /// Qdiscs that it has, of those that treeline knows to use.
    pub kinds: Vec<&'static str>,
    /// Whether programs and filters have a place (`clsact`).
    pub clsact: bool,
    /// Why a downlink can't be shaped; `None` if it can.
    pub no_downlink: Option<String>,
}

/// Tries everything on the loopback of a network namespace that is made for it and vanishes with it.
///
/// The kernel loads modules for it as it would for the real thing.
///
/// # Errors
/// If no namespace can be made: root is needed.
pub fn ability() -> Result<Ability, QdiscError> {
    let op = "make a network namespace to try in";
    let broken = |source| QdiscError::Netlink { op, source };
    let trial = thread::Builder::new()
        .name("trial".to_owned())
        .spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| QdiscError::from_io(op, LOOPBACK, errno.into()))?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(broken)?;
            runtime.block_on(try_all())
        });
    trial
        .map_err(broken)?
        .join()
        .map_err(|_panic| broken(io::Error::other("the thread broke off")))?
}

async fn try_all() -> Result<Ability, QdiscError> {
    let netlink = Netlink::open(LOOPBACK).await?;
    let mut kinds = Vec::new();
    for kind in KINDS {
        if has(&netlink, &TcObject::new(0x10_0000, ROOT, kind, None)).await? {
            kinds.push(kind);
        }
    }
    let clsact = has(
        &netlink,
        &TcObject::new(0xffff_0000, CLSACT, "clsact", None),
    )
    .await?;
    let no_downlink = downlink().await.err().map(|error| error.to_string());
    Ok(Ability {
        kinds,
        clsact,
        no_downlink,
    })
}

/// Whether the kernel knows the kind; whether it likes it without options does not matter.
async fn has(netlink: &Netlink, qdisc: &TcObject) -> Result<bool, QdiscError> {
    let flags = NLM_F_CREATE | NLM_F_EXCL;
    let op = "try a qdisc";
    match netlink.change(op, libc::RTM_NEWQDISC, flags, qdisc).await {
        Ok(()) if qdisc.parent == ROOT => {
            netlink.change(op, libc::RTM_DELQDISC, 0, qdisc).await?;
            Ok(true)
        }
        Err(error) if error.is_not_found() => Ok(false),
        Err(error @ QdiscError::NoPermission { .. }) => Err(error),
        Ok(()) | Err(_) => Ok(true),
    }
}

/// Shapes the loopback's own ingress, as far as the redirect.
async fn downlink() -> Result<(), QdiscError> {
    let device = ifb::make_ifb("trial", "trial").await?;
    ifb::redirect(LOOPBACK, device).await
}

/// Who made the root qdisc of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootOwner {
    /// The kernel, by its default.
    Kernel,
    /// treeline.
    Treeline {
        /// Its kind.
        kind: String,
    },
    /// Somebody else.
    Administrator {
        /// Its kind.
        kind: String,
        /// Its handle in tc's notation.
        handle: String,
    },
}

/// Who made the root qdisc of the interface with this index.
///
/// # Errors
/// If the kernel can't be asked.
pub async fn root_owner(ifindex: u32) -> Result<RootOwner, QdiscError> {
    let netlink = Netlink::open(ifindex).await?;
    Ok(match look_at_root(&netlink).await? {
        Root::Kernel => RootOwner::Kernel,
        Root::Ours { kind } => RootOwner::Treeline { kind },
        Root::Administrator { kind, handle } => RootOwner::Administrator { kind, handle },
    })
}

/// Whether somebody's root qdisc could be put aside and made again as it is.
///
/// # Errors
/// [`QdiscError::NotRestorable`], or the kernel can't be asked.
pub async fn check_restorable(ifindex: u32) -> Result<(), QdiscError> {
    let netlink = Netlink::open(ifindex).await?;
    super::Saved::capture(&netlink).await.map(drop)
}

/// Names of the BPF filters on both hooks of `clsact`, ingress first.
///
/// # Errors
/// If the kernel can't be asked.
pub async fn filters(ifindex: u32) -> Result<[Vec<String>; 2], QdiscError> {
    const INGRESS: u32 = 0xffff_fff2;
    const EGRESS: u32 = 0xffff_fff3;
    const TCA_BPF_NAME: u16 = 7;
    let netlink = Netlink::open(ifindex).await?;
    let mut found = [Vec::new(), Vec::new()];
    for (names, hook) in found.iter_mut().zip([INGRESS, EGRESS]) {
        // Where there is no clsact there is no such parent.
        let filters = netlink.filters(hook).await.unwrap_or_default();
        names.extend(filters.iter().filter_map(|filter| {
            let options = filter.attribute(super::netlink::TCA_OPTIONS)?;
            let options = super::netlink::parse_attributes(&options).ok()?;
            let name = super::netlink::find(&options, TCA_BPF_NAME);
            let name = name.map_or_else(|| filter.kind(), |raw| text(&raw));
            Some(name)
        }));
    }
    Ok(found)
}

fn text(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw)
        .trim_end_matches('\0')
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_leaves_no_trace_and_htb_is_what_tc_finds() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: network namespaces need root");
            return;
        }
        let before = nix::net::if_::if_nameindex().unwrap().iter().count();
        let ability = ability().unwrap();
        assert!(ability.kinds.contains(&"htb"), "{ability:?}");
        assert!(ability.clsact, "{ability:?}");
        assert_eq!(
            nix::net::if_::if_nameindex().unwrap().iter().count(),
            before
        );
    }
}
