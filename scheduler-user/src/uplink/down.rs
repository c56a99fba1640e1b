//! An interface taken down: hooks, qdisc and record go, what was before comes back.

use tracing::{info, warn};

use super::{UplinkError, Went, is_present};
use crate::{
    datapath::{Datapath, DatapathError},
    ingress::setup,
    instance::{Instance, Record},
    qdisc::{self, Restored, RootChoice, Saved},
};

/// Takes one interface down; with the last one the programs go too.
///
/// # Errors
/// What failed; it can be called again.
pub async fn down(instance: &Instance, interface: &str) -> Result<Went, UplinkError> {
    let _lock = instance.lock()?;
    let Some(record) = instance
        .records()?
        .into_iter()
        .find(|record| record.name == interface)
    else {
        return Ok(Went::NotUp);
    };
    let datapath = match Datapath::open(instance) {
        Ok(datapath) => datapath,
        // Another version's programs go with the last pin; there is nothing to ask them.
        Err(DatapathError::AbiVersion { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    setup::take_off(datapath.as_ref(), &record).await?;
    if let Some(datapath) = &datapath {
        datapath.detach(&record)?;
    }
    let restored = take_off(&record).await?;
    instance.remove_record(record.ifindex)?;
    if instance.records()?.is_empty() {
        Datapath::unload_all(instance)?;
    }
    info!(interface, "down");
    Ok(match restored {
        Some(Restored::LeftAlone { kind, .. }) => Went::QdiscLeftAlone { kind },
        _ => Went::Down,
    })
}

/// Takes every interface down and removes every pin, also those without a record.
///
/// # Errors
/// What failed; it can be called again.
pub async fn down_all(instance: &Instance) -> Result<Vec<(String, Went)>, UplinkError> {
    let mut all = Vec::new();
    for record in instance.records()? {
        let went = down(instance, &record.name).await?;
        all.push((record.name, went));
    }
    let _lock = instance.lock()?;
    Datapath::unload_all(instance)?;
    Ok(all)
}

/// Restores the qdiscs of a recorded interface; `None` if the interface is gone.
async fn take_off(record: &Record) -> Result<Option<Restored>, UplinkError> {
    if !is_present(record) {
        warn!(
            interface = record.name,
            "the interface is gone, and its qdisc with it"
        );
        return Ok(None);
    }
    let on = (record.name.as_str(), record.ifindex);
    let restored = restore(on, record.root, &record.saved).await?;
    if record.added_clsact {
        let removed = qdisc::remove_clsact(record.ifindex)
            .await
            .map_err(|source| UplinkError::Qdisc {
                interface: record.name.clone(),
                source,
            })?;
        if !removed {
            info!(
                interface = record.name,
                why = "others' filters hang on it",
                "clsact stays"
            );
        }
    }
    Ok(Some(restored))
}

pub(super) async fn undo(datapath: &Datapath, record: &Record) -> Result<(), UplinkError> {
    setup::take_off(Some(datapath), record).await?;
    datapath.detach(record)?;
    take_off(record).await.map(drop)
}

pub(super) async fn restore(
    (interface, ifindex): (&str, u32),
    root: RootChoice,
    saved: &Saved,
) -> Result<Restored, UplinkError> {
    if root == RootChoice::Keep {
        return Ok(Restored::AlreadyGone);
    }
    qdisc::restore(ifindex, saved)
        .await
        .map_err(|source| UplinkError::Qdisc {
            interface: interface.to_owned(),
            source,
        })
}
