//! Captures through the programs' own code, by the capture's clock, to rows.

use std::collections::{BTreeMap, HashMap};

use scheduler_common::{
    features::{Features, SLOTS},
    flow::{Flow, Hashing, Story},
    history::HistoryEntry,
    sample::Hook,
    settings::Settings,
};
use scheduler_ebpf::{
    features::{self, Socket},
    flow::{self, Cause, Ended, Step, event},
    hash, history,
    parse::{self, Headers, How, Parsed},
};
use treeline::dataset::Row;

use crate::support::captures::{Packet, Start};

const IFINDEX: u32 = 1;

/// What a row's `k` counts, and its bytes to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// Packets with new payload of a message; payload of its direction.
    Message,
    /// Packets of a flow, both ways; IP bytes both ways, as the captures' own list counts them.
    Flow,
}

/// A packet of interest, with what came after it.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) unit: Unit,
    /// Number of the packet, from 1.
    pub(super) k: u32,
    pub(super) row: Row,
}

/// Everything that is known of one host: here a capture.
pub(super) struct Host {
    settings: Settings,
    hashing: Hashing,
    flows: HashMap<u64, Entry>,
    means: HashMap<u32, HistoryEntry>,
    sessions: u64,
    seen: Vec<Seen>,
}

#[derive(Default)]
struct Entry {
    flow: Flow,
    story: Story,
    session: u64,
    /// Payload packets of the current message, by direction.
    in_message: [u32; 2],
    /// Rows that wait for the end of their message, by direction.
    waiting: [Vec<Seen>; 2],
    whole: Whole,
}

/// A flow as the captures' own list has it.
#[derive(Default)]
struct Whole {
    packets: u32,
    bytes: u64,
    begun: bool,
    closed: bool,
    last_ns: u64,
    /// Rows with the bytes before them.
    rows: Vec<Seen>,
}

const UDP: u8 = 17;
const FLOW_PACKETS: [u32; 4] = [1, 3, 5, 10];
const MESSAGE_PACKETS: [u32; 2] = [3, 10];
const UDP_SILENCE_NS: u64 = 5_000_000_000;

