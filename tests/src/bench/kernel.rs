//! Programs under test: treeline's pinned ones, and the bench's object.

use std::fs;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ArrayOfMaps, Map, MapData, PerCpuArray, RingBuf},
    programs::{
        LinkOrder, Program, SchedClassifier, TcAttachType, TestRun as _, TestRunOptions, Xdp,
        tc::TcAttachOptions, xdp::XdpMode,
    },
};
use aya_obj::programs::XdpAttachType;
use bed::netns::Namespace;
use scheduler_common::{
    counter::{Counter, PerCpu},
    flow::{DEFAULT_ENTRIES, Hashing, WAYS},
    names,
    sample::Hook,
    settings::Settings,
    tree::Table,
};
use treeline::{
    datapath::{Datapath, clock},
    instance::Instance,
};

use crate::{
    replay::Record,
    trees::{self, Forest},
    variant::Family,
};

static OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("TREELINE_OBJECTS"), "/treeline-peers"));

/// Size of `struct __sk_buff` (kernel 6.18 `include/uapi/linux/bpf.h`).
const SKB_BYTES: usize = 192;

/// How the bench's programs draw flows: state, mask, ordered, added payload and segments.
pub(crate) type Spread = [u64; 5];

/// The maps of one load of treeline's path.
pub(crate) struct Maps {
    settings: Array<MapData, Settings>,
    model: ArrayOfMaps<MapData, Array<MapData, Table>>,
    per_cpu: PerCpuArray<MapData, PerCpu>,
    /// `None` once they are another's to read.
    samples: Option<RingBuf<MapData>>,
    active: Option<Forest>,
}

