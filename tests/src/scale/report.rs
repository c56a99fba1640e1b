//! What was measured, as text and as JSON.

use std::{
    fmt::{self, Display},
    fs,
};

use anyhow::Result;
use bed::{
    machine::{Disturbance, Watch},
    stats,
};
use serde::Serialize;

use crate::{Options, load::Played, site::Cost};

/// Version of scale.json.
const SCHEMA: u32 = 1;
const SMALL_BYTES: u64 = 10_000;
const MEDIUM_BYTES: u64 = 100_000;

/// All of it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: u32,
    kernel: String,
    connections_at_once: u32,
    rate_bps: u64,
    load: f64,
    seconds: u64,
    pub(crate) connections: Vec<Connections>,
    pub(crate) interfaces: Vec<Interfaces>,
    pub(crate) queues: Vec<Queues>,
    pub(crate) machine: Option<Disturbance>,
    #[serde(skip)]
    pub(crate) watch: Option<Watch>,
}

impl Report {
    pub(crate) fn begin(options: &Options) -> Result<Self> {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Ok(Self {
            schema: SCHEMA,
            kernel: kernel.trim().to_owned(),
            connections_at_once: options.connections,
            rate_bps: options.rate,
            load: options.load,
            seconds: options.seconds(),
            connections: Vec::new(),
            interfaces: Vec::new(),
            queues: Vec::new(),
            machine: None,
            watch: Some(Watch::start()?),
        })
    }
}

/// Mean and 99th percentile of completion times, milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    /// Up to 10 kB.
    pub(crate) small: stats::Figures,
    /// Up to 100 kB.
    pub(crate) medium: stats::Figures,
    /// Above that.
    pub(crate) large: stats::Figures,
    pub(crate) all: stats::Figures,
    pub(crate) unfinished: usize,
}

impl Figures {
    pub(crate) fn of(played: &Played) -> Self {
        let within = |least: u64, most: u64| {
            let messages = played.messages.iter();
            let chosen = messages.filter(|(bytes, _)| (least..most).contains(bytes));
            stats::Figures::of(chosen.map(|(_, took_ms)| *took_ms))
        };
        Self {
            small: within(0, SMALL_BYTES),
            medium: within(SMALL_BYTES, MEDIUM_BYTES),
            large: within(MEDIUM_BYTES, u64::MAX),
            all: within(0, u64::MAX),
            unfinished: played.unfinished,
        }
    }
}

impl Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            small,
            medium,
            large,
            all,
            unfinished,
        } = self;
        for (name, figures) in [
            ("small", small),
            ("medium", medium),
            ("large", large),
            ("all", all),
        ] {
            write!(f, "{name} {:.2}/{:.1} ms ", figures.mean, figures.p99)?;
        }
        write!(f, "of {} ({unfinished} unfinished)", all.count)
    }
}

/// One run of many connections.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Connections {
    pub(crate) scheme: &'static str,
    pub(crate) round: u32,
    pub(crate) figures: Figures,
    pub(crate) flows_created: Option<u64>,
    pub(crate) flows_evicted: Option<u64>,
    pub(crate) model: Option<u64>,
    pub(crate) samples_sent: Option<u64>,
    pub(crate) samples_lost: Option<u64>,
    pub(crate) drops: Option<u64>,
    pub(crate) retransmitted: u64,
    /// Memory of the kernel's maps.
    pub(crate) maps_mb: Option<f64>,
    pub(crate) agent: Option<Cost>,
}

impl Display for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<9} round {}: {}; sent again {}",
            self.scheme,
            self.round + 1,
            self.figures,
            self.retransmitted
        )?;
        if let (Some(created), Some(evicted)) = (self.flows_created, self.flows_evicted) {
            let maps_mb = self.maps_mb.unwrap_or_default();
            write!(
                f,
                ", flows {created}, evicted {evicted}, maps {maps_mb:.1} MB"
            )?;
        }
        if let Some(agent) = &self.agent {
            let lost = self.samples_lost.unwrap_or_default();
            write!(
                f,
                ", {}, samples {} ({lost} lost), model {}",
                agent.told(),
                self.samples_sent.unwrap_or_default(),
                self.model.unwrap_or_default()
            )?;
        }
        Ok(())
    }
}

/// One agent with some interfaces.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Interfaces {
    pub(crate) interfaces: u8,
    /// Of each interface.
    pub(crate) figures: Vec<Figures>,
    pub(crate) packets_per_band: Vec<Vec<u64>>,
    pub(crate) agent: Cost,
}

impl Display for Interfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} interfaces, {}", self.interfaces, self.agent.told())?;
        for (figures, bands) in self.figures.iter().zip(&self.packets_per_band) {
            write!(f, "\n  {figures}; bands {bands:?}")?;
        }
        Ok(())
    }
}

/// A device with some transmit queues.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Queues {
    pub(crate) queues: u8,
    /// With one hierarchy at the root, in the place of `mq`.
    pub(crate) root: Figures,
    /// What `treeline up` says without a rate where `mq` stands, by the qdisc below.
    pub(crate) said_of_mq_with: Vec<(&'static str, String)>,
}

impl Display for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} queues, one hierarchy at the root: {}",
            self.queues, self.root
        )?;
        for (below, said) in &self.said_of_mq_with {
            write!(f, "\n  mq with {below}: {said}")?;
        }
        Ok(())
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} Mbit/s, load {}, {} connections, {} s a run; mean/p99",
            self.rate_bps / 1_000_000,
            self.load,
            self.connections_at_once,
            self.seconds
        )?;
        for run in &self.connections {
            writeln!(f, "{run}")?;
        }
        for run in &self.interfaces {
            writeln!(f, "{run}")?;
        }
        for run in &self.queues {
            writeln!(f, "{run}")?;
        }
        Ok(())
    }
}
