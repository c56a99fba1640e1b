//! The administrator's qdisc tree: taken down in order, replayed.

use std::collections::BTreeSet;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE, Nla as _};
use nix::libc;
use serde::{Deserialize, Serialize};

use super::{
    QDISC_MAJOR, QdiscError,
    htb::{HTB_VERSION, TCA_HTB_INIT, TCA_HTB_OFFLOAD},
    netlink::{
        Netlink, ROOT, TCA_OPTIONS, TcObject, emit_attributes, find, handle_text, parse_attributes,
    },
    tbf,
};

/// Kinds whose dump is known to make the same qdisc again.
const RESTORABLE: [&str; 9] = [
    "pfifo",
    "bfifo",
    "pfifo_fast",
    "tbf",
    "htb",
    "mq",
    "fq_codel",
    "fq",
    "prio",
];
const TCA_STATS_RATE_EST: u16 = 2;
/// Attributes that a dump does not give in full: size table, shared filter blocks.
const NOT_REPLAYABLE: [(u16, &str); 3] = [
    (8, "a size table (stab)"),
    (13, "a shared ingress block"),
    (14, "a shared egress block"),
];

/// The root qdisc that stood before ours, in a form that can be written to a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// In the order in which they have to be made; empty for the kernel's default.
    steps: Vec<Step>,
}

/// A qdisc or a class to be made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Step {
    is_class: bool,
    handle: u32,
    parent: u32,
    kind: String,
    options: Option<Vec<u8>>,
}

impl Saved {
    /// Nothing but the kernel's default qdisc, which comes back by itself.
    pub(super) fn kernel_default() -> Self {
        Self { steps: Vec::new() }
    }

    /// Whether the kernel's default stood there.
    pub fn is_kernel_default(&self) -> bool {
        self.steps.is_empty()
    }

    /// The earlier root in a few words, for logs.
    pub fn describe(&self) -> String {
        self.steps.first().map_or_else(
            || "the kernel's default".to_owned(),
            |root| format!("{} {}", root.kind, handle_text(root.handle)),
        )
    }

    /// Reads an administrator's tree; fails where it could not be made again as it is.
    pub(super) async fn capture(netlink: &Netlink) -> Result<Self, QdiscError> {
        let saved = Self::snapshot(netlink).await?;
        for step in &saved.steps {
            if step.handle >> 16 == u32::from(QDISC_MAJOR) {
                let text = handle_text(step.handle);
                return refuse(format!("its {} {text} uses our handle", step.kind));
            }
            if !netlink.filters(step.handle).await?.is_empty() {
                let text = handle_text(step.handle);
                return refuse(format!("filters are attached to its {} {text}", step.kind));
            }
        }
        Ok(saved)
    }

    /// Reads the present tree, whoever made it.
    pub(super) async fn snapshot(netlink: &Netlink) -> Result<Self, QdiscError> {
        let qdiscs = netlink.qdiscs().await?;
        let classes = netlink.classes().await?;
        let mut steps = Vec::new();
        // Handle 0 marks what the kernel attaches by itself, such as the children of mq.
        for qdisc in qdiscs.iter().filter(|qdisc| qdisc.handle != 0) {
            steps.push(Step::new(qdisc, false)?);
        }
        // Classes of other kinds only stand for the one child of their qdisc.
        for class in classes.iter().filter(|class| class.kind() == "htb") {
            steps.push(Step::new(class, true)?);
        }
        Ok(Self {
            steps: in_order(steps)?,
        })
    }

    /// Makes the tree again. The root must be free.
    pub(super) async fn replay(&self, netlink: &Netlink) -> Result<(), QdiscError> {
        self.replay_beyond(netlink, &[]).await
    }

    /// Sets what has changed since the snapshot back to what it was.
    pub(super) async fn replay_changed(&self, netlink: &Netlink) -> Result<(), QdiscError> {
        // The unchanged is not sent: fq_codel refuses its own number of flows once it runs.
        let present = Self::snapshot(netlink).await?;
        self.replay_beyond(netlink, &present.steps).await
    }

    async fn replay_beyond(&self, netlink: &Netlink, present: &[Step]) -> Result<(), QdiscError> {
        for step in &self.steps {
            if present.contains(step) {
                continue;
            }
            let object = TcObject::new(step.handle, step.parent, &step.kind, step.options.clone());
            let (op, message_type, flags) = if step.is_class {
                ("restore a class", libc::RTM_NEWTCLASS, NLM_F_CREATE)
            } else {
                (
                    "restore a qdisc",
                    libc::RTM_NEWQDISC,
                    NLM_F_CREATE | NLM_F_REPLACE,
                )
            };
            netlink.change(op, message_type, flags, &object).await?;
        }
        Ok(())
    }

    /// Whether this class is part of the tree.
    pub(super) fn has_class(&self, handle: u32) -> bool {
        self.steps
            .iter()
            .any(|step| step.is_class && step.handle == handle)
    }
}

