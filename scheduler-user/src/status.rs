//! What `treeline status` shows, in one structure.

use std::collections::BTreeMap;

use scheduler_common::{
    ABI_VERSION, class::BANDS, counter::Counter, ingress::IngressCounter, settings::Act,
};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    datapath::Datapath,
    instance::{EgressHook, IngressHook, Instance, Record},
    model::{Registry, Thresholds},
    qdisc::{self, BandStats, RootChoice},
    uplink::{self, UplinkError},
};

/// Version of the JSON that `status` prints.
pub const SCHEMA: u32 = 1;

/// State of an instance.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Name of the instance.
    pub instance: String,
    /// ABI version of this binary.
    pub abi_version: u32,
    /// The agent, if one runs.
    pub agent: Option<Agent>,
    /// Whether packets are only watched, as `run --observe` does.
    pub observes_only: bool,
    /// The model that classifies; absent while aging rules.
    pub model: Option<ActiveModel>,
    /// The candidate that is only watched, if there is one.
    pub shadow: Option<Shadow>,
    /// Where bands are cut; absent while no programs are loaded.
    pub thresholds: Option<Thresholds>,
    /// The flow table; absent while no programs are loaded.
    pub flow_table: Option<FlowTable>,
    /// Interfaces that are up.
    pub interfaces: Vec<Interface>,
    /// Counters of the kernel programs by name.
    #[serde(deserialize_with = "known_counters")]
    #[schema(value_type = BTreeMap<String, u64>)]
    pub counters: BTreeMap<&'static str, u64>,
}

/// A running agent.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Agent {
    /// Its process id.
    pub pid: u32,
}

/// The model that the kernel walks.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ActiveModel {
    /// Its generation.
    pub generation: u32,
    /// Its trees.
    pub trees: u32,
    /// Nodes of all trees in the kernel's table.
    pub nodes: u32,
    /// Splits on the longest path.
    pub depth: u32,
    /// Rows it was trained on; absent if its file is gone.
    pub trained_on_samples: Option<u64>,
    /// Time that training took.
    pub train_ms: Option<u64>,
    /// Egress packets it has classified.
    pub packets: u64,
}

/// A candidate in the shadow: the kernel asks it, and does not act by it.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Shadow {
    /// Its generation.
    pub generation: u32,
    /// Nodes of all trees in the kernel's table.
    pub nodes: u32,
    /// When it came there, seconds since 1970; absent if its file is gone.
    pub since_unix_s: Option<u64>,
    /// Decision points by the band that stood (rows) and the band that its guess would have given (columns).
    pub bands: [[u64; BANDS]; BANDS],
}

impl Shadow {
    /// Decision points at which its guess alone would have given another band, and all.
    pub fn differs(&self) -> (u64, u64) {
        let all = self.bands.iter().flatten().sum::<u64>();
        let same: u64 = (0..BANDS).map(|band| self.bands[band][band]).sum();
        (all - same, all)
    }
}

/// The kernel's table of flows.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FlowTable {
    /// Flows that it has room for.
    pub entries: u32,
    /// Flows that entered it.
    pub created: u64,
    /// Flows that lost their place while they were alive.
    pub evicted: u64,
}

/// An interface that is up.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its index.
    pub ifindex: u32,
    /// Whether it still exists.
    pub present: bool,
    /// Rate of the hierarchy, bits per second; absent where nothing is shaped.
    pub rate_bps: Option<u64>,
    /// What stands at the root: ours by kind, or `keep`.
    pub root: RootChoice,
    /// Queue of the bands; where the root is kept, the qdisc that sorts.
    pub leaf: String,
    /// Hook on egress.
    pub egress_hook: EgressHook,
    /// Hook on ingress; absent if ingress is not observed.
    pub ingress_hook: Option<IngressHook>,
    /// What the bands have carried.
    pub bands: Vec<BandStats>,
    /// The shaped downlink, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downlink: Option<ShapedDownlink>,
}

/// A downlink that is shaped.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ShapedDownlink {
    /// The IFB device that it queues on.
    pub device: String,
    /// Rate of its hierarchy, bits per second.
    pub rate_bps: u64,
    /// What its bands have carried.
    pub bands: Vec<BandStats>,
}

/// How an interface's packets are served, in words.
pub fn served(root: RootChoice, rate_bps: Option<u64>, leaf: &str) -> String {
    match (root, rate_bps) {
        (_, Some(rate_bps)) => format!("{}, leaf {leaf}", qdisc::format_rate(rate_bps)),
        (RootChoice::Keep, None) => format!("its own {leaf}"),
        (RootChoice::Fq, None) => "fq".to_owned(),
        (root, None) => format!("{}, leaf {leaf}", root.kind().unwrap_or_default()),
    }
}

