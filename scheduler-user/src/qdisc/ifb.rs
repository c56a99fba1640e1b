//! The device that gives ingress a queue, and the filter that leads there.
//!
//! A filter of the interface's ingress hands every packet to the IFB (`mirred`, as every recipe for this
//! does, because it also serves interfaces without an Ethernet header, where `bpf_redirect` to an IFB drops).
//! Its priority is the last one, so filters and TCX programs of others run before it; behind the IFB the
//! kernel goes on where it left off, without a second pass over the ingress hook.

use std::io;

use futures::TryStreamExt as _;
use netlink_packet_core::{DefaultNla, NLM_F_CREATE};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use nix::libc;
use rtnetlink::{Handle, LinkIfb, LinkUnspec};

use super::{
    QdiscError,
    netlink::{Netlink, TCA_OPTIONS, TcObject, emit_attributes, find, parse_attributes},
};

/// `TC_H_MIN_INGRESS` below the handle of clsact or of an ingress qdisc.
const INGRESS_HOOK: u32 = 0xffff_fff2;
/// Our filter's place among the ingress filters: behind all that do not ask to be the very last.
const FILTER_PRIORITY: u32 = 0xff7e;

const TCA_U32_SEL: u16 = 5;
const TCA_U32_ACT: u16 = 7;
const TC_U32_TERMINAL: u8 = 1;
/// `struct tc_u32_sel` with one key.
const SELECTOR_BYTES: usize = 16 + 16;
const FIRST_ACTION: u16 = 1;
const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_MIRRED_PARMS: u16 = 2;
const TC_ACT_STOLEN: i32 = 4;
const TCA_EGRESS_REDIR: i32 = 1;
/// `struct tc_mirred`.
const MIRRED_BYTES: usize = 28;
/// Where it names the device.
const MIRRED_IFINDEX: usize = 24;
const NLA_F_NESTED: u16 = 0x8000;

/// What a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub ifindex: u32,
    /// Whether its frames begin with the network header: tun, wireguard, PPP.
    pub network_frames: bool,
    /// Whether it is one end of a veth pair.
    pub is_veth: bool,
    /// Its name on the bus of virtio devices, where it is one and the kernel tells (5.14 and later).
    pub virtio_name: Option<String>,
    is_ifb: bool,
    is_up: bool,
    alias: Option<String>,
}

/// The interface with this index.
///
/// # Errors
/// If there is none, or the kernel can't be asked.
pub async fn device(ifindex: u32) -> Result<Device, QdiscError> {
    let rtnetlink = Rtnetlink::open()?;
    let request = rtnetlink.handle.link().get().match_index(ifindex);
    match request.execute().try_next().await {
        Ok(Some(link)) => Ok(describe(&link)),
        Ok(None) => Err(QdiscError::NoSuchInterface { ifindex }),
        Err(error) => Err(failed("look at the interface", ifindex, error)),
    }
}

/// Makes the IFB of this name, or takes over the one that an earlier run has left.
///
/// # Errors
/// [`QdiscError::NameTaken`] if a device of this name is not ours.
pub async fn make_ifb(name: &str, alias: &str) -> Result<u32, QdiscError> {
    let rtnetlink = Rtnetlink::open()?;
    let ifindex = match rtnetlink.by_name(name).await? {
        // A device that is down and nameless was made by a run that was cut short just then.
        Some(device) if device.is_ifb && device.alias.as_deref() == Some(alias) => device.ifindex,
        Some(device) if device.is_ifb && device.alias.is_none() && !device.is_up => device.ifindex,
        Some(_) => {
            let name = name.to_owned();
            return Err(QdiscError::NameTaken { name });
        }
        None => rtnetlink.add_ifb(name).await?,
    };
    let up = LinkUnspec::new_with_index(ifindex).alias(alias).up();
    let request = rtnetlink.handle.link().set(up.build());
    request
        .execute()
        .await
        .map_err(|error| failed("switch on the IFB device", ifindex, error))?;
    Ok(ifindex)
}

