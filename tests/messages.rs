//! Messages of real flows, against lists that were read by hand.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    net::{IpAddr, SocketAddr},
    ops::Range,
};

use scheduler_common::{
    flow::{Flow as Entry, Hashing, Story, half_flags},
    settings::Settings,
};
use scheduler_ebpf::{
    flow::{self, Cause, Ended, Step, event},
    hash,
    parse::{self, Headers, How, Parsed, TCP, UDP},
};

use crate::support::{
    captures::{self, Packet, Start},
    peer::{self, Reading},
};

const LISTS: &str = include_str!("data/messages.txt");

/// Which endpoint sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    First,
    Second,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::First, Self::Second];
}

/// How a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Turn,
    Gap,
    Close,
    /// The capture ends first.
    Open,
}

/// A message, as read by hand and as the programs cut it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) side: Side,
    pub(crate) bytes: u64,
    segments: u32,
    pub(crate) end: End,
    /// Number of the packet at which it ends, from 1; 0 if it does not.
    frame: usize,
}

impl Display for Message {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            side,
            bytes,
            segments,
            end,
            frame,
        } = self;
        let side = if *side == Side::First { '>' } else { '<' };
        write!(f, "{side} {bytes} {segments} {end:?} {frame}")
    }
}

/// A flow with its list.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) name: &'static str,
    pub(crate) capture: &'static str,
    protocol: u8,
    ends: [SocketAddr; 2],
    messages: Vec<Message>,
    /// Messages of which the programs are known to miss something, and what is left of them.
    short: Vec<(Message, Message)>,
}

impl Flow {
    /// The list with its known faults.
    pub(crate) fn of_the_programs(&self) -> Vec<Message> {
        let fault = |message: &Message| self.short.iter().find(|(whole, _)| whole == message);
        let messages = self.messages.iter();
        messages
            .map(|message| fault(message).map_or(*message, |(_, short)| *short))
            .collect()
    }

    /// Who sends the packet, if it is of this flow.
    fn side(&self, headers: &Headers) -> Option<Side> {
        if headers.protocol != self.protocol {
            return None;
        }
        let from = (headers.src_addr, headers.src_port);
        let to = (headers.dst_addr, headers.dst_port);
        let [first, second] = self.ends.map(|end| (words(end.ip()), end.port()));
        if (from, to) == (first, second) {
            Some(Side::First)
        } else if (from, to) == (second, first) {
            Some(Side::Second)
        } else {
            None
        }
    }
}

fn words(addr: IpAddr) -> [u32; 4] {
    match addr {
        IpAddr::V4(addr) => [addr.to_bits(), 0, 0, 0],
        IpAddr::V6(addr) => {
            let bits = addr.to_bits();
            [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
        }
    }
}

/// The lists of `data/messages.txt`.
pub(crate) fn flows() -> Vec<Flow> {
    let mut flows: Vec<Flow> = Vec::new();
    for line in LISTS.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let read = match words.as_slice() {
            [] => Some(()),
            ["flow", name] => {
                flows.push(Flow {
                    name,
                    capture: "",
                    protocol: 0,
                    ends: [SocketAddr::from(([0; 4], 0)); 2],
                    messages: Vec::new(),
                    short: Vec::new(),
                });
                Some(())
            }
            words => flows.last_mut().and_then(|flow| add(flow, words)),
        };
        read.unwrap_or_else(|| panic!("not a line of a list: {line}"));
    }
    flows
}

