//! One number of flows: its variants, their state and their ratios.

use anyhow::{Result, ensure};
use bed::netns::Namespace;
use clap::ValueEnum;
use scheduler_common::{
    class::{BANDS, Cuts},
    counter::Counter,
    settings::Settings,
};

use crate::{
    kernel::{Kernel, Object, Pinned},
    measure::{self, Clock, Effort, Spread},
    trees::Forest,
    variant::{Family, Hook, Variant, Work},
};

/// Packets of a sampled run, whose samples fill less than a quarter of the ring.
const SAMPLED_PACKETS: u32 = 1000;
const SAMPLED_RUNS: u32 = 20;
/// Least share of packets that must have been decision points where all are meant to be.
const DECISIONS_AT_LEAST: f64 = 0.99;
/// And the greatest where none is.
const DECISIONS_AT_MOST: f64 = 0.01;

pub(crate) const TREE: Forest = Forest::of(1, 8);

/// How many flows the packets belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flows {
    /// One.
    #[value(name = "1")]
    One,
    /// 65 536 in random order.
    #[value(name = "64k")]
    Thousands,
    /// 1 048 576 in random order.
    #[value(name = "1m")]
    Million,
    /// Every packet another.
    #[value(name = "new")]
    New,
}

impl Flows {
    pub(crate) const ALL: [Self; 4] = [Self::One, Self::Thousands, Self::Million, Self::New];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Thousands => "64k",
            Self::Million => "1m",
            Self::New => "new",
        }
    }

    /// Entries of the tables: room for four times the flows, or crowded sets would lose some; a flood meets the usual size.
    const fn entries(self) -> u32 {
        match self {
            Self::One | Self::New => 65_536,
            Self::Thousands => 4 << 16,
            Self::Million => 4 << 20,
        }
    }

    const fn mask(self) -> u64 {
        match self {
            Self::One => 0,
            Self::Thousands => (1 << 16) - 1,
            Self::Million => (1 << 20) - 1,
            Self::New => u64::MAX,
        }
    }
}

/// What a section measured.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    pub(crate) flows: Flows,
    /// Nanoseconds a packet by variant, in the order of the table.
    pub(crate) ns: Vec<(String, Spread)>,
    /// Paired ratios.
    pub(crate) ratios: Vec<(String, Spread)>,
    /// Share of packets that were decision points, for treeline's variants.
    pub(crate) decisions: Vec<(String, f64)>,
}

fn variants(flows: Flows) -> Vec<Variant> {
    let mut all = Vec::new();
    for family in Family::BOTH {
        for hook in Hook::BOTH {
            let place = (family, hook);
            let mut object = |name, program, work| {
                all.push(Variant::object((name, program), place, work));
            };
            object("empty", "empty", Work::Other);
            object("parse", "parse", Work::Other);
            if flows != Flows::One {
                object("spread", "spread", Work::Other);
            }
            object("key", "key", Work::Other);
            object("hash", "hash", Work::Other);
            object("touch", "touch", Work::Other);
            if hook == Hook::Tc {
                for rung in rungs(flows) {
                    object(rung, rung, ladder(flows));
                }
            }
            object("textbook", "textbook", Work::Other);
            object("lookups", "lookups", Work::Other);
            match flows {
                Flows::One => hot(&mut all, place),
                Flows::New => object("new", "treeline", Work::New(TREE)),
                Flows::Thousands | Flows::Million => {
                    object("cached", "treeline", Work::Cached);
                    object("decision_d8", "treeline", Work::Decision(TREE));
                }
            }
        }
    }
    if flows == Flows::One {
        let place = (Family::V4, Hook::Tc);
        all.push(Variant::object(
            ("features", "features"),
            place,
            Work::Other,
        ));
        for (name, forest) in [
            ("walk_d8", TREE),
            ("walk_d12", Forest::of(1, 12)),
            ("walk_8xd6", Forest::of(8, 6)),
            ("walk_oblivious_d8", Forest::oblivious(1, 8)),
            ("walk_oblivious_d12", Forest::oblivious(1, 12)),
            ("walk_oblivious_8xd6", Forest::oblivious(8, 6)),
        ] {
            all.push(Variant::object((name, "walk"), place, Work::Walk(forest)));
        }
    }
    all
}

/// The parts of a packet's way by which it grows, between `touch` and the whole: a rung a part.
const fn rungs(flows: Flows) -> &'static [&'static str] {
    match flows {
        Flows::New => &[
            "entered",
            "entered_fine",
            "entered_storied",
            "entered_recalled",
        ],
        _ => &["found", "timed", "added", "fine", "storied"],
    }
}

/// Such a program changes flows that treeline has met, but for new ones.
const fn ladder(flows: Flows) -> Work {
    match flows {
        Flows::New => Work::Other,
        _ => Work::Rung,
    }
}

