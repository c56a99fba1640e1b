//! Why an interface could not be brought up or taken down.

use crate::{
    config::nearest,
    datapath::DatapathError,
    deploy::DeployError,
    handover::HandoverError,
    ingress::DownlinkError,
    instance::InstanceError,
    model::LoadError,
    qdisc::{QdiscError, RootChoice},
};

/// Why an interface could not be brought up or taken down.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// The name is unknown here.
    #[error(
        "no interface {name:?} in this network namespace{}; there are: {}",
        nearest(name, present.iter().map(String::as_str))
            .map_or_else(String::new, |meant| format!(", did you mean {meant}?")),
        present.join(", ")
    )]
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
    /// Watching only beside interfaces that are scheduled, or the other way round.
    #[error(
        "{other} is up and {}: one set of programs serves an instance, so take it down first (`treeline down {other}`) or \
         bring {interface} up under its own `--instance NAME`",
        if *scheduled { "scheduled, and watching would end that" } else { "only watched" }
    )]
    ObservesOnly {
        /// The interface that was to come up.
        interface: String,
        /// The other one.
        other: String,
        /// Whether the other one is scheduled.
        scheduled: bool,
    },
    /// A downlink can't be shaped on this kernel.
    #[error("{why}")]
    NoDownlink {
        /// Why.
        why: String,
    },
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
