//! By which path a live flow got its band.
//!
//! The agent is not needed: the flow's tag follows from its 5-tuple and the load's secret, the entry is read from the
//! pinned table. Features are not kept in the kernel, so the walk is made with what the entry tells; what it does not
//! tell is marked, and where the kernel's own prediction leaves one leaf only, that is said.

mod known;
mod spec;
mod verdict;
mod walk;

use nix::{
    errno::Errno,
    time::{ClockId, clock_gettime},
};
use scheduler_common::{
    counter::GENERATION_SLOTS,
    features::Feature,
    flow::{Flow, Story, half_flags},
};
use scheduler_ebpf::{
    flow::{ticks, to_us},
    hash::{self, Identity},
};
use serde::{Deserialize, Serialize};

pub use self::{
    known::{Rebuilt, Source},
    spec::FlowSpec,
    verdict::Verdict,
    walk::{Asked, Fitting, TreePath, Value, Walk},
};
use crate::{
    datapath::{Datapath, DatapathError},
    instance::{Instance, InstanceError, Record},
    model::{CompileError, Model, Registry, Thresholds},
};

/// Version of the JSON.
pub const SCHEMA: u32 = 1;

/// Why a flow can't be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The words name no flow.
    #[error(
        "{0:?} names no flow: give protocol and both ends with ports, as in `tcp 10.0.0.1:5000 10.0.0.2:80` or \
         `tcp [2001:db8::1]:5000 [2001:db8::2]:443`, or a line of `ss -tn` or `conntrack -L`"
    )]
    NoFlow(String),
    /// No such feature.
    #[error("no feature is called {name:?}; there are {all}")]
    NoFeature {
        /// The name.
        name: String,
        /// Those that exist.
        all: String,
    },
    /// The interface is not up.
    #[error("interface {name:?} is not up in this instance; up are: {up}")]
    NotUp {
        /// Its name.
        name: String,
        /// Those that are.
        up: String,
    },
    /// No programs.
    #[error(
        "no programs are loaded for this instance: bring an interface up first (`treeline up IFACE`)"
    )]
    NotLoaded,
    /// The table has no such flow.
    #[error(
        "the table has no entry of {flow} on {interfaces}: it has had no packet there, or has lost its place to a newer \
         flow; check the ends with `ss -tn`, and NAT: the programs see the addresses on the wire"
    )]
    NotFound {
        /// The flow.
        flow: String,
        /// Where it was looked for.
        interfaces: String,
    },
    /// The kernel programs can't be read.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The records can't be read.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The acting model is none that the kernel could walk.
    #[error("the acting model can't be walked")]
    Compile(#[from] CompileError),
    /// The clock can't be read.
    #[error("cannot read the clock")]
    Clock(#[from] Errno),
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The flow.
    pub flow: FlowSpec,
    /// Interface to look on; all that are up without one.
    pub interface: Option<String>,
    /// Features that the person who asks knows better.
    pub given: Vec<(Feature, u32)>,
}

/// A flow and how it is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Explanation {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Protocol and ends.
    pub flow: String,
    /// Interface that it was found on.
    pub interface: String,
    /// Port of the service.
    pub service_port: u16,
    /// Whether the handshake has told the service; else it is the lower port.
    pub service_known: bool,
    /// Round-trip time of the handshake; absent if it was not seen.
    pub rtt_us: Option<u32>,
    /// Since the first packet.
    pub age_us: u64,
    /// Generation that acts now; absent while aging rules.
    pub acting: Option<u32>,
    /// Where bands are cut now.
    pub thresholds: Thresholds,
    /// The direction as named, then the other one.
    pub directions: Vec<Direction>,
}

/// One direction of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Direction {
    /// Who sends.
    pub from: String,
    /// Who receives.
    pub to: String,
    /// Whether the sender is the service.
    pub from_service: bool,
    /// Number of the current or latest message, from 1; 0 = nothing was sent.
    pub message: u32,
    /// Whether it is under way.
    pub open: bool,
    /// Its payload so far.
    pub bytes: u32,
    /// Its segments so far.
    pub packets: u32,
    /// Since its latest packet, by the coarse clock; modulo 73 minutes.
    pub idle_us: u32,
    /// Size of the message before.
    pub previous_bytes: u32,
    /// Whether a model has judged it: only what leaves is judged.
    pub judged: bool,
    /// Generation that did, if it is the one that acts now.
    pub judged_by: Option<u32>,
    /// Size that the model predicted at the latest decision point.
    pub predicted_bytes: Option<u32>,
    /// It is looked at again when it has more bytes than this, or when its packets double.
    pub until_bytes: u32,
    /// Its band, and why.
    pub verdict: Verdict,
    /// The way through the acting model; absent without one, or without a message.
    pub walk: Option<Walk>,
}

/// Explains a flow.
///
/// # Errors
/// See [`ExplainError`].
pub fn explain(instance: &Instance, question: &Question) -> Result<Explanation, ExplainError> {
    let datapath = Datapath::open(instance)?.ok_or(ExplainError::NotLoaded)?;
    let records = places(instance, question.interface.as_deref())?;
    let hashing = datapath.hashing()?;
    let headers = question.flow.headers();
    for record in &records {
        let identity = hash::identify(&headers, record.ifindex, &hashing);
        if let Some((flow, story)) = datapath.flow(identity.tag)? {
            let found = Found {
                identity,
                flow,
                story,
            };
            return found.told(&datapath, instance, (question, &record.name));
        }
    }
    Err(ExplainError::NotFound {
        flow: question.flow.to_string(),
        interfaces: names(&records),
    })
}

