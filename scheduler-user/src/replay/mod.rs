//! Captures → dataset, through the real programs by the capture's clock.
//!
//! Each capture is a host of its own: programs, flow table, history and secret are new. Whatever the
//! programs do not take from the packet itself they take from [`Moment`]: the time, and of a packet that is too large
//! for the kernel's test run its length and segments.

pub mod capture;
mod local;
mod programs;

use std::path::Path;

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use scheduler_common::{
    counter::Counter,
    replay::Moment,
    sample::Hook,
    settings::{Act, Settings, settings_flags},
};
use scheduler_ebpf::parse::{self, How, Parsed};
use serde::Serialize;

pub use self::{
    capture::CaptureError,
    local::{Prefix, PrefixError},
};
use self::{capture::Packet, programs::Programs};
use crate::dataset::{
    JoinCounts, Joiner,
    store::{StoreError, Writer},
};

/// What a test run takes with room to spare on every kernel: it must fit a page with headroom and tail.
const FRAME_BYTES: usize = 2048;

/// Payload of a full segment: packets that were captured above the offloads hold many.
const SEGMENT_BYTES: u32 = 1448;

/// Time of the capture between looks at the flow table.
const LOOK_EVERY_NS: u64 = 60_000_000_000;

/// How packets are taken.
#[derive(Clone, Debug, Default)]
pub struct ReplayOptions {
    /// Networks on this side of the interface; without any every packet leaves by it, in both directions of a flow.
    pub local: Vec<Prefix>,
    /// A packet in a tunnel belongs to the flow inside.
    pub inner: bool,
}

/// Why a replay ended early.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The capture.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The dataset.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The kernel does not take the programs.
    #[error("cannot load the replaying programs")]
    Load {
        /// Why.
        source: Box<EbpfError>,
    },
    /// A program can't be run.
    #[error("cannot run the programs on a packet")]
    Program(#[from] ProgramError),
    /// A map can't be used.
    #[error("cannot use a map of the replaying programs")]
    Map(#[from] MapError),
    /// The object is not what this was built with.
    #[error("the replaying programs lack a part: build treeline anew")]
    MissingInObject,
    /// Samples went missing.
    #[error("{lost} samples were lost: the dataset would have holes")]
    Lost {
        /// How many.
        lost: u64,
    },
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Packets of the capture.
    pub packets: u64,
    /// Packets that the programs gave to a flow.
    pub accounted: u64,
    /// Packets that they passed by: not IP, another protocol, damaged.
    pub skipped: u64,
    /// Packets of which the kernel's test run makes none.
    pub refused: u64,
    /// Packets between others than `local`.
    pub foreign: u64,
    /// Flows.
    pub flows: u64,
    /// From the first packet to the last.
    pub length_ns: u64,
    /// Rows written, censored ones included.
    pub rows: u64,
    /// What became of the decision points.
    pub join: JoinCounts,
}

/// Pushes one capture through the programs, and the rows that come of it to `writer`.
///
/// # Errors
/// See [`ReplayError`].
pub fn replay(
    path: &Path,
    options: &ReplayOptions,
    writer: &mut Writer,
) -> Result<Replayed, ReplayError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    writer.begin(&name);
    let settings = Settings {
        act: Act::Observe as u32,
        samples_per_window: u32::MAX,
        flags: if options.inner {
            settings_flags::INNER
        } else {
            0
        },
        ..Settings::default()
    };
    let mut run = Run {
        programs: Programs::load(&settings)?,
        options,
        writer,
        joiner: Joiner::default(),
        done: Replayed::default(),
        first_ns: None,
        latest_ns: 0,
        looked_ns: 0,
    };
    run.done.packets = capture::read(path, |packet| run.packet(packet))?;
    run.finish()
}

/// A replay under way.
struct Run<'a> {
    programs: Programs,
    options: &'a ReplayOptions,
    writer: &'a mut Writer,
    joiner: Joiner,
    done: Replayed,
    first_ns: Option<u64>,
    latest_ns: u64,
    looked_ns: u64,
}