impl Step {
    fn new(object: &TcObject, is_class: bool) -> Result<Self, QdiscError> {
        let kind = object.kind();
        let text = handle_text(object.handle);
        if !RESTORABLE.contains(&kind.as_str()) {
            return refuse(format!(
                "{kind} {text} is of a kind whose restoring is not tested"
            ));
        }
        for (attribute, name) in NOT_REPLAYABLE {
            if object.attribute(attribute).is_some() {
                return refuse(format!("{kind} {text} has {name}"));
            }
        }
        if object
            .statistics()
            .iter()
            .any(|nla| nla.kind() == TCA_STATS_RATE_EST)
        {
            return refuse(format!("{kind} {text} has a rate estimator"));
        }
        let options = match object.attribute(TCA_OPTIONS) {
            Some(dumped) => Some(replayable_options(&kind, is_class, dumped)?),
            None => None,
        };
        Ok(Self {
            is_class,
            handle: object.handle,
            parent: object.parent,
            kind,
            options,
        })
    }

    /// Whether what this hangs on has been made already.
    fn is_ready(&self, made: &BTreeSet<u32>, htb_majors: &BTreeSet<u32>) -> bool {
        let owner = self.handle & 0xffff_0000;
        if self.is_class {
            return made.contains(&owner) && (self.parent == ROOT || made.contains(&self.parent));
        }
        let parent_owner = self.parent & 0xffff_0000;
        self.parent == ROOT
            || made.contains(&self.parent)
            || (made.contains(&parent_owner) && !htb_majors.contains(&parent_owner))
    }
}

/// Puts parents before children.
fn in_order(mut steps: Vec<Step>) -> Result<Vec<Step>, QdiscError> {
    let htb_majors: BTreeSet<u32> = steps
        .iter()
        .filter(|s| !s.is_class && s.kind == "htb")
        .map(|s| s.handle)
        .collect();
    let mut made = BTreeSet::new();
    let mut ordered: Vec<Step> = Vec::with_capacity(steps.len());
    while !steps.is_empty() {
        let (ready, waiting): (Vec<Step>, Vec<Step>) = steps
            .into_iter()
            .partition(|step| step.is_ready(&made, &htb_majors));
        let Some(orphan) = waiting.first().filter(|_| ready.is_empty()) else {
            made.extend(ready.iter().map(|step| step.handle));
            ordered.extend(ready);
            steps = waiting;
            continue;
        };
        let text = handle_text(orphan.handle);
        return refuse(format!(
            "it is not known where {} {text} hangs",
            orphan.kind
        ));
    }
    Ok(ordered)
}

/// Dumped options in the form in which the kernel accepts them.
fn replayable_options(kind: &str, is_class: bool, dumped: Vec<u8>) -> Result<Vec<u8>, QdiscError> {
    match kind {
        "htb" if !is_class => htb_options(&dumped),
        "tbf" => Ok(tbf::with_burst(dumped)),
        _ => Ok(dumped),
    }
}

/// The kernel dumps a longer version number than it accepts, and a counter.
fn htb_options(dumped: &[u8]) -> Result<Vec<u8>, QdiscError> {
    let malformed = |what: &str| QdiscError::Malformed {
        what: format!("htb options: {what}"),
    };
    let mut nested = parse_attributes(dumped).map_err(|error| malformed(&error.to_string()))?;
    if find(&nested, TCA_HTB_OFFLOAD).is_some() {
        return refuse("htb is offloaded to hardware".to_owned());
    }
    let mut init = find(&nested, TCA_HTB_INIT).ok_or_else(|| malformed("no TCA_HTB_INIT"))?;
    if init.len() < 20 {
        return Err(malformed("short TCA_HTB_INIT"));
    }
    init[..4].copy_from_slice(&HTB_VERSION.to_ne_bytes());
    init[16..20].fill(0);
    nested.retain(|nla| nla.kind() != TCA_HTB_INIT);
    nested.push(DefaultNla::new(TCA_HTB_INIT, init));
    Ok(emit_attributes(&nested))
}

fn refuse<T>(reason: String) -> Result<T, QdiscError> {
    Err(QdiscError::NotRestorable { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(is_class: bool, handle: u32, parent: u32, kind: &str) -> Step {
        Step {
            is_class,
            handle,
            parent,
            kind: kind.to_owned(),
            options: None,
        }
    }

    #[test]
    fn parents_come_before_children_however_they_were_listed() {
        let listed = vec![
            step(false, 0x30_0000, 0x20_0001, "pfifo"),
            step(false, 0x20_0000, 0x10_0012, "tbf"),
            step(true, 0x10_0012, 0x10_0001, "htb"),
            step(true, 0x10_0001, ROOT, "htb"),
            step(false, 0x10_0000, ROOT, "htb"),
        ];
        let handles: Vec<u32> = in_order(listed).unwrap().iter().map(|s| s.handle).collect();
        assert_eq!(
            handles,
            [0x10_0000, 0x10_0001, 0x10_0012, 0x20_0000, 0x30_0000]
        );
    }

    #[test]
    fn a_child_without_parent_is_refused() {
        let listed = vec![
            step(false, 0x10_0000, ROOT, "htb"),
            step(false, 0x30_0000, 0x10_0001, "pfifo"),
        ];
        let message = in_order(listed).unwrap_err().to_string();
        assert!(message.contains("pfifo 30:"), "{message}");
    }

    #[test]
    fn saved_trees_survive_a_file() {
        let saved = Saved {
            steps: vec![step(false, 0x10_0000, ROOT, "pfifo")],
        };
        let text = serde_json::to_string(&saved).unwrap();
        assert_eq!(serde_json::from_str::<Saved>(&text).unwrap(), saved);
        assert_eq!(saved.describe(), "pfifo 10:");
        assert!(!saved.is_kernel_default() && Saved::kernel_default().is_kernel_default());
    }
}