/// Interfaces to look on.
fn places(instance: &Instance, wanted: Option<&str>) -> Result<Vec<Record>, ExplainError> {
    let mut records = instance.records()?;
    let Some(name) = wanted else {
        return if records.is_empty() {
            Err(ExplainError::NotLoaded)
        } else {
            Ok(records)
        };
    };
    let up = names(&records);
    records.retain(|record| record.name == name);
    if records.is_empty() {
        return Err(ExplainError::NotUp {
            name: name.to_owned(),
            up,
        });
    }
    Ok(records)
}

fn names(records: &[Record]) -> String {
    let names: Vec<&str> = records.iter().map(|record| record.name.as_str()).collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// A flow's entry, and which of its directions was named.
struct Found {
    identity: Identity,
    flow: Flow,
    story: Story,
}

/// What is the same for both directions.
struct Scene<'a> {
    question: &'a Question,
    thresholds: Thresholds,
    stream_window_us: u32,
    acting: Option<u32>,
    model: Option<Model>,
    now_ns: u64,
}

impl Found {
    fn told(
        &self,
        datapath: &Datapath,
        instance: &Instance,
        (question, interface): (&Question, &str),
    ) -> Result<Explanation, ExplainError> {
        let acting = datapath.active()?.map(|active| active.generation);
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?;
        let settings = datapath.settings()?;
        let scene = Scene {
            question,
            thresholds: Thresholds::from(&settings),
            stream_window_us: settings.stream_window_us,
            acting,
            // Without its file there is no path to show; the rest is worth having.
            model: acting
                .and_then(|generation| Registry::new(instance.models()).load(generation).ok()),
            now_ns: now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64,
        };
        let story = &self.story;
        let named = self.identity.half as usize & 1;
        let FlowSpec { from, to, .. } = question.flow;
        let ends = [(from, to), (to, from)].map(|(from, to)| (from.to_string(), to.to_string()));
        let halves = [named, named ^ 1].into_iter().zip(ends);
        Ok(Explanation {
            schema: SCHEMA,
            flow: question.flow.to_string(),
            interface: interface.to_owned(),
            service_port: story.service_port,
            service_known: story.service_known != 0,
            rtt_us: (story.rtt_us != 0).then_some(story.rtt_us),
            age_us: scene.now_ns.saturating_sub(story.first_ns) / 1000,
            acting,
            thresholds: scene.thresholds,
            directions: halves
                .map(|(half, ends)| self.direction(half, ends, &scene))
                .collect::<Result<_, _>>()?,
        })
    }

    fn direction(
        &self,
        index: usize,
        (from, to): (String, String),
        scene: &Scene<'_>,
    ) -> Result<Direction, ExplainError> {
        let (half, page) = (&self.flow.halves[index], &self.story.halves[index]);
        let judged = half.flags & half_flags::PREDICTED != 0;
        let of_acting = |acting: &u32| acting % GENERATION_SLOTS == u32::from(half.generation_slot);
        let judged_by = scene.acting.filter(of_acting).filter(|_| judged);
        let predicted_bytes = judged.then_some(page.predicted_bytes);
        let mut rebuilt = Rebuilt::of(
            &self.flow,
            &self.story,
            (index, scene.question.flow.protocol),
        );
        for (feature, value) in &scene.question.given {
            rebuilt.set(*feature, *value, Source::Given);
        }
        // Another model's prediction says nothing of this one's path.
        let compared = judged_by.and(predicted_bytes);
        let walk = scene.model.as_ref().filter(|_| page.message > 0);
        let walk = walk
            .map(|model| Walk::through(model, &rebuilt, compared))
            .transpose()?;
        let late_ticks = ticks(scene.now_ns).wrapping_sub(half.last_ticks);
        // A packet may have passed since the clock was read.
        let idle_ticks = if late_ticks > u32::MAX >> 1 {
            0
        } else {
            late_ticks
        };
        Ok(Direction {
            from,
            to,
            from_service: usize::from(self.story.service_half) == index,
            message: page.message,
            open: half.flags & half_flags::OPEN != 0,
            bytes: half.bytes,
            packets: half.packets,
            idle_us: to_us(idle_ticks),
            previous_bytes: if page.message > 0 {
                page.previous_bytes
            } else {
                0
            },
            judged,
            judged_by,
            predicted_bytes,
            until_bytes: half.until_bytes,
            verdict: Verdict::of(half, page, (&scene.thresholds, scene.stream_window_us)),
            walk,
        })
    }
}

/// Reads `name=value` of a feature.
///
/// # Errors
/// If there is no such feature, or the value is no number.
pub fn given(text: &str) -> Result<(Feature, u32), ExplainError> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let feature = Feature::ALL.iter().find(|feature| feature.name() == name);
    match (feature, value.parse()) {
        (Some(feature), Ok(value)) => Ok((*feature, value)),
        _ => Err(ExplainError::NoFeature {
            name: text.to_owned(),
            all: Feature::ALL
                .iter()
                .map(|feature| format!("{}=NUMBER", feature.name()))
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}
