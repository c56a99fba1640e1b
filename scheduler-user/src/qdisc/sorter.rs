//! `prio`, `ets` and `fq` as our root: they sort, and do not shape.

use netlink_packet_core::{DefaultNla, NLA_F_NESTED, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use nix::libc;
use serde::{Deserialize, Serialize};
use tracing::info;

use super::{
    Installed, MAX_BANDS, MIN_RATE_BPS, Plan, QdiscError, Root, Saved,
    htb::ROOT_HANDLE,
    leaf_kind, look_at_root,
    netlink::{Netlink, ROOT, TCA_OPTIONS, TcObject, emit_attributes},
    set_first_leaf, set_leaf, take_down, undone,
};

/// What a queue holds where no rate bounds it: the kernel's own `txqueuelen`.
pub(super) const LIMIT_PACKETS: u32 = 1000;
/// Bands of `ets` that are served before all others.
pub(super) const STRICT_BANDS: u8 = 2;
/// What the lowest band of `ets` may send in a turn: one full packet.
pub(super) const LOWEST_QUANTUM_BYTES: u32 = 1514;
pub(super) const PRIORITIES: usize = 16;

const TCA_ETS_NBANDS: u16 = 1;
const TCA_ETS_NSTRICT: u16 = 2;
const TCA_ETS_QUANTA: u16 = 3;
const TCA_ETS_QUANTA_BAND: u16 = 4;
const TCA_ETS_PRIOMAP: u16 = 5;
const TCA_ETS_PRIOMAP_BAND: u16 = 6;

/// What stands at the root of an interface that is up.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum RootChoice {
    /// Shapes to `--rate`; strict bands, each with a guaranteed share.
    #[default]
    Htb,
    /// Strict bands without a rate: queues only where the driver pushes back.
    Prio,
    /// As prio, but only the first two bands are strict and no band starves.
    Ets,
    /// Three bands on kernels from 6.7 on, fair among flows, and keeps the times of `--pace`.
    Fq,
    /// What stands there already, told in its own words; nothing is changed.
    Keep,
}

impl RootChoice {
    /// The kind in `tc`; `None` for what stands there already.
    pub const fn kind(self) -> Option<&'static str> {
        match self {
            Self::Htb => Some("htb"),
            Self::Prio => Some("prio"),
            Self::Ets => Some("ets"),
            Self::Fq => Some("fq"),
            Self::Keep => None,
        }
    }

    pub(super) const fn has_classes(self) -> bool {
        matches!(self, Self::Prio | Self::Ets)
    }

    fn root(self) -> TcObject {
        let kind = self.kind().unwrap_or_default();
        let mut root = TcObject::new(ROOT_HANDLE, ROOT, kind, None);
        match self {
            Self::Prio => root
                .attributes
                .push(DefaultNla::new(TCA_OPTIONS, prio_options())),
            // The kernel takes these options only with the bit that marks nested ones.
            Self::Ets => root
                .attributes
                .push(DefaultNla::new(TCA_OPTIONS | NLA_F_NESTED, ets_options())),
            _ => {}
        }
        root
    }
}

/// Makes `prio`, `ets` or `fq` the root, or adjusts ours.
///
/// A failure leaves the interface as it was. The future is to be polled to its end.
pub async fn install_sorter(
    ifindex: u32,
    choice: RootChoice,
    plan: &Plan,
) -> Result<Installed, QdiscError> {
    let netlink = Netlink::open(ifindex).await?;
    let saved = match look_at_root(&netlink).await? {
        Root::Ours { .. } => None,
        Root::Kernel => Some(Saved::kernel_default()),
        Root::Administrator { .. } if plan.replace => Some(Saved::capture(&netlink).await?),
        Root::Administrator { kind, handle } => return Err(QdiscError::Occupied { kind, handle }),
    };
    let is_free = saved.as_ref().is_some_and(Saved::is_kernel_default);
    let flags = NLM_F_CREATE | if is_free { NLM_F_EXCL } else { NLM_F_REPLACE };
    let op = "install the root qdisc";
    netlink
        .change(op, libc::RTM_NEWQDISC, flags, &choice.root())
        .await
        .map_err(|error| match choice.kind() {
            Some(kind) if error.is_not_found() => QdiscError::NoSorter { kind },
            _ => error,
        })?;
    match set_leaves(&netlink, choice, plan).await {
        Ok(leaf) => {
            let was = saved.as_ref().map(Saved::describe);
            info!(ifindex, kind = choice.kind(), leaf, was, "qdisc made");
            Ok(Installed { leaf, saved })
        }
        Err(failure) => match saved {
            Some(saved) => Err(undone(failure, take_down(&netlink, &saved).await)),
            None => Err(failure),
        },
    }
}