/// Gathers the state of an instance.
///
/// # Errors
/// If records, maps or qdiscs can't be read.
pub async fn gather(instance: &Instance) -> Result<Status, UplinkError> {
    let datapath = Datapath::open(instance)?;
    let mut interfaces = Vec::new();
    for record in instance.records()? {
        interfaces.push(interface(record).await?);
    }
    let shadow = match &datapath {
        Some(datapath) => shadow(instance, datapath)?,
        None => None,
    };
    let (model, flow_table, counters) = match &datapath {
        Some(datapath) => {
            let counters = datapath.counters()?;
            let table = flow_table(datapath, &counters)?;
            let named = counters
                .into_iter()
                .map(|(counter, value)| (counter.name(), value));
            let acts = datapath.ingress_counters()?.into_iter();
            let named = named.chain(acts.map(|(counter, value)| (counter.name(), value)));
            (
                active_model(instance, datapath)?,
                Some(table),
                named.collect(),
            )
        }
        None => (None, None, BTreeMap::new()),
    };
    let observes_only = match &datapath {
        Some(datapath) => datapath.settings()?.act == Act::Observe as u32,
        None => false,
    };
    Ok(Status {
        schema: SCHEMA,
        instance: instance.name().to_owned(),
        abi_version: ABI_VERSION,
        agent: instance.agent_pid().map(|pid| Agent { pid }),
        observes_only,
        model,
        shadow,
        thresholds: match &datapath {
            Some(datapath) => Some(Thresholds::from(&datapath.settings()?)),
            None => None,
        },
        flow_table,
        interfaces,
        counters,
    })
}

/// Counters that another process tells of; those of another version that have no name here are left out.
fn known_counters<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<&'static str, u64>, D::Error> {
    let told = BTreeMap::<String, u64>::deserialize(deserializer)?;
    let egress = Counter::ALL.iter().map(|counter| counter.name());
    let ingress = IngressCounter::ALL.iter().map(|counter| counter.name());
    let known = egress.chain(ingress);
    Ok(known
        .filter_map(|name| Some((name, *told.get(name)?)))
        .collect())
}

fn shadow(instance: &Instance, datapath: &Datapath) -> Result<Option<Shadow>, UplinkError> {
    let Some(watched) = datapath.watched()? else {
        return Ok(None);
    };
    let file = Registry::new(instance.models()).load(watched.generation);
    Ok(Some(Shadow {
        generation: watched.generation,
        nodes: watched.nodes,
        since_unix_s: file.ok().map(|model| model.created_unix_s),
        bands: datapath.beside(watched.generation)?,
    }))
}

fn flow_table(datapath: &Datapath, counters: &[(Counter, u64)]) -> Result<FlowTable, UplinkError> {
    let count = |counter: Counter| {
        counters
            .get(counter as usize)
            .map_or(0, |(_, value)| *value)
    };
    Ok(FlowTable {
        entries: datapath.flow_entries()?,
        created: count(Counter::FlowsCreated),
        evicted: count(Counter::FlowsEvicted),
    })
}

fn active_model(
    instance: &Instance,
    datapath: &Datapath,
) -> Result<Option<ActiveModel>, UplinkError> {
    let Some(active) = datapath.active()? else {
        return Ok(None);
    };
    let file = Registry::new(instance.models())
        .load(active.generation)
        .ok();
    let summary = file.map(|model| model.summary());
    Ok(Some(ActiveModel {
        generation: active.generation,
        trees: active.trees,
        nodes: active.nodes,
        depth: active.depth,
        trained_on_samples: summary.as_ref().map(|summary| summary.trained_on_samples),
        train_ms: summary.as_ref().map(|summary| summary.train_ms),
        packets: datapath.packets_of(active.generation)?,
    }))
}

async fn interface(record: Record) -> Result<Interface, UplinkError> {
    let present = uplink::is_present(&record);
    let Record {
        name,
        ifindex,
        rate_bps,
        root,
        leaf,
        egress_hook,
        ingress_hook,
        downlink,
        ..
    } = record;
    let stats = async |ifindex| {
        if !present {
            return Ok(Vec::new());
        }
        qdisc::stats(ifindex)
            .await
            .map_err(|source| UplinkError::Qdisc {
                interface: name.clone(),
                source,
            })
    };
    let bands = stats(ifindex).await?;
    let downlink = match downlink {
        Some(downlink) => Some(ShapedDownlink {
            bands: stats(downlink.ifindex).await.unwrap_or_default(),
            device: downlink.device,
            rate_bps: downlink.rate_bps,
        }),
        None => None,
    };
    Ok(Interface {
        name,
        ifindex,
        present,
        rate_bps,
        root,
        leaf,
        egress_hook,
        ingress_hook,
        bands,
        downlink,
    })
}
