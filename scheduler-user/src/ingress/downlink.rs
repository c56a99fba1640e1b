//! A downlink shaped: IFB device, hierarchy and classifier on it, redirect.
//!
//! The interface's ingress is led to an IFB device of its own, whose egress is a place to queue. There the
//! egress program classifies. Flows are kept in the interface's name, not the IFB's, so that requests, which
//! leave by the interface itself, and replies, which come by the IFB, meet in one entry. The XDP observer
//! is not attached meanwhile: it would count the replies a second time.

use scheduler_common::ingress::Interface;
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::{
    datapath::{Datapath, DatapathError, EgressChoice, Order},
    instance::{EgressHook, Record},
    qdisc::{self, Plan, QdiscError},
};

/// How a downlink is shaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downlink {
    /// Name of the IFB device.
    pub device: String,
    /// Its index.
    pub ifindex: u32,
    /// Rate of its hierarchy, bits per second.
    pub rate_bps: u64,
    /// How its egress is hooked.
    pub hook: EgressHook,
}

/// Why a downlink could not be shaped or left alone again.
#[derive(Debug, thiserror::Error)]
pub enum DownlinkError {
    /// A device, filter or qdisc.
    #[error(transparent)]
    Qdisc(#[from] QdiscError),
    /// The classifier.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
}

/// Name of the IFB device of an interface; an index has at most ten digits, so it is a valid one.
pub(crate) fn device_name(ifindex: u32) -> String {
    format!("tl{ifindex}")
}

/// Shapes the ingress of a recorded interface, or brings what is there in line.
///
/// # Errors
/// What failed; what was made stays noted in the record, so that [`remove`] clears it.
pub async fn make(
    datapath: &Datapath,
    record: &mut Record,
    plan: &Plan,
    choice: EgressChoice,
) -> Result<(), DownlinkError> {
    let device = device_name(record.ifindex);
    let ifb = qdisc::make_ifb(&device, &alias(record.ifindex)).await?;
    let hook = choice.resolve();
    record.downlink = Some(Downlink {
        device: device.clone(),
        ifindex: ifb,
        rate_bps: plan.rate_bps,
        hook,
    });
    qdisc::install(ifb, plan).await?;
    let facts = Interface {
        key_ifindex: record.ifindex,
        flags: super::frame_flags(record.ifindex).await?,
    };
    datapath.set_interface(ifb, Some(facts))?;
    if hook == EgressHook::Clsact || !datapath.has_egress_link(ifb) {
        datapath.detach_egress((&device, ifb), hook)?;
        datapath.attach_egress((&device, ifb), choice, Order::First)?;
    }
    record.added_clsact |= Datapath::add_clsact(&record.name)?;
    qdisc::redirect(record.ifindex, ifb).await?;
    info!(
        interface = record.name,
        device,
        rate = qdisc::format_rate(plan.rate_bps),
        "downlink shaped"
    );
    Ok(())
}

/// Leaves the ingress of a recorded interface alone; what is gone already is fine.
///
/// # Errors
/// What failed; it can be called again.
pub async fn remove(
    datapath: Option<&Datapath>,
    record: &Record,
    interface_is_present: bool,
) -> Result<(), DownlinkError> {
    let Some(downlink) = &record.downlink else {
        return Ok(());
    };
    // First of all, as packets that are led to a device that is gone are lost.
    if interface_is_present {
        qdisc::stop_redirect(record.ifindex).await?;
    }
    if let Some(datapath) = datapath {
        datapath.detach_egress((&downlink.device, downlink.ifindex), downlink.hook)?;
        datapath.set_interface(downlink.ifindex, None)?;
    }
    qdisc::remove_link(downlink.ifindex).await?;
    info!(
        interface = record.name,
        device = downlink.device,
        "downlink left alone"
    );
    Ok(())
}

/// What tells our device from another of the same name.
fn alias(ifindex: u32) -> String {
    format!("treeline: ingress of interface {ifindex}")
}
