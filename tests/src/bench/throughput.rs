//! Throughput over a veth pair, with treeline attached and without.
//!
//! Nothing is shaped. A round measures each kind of traffic with nothing, with empty programs and with treeline attached, one
//! right after the other, the first of them changing with every round. While attached, a model acts and one flow in [`SAMPLE_ONE_IN`] is sampled, as under an agent.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use bed::{
    netns::{Bed, Namespace, UPLINK},
    wait,
};
use scheduler_common::{
    counter::Counter,
    flow::DEFAULT_ENTRIES,
    settings::{SAMPLES_PER_WINDOW, Settings},
};
use treeline::{
    datapath::{Datapath, EgressChoice, Hooking, Order},
    instance::Instance,
};

use crate::{
    kernel::Empty,
    load::{self, Flown, Kind},
    measure::Spread,
    samples::Reader,
    section::TREE,
    trees,
};

/// One flow in so many is sampled: about one in a hundred.
pub(crate) const SAMPLE_ONE_IN: u32 = 128;

const DETACH_LIMIT: Duration = Duration::from_secs(5);

/// Rounds, and how long each side of one takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: u32,
    pub(crate) slice: Duration,
}

/// A kind of traffic, and what its ratio must reach.
#[derive(Clone, Copy, Debug)]
struct Traffic {
    name: &'static str,
    kind: Kind,
    /// Super-packets: many segments in one pass through the stack.
    gso: bool,
    unit: &'static str,
    bar: f64,
}

const TRAFFICS: [Traffic; 3] = [
    Traffic {
        name: "tcp_gso",
        kind: Kind::Bulk,
        gso: true,
        unit: "bytes/s",
        bar: 0.97,
    },
    Traffic {
        name: "tcp_no_gso",
        kind: Kind::Bulk,
        gso: false,
        unit: "bytes/s",
        bar: 0.97,
    },
    Traffic {
        name: "udp_small",
        kind: Kind::Datagrams,
        gso: true,
        unit: "packets/s",
        bar: 0.93,
    },
];

/// What is attached to the link.
#[derive(Clone, Copy, Debug)]
enum Side {
    /// Nothing.
    Detached,
    /// Programs that do nothing, at both hooks: what the hooks themselves cost.
    Empty,
    /// Treeline.
    Attached,
}

impl Side {
    const ALL: [Self; 3] = [Self::Detached, Self::Empty, Self::Attached];

    const fn name(self) -> &'static str {
        match self {
            Self::Detached => "detached",
            Self::Empty => "empty",
            Self::Attached => "attached",
        }
    }
}