fn hot(all: &mut Vec<Variant>, place: (Family, Hook)) {
    let mut own = |name, work| all.push(Variant::pinned(name, place, work));
    own("cached", Work::Cached);
    own("decision_d6", Work::Decision(Forest::of(1, 6)));
    own("decision_d8", Work::Decision(TREE));
    own("decision_d12", Work::Decision(Forest::of(1, 12)));
    own("decision_8xd6", Work::Decision(Forest::of(8, 6)));
    for (name, forest) in [
        ("decision_oblivious_d8", Forest::oblivious(1, 8)),
        ("decision_oblivious_d12", Forest::oblivious(1, 12)),
        ("decision_oblivious_8xd6", Forest::oblivious(8, 6)),
    ] {
        own(name, Work::Decision(forest));
    }
    own("sampled", Work::Sampled(TREE));
    // The same path as the bench builds it: the two must cost the same.
    all.push(Variant::object(
        ("cached_copy", "treeline"),
        place,
        Work::Cached,
    ));
}

/// Measures everything for one number of flows.
///
/// # Errors
///
/// When the kernel refuses something, or a variant did not do what it is there for.
pub(crate) fn run(
    flows: Flows,
    rows: &[String],
    effort: Effort,
    namespace: &Namespace,
) -> Result<Section> {
    let mut variants = variants(flows);
    variants.retain(|variant| {
        rows.is_empty()
            || rows
                .iter()
                .any(|row| variant.name.starts_with(row.as_str()))
    });
    // Tables of its own for each IP version, or the flows of one would fill those of the other.
    let object = |_family| {
        let entries = flows.entries();
        let object = Object::load(entries, flows != Flows::One, &[], namespace)?;
        Ok::<_, anyhow::Error>(Kernel::Object(Box::new(object)))
    };
    let [v4, v6] = Family::BOTH.map(object);
    let (mut v4, mut v6) = (v4?, v6?);
    let mut pinned = Kernel::Pinned(Box::new(Pinned::load(namespace)?));
    let mut decisions = vec![None; variants.len()];
    let figures = measure::rounds(effort.rounds, variants.len(), |index| {
        let variant = &variants[index];
        let kernel = match variant.family {
            _ if variant.pinned => &mut pinned,
            Family::V4 => &mut v4,
            Family::V6 => &mut v6,
        };
        let (ns, share) = one(kernel, variant, flows, effort)?;
        decisions[index] = share;
        Ok(ns)
    })?;
    let names = variants.iter().map(|variant| variant.name.clone());
    Ok(Section {
        flows,
        ns: names
            .clone()
            .zip(figures.iter().map(|of| Spread::of(of.iter().copied())))
            .collect(),
        ratios: ratios(&names.clone().collect::<Vec<_>>(), &figures),
        decisions: names
            .zip(decisions)
            .filter_map(|(name, share)| Some((name, share?)))
            .collect(),
    })
}

/// Brings the kernel into the variant's state and times one run.
fn one(
    kernel: &mut Kernel,
    variant: &Variant,
    flows: Flows,
    effort: Effort,
) -> Result<(f64, Option<f64>)> {
    let frame = variant.family.frame();
    prepare(kernel, variant, flows, &frame)?;
    if matches!(variant.work, Work::Other | Work::Rung | Work::Walk(_)) {
        let ns = measure::per_packet_ns(effort.clock, effort.packets, |repeat| {
            kernel.run(&variant.program, &frame, repeat)
        })?;
        return Ok((ns, None));
    }
    let seen = [Counter::EgressPackets, Counter::IngressPackets];
    let before = counts(kernel, &seen)?;
    let ns = if matches!(variant.work, Work::Sampled(_)) {
        sampled(kernel, variant, &frame, effort.clock)?
    } else {
        measure::per_packet_ns(effort.clock, effort.packets, |repeat| {
            kernel.run(&variant.program, &frame, repeat)
        })?
    };
    let after = counts(kernel, &seen)?;
    let share = (after.0 - before.0) as f64 / (after.1 - before.1) as f64;
    let wanted = match variant.work {
        Work::Cached => share <= DECISIONS_AT_MOST,
        _ => share >= DECISIONS_AT_LEAST,
    };
    ensure!(
        wanted,
        "{} with {} flows: {:.2} % of the packets were decision points, so it measured something else",
        variant.name,
        flows.name(),
        share * 100.0
    );
    Ok((ns, Some(share)))
}

/// Decision points and packets so far.
fn counts(kernel: &mut Kernel, seen: &[Counter]) -> Result<(u64, u64)> {
    let maps = kernel.maps();
    let mut packets = 0;
    for counter in seen {
        packets += maps.count(*counter)?;
    }
    Ok((maps.count(Counter::DecisionPoints)?, packets))
}

/// Short runs, the ring emptied between them.
fn sampled(kernel: &mut Kernel, variant: &Variant, frame: &[u8], clock: Clock) -> Result<f64> {
    let mut sum = 0.0;
    for _ in 0..SAMPLED_RUNS {
        kernel.maps().drain();
        sum += measure::per_packet_ns(clock, SAMPLED_PACKETS, |repeat| {
            kernel.run(&variant.program, frame, repeat)
        })?;
        let records = kernel.maps().drain();
        ensure!(
            records >= u64::from(SAMPLED_PACKETS),
            "only {records} samples of {SAMPLED_PACKETS} packets"
        );
    }
    Ok(sum / f64::from(SAMPLED_RUNS))
}

