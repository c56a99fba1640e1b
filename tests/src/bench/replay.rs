//! A replay of real captures: what a packet costs on the average.
//!
//! The packets are a map full of parsed headers, which the bench's programs draw from one after another in the place of
//! those of the frame that the kernel runs them on. So the packets follow one another without a pause, whatever
//! the capture's clock says: only answers and closes end a message, silence never does.

use anyhow::{Result, ensure};
use bed::netns::Namespace;
use scheduler_common::{counter::Counter, settings::Settings};
use scheduler_ebpf::parse::{self, How, Parsed};

use crate::{
    captures::{self, Start},
    kernel::{Kernel, Object},
    measure::{self, Effort, Spread},
    section::TREE,
    variant::Family,
};

/// A packet's headers, as `peers/replay.rs` reads them.
pub(crate) type Record = [u32; 16];

/// Payload of a full segment: packets that were captured above the offloads hold many.
const SEGMENT_BYTES: u32 = 1448;

/// Programs, the name of each in the report first.
const VARIANTS: [(&str, &str); 6] = [
    ("empty", "empty_tc"),
    ("parse", "parse_tc"),
    ("draw", "replay_draw_tc"),
    ("textbook", "replay_textbook_tc"),
    ("lookups", "replay_lookups_tc"),
    ("treeline", "replay_treeline_tc"),
];
const EMPTY: usize = 0;
const PARSE: usize = 1;
const DRAW: usize = 2;
/// From here on programs that classify.
const TEXTBOOK: usize = 3;
const LOOKUPS: usize = 4;
const TREELINE: usize = 5;

/// What the replay measured.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    /// Captured packets with a flow.
    pub(crate) packets: usize,
    pub(crate) captures: usize,
    /// Nanoseconds a packet.
    pub(crate) ns: Vec<(String, Spread)>,
    /// Paired ratios, the cost of drawing taken off both sides.
    pub(crate) ratios: Vec<(String, Spread)>,
    /// Per packet: decision points, flows, messages.
    pub(crate) shares: Vec<(&'static str, f64)>,
}

/// Measures the replay; nothing where there are no captures.
///
/// # Errors
///
/// When the kernel refuses something, or a packet did not come by.
pub(crate) fn run(effort: Effort, namespace: &Namespace) -> Result<Option<Replay>> {
    let captures = captures::all();
    let records: Vec<Record> = captures
        .iter()
        .flat_map(|capture| &capture.frames)
        .filter_map(|(start, frame)| record(*start, frame))
        .collect();
    if records.is_empty() {
        return Ok(None);
    }
    let count = records.len() as u32;
    let mut object = Object::load(1 << 16, false, &records, namespace)?;
    object.maps.set(&Settings::default())?;
    object.maps.activate(TREE)?;
    let mut kernel = Kernel::Object(Box::new(object));
    let whole = Effort {
        // Whole passes, so that each packet weighs the same.
        packets: effort.packets.div_ceil(count) * count,
        ..effort
    };
    let mut shares = Vec::new();
    let figures = measure::rounds(whole.rounds, VARIANTS.len(), |variant| {
        let before = counts(&mut kernel)?;
        let ns = pass(&mut kernel, VARIANTS[variant].1, (count, whole))?;
        if variant == TREELINE {
            shares = shares_of(before, counts(&mut kernel)?, u64::from(whole.packets) + 1)?;
        }
        Ok(ns)
    })?;
    Ok(Some(Replay {
        packets: records.len(),
        captures: captures.len(),
        ns: times(&figures),
        ratios: ratios(&figures),
        shares,
    }))
}