impl Maps {
    fn new(mut map: impl FnMut(&'static str) -> Result<Map>) -> Result<Self> {
        Ok(Self {
            settings: map(names::SETTINGS)?.try_into()?,
            model: ArrayOfMaps::<MapData, Array<MapData, Table>>::try_from(map(names::MODEL)?)?,
            per_cpu: map(names::PER_CPU)?.try_into()?,
            samples: Some(map(names::SAMPLES)?.try_into()?),
            active: None,
        })
    }

    pub(crate) fn set(&mut self, settings: &Settings) -> Result<()> {
        Ok(self.settings.set(0, settings, 0)?)
    }

    /// Gives the model of these trees, unless it is there.
    pub(crate) fn activate(&mut self, forest: Forest) -> Result<()> {
        if self.active != Some(forest) {
            let table = trees::table(forest)
                .map_err(|fault| anyhow!("the bench's trees do not fit: {fault:?}"))?;
            table
                .check()
                .map_err(|fault| anyhow!("the bench's table is not sound: {fault:?}"))?;
            let mut slot = Array::<MapData, Table>::create(1, 0)?;
            slot.set(0, table.as_ref(), 0)?;
            self.model.set(0, &slot, 0)?;
            self.active = Some(forest);
        }
        Ok(())
    }

    pub(crate) fn count(&self, counter: Counter) -> Result<u64> {
        let mut sum = 0;
        for hook in [Hook::Egress, Hook::Ingress] {
            let cpus = self.per_cpu.get(&(hook as u32), 0)?;
            let counts = cpus.iter().map(|cpu| &cpu.kept.counts.counters);
            sum += counts
                .map(|counters| counters[counter as usize])
                .sum::<u64>();
        }
        Ok(sum)
    }

    /// Empties the ring; answers how many records there were.
    pub(crate) fn drain(&mut self) -> u64 {
        let mut records = 0;
        if let Some(samples) = &mut self.samples {
            while samples.next().is_some() {
                records += 1;
            }
        }
        records
    }

    /// The ring, for another to read.
    pub(crate) fn take_samples(&mut self) -> Result<RingBuf<MapData>> {
        self.samples.take().context("the samples are read already")
    }
}

/// Treeline's own programs as they are pinned; dropping removes the pins.
pub(crate) struct Pinned {
    instance: Instance,
    egress: SchedClassifier,
    ingress: Xdp,
    pub(crate) maps: Maps,
}

impl Pinned {
    pub(crate) fn load(namespace: &Namespace) -> Result<Self> {
        let instance = Instance::new(&format!("bench-{}", std::process::id()))?;
        let (datapath, _origin) =
            Datapath::open_or_load(&instance, &Settings::default(), DEFAULT_ENTRIES)?;
        drop(datapath);
        let pin = |name| instance.pins().join("programs").join(name);
        let egress = SchedClassifier::from_pin(pin(names::EGRESS))?;
        let mut ingress = Xdp::from_pin(pin(names::INGRESS), XdpAttachType::Interface)?;
        park(&mut ingress, names::INGRESS, namespace)?;
        let maps = Maps::new(|name| {
            let data = MapData::from_pin(instance.pins().join("maps").join(name))?;
            Ok(Map::from_map_data(data)?)
        })?;
        Ok(Self {
            instance,
            egress,
            ingress,
            maps,
        })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        for directory in [
            self.instance.pins(),
            self.instance.runtime(),
            self.instance.state(),
        ] {
            // The bench makes only the first; nothing can be done about a failure here.
            drop(fs::remove_dir_all(directory));
        }
    }
}

/// The bench's object: the peers, and treeline's path behind a spread of keys.
pub(crate) struct Object {
    ebpf: Ebpf,
    spread: Array<MapData, Spread>,
    replay: Array<MapData, [u32; 4]>,
    pub(crate) maps: Maps,
}

const TC: [&str; 24] = [
    "empty_tc",
    "parse_tc",
    "spread_tc",
    "key_tc",
    "hash_tc",
    "touch_tc",
    "found_tc",
    "timed_tc",
    "added_tc",
    "fine_tc",
    "storied_tc",
    "entered_tc",
    "entered_fine_tc",
    "entered_storied_tc",
    "entered_recalled_tc",
    "textbook_tc",
    "lookups_tc",
    "treeline_tc",
    "features_tc",
    "walk_tc",
    "replay_draw_tc",
    "replay_textbook_tc",
    "replay_lookups_tc",
    "replay_treeline_tc",
];
const XDP: [&str; 9] = [
    "empty_xdp",
    "parse_xdp",
    "spread_xdp",
    "key_xdp",
    "hash_xdp",
    "touch_xdp",
    "textbook_xdp",
    "lookups_xdp",
    "treeline_xdp",
];

impl Object {
    /// Loads it with tables of `entries` and a replay; without `spread`, no instruction of that is left.
    pub(crate) fn load(
        entries: u32,
        spread: bool,
        replay: &[Record],
        namespace: &Namespace,
    ) -> Result<Self> {
        let spread_on: u32 = if spread { 1 } else { 0xffff_fffc };
        let sets = entries / WAYS as u32;
        let clock = clock::of_this_boot();
        let secret = Hashing {
            multipliers: rand::random(),
            sample_key: rand::random(),
            set_mask: sets - 1,
            _pad: 0,
        };
        let mut ebpf = EbpfLoader::new()
            .override_global("SPREAD_ON", &spread_on, true)
            .override_global("CLOCK", &clock, true)
            .override_global("SECRET", &secret, true)
            .map_max_entries(names::FLOWS, sets)
            .map_max_entries(names::STORIES, entries)
            .map_max_entries("TEXTBOOK_FLOWS", entries)
            .map_max_entries("LOOKUPS_FLOWS", entries)
            .map_max_entries("REPLAY", replay.len().max(1) as u32)
            .load(OBJECT)
            .context("cannot load the bench's programs")?;
        for name in TC {
            let program: &mut SchedClassifier = ebpf
                .program_mut(name)
                .with_context(|| format!("no program {name}"))?
                .try_into()?;
            program
                .load()
                .with_context(|| format!("cannot load {name}"))?;
        }
        for name in XDP {
            let program: &mut Xdp = ebpf
                .program_mut(name)
                .with_context(|| format!("no program {name}"))?
                .try_into()?;
            program
                .load()
                .with_context(|| format!("cannot load {name}"))?;
            park(program, name, namespace)?;
        }
        let mut take = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name}"))
        };
        plant(&mut take)?;
        let mut records: Array<MapData, Record> = take("REPLAY")?.try_into()?;
        for (number, record) in (0..).zip(replay) {
            records.set(number, record, 0)?;
        }
        let spread = take("SPREAD")?.try_into()?;
        let replay = take("REPLAY_PLACE")?.try_into()?;
        let maps = Maps::new(take)?;
        let object = Self {
            ebpf,
            spread,
            replay,
            maps,
        };
        object.judge_peers()?;
        Ok(object)
    }

    /// A peer that gave up half-way would look fast: each must answer with a leaf of the tree.
    fn judge_peers(&self) -> Result<()> {
        const PRIORITY: std::ops::Range<usize> = 32..36;
        let leaves: Vec<u32> = trees::grown(trees::PEER_DEPTH, 0)
            .iter()
            .filter(|place| place.child.is_none())
            .map(|leaf| leaf.threshold)
            .collect();
        for name in ["textbook_tc", "lookups_tc"] {
            for family in Family::BOTH {
                let frame = family.frame();
                let mut context = [0u8; SKB_BYTES];
                // No leaf says this.
                context[PRIORITY].copy_from_slice(&u32::MAX.to_ne_bytes());
                let mut after = context;
                let mut options = TestRunOptions::new();
                options.data_in = Some(&frame);
                options.ctx_in = Some(&context);
                options.ctx_out = Some(&mut after);
                let Some(Program::SchedClassifier(program)) = self.ebpf.program(name) else {
                    bail!("no program {name}");
                };
                program.test_run(options)?;
                let class = u32::from_ne_bytes(after[PRIORITY].try_into()?);
                ensure!(
                    leaves.contains(&class),
                    "{name} did not classify an {} packet: it answered {class:#x}",
                    family.name()
                );
            }
        }
        Ok(())
    }

    pub(crate) fn spread(&mut self, spread: Spread) -> Result<()> {
        Ok(self.spread.set(0, spread, 0)?)
    }

    /// Where the replay goes on: next packet, packets of a pass, what tells this pass's flows apart.
    pub(crate) fn rewind(&mut self, place: [u32; 4]) -> Result<()> {
        Ok(self.replay.set(0, place, 0)?)
    }
}

