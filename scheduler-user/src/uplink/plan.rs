//! What `up` would do, as the commands of ip and tc that it amounts to.

use serde::Serialize;

use super::{UplinkError, Wanted, index_of};
use crate::{
    acts,
    datapath::{EgressChoice, Order},
    ingress::downlink,
    instance::{EgressHook, Instance},
    qdisc::{self, Ability, LeafChoice, Plan, QdiscError, RootChoice, RootOwner, commands},
};

/// One step and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What it is for.
    pub what: String,
    /// Commands that come to the same.
    pub commands: Vec<String>,
}

/// What `up` would do to an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Planned {
    /// The interface.
    pub interface: String,
    /// Whether it is up already, so that only what differs would be done.
    pub is_up: bool,
    /// In their order.
    pub steps: Vec<Step>,
}

/// Works out what [`super::up`] would do, and does nothing.
///
/// # Errors
/// What `up` would fail with, as far as it can be told beforehand.
pub async fn plan(
    instance: &Instance,
    interface: &str,
    wanted: &Wanted,
    ability: &Ability,
) -> Result<Planned, UplinkError> {
    wanted.check(interface)?;
    let ifindex = index_of(interface)?;
    super::check_observes_alone(instance, (interface, ifindex), wanted)?;
    let record = instance
        .records()?
        .into_iter()
        .find(|record| record.ifindex == ifindex);
    let mut steps = Vec::new();
    let fault = |source| UplinkError::Qdisc {
        interface: interface.to_owned(),
        source,
    };
    steps.push(
        root(interface, ifindex, wanted, ability)
            .await
            .map_err(fault)?,
    );
    if wanted.root == RootChoice::Keep {
        let mapping = acts::mapping_on(interface, ifindex, &wanted.acts).await?;
        if wanted.acts.pace.is_some() && !mapping.paces {
            return Err(UplinkError::NoPacing {
                interface: interface.to_owned(),
                kind: mapping.kind,
            });
        }
        steps.push(note(mapping.described));
    }
    if record.is_none() {
        steps.extend(hooks(instance, interface, wanted));
    }
    if let Some(rate_bps) = wanted.ingress.rate_bps {
        let downlink = record.as_ref().and_then(|record| record.downlink.as_ref());
        if let Some(downlink) = downlink {
            let plan = Plan::new(rate_bps);
            plan.check().map_err(fault)?;
            steps.push(Step {
                what: "the downlink's rate is changed in place".to_owned(),
                commands: commands::change(&downlink.device, &plan),
            });
        } else {
            let on = (interface, ifindex);
            steps.extend(shape_downlink(instance, on, (rate_bps, wanted), ability)?);
        }
    }
    Ok(Planned {
        interface: interface.to_owned(),
        is_up: record.is_some(),
        steps,
    })
}

fn note(what: impl Into<String>) -> Step {
    Step {
        what: what.into(),
        commands: Vec::new(),
    }
}

async fn root(
    interface: &str,
    ifindex: u32,
    wanted: &Wanted,
    ability: &Ability,
) -> Result<Step, QdiscError> {
    let plan = Plan {
        leaf: wanted.leaf,
        ..wanted.rate_bps.map_or_else(Plan::without_rate, Plan::new)
    };
    plan.check()?;
    let Some(kind) = wanted.root.kind() else {
        return Ok(note("the root qdisc stays as it is"));
    };
    let leaf = leaf_of(wanted.leaf, ability)?;
    if !ability.kinds.contains(&kind) {
        return Err(match wanted.root {
            RootChoice::Htb => QdiscError::NoHtb,
            _ => QdiscError::NoSorter { kind },
        });
    }
    let make = commands::make(interface, wanted.root, &plan, leaf);
    let (what, commands) = match qdisc::root_owner(ifindex).await? {
        RootOwner::Kernel => (format!("the root qdisc becomes {kind}"), make),
        RootOwner::Treeline { kind: stands } if stands == kind && kind == "htb" => (
            "the rate is changed in place, and no packet is lost".to_owned(),
            commands::change(interface, &plan),
        ),
        RootOwner::Treeline { kind: stands } if stands == kind => {
            (format!("the root qdisc is {kind} already"), Vec::new())
        }
        RootOwner::Treeline { kind: stands } => (
            format!("the root qdisc {stands} of an earlier `up` becomes {kind}"),
            [vec![commands::remove(interface)], make].concat(),
        ),
        RootOwner::Administrator {
            kind: stands,
            handle,
        } if wanted.replace => {
            qdisc::check_restorable(ifindex).await?;
            (
                format!("{stands} {handle} is put aside until `treeline down {interface}`"),
                [vec![commands::remove(interface)], make].concat(),
            )
        }
        RootOwner::Administrator { kind, handle } => {
            return Err(QdiscError::Occupied { kind, handle });
        }
    };
    Ok(Step { what, commands })
}

