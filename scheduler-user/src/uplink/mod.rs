//! An interface brought up and taken down: programs, hooks, qdisc, record.

mod down;
mod error;
mod model;
pub mod plan;

use nix::net::if_::if_nametoindex;
use scheduler_common::settings::{Act, Settings, settings_flags};
use tracing::{info, warn};

use self::down::{restore, undo};
pub use self::{
    down::{down, down_all},
    error::UplinkError,
    model::{ModelChoice, choose_model},
};
use crate::{
    acts::{self, Acts},
    datapath::{Datapath, EgressChoice, Hooking, Order, Origin},
    ingress::{Ingress, setup},
    instance::{Instance, Record},
    qdisc::{self, LeafChoice, RootChoice, Saved},
};

/// What is wanted of an interface.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Link rate, bits per second; only HTB has one, and must have it.
    pub rate_bps: Option<u64>,
    /// Root qdisc.
    pub root: RootChoice,
    /// Queue of each band.
    pub leaf: LeafChoice,
    /// Hook on egress.
    pub egress: EgressChoice,
    /// Place on egress among programs of others.
    pub order: Order,
    /// Put an administrator's root qdisc aside.
    pub replace: bool,
    /// Schedule tunnelled packets by the flow inside; holds for all interfaces of the instance.
    pub inner: bool,
    /// Acts besides, and priorities by hand; hold for all interfaces of the instance.
    pub acts: Acts,
    /// Room of the flow table, if the programs are to be loaded.
    pub flow_entries: u32,
    /// What to do with what comes in.
    pub ingress: Ingress,
    /// Watch only: no packet and no qdisc is touched, on any interface of the instance.
    pub observe: bool,
}

impl Wanted {
    /// Fails where what is wanted contradicts itself.
    pub(crate) fn check(&self, interface: &str) -> Result<(), UplinkError> {
        if (self.root == RootChoice::Htb) != self.rate_bps.is_some() {
            return Err(UplinkError::RateAndRoot);
        }
        if self.ingress.rate_bps.is_some() && self.root != RootChoice::Htb {
            return Err(UplinkError::DownlinkNeedsRate {
                interface: interface.to_owned(),
                root: self.root,
            });
        }
        Ok(())
    }

    const fn hooking(&self) -> Hooking {
        Hooking {
            egress: self.egress,
            order: self.order,
            // A shaped downlink is seen where it is shaped.
            ingress: self.ingress.rate_bps.is_none(),
        }
    }
}

/// What bringing up an interface came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// It was not up and is now.
    Up,
    /// It was up just so.
    AlreadyUp,
    /// It was up and has another rate, qdisc or acts now.
    Changed,
}

/// What taking down an interface came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Went {
    /// Everything is as it was before.
    Down,
    /// There was nothing to take down.
    NotUp,
    /// It is down; an administrator's qdisc stands where ours was and stays.
    QdiscLeftAlone {
        /// Kind of that qdisc.
        kind: String,
    },
}

/// Index of an interface in this network namespace.
///
/// # Errors
/// [`UplinkError::NoSuchInterface`], with the names there are.
pub fn index_of(name: &str) -> Result<u32, UplinkError> {
    if_nametoindex(name).map_err(|_absent| UplinkError::NoSuchInterface {
        name: name.to_owned(),
        present: nix::net::if_::if_nameindex()
            .map(|all| {
                all.iter()
                    .map(|one| one.name().to_string_lossy().into_owned())
                    .collect()
            })
            .unwrap_or_default(),
    })
}

/// Whether the recorded interface is still there, under whatever name.
pub fn is_present(record: &Record) -> bool {
    nix::net::if_::if_nameindex()
        .is_ok_and(|all| all.iter().any(|one| one.index() == record.ifindex))
}