/// Headers of a captured frame; `None` if it belongs to no flow by itself.
fn record(start: Start, frame: &[u8]) -> Option<Record> {
    let how = How {
        network_frames: start == Start::Network,
        ..How::default()
    };
    let mut parsed = Parsed::default();
    parse::read(frame, how, &mut parsed).ok()?;
    let headers = parsed.headers;
    let mut record = [0; 16];
    record[0..4].copy_from_slice(&headers.src_addr);
    record[4..8].copy_from_slice(&headers.dst_addr);
    record[8..].copy_from_slice(&[
        u32::from(headers.src_port),
        u32::from(headers.dst_port),
        u32::from(headers.protocol),
        u32::from(headers.ip_version) | u32::from(headers.tcp_flags) << 8,
        headers.payload_bytes,
        headers.seq,
        headers.ack,
        headers.payload_bytes.div_ceil(SEGMENT_BYTES).max(1),
    ]);
    Some(record)
}

/// Nanoseconds a packet of some passes, each with flows that nobody has seen.
fn pass(kernel: &mut Kernel, program: &str, (count, effort): (u32, Effort)) -> Result<f64> {
    let frame = Family::V4.frame();
    measure::per_packet_ns(effort.clock, effort.packets, |repeat| {
        if let Kernel::Object(object) = kernel {
            object.rewind([0, count, rand::random(), 0])?;
        }
        kernel.run(program, &frame, repeat)
    })
}

/// What the shares are made of, the packets last.
const COUNTED: [(&str, Counter); 4] = [
    ("replay_decisions", Counter::DecisionPoints),
    ("replay_new_flows", Counter::FlowsCreated),
    ("replay_messages", Counter::MessagesStarted),
    ("replay_packets", Counter::EgressPackets),
];

fn counts(kernel: &mut Kernel) -> Result<[u64; COUNTED.len()]> {
    let mut counts = [0; COUNTED.len()];
    for (count, (_, counter)) in counts.iter_mut().zip(COUNTED) {
        *count = kernel.maps().count(counter)?;
    }
    Ok(counts)
}

fn shares_of(
    before: [u64; COUNTED.len()],
    after: [u64; COUNTED.len()],
    packets: u64,
) -> Result<Vec<(&'static str, f64)>> {
    let grown = |index: usize| after[index] - before[index];
    let seen = grown(COUNTED.len() - 1);
    ensure!(
        seen == packets,
        "{seen} packets of the replay came by, not {packets}"
    );
    let shares = COUNTED.iter().enumerate().take(COUNTED.len() - 1);
    Ok(shares
        .map(|(index, (name, _))| (*name, grown(index) as f64 / packets as f64))
        .collect())
}

/// The figures as they are; and, of what classifies, those above the empty program without the draw.
fn times(figures: &[Vec<f64>]) -> Vec<(String, Spread)> {
    let plain = VARIANTS.iter().zip(figures).map(|((name, _), of)| {
        let spread = Spread::of(of.iter().copied());
        (format!("replay_{name}"), spread)
    });
    let above = [TEXTBOOK, LOOKUPS, TREELINE].map(|variant| {
        let own = undrawn(figures, variant);
        let paired = own.zip(&figures[EMPTY]).map(|(own, empty)| own - empty);
        let name = format!("replay_{}_above_empty", VARIANTS[variant].0);
        (name, Spread::of(paired))
    });
    plain.chain(above).collect()
}

/// Without what it costs to draw, which no real packet pays.
fn undrawn(figures: &[Vec<f64>], variant: usize) -> impl Iterator<Item = f64> {
    let draw = figures[DRAW].iter().zip(&figures[PARSE]);
    figures[variant]
        .iter()
        .zip(draw)
        .map(|(all, (draw, parse))| all - (draw - parse))
}

fn ratios(figures: &[Vec<f64>]) -> Vec<(String, Spread)> {
    [
        ("treeline_over_textbook", TREELINE, TEXTBOOK),
        ("lookups_over_treeline", LOOKUPS, TREELINE),
    ]
    .map(|(name, over, under)| {
        let paired = undrawn(figures, over)
            .zip(undrawn(figures, under))
            .map(|(a, b)| a / b);
        (format!("replay_{name}"), Spread::of(paired))
    })
    .into()
}