/// The kind of leaf that it comes to.
fn leaf_of(choice: LeafChoice, ability: &Ability) -> Result<&'static str, QdiscError> {
    let has_fair = ability.kinds.contains(&"fq_codel");
    match choice {
        LeafChoice::Auto | LeafChoice::FqCodel if has_fair => Ok("fq_codel"),
        LeafChoice::FqCodel => Err(QdiscError::NoLeaf { kind: "fq_codel" }),
        LeafChoice::Auto | LeafChoice::Pfifo => Ok("pfifo"),
    }
}

fn hooks(instance: &Instance, interface: &str, wanted: &Wanted) -> Vec<Step> {
    let programs = instance.pins().join("programs");
    let pin = |name: &str| programs.join(name).display().to_string();
    let mut steps = vec![note(format!(
        "programs and maps are loaded and pinned below {}, unless they are there",
        instance.pins().display()
    ))];
    steps.push(attach_egress(
        interface,
        wanted.egress,
        wanted.order,
        &pin(scheduler_common::names::EGRESS),
    ));
    if wanted.ingress.rate_bps.is_none() {
        let pin = pin(scheduler_common::names::INGRESS);
        steps.push(Step {
            what: "ingress is observed, in the driver if it can (else `xdpgeneric`)".to_owned(),
            commands: vec![format!("ip link set dev {interface} xdpdrv pinned {pin}")],
        });
    }
    steps
}

fn attach_egress(device: &str, choice: EgressChoice, order: Order, pin: &str) -> Step {
    let commands = match choice.resolve() {
        // No command of iproute2 attaches by TCX.
        EgressHook::Tcx => vec![format!(
            "bpftool net attach tcx_egress pinned {pin} dev {device}"
        )],
        EgressHook::Clsact => {
            let priority = match order {
                Order::First => 1,
                Order::Last => 0xff7e,
            };
            vec![
                format!("tc qdisc add dev {device} clsact"),
                format!(
                    "tc filter add dev {device} egress pref {priority} protocol all bpf direct-action object-pinned {pin}"
                ),
            ]
        }
    };
    Step {
        what: format!("{device}: egress is classified"),
        commands,
    }
}

fn shape_downlink(
    instance: &Instance,
    (interface, ifindex): (&str, u32),
    (rate_bps, wanted): (u64, &Wanted),
    ability: &Ability,
) -> Result<[Step; 2], UplinkError> {
    let fault = |source| UplinkError::Qdisc {
        interface: interface.to_owned(),
        source,
    };
    let plan = Plan::new(rate_bps);
    plan.check().map_err(fault)?;
    if let Some(why) = &ability.no_downlink {
        return Err(UplinkError::NoDownlink { why: why.clone() });
    }
    let leaf = leaf_of(wanted.leaf, ability).map_err(fault)?;
    let device = downlink::device_name(ifindex);
    let mut all = vec![
        format!("ip link add {device} type ifb"),
        format!("ip link set dev {device} up"),
    ];
    all.extend(commands::make(&device, RootChoice::Htb, &plan, leaf));
    if wanted.egress.resolve() != EgressHook::Clsact {
        all.push(format!("tc qdisc add dev {interface} clsact"));
    }
    all.push(format!(
        "tc filter add dev {interface} ingress pref 65406 protocol all u32 match u32 0 0 action mirred egress redirect dev \
         {device}"
    ));
    let pin = instance
        .pins()
        .join("programs")
        .join(scheduler_common::names::EGRESS);
    Ok([
        Step {
            what: format!("ingress is led through {device}"),
            commands: all,
        },
        attach_egress(
            &device,
            wanted.egress,
            Order::First,
            &pin.display().to_string(),
        ),
    ])
}