/// Loads or adopts the programs and brings `interface` up.
///
/// # Errors
/// What failed; everything done for this interface is undone then.
pub async fn up(
    instance: &Instance,
    interface: &str,
    wanted: &Wanted,
) -> Result<(Datapath, Origin, Came), UplinkError> {
    wanted.check(interface)?;
    let ifindex = index_of(interface)?;
    let _lock = instance.lock()?;
    forget_stale(instance, interface, ifindex).await?;
    check_observes_alone(instance, (interface, ifindex), wanted)?;
    let fresh = Settings {
        act: if wanted.observe {
            Act::Observe as u32
        } else {
            Act::Priority as u32
        },
        ..Settings::default()
    };
    let (datapath, origin) = Datapath::open_or_load(instance, &fresh, wanted.flow_entries)?;
    let flow_entries = datapath.flow_entries()?;
    if flow_entries < wanted.flow_entries {
        warn!(
            flow_entries,
            wanted = wanted.flow_entries,
            "the flow table keeps its size until every interface is down"
        );
    }
    if origin != Origin::Adopted {
        reattach_others(instance, &datapath, ifindex).await?;
    }
    let before = datapath.settings()?;
    set_tunnels(&datapath, wanted.inner)?;
    let earlier = instance
        .records()?
        .into_iter()
        .find(|record| record.ifindex == ifindex);
    let came = match earlier {
        Some(record) => refresh(instance, &datapath, (record, interface), wanted, origin).await,
        None => bring_up(instance, &datapath, (interface, ifindex), wanted).await,
    };
    match came {
        Ok(came) => Ok((datapath, origin, came)),
        Err(error) => {
            if instance.records()?.is_empty() {
                datapath.unload()?;
            } else {
                datapath.set_settings(&before)?;
            }
            Err(error)
        }
    }
}

/// What the programs do to packets holds for all interfaces: fails where another one wants the contrary.
fn check_observes_alone(
    instance: &Instance,
    (interface, ifindex): (&str, u32),
    wanted: &Wanted,
) -> Result<(), UplinkError> {
    let Ok(Some(datapath)) = Datapath::open(instance) else {
        // Nothing is loaded, or what will be replaced.
        return Ok(());
    };
    let observes = datapath.settings()?.act == Act::Observe as u32;
    let records = instance.records()?;
    // Watching an interface that is scheduled would end that; one that was watched may be scheduled.
    let other = records
        .into_iter()
        .find(|record| (record.ifindex != ifindex || wanted.observe) && is_present(record));
    match other {
        Some(other) if observes != wanted.observe => Err(UplinkError::ObservesOnly {
            interface: interface.to_owned(),
            other: other.name,
            scheduled: !observes,
        }),
        _ => Ok(()),
    }
}

fn set_tunnels(datapath: &Datapath, inner: bool) -> Result<(), UplinkError> {
    let mut settings = datapath.settings()?;
    let before = settings.flags;
    settings.flags = if inner {
        before | settings_flags::INNER
    } else {
        before & !settings_flags::INNER
    };
    if settings.flags != before {
        datapath.set_settings(&settings)?;
    }
    Ok(())
}

async fn bring_up(
    instance: &Instance,
    datapath: &Datapath,
    (interface, ifindex): (&str, u32),
    wanted: &Wanted,
) -> Result<Came, UplinkError> {
    let qdisc_error = |source| UplinkError::Qdisc {
        interface: interface.to_owned(),
        source,
    };
    let installed = acts::install_root(ifindex, wanted)
        .await
        .map_err(qdisc_error)?;
    let saved = installed.saved.unwrap_or_else(Saved::default);
    let attached = match acts::set(instance, datapath, (interface, ifindex), wanted).await {
        Ok(_changed) => datapath
            .attach((interface, ifindex), wanted.hooking())
            .map_err(UplinkError::from),
        Err(error) => Err(error),
    };
    let hooks = match attached {
        Ok(hooks) => hooks,
        Err(error) => {
            restore((interface, ifindex), wanted.root, &saved).await?;
            return Err(error);
        }
    };
    let mut record = Record {
        name: interface.to_owned(),
        ifindex,
        rate_bps: wanted.rate_bps,
        root: wanted.root,
        leaf: installed.leaf,
        egress_hook: hooks.egress,
        ingress_hook: hooks.ingress,
        added_clsact: hooks.added_clsact,
        saved,
        order: wanted.order,
        ingress: wanted.ingress.clone(),
        downlink: None,
    };
    let done = match setup::set_up(datapath, &mut record, wanted).await {
        Ok(()) => instance.save_record(&record).map_err(UplinkError::from),
        Err(error) => Err(error),
    };
    if let Err(error) = done {
        undo(datapath, &record).await?;
        return Err(error);
    }
    info!(
        interface,
        rate = record.rate_bps.map(qdisc::format_rate),
        root = ?record.root,
        leaf = record.leaf,
        egress = ?record.egress_hook,
        ingress = ?record.ingress_hook,
        "up"
    );
    Ok(Came::Up)
}

