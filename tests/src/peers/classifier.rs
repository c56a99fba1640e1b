//! A peer's own classifier in the kernel, attached as long as it is held.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    programs::{LinkOrder, SchedClassifier, TcAttachType, tc::TcAttachOptions},
};
use scheduler_common::{flow::WAYS, names};

use crate::netns::Namespace;

static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("TREELINE_OBJECTS"), "/treeline-peers"));

const PROGRAM: &str = "qosify_tc";

/// The program and its link.
pub(super) struct Classifier {
    _ebpf: Ebpf,
}

impl std::fmt::Debug for Classifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(PROGRAM)
    }
}

impl Classifier {
    /// Loads it and puts it on the interface's egress.
    pub(super) fn attach(namespace: &Namespace, device: &str) -> Result<Self> {
        // The object's other maps are not used: as small as can be.
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(names::FLOWS, 1)
            .map_max_entries(names::STORIES, WAYS as u32)
            .load(OBJECT)
            .context("cannot load the peers' programs")?;
        let program: &mut SchedClassifier = ebpf
            .program_mut(PROGRAM)
            .with_context(|| format!("no program {PROGRAM}"))?
            .try_into()?;
        program
            .load()
            .with_context(|| format!("cannot load {PROGRAM}"))?;
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        namespace.enter(|| {
            program
                .attach_with_options(device, TcAttachType::Egress, order)
                .map(drop)
                .with_context(|| {
                    format!("cannot attach {PROGRAM}; it needs a kernel of 6.6 or later")
                })
        })?;
        Ok(Self { _ebpf: ebpf })
    }
}