/// Removes a link; one that is gone already is fine.
///
/// # Errors
/// If the kernel refuses.
pub async fn remove_link(ifindex: u32) -> Result<(), QdiscError> {
    let rtnetlink = Rtnetlink::open()?;
    match rtnetlink.handle.link().del(ifindex).execute().await {
        Ok(()) => Ok(()),
        Err(error) => match failed("remove the IFB device", ifindex, error) {
            QdiscError::NoSuchInterface { .. } => Ok(()),
            error => Err(error),
        },
    }
}

/// Leads the ingress of an interface, which has clsact, to the IFB. A filter of ours that does so stays.
///
/// # Errors
/// [`QdiscError::NoRedirect`] if the kernel lacks the filter or the action.
pub async fn redirect(ifindex: u32, ifb: u32) -> Result<(), QdiscError> {
    let netlink = Netlink::open(ifindex).await?;
    match target(&netlink).await? {
        Some(present) if present == ifb => return Ok(()),
        Some(_) => remove_filter(&netlink).await?,
        None => {}
    }
    let mut options = vec![DefaultNla::new(TCA_U32_SEL, any_packet())];
    let action = emit_attributes(&[
        DefaultNla::new(TCA_ACT_KIND, b"mirred\0".to_vec()),
        DefaultNla::new(
            TCA_ACT_OPTIONS | NLA_F_NESTED,
            emit_attributes(&[DefaultNla::new(TCA_MIRRED_PARMS, mirred(ifb))]),
        ),
    ]);
    let actions = emit_attributes(&[DefaultNla::new(FIRST_ACTION, action)]);
    options.push(DefaultNla::new(TCA_U32_ACT, actions));
    let options = emit_attributes(&options);
    let filter = TcObject {
        info: filter_info(),
        ..TcObject::new(0, INGRESS_HOOK, "u32", Some(options))
    };
    netlink
        .change(
            "redirect ingress to the IFB device",
            libc::RTM_NEWTFILTER,
            NLM_F_CREATE,
            &filter,
        )
        .await
        .map_err(|error| {
            if error.is_not_found() {
                QdiscError::NoRedirect
            } else {
                error
            }
        })
}

/// Takes the filter off; one that is gone already is fine.
///
/// # Errors
/// If the kernel refuses.
pub async fn stop_redirect(ifindex: u32) -> Result<(), QdiscError> {
    let netlink = Netlink::open(ifindex).await?;
    if target(&netlink).await?.is_some() {
        remove_filter(&netlink).await?;
    }
    Ok(())
}

async fn remove_filter(netlink: &Netlink) -> Result<(), QdiscError> {
    let filter = TcObject {
        info: filter_info(),
        ..TcObject::named(0, INGRESS_HOOK)
    };
    let op = "remove the redirect of ingress";
    netlink.change(op, libc::RTM_DELTFILTER, 0, &filter).await
}

/// Where our filter leads; `None` if it is not there.
async fn target(netlink: &Netlink) -> Result<Option<u32>, QdiscError> {
    let filters = netlink.filters(INGRESS_HOOK).await?;
    let ours = filters.iter().filter(|filter| filter.info == filter_info());
    Ok(ours.filter_map(mirred_target).next())
}

fn mirred_target(filter: &TcObject) -> Option<u32> {
    let inside = |bytes: Vec<u8>, kind| find(&parse_attributes(&bytes).ok()?, kind);
    let actions = inside(filter.attribute(TCA_OPTIONS)?, TCA_U32_ACT)?;
    let options = inside(inside(actions, FIRST_ACTION)?, TCA_ACT_OPTIONS)?;
    let parameters = inside(options, TCA_MIRRED_PARMS)?;
    let index = parameters.get(MIRRED_IFINDEX..MIRRED_BYTES)?;
    Some(u32::from_ne_bytes(index.try_into().ok()?))
}

