//! What is shown: two readings, and what became of the counters in between.

use std::time::Duration;

use serde::Serialize;

use super::reading::Reading;
use crate::{
    dataset::services::Services,
    model::Gain,
    qdisc::{BandStats, RootChoice},
};

/// Version of the JSON.
pub const SCHEMA: u32 = 1;

/// Everything that is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct View {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name of the instance.
    pub instance: String,
    /// Process id of the agent, if one runs.
    pub agent: Option<u32>,
    /// Whether packets are only watched.
    pub observes_only: bool,
    /// Time between the two readings, which rates are of; absent after the first one.
    pub over_ms: Option<u64>,
    /// The model that acts; absent while aging rules.
    pub model: Option<ActiveModel>,
    /// Generation of the candidate in the shadow, if there is one.
    pub shadow: Option<u32>,
    /// Samples that the programs emit a second.
    pub samples_per_s: Option<f64>,
    /// Samples that were lost a second.
    pub samples_lost_per_s: Option<f64>,
    /// What the kernel programs cost; absent where this user may not have them measured.
    pub programs: Option<Vec<Cost>>,
    /// Interfaces, and shaped downlinks after theirs.
    pub links: Vec<Link>,
    /// What the agent has seen of services; absent without one.
    pub services: Option<Services>,
}

/// The model that acts.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ActiveModel {
    /// Its number.
    pub generation: u32,
    /// Nodes of its trees in the kernel's table.
    pub nodes: u32,
    /// What it won over aging when it was judged.
    pub gain: Option<Gain>,
    /// Packets that it classifies a second.
    pub packets_per_s: Option<f64>,
}

/// What a program costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// `egress` or `ingress`.
    pub hook: &'static str,
    /// Runs a second; a packet of many segments is one.
    pub runs_per_s: Option<f64>,
    /// Time of a run in the mean; absent where it did not run.
    pub ns_per_run: Option<f64>,
    /// Share of one core that it takes.
    pub core_share: Option<f64>,
}

/// One direction of an interface.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Link {
    /// The interface.
    pub name: String,
    /// `egress`, or `ingress` for a shaped downlink.
    pub direction: &'static str,
    /// Whether the interface is still there.
    pub present: bool,
    /// Rate that it is shaped to, bits per second.
    pub shaped_bps: Option<u64>,
    /// What stands at the root.
    pub root: RootChoice,
    /// Queue of the bands.
    pub leaf: String,
    /// What all bands together send, bits per second.
    pub rate_bps: Option<f64>,
    /// The bands; none where the qdisc does not tell them apart.
    pub bands: Vec<Band>,
}

/// One band.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Band {
    /// Its number; 0 is served first.
    pub band: u8,
    /// What it sends, bits per second.
    pub rate_bps: Option<f64>,
    /// Packets that it sends a second.
    pub packets_per_s: Option<f64>,
    /// Bytes that wait.
    pub backlog_bytes: u64,
    /// Packets that wait.
    pub backlog_packets: u64,
    /// Packets that it drops a second.
    pub drops_per_s: Option<f64>,
    /// What a packet that comes now waits for: the backlog over what the band sent a second since the last reading. An estimate;
    /// absent where something waits and nothing was sent, or nothing is known yet.
    pub delay_us: Option<f64>,
}

impl View {
    /// What `now` shows, with rates since `before`.
    pub(super) fn of(before: Option<&Reading>, now: &Reading) -> Self {
        let status = &now.status;
        let before = before.filter(|before| before.at < now.at);
        let since = before.map(|before| (before, now.at.duration_since(before.at)));
        let counter = |name: &str| {
            let of = |reading: &Reading| reading.status.counters.get(name).copied().unwrap_or(0);
            since.and_then(|(before, over)| per_s(of(before), of(now), over))
        };
        let model = status.model.as_ref().map(|model| ActiveModel {
            generation: model.generation,
            nodes: model.nodes,
            gain: now.gain,
            packets_per_s: since.and_then(|(before, over)| {
                let earlier = before.status.model.as_ref();
                let earlier = earlier.filter(|it| it.generation == model.generation)?;
                per_s(earlier.packets, model.packets, over)
            }),
        });
        Self {
            schema: SCHEMA,
            instance: status.instance.clone(),
            agent: status.agent.as_ref().map(|agent| agent.pid),
            observes_only: status.observes_only,
            over_ms: since.map(|(_, over)| over.as_millis() as u64),
            model,
            shadow: status.shadow.as_ref().map(|shadow| shadow.generation),
            samples_per_s: counter("samples_sent"),
            samples_lost_per_s: counter("samples_lost"),
            programs: costs(since, now),
            links: links(since, now),
            services: now.services.clone(),
        }
    }
}

