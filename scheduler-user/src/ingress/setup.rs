//! An interface's hooks and its ingress, brought in line with what is wanted.

use scheduler_common::ingress::Interface;

use super::downlink;
use crate::{
    datapath::{Datapath, Hooking, Origin},
    instance::{EgressHook, Record},
    qdisc::Plan,
    uplink::{self, UplinkError, Wanted},
};

/// Attaches what is missing or has another place, and detaches what is not wanted any more.
pub(crate) fn rehook(
    datapath: &Datapath,
    record: &mut Record,
    hooking: Hooking,
    origin: Origin,
) -> Result<(), UplinkError> {
    let name = record.name.clone();
    let on = (name.as_str(), record.ifindex);
    let fresh = origin != Origin::Adopted;
    if fresh {
        datapath.detach(record)?;
    }
    let hook_gone = record.egress_hook == EgressHook::Tcx && !datapath.has_egress_link(on.1);
    if fresh || hook_gone || record.order != hooking.order {
        datapath.detach_egress(on, record.egress_hook)?;
        let (hook, added_clsact) = datapath.attach_egress(on, hooking.egress, hooking.order)?;
        record.egress_hook = hook;
        record.added_clsact |= added_clsact;
    }
    if fresh || hooking.ingress != record.ingress_hook.is_some() {
        datapath.detach_ingress(on.1)?;
        record.ingress_hook = if hooking.ingress {
            datapath.attach_ingress(on)?
        } else {
            None
        };
    }
    Ok(())
}

/// Tells the programs about the interface, and shapes its downlink or leaves it alone.
pub(crate) async fn set_up(
    datapath: &Datapath,
    record: &mut Record,
    wanted: &Wanted,
) -> Result<(), UplinkError> {
    if wanted.ingress.flags() != 0 && record.ingress_hook.is_none() {
        let interface = record.name.clone();
        return Err(UplinkError::NoIngress { interface });
    }
    if wanted.ingress.steer.is_some() {
        let why = super::no_steering(record.ifindex, record.ingress_hook).await;
        let interface = record.name.clone();
        match why {
            Ok(None) => {}
            Ok(Some(why)) => return Err(UplinkError::CannotSteer { interface, why }),
            Err(source) => return Err(UplinkError::Qdisc { interface, source }),
        }
    }
    let interface = record.name.clone();
    let fault = |source| UplinkError::Downlink { interface, source };
    tell_programs(datapath, record).await?;
    match wanted.ingress.rate_bps {
        Some(rate_bps) => {
            let plan = Plan {
                leaf: wanted.leaf,
                ..Plan::new(rate_bps)
            };
            downlink::make(datapath, record, &plan, wanted.egress)
                .await
                .map_err(fault)
        }
        None => {
            downlink::remove(Some(datapath), record, true)
                .await
                .map_err(fault)?;
            record.downlink = None;
            Ok(())
        }
    }
}

/// Writes what is peculiar to the recorded interface, and the tables of what it asks for.
pub(crate) async fn tell_programs(datapath: &Datapath, record: &Record) -> Result<(), UplinkError> {
    let ifindex = record.ifindex;
    let fault = |source| UplinkError::Qdisc {
        interface: record.name.clone(),
        source,
    };
    let frame_flags = super::frame_flags(ifindex).await.map_err(fault)?;
    // Tables first: a limit that is not set is none, a CPU that is not set is a failure.
    if let Some(steering) = &record.ingress.steer {
        datapath.set_steering(steering)?;
    }
    if !record.ingress.police.is_empty() {
        datapath.set_limits(&record.ingress.police)?;
    }
    let interface = |ifindex, flags| Interface {
        key_ifindex: ifindex,
        flags,
    };
    let flags = frame_flags | record.ingress.flags();
    let facts = (flags != 0).then(|| interface(ifindex, flags));
    datapath.set_interface(ifindex, facts)?;
    if let Some(downlink) = &record.downlink {
        let facts = Some(interface(ifindex, frame_flags));
        datapath.set_interface(downlink.ifindex, facts)?;
    }
    Ok(())
}

/// Leaves the downlink alone and forgets the interface's facts.
pub(crate) async fn take_off(
    datapath: Option<&Datapath>,
    record: &Record,
) -> Result<(), UplinkError> {
    downlink::remove(datapath, record, uplink::is_present(record))
        .await
        .map_err(|source| UplinkError::Downlink {
            interface: record.name.clone(),
            source,
        })?;
    if let Some(datapath) = datapath {
        datapath.set_interface(record.ifindex, None)?;
    }
    Ok(())
}