/// Priority and protocol (all), as `tcm_info` has them.
fn filter_info() -> u32 {
    FILTER_PRIORITY << 16 | u32::from((libc::ETH_P_ALL as u16).to_be())
}

/// One key that compares no bit.
fn any_packet() -> Vec<u8> {
    let mut selector = vec![0; SELECTOR_BYTES];
    selector[0] = TC_U32_TERMINAL;
    selector[2] = 1;
    selector
}

fn mirred(ifb: u32) -> Vec<u8> {
    let mut parameters = vec![0; MIRRED_BYTES];
    parameters[8..12].copy_from_slice(&TC_ACT_STOLEN.to_ne_bytes());
    parameters[20..24].copy_from_slice(&TCA_EGRESS_REDIR.to_ne_bytes());
    parameters[MIRRED_IFINDEX..].copy_from_slice(&ifb.to_ne_bytes());
    parameters
}

fn describe(link: &LinkMessage) -> Device {
    let mut kind = None;
    let (mut alias, mut parent, mut bus) = (None, None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::LinkInfo(infos) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.clone()),
                    _ => None,
                });
            }
            LinkAttribute::IfAlias(text) => alias = Some(text.clone()),
            LinkAttribute::ParentDevName(name) => parent = Some(name.clone()),
            LinkAttribute::ParentDevBusName(name) => bus = Some(name.as_str()),
            _ => {}
        }
    }
    // The kernel's own list of what has no such header (6.18 `include/linux/if_arp.h`,
    // `dev_is_mac_header_xmit`).
    let network_frames = matches!(
        link.header.link_layer_type,
        LinkLayerType::None
            | LinkLayerType::Ppp
            | LinkLayerType::Rawip
            | LinkLayerType::Tunnel
            | LinkLayerType::Tunnel6
            | LinkLayerType::Sit
            | LinkLayerType::Ipgre
            | LinkLayerType::Void
    );
    Device {
        ifindex: link.header.index,
        network_frames,
        is_veth: kind == Some(InfoKind::Veth),
        virtio_name: parent.filter(|_| bus == Some("virtio")),
        is_ifb: kind == Some(InfoKind::Ifb),
        is_up: link.header.flags.contains(LinkFlags::Up),
        alias,
    }
}

/// A connection for links, in the network namespace of the thread that opened it.
struct Rtnetlink {
    handle: Handle,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Rtnetlink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Rtnetlink {
    fn open() -> Result<Self, QdiscError> {
        let op = "open a netlink socket";
        let (connection, handle, _unsolicited) =
            rtnetlink::new_connection().map_err(|source| QdiscError::Netlink { op, source })?;
        Ok(Self {
            handle,
            task: tokio::spawn(connection),
        })
    }

    async fn by_name(&self, name: &str) -> Result<Option<Device>, QdiscError> {
        let request = self.handle.link().get().match_name(name);
        match request.execute().try_next().await {
            Ok(link) => Ok(link.as_ref().map(describe)),
            Err(error) => match failed("look for the IFB device", 0, error) {
                QdiscError::NoSuchInterface { .. } => Ok(None),
                error => Err(error),
            },
        }
    }

    async fn add_ifb(&self, name: &str) -> Result<u32, QdiscError> {
        let ifb = LinkIfb::new(name).build();
        let request = self.handle.link().add(ifb);
        request.execute().await.map_err(|error| {
            let error = failed("make an IFB device", 0, error);
            match &error {
                QdiscError::Netlink { source, .. }
                    if source.raw_os_error() == Some(libc::EOPNOTSUPP) =>
                {
                    QdiscError::NoIfb
                }
                _ => error,
            }
        })?;
        let made = self.by_name(name).await?;
        made.map(|device| device.ifindex)
            .ok_or_else(|| QdiscError::NameTaken {
                name: name.to_owned(),
            })
    }
}

fn failed(op: &'static str, ifindex: u32, error: rtnetlink::Error) -> QdiscError {
    let source = match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    };
    QdiscError::from_io(op, ifindex, source)
}