impl Run<'_> {
    fn packet(&mut self, packet: Packet) -> Result<(), ReplayError> {
        let now_ns = packet.time_ns;
        let first_ns = *self.first_ns.get_or_insert(now_ns);
        self.latest_ns = now_ns;
        self.done.length_ns = now_ns - first_ns;
        // Before the packet: what fell silent in a long pause is over, not lost.
        if now_ns - self.looked_ns.max(first_ns) >= LOOK_EVERY_NS {
            self.look(now_ns)?;
        }
        let (frame, moment, hook) = self.prepare(packet);
        let Some(hook) = hook else {
            self.done.foreign += 1;
            return Ok(());
        };
        if !self.programs.run(hook, &frame, moment)? {
            self.done.refused += 1;
        }
        while let Some(sample) = self.programs.next_sample() {
            let rows = self.joiner.push(&sample);
            self.writer.write(&rows)?;
        }
        Ok(())
    }

    /// The bytes to run the programs on, what is not in them, and the hook that sees the packet.
    fn prepare(&self, packet: Packet) -> (Vec<u8>, Moment, Option<Hook>) {
        let Packet {
            mut frame,
            wire_bytes,
            time_ns,
        } = packet;
        // What was cut off is zeroes, so that lengths are those of the wire.
        frame.resize(frame.len().max(wire_bytes), 0);
        let how = How {
            inner: self.options.inner,
            ..How::default()
        };
        let mut parsed = Parsed::default();
        let headers = parse::read(frame.as_slice(), how, &mut parsed)
            .ok()
            .map(|()| parsed.headers);
        let payload_bytes = headers.map_or(0, |headers| headers.payload_bytes);
        let mut moment = Moment {
            now_ns: time_ns,
            payload_bytes: 0,
            segments: payload_bytes.div_ceil(SEGMENT_BYTES).max(1),
        };
        if frame.len() > FRAME_BYTES {
            frame.truncate(FRAME_BYTES);
            // With a length of 0 the parser goes by what is there, and the real one comes from the moment.
            clear_length(&mut frame);
            moment.payload_bytes = payload_bytes;
        }
        let hook = match (&headers, self.options.local.is_empty()) {
            (_, true) | (None, _) => Some(Hook::Egress),
            (Some(headers), false) => local::hook(&self.options.local, headers),
        };
        (frame, moment, hook)
    }

    fn look(&mut self, now_ns: u64) -> Result<(), ReplayError> {
        self.looked_ns = now_ns;
        if self.joiner.pending() > 0 {
            let waiting = (self.joiner.flows(), self.joiner.flow_sets());
            let readings = self.programs.readings(waiting, now_ns)?;
            let rows = self.joiner.read(&readings);
            self.writer.write(&rows)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Replayed, ReplayError> {
        self.look(self.latest_ns)?;
        let rows = self.joiner.finish();
        self.writer.write(&rows)?;
        let counted = |counter| self.programs.counted(counter);
        let lost = counted(Counter::SamplesLost)? + counted(Counter::SamplesLimited)?;
        if lost > 0 {
            return Err(ReplayError::Lost { lost });
        }
        let seen = counted(Counter::EgressPackets)? + counted(Counter::IngressPackets)?;
        let mut skipped = 0;
        let skips = Counter::ALL
            .iter()
            .filter(|of| of.name().starts_with("skip_"));
        for counter in skips {
            skipped += counted(*counter)?;
        }
        let join = self.joiner.counts();
        Ok(Replayed {
            accounted: seen - skipped,
            skipped,
            flows: counted(Counter::FlowsCreated)?,
            rows: join.decisions,
            join,
            ..self.done
        })
    }
}

/// Sets the length field of the outermost IP header to 0, behind up to two VLAN tags.
fn clear_length(frame: &mut [u8]) {
    const TAG_BYTES: usize = 4;
    const TAGS: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
    let mut at = 12;
    for _ in 0..2 {
        if frame
            .get(at..at + 2)
            .is_some_and(|ethertype| TAGS.iter().any(|tag| tag == ethertype))
        {
            at += TAG_BYTES;
        }
    }
    let field = match frame.get(at..at + 2) {
        Some([0x08, 0x00]) => at + 4,
        Some([0x86, 0xdd]) => at + 6,
        _ => return,
    };
    if let Some(length) = frame.get_mut(field..field + 2) {
        length.fill(0);
    }
}
