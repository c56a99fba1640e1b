//! An interface brought up and taken down: programs, hooks, qdisc, record.

use std::path::PathBuf;

use nix::net::if_::if_nametoindex;
use scheduler_common::settings::{Settings, settings_flags};
use tracing::{info, warn};

use crate::{
    acts::{self, Acts},
    datapath::{Datapath, DatapathError, EgressChoice, Hooking, Order, Origin},
    deploy::{DeployError, deploy},
    handover::{Handover, HandoverError},
    ingress::{DownlinkError, Ingress, setup},
    instance::{Instance, InstanceError, Record},
    model::{LoadError, Model, Registry},
    qdisc::{self, LeafChoice, QdiscError, Restored, RootChoice, Saved},
};

/// Which model acts at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModelChoice {
    /// What already acts, else the newest of the registry, else none.
    #[default]
    Latest,
    /// None: aging alone.
    None,
    /// The model in this file.
    File(PathBuf),
}

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
}

impl Wanted {
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

/// Why an interface could not be brought up or taken down.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The name is unknown here.
    #[error("no interface {name:?} in this network namespace; there are: {}", present.join(", "))]
    NoSuchInterface {
        /// The name.
        name: String,
        /// What there is.
        present: Vec<String>,
    },
    /// The instance's files.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The kernel programs.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The queueing hierarchy.
    #[error("{interface}: {source}")]
    Qdisc {
        /// The interface.
        interface: String,
        /// Why.
        source: QdiscError,
    },
    /// HTB without a rate, or a rate without HTB.
    #[error(
        "only htb shapes to a rate, and it needs one: pass `--rate` without `--qdisc`, or `--qdisc \
         prio|ets|fq|keep` without `--rate`"
    )]
    RateAndRoot,
    /// Departure times are asked for where nothing keeps them.
    #[error(
        "{interface}: `--pace` needs the fq qdisc, which keeps departure times, and {kind} stands there: pass \
         `--qdisc fq`"
    )]
    NoPacing {
        /// The interface.
        interface: String,
        /// Kind of its qdisc.
        kind: String,
    },
    /// Another interface of the instance reads other priorities.
    #[error(
        "all interfaces of an instance share one table of priorities, and {other} needs another one \
         ({theirs}; here {ours}): bring this one up under its own `--instance NAME`"
    )]
    OtherPriorities {
        /// The other interface.
        other: String,
        /// What stands there.
        theirs: String,
        /// What stands here.
        ours: String,
    },
    /// A shaped downlink has classes of HTB, and the uplink's priorities name others.
    #[error(
        "--ingress-rate shapes by htb, whose classes need priorities that another root ({root:?}) of {interface} would not \
         understand: pass `--rate` as well"
    )]
    DownlinkNeedsRate {
        /// The interface.
        interface: String,
        /// Its root qdisc.
        root: RootChoice,
    },
    /// The downlink.
    #[error("{interface}: {source}")]
    Downlink {
        /// The interface.
        interface: String,
        /// Why.
        source: DownlinkError,
    },
    /// The ingress program has no place, and what was asked for needs it.
    #[error(
        "{interface} takes no ingress program, so --steer, --metadata and --police can't work: another \
         XDP program is attached (`ip link set dev {interface} xdp off` removes it) or the driver \
         takes none; or leave these options out"
    )]
    NoIngress {
        /// The interface.
        interface: String,
    },
    /// Packets can't be handed to other CPUs there.
    #[error("{interface} can't steer: {why}; leave out --steer")]
    CannotSteer {
        /// The interface.
        interface: String,
        /// Why.
        why: &'static str,
    },
    /// The model asked for.
    #[error(transparent)]
    Model(#[from] LoadError),
    /// The model would not go into the kernel.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// The model that was named can't be put to work.
    #[error(transparent)]
    Handover(#[from] HandoverError),
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
    if (wanted.root == RootChoice::Htb) != wanted.rate_bps.is_some() {
        return Err(UplinkError::RateAndRoot);
    }
    if wanted.ingress.rate_bps.is_some() && wanted.root != RootChoice::Htb {
        return Err(UplinkError::DownlinkNeedsRate {
            interface: interface.to_owned(),
            root: wanted.root,
        });
    }
    let ifindex = index_of(interface)?;
    let _lock = instance.lock()?;
    forget_stale(instance, interface, ifindex).await?;
    let (datapath, origin) =
        Datapath::open_or_load(instance, &Settings::default(), wanted.flow_entries)?;
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

async fn undo(datapath: &Datapath, record: &Record) -> Result<(), UplinkError> {
    setup::take_off(Some(datapath), record).await?;
    datapath.detach(record)?;
    take_off(record).await.map(drop)
}

async fn restore(
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

/// Puts the chosen model to work and returns it, if there is one.
///
/// # Errors
/// If a model was named and can't be used. Damaged models of the registry are skipped with a warning.
pub fn choose_model(
    instance: &Instance,
    datapath: &Datapath,
    choice: &ModelChoice,
) -> Result<Option<Model>, UplinkError> {
    let registry = Registry::new(instance.models());
    match choice {
        ModelChoice::None => {
            if Handover::new(instance).take_out(datapath)?.is_some() {
                info!(
                    what = "aging rules",
                    why = "asked for no model",
                    "model taken out"
                );
            }
            Ok(None)
        }
        ModelChoice::File(path) => {
            let named = Registry::load_file(path)?;
            if let Some(active) = datapath.active()?
                && let Ok(acting) = registry.load(active.generation)
                && acting.unnumbered() == named.unnumbered()
            {
                info!(generation = active.generation, file = %path.display(), "model goes on");
                return Ok(Some(acting));
            }
            let (model, _) = Handover::new(instance).push(datapath, path)?;
            info!(generation = model.generation, file = %path.display(), "model deployed");
            Ok(Some(model))
        }
        ModelChoice::Latest => {
            if let Some(active) = datapath.active()? {
                info!(generation = active.generation, "model goes on");
                return Ok(registry.load(active.generation).ok());
            }
            let (model, skipped) = registry.latest_valid()?;
            for skip in skipped {
                warn!(file = %skip.path.display(), why = %skip.reason, "model skipped");
            }
            if let Some(model) = &model {
                deploy(datapath, model)?;
                info!(
                    generation = model.generation,
                    why = "newest of the registry",
                    "model deployed"
                );
            }
            Ok(model)
        }
    }
}