fn add(flow: &mut Flow, words: &[&'static str]) -> Option<()> {
    match *words {
        ["capture", name] => flow.capture = name,
        [protocol @ ("tcp" | "udp"), first, second] => {
            flow.protocol = if protocol == "tcp" { TCP } else { UDP };
            flow.ends = [first.parse().ok()?, second.parse().ok()?];
        }
        ["programs", bytes, segments] => {
            let whole = *flow.messages.last()?;
            let short = Message {
                bytes: bytes.parse().ok()?,
                segments: segments.parse().ok()?,
                ..whole
            };
            flow.short.push((whole, short));
        }
        [side, bytes, segments, end, ref frame @ ..] => flow.messages.push(Message {
            side: match side {
                ">" => Side::First,
                "<" => Side::Second,
                _ => return None,
            },
            bytes: bytes.parse().ok()?,
            segments: segments.parse().ok()?,
            end: match end {
                "turn" => End::Turn,
                "gap" => End::Gap,
                "close" => End::Close,
                "open" => End::Open,
                _ => return None,
            },
            frame: match (end, frame) {
                ("open", []) => 0,
                (_, [frame]) => frame.parse().ok()?,
                _ => return None,
            },
        }),
        _ => return None,
    }
    Some(())
}

/// The flow's messages as the programs cut them, each side's in order.
///
/// The only place here that knows how the programs keep a flow.
fn messages_of(packets: &[Packet], flow: &Flow) -> Vec<Message> {
    const IFINDEX: u32 = 1;
    let settings = Settings::default();
    // The kernel's secret is another one each time; which half is whose does not matter here.
    let hashing = Hashing {
        multipliers: std::array::from_fn(|index| (index as u64 + 1) << 33 | 0x1d),
        sample_key: [0, 0],
        set_mask: 0,
        _pad: 0,
    };
    let mut entry: Option<(Entry, Story)> = None;
    let mut half_of_first = 0;
    let mut messages = Vec::new();
    for (frame, packet) in (1..).zip(packets) {
        let mut parsed = Parsed::default();
        let how = How {
            network_frames: packet.start == Start::Network,
            ..How::default()
        };
        let read = parse::read(packet.frame.as_slice(), how, &mut parsed);
        let Some(side) = read.ok().and_then(|()| flow.side(&parsed.headers)) else {
            continue;
        };
        let identity = hash::identify(&parsed.headers, IFINDEX, &hashing);
        let half = identity.half as usize;
        half_of_first = if side == Side::First { half } else { half ^ 1 };
        let now_ticks = flow::ticks(packet.time_ns);
        let mut step = Step {
            half: identity.half,
            segments: 1,
            now_ticks,
            ..Step::default()
        };
        let (entry, story) = entry.get_or_insert_with(|| {
            step.events = event::ENTERED;
            let mut entry = Entry::default();
            flow::open(&mut entry, identity.tag, now_ticks);
            (entry, Story::default())
        });
        flow::advance(entry, &parsed.headers, &settings, &mut step);
        if step.has(event::PAGE) {
            let both = (&mut *entry, &mut *story);
            flow::turn_page(both, &parsed.headers, &settings, packet.time_ns, &mut step);
        }
        for (half, ended) in [(half ^ 1, step.other_end), (half, step.own_end)] {
            let side = Side::BOTH[half ^ half_of_first];
            messages.extend(message(side, &ended, frame));
        }
    }
    let halves = entry.unwrap_or_default().0.halves;
    for side in Side::BOTH {
        let half = &halves[side as usize ^ half_of_first];
        if half.flags & half_flags::OPEN != 0 {
            messages.push(Message {
                side,
                bytes: u64::from(half.bytes),
                segments: half.packets,
                end: End::Open,
                frame: 0,
            });
        }
    }
    messages
}

fn message(side: Side, ended: &Ended, frame: usize) -> Option<Message> {
    let end = match ended.cause {
        Cause::None => return None,
        Cause::Turn => End::Turn,
        Cause::Gap => End::Gap,
        Cause::Close => End::Close,
    };
    Some(Message {
        side,
        bytes: u64::from(ended.bytes),
        segments: ended.packets,
        end,
        frame,
    })
}

fn of_side(messages: &[Message], side: Side) -> Vec<Message> {
    let own = messages.iter().filter(|message| message.side == side);
    own.copied().collect()
}

/// Tells the first difference as one line a message, the hand-read list on the left.
fn difference(flow: &Flow, found: &[Message]) -> Option<String> {
    let told = |message: Option<&Message>| {
        message.map_or_else(|| "nothing".to_owned(), Message::to_string)
    };
    Side::BOTH.into_iter().find_map(|side| {
        let (wanted, found) = (of_side(&flow.of_the_programs(), side), of_side(found, side));
        let differs =
            (0..wanted.len().max(found.len())).find(|at| wanted.get(*at) != found.get(*at))?;
        Some(format!(
            "{}, message {} of its side: {} by hand, {} by the programs",
            flow.name,
            differs + 1,
            told(wanted.get(differs)),
            told(found.get(differs)),
        ))
    })
}

#[test]
fn the_programs_cut_real_flows_as_a_reader_does() {
    let mut differences = Vec::new();
    let (mut flows_read, mut messages_read) = (0, 0);
    for flow in flows() {
        let Some(packets) = captures::packets(flow.capture) else {
            return;
        };
        differences.extend(difference(&flow, &messages_of(&packets, &flow)));
        flows_read += 1;
        messages_read += flow.messages.len();
    }
    eprintln!("{messages_read} messages of {flows_read} flows");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// What etherparse sees of a flow's side.
#[derive(Debug, Default)]
struct Seen {
    /// Span of the sequence numbers of payload, counted from the first one (TCP).
    span: Option<(u32, Range<i32>)>,
    /// Sum of payload lengths, repetitions included.
    sum: u64,
}

impl Seen {
    fn add(&mut self, headers: &Headers) {
        let bytes = headers.payload_bytes;
        self.sum += u64::from(bytes);
        if bytes > 0 {
            let (first, span) = self.span.get_or_insert((headers.seq, 0..0));
            let start = headers.seq.wrapping_sub(*first) as i32;
            span.start = span.start.min(start);
            span.end = span.end.max(start + bytes as i32);
        }
    }

    fn bytes(&self, protocol: u8) -> u64 {
        let span = self.span.as_ref().map_or(0, |(_, span)| span.len() as u64);
        if protocol == TCP { span } else { self.sum }
    }
}

#[test]
fn the_lists_account_for_every_byte_that_another_parser_sees() {
    for flow in flows() {
        let Some(packets) = captures::packets(flow.capture) else {
            return;
        };
        let mut seen: BTreeMap<Side, Seen> = BTreeMap::new();
        for packet in &packets {
            assert!(packet.time_ns > 0, "{} has no times", flow.capture);
            if let Reading::Headers(headers) = peer::read(packet.start, &packet.frame)
                && let Some(side) = flow.side(&headers)
            {
                seen.entry(side).or_default().add(&headers);
            }
        }
        for side in Side::BOTH {
            let listed: u64 = of_side(&flow.messages, side).iter().map(|m| m.bytes).sum();
            let there = seen.get(&side).map_or(0, |seen| seen.bytes(flow.protocol));
            assert_eq!(listed, there, "{}, {side:?}", flow.name);
        }
    }
}

#[test]
fn the_lists_hold_flows_of_many_kinds_and_every_end() {
    let flows = flows();
    assert!(flows.len() >= 20, "{} flows", flows.len());
    for flow in &flows {
        assert!(
            !flow.capture.is_empty() && !flow.messages.is_empty(),
            "{}",
            flow.name
        );
    }
    for end in [End::Turn, End::Gap, End::Close, End::Open] {
        let with = flows
            .iter()
            .filter(|flow| flow.messages.iter().any(|message| message.end == end));
        assert!(with.count() >= 3, "{end:?}");
    }
}