/// The programs that do nothing, to attach to a link.
pub(crate) struct Empty(Ebpf);

impl Empty {
    pub(crate) fn load() -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .load(OBJECT)
            .context("cannot load the bench's programs")?;
        Self::egress(&mut ebpf)?.load()?;
        Self::ingress(&mut ebpf)?.load()?;
        Ok(Self(ebpf))
    }

    /// Does something while both are attached to an interface.
    pub(crate) fn attached<T>(
        &mut self,
        namespace: &Namespace,
        interface: &str,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let ebpf = &mut self.0;
        let (egress, ingress) = namespace.enter(|| {
            let egress = Self::egress(ebpf)?;
            let egress = egress.attach_with_options(interface, TcAttachType::Egress, order)?;
            let ingress = Self::ingress(ebpf)?.attach(interface, XdpMode::Default)?;
            Ok((egress, ingress))
        })?;
        let outcome = work();
        Self::egress(ebpf)?.detach(egress)?;
        Self::ingress(ebpf)?.detach(ingress)?;
        outcome
    }

    fn egress(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
        let program = ebpf.program_mut("empty_tc").context("no empty_tc")?;
        Ok(program.try_into()?)
    }

    fn ingress(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
        let program = ebpf.program_mut("empty_xdp").context("no empty_xdp")?;
        Ok(program.try_into()?)
    }
}

/// Writes the peers' tree, the same as treeline's of that depth.
fn plant(take: &mut impl FnMut(&str) -> Result<Map>) -> Result<()> {
    let mut nodes: Array<MapData, [u32; 4]> = take("TEXTBOOK_NODES")?.try_into()?;
    let mut left: Array<MapData, i64> = take("LOOKUPS_LEFT")?.try_into()?;
    let mut right: Array<MapData, i64> = take("LOOKUPS_RIGHT")?.try_into()?;
    let mut feature: Array<MapData, i64> = take("LOOKUPS_FEATURE")?.try_into()?;
    let mut threshold: Array<MapData, i64> = take("LOOKUPS_THRESHOLD")?.try_into()?;
    let mut value: Array<MapData, i64> = take("LOOKUPS_VALUE")?.try_into()?;
    for (place, node) in (0..).zip(trees::grown(trees::PEER_DEPTH, 0)) {
        let child = node.child.unwrap_or(0);
        nodes.set(
            place,
            [u32::from(node.feature), node.threshold, child, child + 1],
            0,
        )?;
        let first = node.child.map_or(-1, i64::from);
        left.set(place, first, 0)?;
        right.set(place, if first < 0 { first } else { first + 1 }, 0)?;
        feature.set(place, i64::from(node.feature), 0)?;
        threshold.set(place, i64::from(node.threshold) << 16, 0)?;
        value.set(place, i64::from(node.threshold), 0)?;
    }
    Ok(())
}

/// Attaches an XDP program to a device of its own, for else each repeated run rewrites the
/// dispatcher (about 16 ms).
fn park(program: &mut Xdp, name: &str, namespace: &Namespace) -> Result<()> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    namespace.ip(&format!("link add p{number} type veth peer name q{number}"))?;
    program
        .attach(&format!("p{number}"), XdpMode::Skb)
        .with_context(|| format!("cannot attach {name}"))?;
    Ok(())
}

/// Whichever has the program.
pub(crate) enum Kernel {
    /// Treeline's own.
    Pinned(Box<Pinned>),
    /// The bench's.
    Object(Box<Object>),
}

impl Kernel {
    pub(crate) fn maps(&mut self) -> &mut Maps {
        match self {
            Self::Pinned(pinned) => &mut pinned.maps,
            Self::Object(object) => &mut object.maps,
        }
    }

    /// Runs a program on a frame `repeat` times.
    pub(crate) fn run(&self, name: &str, frame: &[u8], repeat: u32) -> Result<()> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = repeat;
        match self {
            Self::Pinned(pinned) if name == names::EGRESS => pinned.egress.test_run(options)?,
            Self::Pinned(pinned) => pinned.ingress.test_run(options)?,
            Self::Object(object) => match object.ebpf.program(name) {
                Some(Program::SchedClassifier(program)) => program.test_run(options)?,
                Some(Program::Xdp(program)) => program.test_run(options)?,
                _ => bail!("no program {name}"),
            },
        };
        Ok(())
    }
}