impl Host {
    pub(super) fn new() -> Self {
        Self {
            settings: Settings::default(),
            hashing: Hashing {
                multipliers: std::array::from_fn(|index| {
                    0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index as u64 * 2 + 3)
                }),
                sample_key: [1, 2],
                set_mask: 0,
                _pad: 0,
            },
            flows: HashMap::new(),
            means: HashMap::new(),
            sessions: 0,
            seen: Vec::new(),
        }
    }

    /// All rows of the packets; of messages and flows that end.
    pub(super) fn replay(mut self, packets: &[Packet]) -> Vec<Seen> {
        for packet in packets {
            let mut parsed = Parsed::default();
            let how = How {
                network_frames: packet.start == Start::Network,
                ..How::default()
            };
            if parse::read(packet.frame.as_slice(), how, &mut parsed).is_ok() {
                self.pass(&parsed.headers, packet);
            }
        }
        let last_ns = packets
            .iter()
            .map(|packet| packet.time_ns)
            .max()
            .unwrap_or(0);
        let mut entries: BTreeMap<u64, Entry> = BTreeMap::new();
        entries.extend(self.flows.drain().map(|(_, entry)| (entry.session, entry)));
        for entry in entries.into_values() {
            self.seen.extend(entry.whole.ended(last_ns));
        }
        self.seen
    }

    fn pass(&mut self, headers: &Headers, packet: &Packet) {
        let identity = hash::identify(headers, IFINDEX, &self.hashing);
        let now_ns = packet.time_ns;
        let now_ticks = flow::ticks(now_ns);
        let mut step = Step {
            half: identity.half,
            segments: 1,
            now_ticks,
            ..Step::default()
        };
        let mut entry = self.entry(headers, identity.tag, now_ns, &mut step);
        flow::advance(&mut entry.flow, headers, &self.settings, &mut step);
        if step.has(event::PAGE) {
            let both = (&mut entry.flow, &mut entry.story);
            flow::turn_page(both, headers, &self.settings, now_ns, &mut step);
            self.turn(headers, &mut entry, &step);
        }
        self.describe(headers, &mut entry, step, now_ns);
        self.end(headers, &mut entry, (step.half, step.half), &step.own_end);
        entry.whole.add(headers, packet);
        self.flows.insert(identity.tag, entry);
    }

    /// The entry of the flow, a new one where an old flow of the same tuple is over.
    fn entry(&mut self, headers: &Headers, tag: u64, now_ns: u64, step: &mut Step) -> Entry {
        const SYN: u8 = 2;
        let silence_ns = if headers.protocol == UDP { 120 } else { 600 } * 1_000_000_000;
        let old = self.flows.remove(&tag);
        let over = |entry: &Entry| {
            let silent_ns = now_ns.saturating_sub(entry.whole.last_ns);
            let opens = headers.tcp_flags & 0x12 == SYN && headers.protocol != UDP;
            silent_ns > silence_ns || opens && (entry.whole.closed || silent_ns > 60_000_000_000)
        };
        match old {
            Some(entry) if !over(&entry) => entry,
            old => {
                if let Some(old) = old {
                    self.seen.extend(old.whole.ended(now_ns));
                }
                self.sessions += 1;
                step.events = event::ENTERED;
                let mut flow = Flow::default();
                flow::open(&mut flow, tag, step.now_ticks);
                Entry {
                    flow,
                    session: self.sessions,
                    ..Entry::default()
                }
            }
        }
    }

    /// What stands between `turn_page` and the decision in the programs.
    fn turn(&mut self, headers: &Headers, entry: &mut Entry, step: &Step) {
        self.end(headers, entry, (step.half ^ 1, step.half), &step.other_end);
        if step.has(event::STARTED) {
            let own = step.half as usize;
            // A message that ends by silence is ended by the packet that begins the next.
            let ended = std::mem::take(&mut entry.waiting[own]);
            self.label(ended, &step.own_end);
            entry.in_message[own] = 0;
            let places = self.places(headers, &entry.story, (step.half, step.half));
            entry.story.halves[own].history_log2_q8 =
                places.map(|place| match self.means.get(&place.index) {
                    Some(mean) if mean.tag == place.tag => mean.log2_q8,
                    _ => 0,
                });
        }
    }

    fn places(&self, headers: &Headers, story: &Story, halves: (u32, u32)) -> [history::Place; 2] {
        let hook = if halves.1 == 0 {
            Hook::Egress
        } else {
            Hook::Ingress
        };
        history::places(headers, story, halves, (hook, IFINDEX), &self.hashing)
    }

    fn describe(&self, headers: &Headers, entry: &mut Entry, mut step: Step, now_ns: u64) {
        let own = step.half as usize;
        let decision = step.has(event::DECISION);
        let flow_k = entry.whole.packets + 1;
        if step.new_bytes > 0 {
            entry.in_message[own] += 1;
        }
        let message_k = entry.in_message[own];
        let of_message = step.new_bytes > 0 && (decision || MESSAGE_PACKETS.contains(&message_k));
        let of_flow = FLOW_PACKETS.contains(&flow_k);
        if !of_message && !of_flow {
            return;
        }
        let (flow, mut story) = (entry.flow, entry.story);
        if !decision {
            // As if the programs asked here; on a copy, for they do not.
            step.events = event::DECISION;
            let mut copy = flow;
            flow::turn_page(
                (&mut copy, &mut story),
                headers,
                &self.settings,
                now_ns,
                &mut step,
            );
        }
        let mut features = [0; SLOTS];
        let socket = Socket::default();
        features::extract(headers, (&flow, &story), (&step, &socket), &mut features);
        let row = |bytes_at| {
            row(
                features,
                bytes_at,
                (now_ns, entry.session),
                story.halves[own].message,
                own,
            )
        };
        if of_message {
            entry.waiting[own].push(Seen {
                unit: Unit::Message,
                k: message_k,
                row: row(u64::from(flow.halves[own].bytes)),
            });
        }
        if of_flow {
            entry.whole.rows.push(Seen {
                unit: Unit::Flow,
                k: flow_k,
                row: row(0),
            });
        }
    }

    fn end(&mut self, headers: &Headers, entry: &mut Entry, halves: (u32, u32), ended: &Ended) {
        if ended.cause == Cause::None {
            return;
        }
        for place in self.places(headers, &entry.story, halves) {
            let mean = self.means.entry(place.index).or_default();
            if mean.tag != place.tag {
                *mean = HistoryEntry {
                    tag: place.tag,
                    ..HistoryEntry::default()
                };
            }
            mean.add(ended.bytes);
        }
        let waiting = std::mem::take(&mut entry.waiting[halves.0 as usize]);
        // Rows of the message that begins with this very packet stay.
        let (ending, rest) = waiting
            .into_iter()
            .partition(|seen| seen.row.message == ended.message);
        entry.waiting[halves.0 as usize] = rest;
        self.label(ending, ended);
    }

    fn label(&mut self, rows: Vec<Seen>, ended: &Ended) {
        for mut seen in rows {
            if ended.cause != Cause::None && seen.row.message == ended.message {
                let total = u64::from(ended.bytes);
                seen.row.total_bytes = total;
                seen.row.remaining_bytes = total.saturating_sub(seen.row.bytes_at);
                self.seen.push(seen);
            }
        }
    }
}

impl Whole {
    fn add(&mut self, headers: &Headers, packet: &Packet) {
        const SYN_ACK: u8 = 0x12;
        if self.packets == 0 {
            self.begun = headers.protocol == UDP || headers.tcp_flags & SYN_ACK == 2;
        }
        self.packets += 1;
        self.bytes += packet.frame.len() as u64;
        self.last_ns = packet.time_ns;
        self.closed |= headers.protocol != UDP && headers.tcp_flags & 5 != 0;
        for seen in self.rows.iter_mut().filter(|seen| seen.k == self.packets) {
            seen.row.bytes_at = self.bytes;
        }
        self.closed &= headers.protocol != UDP;
    }

    /// Its rows, if the flow was seen whole by `now_ns`.
    fn ended(self, now_ns: u64) -> Vec<Seen> {
        let udp = self
            .rows
            .first()
            .is_some_and(|seen| seen.row.features[2] == u32::from(UDP));
        let silent = now_ns.saturating_sub(self.last_ns) > UDP_SILENCE_NS;
        if !self.begun || !(self.closed || udp && silent || self.bytes > 100_000) {
            return Vec::new();
        }
        let labelled = self.rows.into_iter().map(|mut seen| {
            seen.row.total_bytes = self.bytes;
            seen.row.remaining_bytes = self.bytes - seen.row.bytes_at;
            seen
        });
        labelled.collect()
    }
}

fn row(
    features: Features,
    bytes_at: u64,
    (time_ns, session): (u64, u64),
    message: u32,
    half: usize,
) -> Row {
    Row {
        features,
        bytes_at,
        remaining_bytes: 0,
        total_bytes: 0,
        time_ns,
        flow_hash: session,
        message,
        half: half as u8,
        hook: Hook::Egress,
        generation: 0,
        predicted_log2_q8: 0,
        network_hash: 0,
        censored: false,
        shadow_generation: 0,
        shadow_log2_q8: 0,
    }
}