/// The interface is recorded as up: mends what is missing and applies what has changed.
async fn refresh(
    instance: &Instance,
    datapath: &Datapath,
    (mut record, interface): (Record, &str),
    wanted: &Wanted,
    origin: Origin,
) -> Result<Came, UplinkError> {
    let ifindex = record.ifindex;
    let as_before = record.order == wanted.order && record.ingress == wanted.ingress;
    setup::rehook(datapath, &mut record, wanted.hooking(), origin)?;
    let qdisc_error = |source| UplinkError::Qdisc {
        interface: interface.to_owned(),
        source,
    };
    let before = qdisc::is_installed(ifindex).await.map_err(qdisc_error)?;
    let other_root = record.root != wanted.root;
    if other_root {
        // Each root goes with what it stands for; the next one finds the interface as it was.
        restore((interface, ifindex), record.root, &record.saved).await?;
        record.saved = Saved::default();
        record.root = wanted.root;
        instance.save_record(&record)?;
    }
    let installed = acts::install_root(ifindex, wanted)
        .await
        .map_err(qdisc_error)?;
    if let Some(saved) = installed.saved {
        record.saved = saved;
    }
    let other_acts = acts::set(instance, datapath, (interface, ifindex), wanted).await?;
    let same_rate = before.map(|state| state.rate_bps) == wanted.rate_bps;
    let same =
        same_rate && record.leaf == installed.leaf && !other_root && !other_acts && as_before;
    record.rate_bps = wanted.rate_bps;
    record.leaf = installed.leaf;
    record.order = wanted.order;
    record.ingress = wanted.ingress.clone();
    let set_up = setup::set_up(datapath, &mut record, wanted).await;
    instance.save_record(&record)?;
    set_up?;
    Ok(if same { Came::AlreadyUp } else { Came::Changed })
}

/// After a fresh load the other interfaces have lost their hooks.
async fn reattach_others(
    instance: &Instance,
    datapath: &Datapath,
    ifindex: u32,
) -> Result<(), UplinkError> {
    for mut record in instance.records()? {
        if record.ifindex == ifindex || !is_present(&record) {
            continue;
        }
        let hooking = Hooking {
            egress: record.egress_hook.into(),
            order: record.order,
            ingress: record.downlink.is_none(),
        };
        datapath.detach(&record)?;
        setup::tell_programs(datapath, &record).await?;
        let hooks = datapath.attach((&record.name, record.ifindex), hooking)?;
        if let Some(downlink) = &record.downlink {
            let ifb = (downlink.device.as_str(), downlink.ifindex);
            datapath.attach_egress(ifb, downlink.hook.into(), Order::First)?;
        }
        record.ingress_hook = hooks.ingress;
        record.added_clsact |= hooks.added_clsact;
        instance.save_record(&record)?;
        info!(
            interface = record.name,
            why = "programs were loaded afresh",
            "attached again"
        );
    }
    Ok(())
}

/// Cleans up after an interface of this name that was deleted and made again.
async fn forget_stale(
    instance: &Instance,
    interface: &str,
    ifindex: u32,
) -> Result<(), UplinkError> {
    let records = instance.records()?;
    let stale = records.iter().filter(|record| {
        record.ifindex != ifindex && record.name == interface && !is_present(record)
    });
    for record in stale {
        let datapath = Datapath::open(instance)?;
        if let Some(datapath) = &datapath {
            datapath.detach(record)?;
        }
        setup::take_off(datapath.as_ref(), record).await?;
        instance.remove_record(record.ifindex)?;
        info!(
            interface,
            ifindex = record.ifindex,
            "forgot an interface that is gone"
        );
    }
    Ok(())
}