fn prepare(kernel: &mut Kernel, variant: &Variant, flows: Flows, frame: &[u8]) -> Result<()> {
    let settings = settings(variant.work);
    if variant.work != Work::Other {
        let forest = match variant.work {
            Work::Decision(forest)
            | Work::Sampled(forest)
            | Work::New(forest)
            | Work::Walk(forest) => forest,
            Work::Cached | Work::Rung | Work::Other => TREE,
        };
        kernel.maps().set(&settings)?;
        kernel.maps().activate(forest)?;
    }
    if variant.work != Work::Other && flows != Flows::New {
        restart(kernel, variant, flows, frame)?;
        kernel.maps().set(&settings)?;
    }
    if matches!(variant.work, Work::Cached | Work::Rung) {
        // Every flow in turn, with so much that its next decision point is far. Where one flow gets no more than the
        // packet holds, so many packets that the next one comes after as many again.
        let (bytes, segments) = (1 << 30, 1 << 24);
        visit(kernel, variant, flows, (bytes, segments), frame)?;
    }
    let ordered = u64::from(flows == Flows::New);
    // Odd, so never the generator's fixed point; random, so that no new flow was there before.
    let state = rand::random::<u64>() >> 8 | 1;
    if let Kernel::Object(object) = kernel {
        object.spread([state, flows.mask(), ordered, 0, 0])?;
    }
    Ok(())
}

/// Begins a new message in every flow, for the last one may be past what the settings say now.
fn restart(kernel: &mut Kernel, variant: &Variant, flows: Flows, frame: &[u8]) -> Result<()> {
    /// Longer than a step of the kernel's coarse clock.
    const STEP: std::time::Duration = std::time::Duration::from_millis(20);
    kernel.maps().set(&Settings {
        idle_floor_us: 0,
        ..settings(variant.work)
    })?;
    std::thread::sleep(STEP);
    visit(kernel, variant, flows, (0, 0), frame)
}

/// One packet, at least, of every flow.
fn visit(
    kernel: &mut Kernel,
    variant: &Variant,
    flows: Flows,
    (bytes, segments): (u64, u64),
    frame: &[u8],
) -> Result<()> {
    if let Kernel::Object(object) = kernel {
        object.spread([0, flows.mask(), 1, bytes, segments])?;
    }
    let packets = flows.mask().saturating_add(1).max(10_000) as u32;
    let program = match variant.work {
        Work::Rung => "treeline_tc",
        _ => &variant.program,
    };
    kernel.run(program, frame, packets)
}

/// An idle time without end: all datagrams of a flow are one message.
fn settings(work: Work) -> Settings {
    let mut cuts = Cuts::default();
    if matches!(work, Work::Decision(_) | Work::Sampled(_)) {
        // Cuts out of order: the band of every message ends at no byte, so each packet is past it.
        cuts.bytes = [0; BANDS - 1];
        cuts.bytes[0] = u32::MAX;
    }
    Settings {
        idle_floor_us: u32::MAX,
        // Small packets at speed are on probation as a stream first, and end with it where no first bytes are on top.
        stream_window_us: 0,
        cuts,
        // Or the model would not be asked.
        first_bytes: match work {
            Work::Decision(_) | Work::Sampled(_) => 0,
            _ => Settings::default().first_bytes,
        },
        samples_per_window: match work {
            Work::Sampled(_) => u32::MAX,
            _ => 0,
        },
        ..Settings::default()
    }
}

/// Numerator and denominator of the ratios that matter; those that a section lacks are left out.
const RATIOS: [(&str, &str); 10] = [
    ("cached", "textbook"),
    ("cached", "empty"),
    ("cached", "touch"),
    ("touch", "textbook"),
    ("cached_copy", "cached"),
    ("decision_d8", "textbook"),
    ("lookups", "decision_d8"),
    ("lookups", "cached"),
    ("new", "textbook"),
    ("lookups", "textbook"),
];

fn ratios(names: &[String], figures: &[Vec<f64>]) -> Vec<(String, Spread)> {
    let at = |name: &str| names.iter().position(|other| other == name);
    let mut ratios = Vec::new();
    for (over, under) in RATIOS {
        for family in Family::BOTH {
            for hook in Hook::BOTH {
                let tail = format!("{}_{}", family.name(), hook.name());
                let (a, b) = (
                    at(&format!("{over}_{tail}")),
                    at(&format!("{under}_{tail}")),
                );
                if let (Some(a), Some(b)) = (a, b) {
                    let paired = figures[a].iter().zip(&figures[b]).map(|(a, b)| a / b);
                    ratios.push((format!("{over}_over_{under}_{tail}"), Spread::of(paired)));
                }
            }
        }
    }
    ratios
}