async fn set_leaves(
    netlink: &Netlink,
    choice: RootChoice,
    plan: &Plan,
) -> Result<String, QdiscError> {
    if !choice.has_classes() {
        return Ok(choice.kind().unwrap_or_default().to_owned());
    }
    let plan = Plan {
        limit_packets: LIMIT_PACKETS,
        ..*plan
    };
    let present = leaf_kind(&netlink.qdiscs().await?, 0);
    let candidates = plan.leaf.candidates();
    // As for HTB: a leaf of another kind would lose the packets of the present one.
    let kept = candidates
        .iter()
        .find(|kind| present.as_deref() == Some(**kind));
    let kinds = kept.map_or(candidates, std::slice::from_ref);
    let leaf = set_first_leaf(netlink, &plan, kinds).await?;
    for band in 1..MAX_BANDS {
        set_leaf(netlink, &plan, band, leaf).await?;
    }
    Ok(leaf.to_owned())
}

impl Plan {
    /// Eight bands without a rate.
    pub fn without_rate() -> Self {
        Self::new(MIN_RATE_BPS)
    }
}

/// `struct tc_prio_qopt`: eight bands, and what names no class goes to the first as under HTB.
fn prio_options() -> Vec<u8> {
    let mut options = u32::from(MAX_BANDS).to_ne_bytes().to_vec();
    options.extend([0; PRIORITIES]);
    options
}

/// The first bands strict; below them each may send twice what the next may.
fn ets_options() -> Vec<u8> {
    let quanta: Vec<DefaultNla> = (STRICT_BANDS..MAX_BANDS)
        .rev()
        .map(|band| LOWEST_QUANTUM_BYTES << (band - STRICT_BANDS))
        .map(|quantum| DefaultNla::new(TCA_ETS_QUANTA_BAND, quantum.to_ne_bytes().to_vec()))
        .collect();
    let map: Vec<DefaultNla> = (0..PRIORITIES)
        .map(|_| DefaultNla::new(TCA_ETS_PRIOMAP_BAND, vec![0]))
        .collect();
    emit_attributes(&[
        DefaultNla::new(TCA_ETS_NBANDS, vec![MAX_BANDS]),
        DefaultNla::new(TCA_ETS_NSTRICT, vec![STRICT_BANDS]),
        DefaultNla::new(TCA_ETS_QUANTA | NLA_F_NESTED, emit_attributes(&quanta)),
        DefaultNla::new(TCA_ETS_PRIOMAP | NLA_F_NESTED, emit_attributes(&map)),
    ])
}

#[cfg(test)]
mod tests {
    use super::{
        super::netlink::{find, parse_attributes},
        *,
    };

    #[test]
    fn prio_has_eight_bands_and_a_map_to_the_first() {
        let options = prio_options();
        assert_eq!(options.len(), 20);
        assert_eq!(options[..4], 8_u32.to_ne_bytes());
        assert!(options[4..].iter().all(|band| *band == 0));
    }

    #[test]
    fn the_shares_of_ets_halve_from_band_to_band() {
        let options = parse_attributes(&ets_options()).unwrap();
        let quanta = parse_attributes(&find(&options, TCA_ETS_QUANTA).unwrap()).unwrap();
        let quanta: Vec<u32> = quanta
            .iter()
            .map(|nla| find(std::slice::from_ref(nla), TCA_ETS_QUANTA_BAND).unwrap())
            .map(|raw| u32::from_ne_bytes(raw.try_into().unwrap()))
            .collect();
        assert_eq!(quanta.len(), usize::from(MAX_BANDS - STRICT_BANDS));
        assert!(quanta.windows(2).all(|pair| pair[0] == 2 * pair[1]));
        assert_eq!(quanta.last(), Some(&LOWEST_QUANTUM_BYTES));
    }
}