/// Growth of a counter a second; unknown where it began anew.
fn per_s(before: u64, now: u64, over: Duration) -> Option<f64> {
    Some(now.checked_sub(before)? as f64 / over.as_secs_f64())
}

fn costs(since: Option<(&Reading, Duration)>, now: &Reading) -> Option<Vec<Cost>> {
    let costs = now.programs.as_ref()?.iter().map(|program| {
        let earlier = since.and_then(|(before, over)| {
            let mut all = before.programs.iter().flatten();
            Some((all.find(|it| it.hook == program.hook)?, over))
        });
        let grown = earlier.and_then(|(before, over)| {
            let runs = program.runs.checked_sub(before.runs)?;
            let ran = program.ran.checked_sub(before.ran)?;
            Some((runs as f64, ran, over))
        });
        Cost {
            hook: program.hook,
            runs_per_s: grown.map(|(runs, _, over)| runs / over.as_secs_f64()),
            ns_per_run: grown
                .filter(|(runs, ..)| *runs > 0.0)
                .map(|(runs, ran, _)| ran.as_nanos() as f64 / runs),
            core_share: grown.map(|(_, ran, over)| ran.as_secs_f64() / over.as_secs_f64()),
        }
    });
    Some(costs.collect())
}

fn links(since: Option<(&Reading, Duration)>, now: &Reading) -> Vec<Link> {
    let mut links = Vec::new();
    for interface in &now.status.interfaces {
        let earlier = since.and_then(|(before, over)| {
            let mut all = before.status.interfaces.iter();
            Some((all.find(|it| it.ifindex == interface.ifindex)?, over))
        });
        let own = earlier.map(|(before, over)| (before.bands.as_slice(), over));
        links.push(Link {
            name: interface.name.clone(),
            direction: "egress",
            present: interface.present,
            shaped_bps: interface.rate_bps,
            root: interface.root,
            leaf: interface.leaf.clone(),
            rate_bps: total_bps(own, &interface.bands),
            bands: bands(own, &interface.bands),
        });
        let Some(downlink) = &interface.downlink else {
            continue;
        };
        let own = earlier
            .and_then(|(before, over)| Some((before.downlink.as_ref()?.bands.as_slice(), over)));
        links.push(Link {
            name: interface.name.clone(),
            direction: "ingress",
            present: interface.present,
            shaped_bps: Some(downlink.rate_bps),
            root: RootChoice::Htb,
            leaf: interface.leaf.clone(),
            rate_bps: total_bps(own, &downlink.bands),
            bands: bands(own, &downlink.bands),
        });
    }
    links
}

/// The bands of the same link one reading before, and how long ago that was.
type Earlier<'a> = Option<(&'a [BandStats], Duration)>;

fn total_bps(earlier: Earlier<'_>, now: &[BandStats]) -> Option<f64> {
    let (before, over) = earlier.filter(|_| !now.is_empty())?;
    let sum = |bands: &[BandStats]| bands.iter().map(|band| band.bytes).sum();
    Some(per_s(sum(before), sum(now), over)? * 8.0)
}

fn bands(earlier: Earlier<'_>, now: &[BandStats]) -> Vec<Band> {
    let band = |now: &BandStats| {
        let before = earlier
            .and_then(|(bands, over)| Some((bands.iter().find(|it| it.band == now.band)?, over)));
        let grown = |of: fn(&BandStats) -> u64| {
            before.and_then(|(before, over)| per_s(of(before), of(now), over))
        };
        let sent_per_s = grown(|band| band.bytes);
        let delay_us = match sent_per_s {
            _ if now.backlog_bytes == 0 => Some(0.0),
            Some(sent_per_s) if sent_per_s > 0.0 => {
                Some(now.backlog_bytes as f64 / sent_per_s * 1e6)
            }
            _ => None,
        };
        Band {
            band: now.band,
            rate_bps: sent_per_s.map(|bytes| bytes * 8.0),
            packets_per_s: grown(|band| band.packets),
            backlog_bytes: now.backlog_bytes,
            backlog_packets: now.backlog_packets,
            drops_per_s: grown(|band| band.drops),
            delay_us,
        }
    };
    now.iter().map(band).collect()
}