/// What one kind of traffic reached.
#[derive(Clone, Debug)]
pub(crate) struct Reached {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) bar: f64,
    /// Bytes or packets a second.
    pub(crate) sides: [(&'static str, Spread); 3],
    /// By round: attached over detached; the same of what CPU time yields; attached over empty programs attached.
    pub(crate) ratios: [(&'static str, Spread); 3],
    /// Bytes of a frame as the link's program sees it, mean over all.
    pub(crate) frame_bytes: f64,
}

/// All kinds, and the samples meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Throughput {
    pub(crate) effort: Effort,
    pub(crate) reached: Vec<Reached>,
    /// Samples that the agent's reader took meanwhile.
    pub(crate) samples_sent: u64,
    pub(crate) samples_lost: u64,
}

/// Measures all kinds of traffic.
///
/// # Errors
///
/// When something can't be attached or sent, or treeline saw no packet.
pub(crate) fn run(effort: Effort) -> Result<Throughput> {
    let bed = Bed::host()?;
    let under_test = UnderTest::load(&bed.server)?;
    let mut empty = Empty::load()?;
    let reader = Reader::start(under_test.datapath.samples()?)?;
    let reached = TRAFFICS
        .iter()
        .map(|traffic| measure(&bed, (&under_test, &mut empty), (*traffic, effort)))
        .collect::<Result<Vec<_>>>()?;
    let samples_sent = under_test.count(Counter::SamplesSent)?;
    reader.finish(samples_sent)?;
    Ok(Throughput {
        effort,
        reached,
        samples_sent,
        samples_lost: under_test.count(Counter::SamplesLost)?,
    })
}

fn measure(
    bed: &Bed,
    (under_test, empty): (&UnderTest<'_>, &mut Empty),
    (traffic, effort): (Traffic, Effort),
) -> Result<Reached> {
    let segments = if traffic.gso { 65_535 } else { 1 };
    bed.server
        .ip(&format!("link set dev {UPLINK} gso_max_segs {segments}"))?;
    let before = sent_by(&bed.server)?;
    let mut flown = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..effort.rounds as usize {
        for turn in 0..Side::ALL.len() {
            let side = Side::ALL[(round + turn) % Side::ALL.len()];
            let slice = || load::run(bed, traffic.kind, effort.slice);
            let one = match side {
                Side::Detached => slice(),
                Side::Empty => empty.attached(&bed.server, UPLINK, slice),
                Side::Attached => under_test.watched(slice),
            };
            flown[side as usize]
                .push(one.with_context(|| format!("{}, {}", traffic.name, side.name()))?);
        }
    }
    let after = sent_by(&bed.server)?;
    let ratio = |over: Side, under: Side, of: fn(&Flown) -> f64| {
        let paired = flown[over as usize].iter().zip(&flown[under as usize]);
        Spread::of(paired.map(|(over, under)| of(over) / of(under)))
    };
    Ok(Reached {
        name: traffic.name,
        unit: traffic.unit,
        bar: traffic.bar,
        sides: Side::ALL.map(|side| {
            let speeds = flown[side as usize].iter().map(|flown| flown.per_second);
            (side.name(), Spread::of(speeds))
        }),
        ratios: [
            (
                "",
                ratio(Side::Attached, Side::Detached, |flown| flown.per_second),
            ),
            (
                "_cpu",
                ratio(Side::Detached, Side::Attached, |flown| flown.cpu_ns_each),
            ),
            (
                "_over_empty",
                ratio(Side::Attached, Side::Empty, |flown| flown.per_second),
            ),
        ],
        frame_bytes: (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64,
    })
}

/// Bytes and packets that the uplink has sent so far.
fn sent_by(server: &Namespace) -> Result<(u64, u64)> {
    /// Columns of the table, the name not counted.
    const TX: (usize, usize) = (8, 9);
    let table = server.enter(|| {
        // Not /proc/net: that is the view of the process's first thread.
        fs::read_to_string("/proc/thread-self/net/dev").context("cannot read the link's counters")
    })?;
    let columns: Vec<u64> = table
        .lines()
        .find_map(|line| line.trim().strip_prefix(UPLINK)?.strip_prefix(':'))
        .map(|line| line.split_whitespace().flat_map(str::parse).collect())
        .unwrap_or_default();
    match (columns.get(TX.0), columns.get(TX.1)) {
        (Some(bytes), Some(packets)) => Ok((*bytes, *packets)),
        _ => Err(anyhow!("the link has no counters")),
    }
}

/// Treeline's programs, loaded for one link; dropping removes the pins, and with them the links.
struct UnderTest<'a> {
    instance: Instance,
    datapath: Datapath,
    namespace: &'a Namespace,
    ifindex: u32,
}

impl<'a> UnderTest<'a> {
    fn load(namespace: &'a Namespace) -> Result<Self> {
        let instance = Instance::new(&format!("bench-veth-{}", std::process::id()))?;
        let settings = Settings {
            sample_mask: SAMPLE_ONE_IN - 1,
            samples_per_window: SAMPLES_PER_WINDOW,
            ..Settings::default()
        };
        let (datapath, _origin) = Datapath::open_or_load(&instance, &settings, DEFAULT_ENTRIES)?;
        let ifindex = namespace.enter(|| Ok(nix::net::if_::if_nametoindex(UPLINK)?))?;
        let under_test = Self {
            instance,
            datapath,
            namespace,
            ifindex,
        };
        let table = trees::table(TREE)
            .map_err(|fault| anyhow!("the bench's trees do not fit: {fault:?}"))?;
        under_test.datapath.activate(&table)?;
        Ok(under_test)
    }

    /// Does something while both programs are attached, and sees to it that packets pass them.
    fn watched<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.count(Counter::EgressPackets)?;
        let outcome = self.attached(work)?;
        let packets = self.count(Counter::EgressPackets)? - before;
        ensure!(packets > 100, "treeline saw {packets} packets only");
        Ok(outcome)
    }

    /// Does something while both programs are attached.
    fn attached<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let hooks = self.namespace.enter(|| {
            let hooking = Hooking {
                egress: EgressChoice::Tcx,
                order: Order::First,
                ingress: true,
            };
            Ok(self.datapath.attach((UPLINK, self.ifindex), hooking)?)
        })?;
        ensure!(hooks.ingress.is_some(), "the link took no XDP program");
        let outcome = work();
        let links = self.instance.pins().join("links");
        for hook in ["egress", "ingress"] {
            remove(&links.join(format!("{}-{hook}", self.ifindex)))?;
        }
        // The kernel takes its time to drop a link whose pin is gone.
        wait::until("the end of the XDP link", DETACH_LIMIT, || {
            let shown = self.namespace.ip(&format!("link show dev {UPLINK}"))?;
            Ok((!shown.contains("xdp")).then_some(()))
        })?;
        outcome
    }

    fn count(&self, counter: Counter) -> Result<u64> {
        let counters = self.datapath.counters()?;
        let found = counters.into_iter().find(|(other, _)| *other == counter);
        found
            .map(|(_, count)| count)
            .context("every counter is there")
    }
}

/// A link is gone with its pin.
fn remove(pin: &Path) -> Result<()> {
    fs::remove_file(pin).with_context(|| format!("cannot remove {}", pin.display()))
}

impl Drop for UnderTest<'_> {
    fn drop(&mut self) {
        // Nothing can be done about a failure here.
        drop(fs::remove_dir_all(self.instance.pins()));
    }
}
