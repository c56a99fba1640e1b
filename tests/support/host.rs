//! The packet's path on the host: the programs' own code over an ordinary map.

use std::collections::HashMap;

use scheduler_common::{
    ABI_VERSION,
    class::class_handle,
    counter::{Beside, Counter, GENERATION_SLOTS, Skip},
    features::SLOTS,
    flow::{Flow, Hashing, Story, TICK_SHIFT, half_flags},
    history::HistoryEntry,
    sample::{Hook, Sample, SampleKind},
    settings::{Settings, settings_flags},
    tree::Table,
};
use scheduler_ebpf::{
    features::{self, Socket},
    flow::{self, Cause, Ended, Step, event},
    fragment::{self, FirstFragment, FragmentKey, Kind},
    hash::{self, Identity},
    history::{self, Place},
    parse::{self, Headers, How, Parsed},
    stream::{self, Found},
    verdict,
};

use super::{
    kernel::{Kernel, Ran, TEST_IFINDEX, UNTOUCHED},
    packets::Passing,
};

const TC_ACT_UNSPEC: u32 = -1i32 as u32;
const XDP_PASS: u32 = 2;

/// What the kernel must do with a packet.
#[derive(Debug, PartialEq)]
struct Expected {
    verdict: u32,
    priority: u32,
    counted: Vec<(&'static str, u64)>,
    samples: Vec<Sample>,
    flow: Option<(Flow, Story)>,
}

/// What this packet is to the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fate {
    /// The kernel's test interface makes no packet of these bytes.
    Refused,
    /// It passes untouched.
    Skipped(Skip),
    /// It belongs to a flow and gets this band.
    Banded(u8),
}

/// The host's twin of the kernel's flow table.
pub(crate) struct Twin {
    pub(crate) settings: Settings,
    pub(crate) table: Option<Box<Table>>,
    /// The model that is only watched.
    pub(crate) shadow: Option<Box<Table>>,
    /// What it would have done.
    pub(crate) beside: Beside,
    flows: HashMap<u64, (Flow, Story)>,
    means: HashMap<u32, HistoryEntry>,
    fragments: HashMap<FragmentKey, FirstFragment>,
    latest: Clocks,
}

/// What the kernel's clocks said.
#[derive(Clone, Copy, Debug, Default)]
struct Clocks {
    coarse_ticks: u32,
    fine_ns: u64,
}

/// A parsed packet and its flow.
struct Packet<'a> {
    headers: &'a Headers,
    identity: Identity,
    segments: u32,
}

/// Where a packet's outcome is collected.
struct Pass<'a> {
    hook: Hook,
    settings: &'a Settings,
    hashing: &'a Hashing,
    now_ns: u64,
    tag: u64,
    network: u64,
    means: &'a mut HashMap<u32, HistoryEntry>,
    shadow: Option<&'a Table>,
    beside: &'a mut Beside,
    counters: Vec<Counter>,
    samples: Vec<Sample>,
}

impl Twin {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            table: None,
            shadow: None,
            beside: Beside::default(),
            flows: HashMap::new(),
            means: HashMap::new(),
            fragments: HashMap::new(),
            latest: Clocks::default(),
        }
    }

    /// Runs the packet in the kernel and here, and holds both to the same outcome.
    ///
    /// The clock is the kernel's: what it read is found in what it wrote. So times are compared
    /// to the nanosecond like everything else.
    pub(crate) fn compare(&mut self, kernel: &mut Kernel, passing: &Passing, name: &str) -> Fate {
        let Ok(ran) = kernel.run(passing) else {
            return Fate::Refused;
        };
        let parsed = self.read(passing);
        let fate;
        let (expected, flow) = match parsed {
            Err(skip) => {
                fate = Fate::Skipped(skip);
                let counters = vec![packets_of(passing.hook), Counter::ALL[skip as usize]];
                (
                    expected(passing.hook, (None, counters), Vec::new(), None),
                    None,
                )
            }
            Ok(parsed) => {
                let headers = parsed.headers;
                let identity = kernel.identify(&headers);
                let real = kernel
                    .flow(identity.tag)
                    .unwrap_or_else(|| panic!("{name}: the kernel has no entry for {headers:?}"));
                let packet = Packet {
                    headers: &headers,
                    identity,
                    segments: match passing.hook {
                        Hook::Egress => passing.segments.max(1),
                        Hook::Ingress => 1,
                    },
                };
                let clocks = self.clocks(&packet, &real, &ran);
                let (band, mut expected) =
                    self.account(passing.hook, &packet, clocks, &kernel.hashing);
                for (happened, counter) in [
                    (
                        parsed.fragment.kind == Kind::Later,
                        Counter::JoinedFragments,
                    ),
                    (parsed.inner == 1, Counter::InnerPackets),
                ] {
                    if happened {
                        // Both stand behind all others.
                        expected.counted.push((counter.name(), 1));
                    }
                }
                fate = Fate::Banded(band);
                (expected, Some(real))
            }
        };
        let found = Expected {
            verdict: ran.verdict,
            priority: ran.priority,
            counted: named(ran.counted.iter().copied()),
            samples: ran.samples,
            flow,
        };
        assert_eq!(
            found, expected,
            "{name}: kernel (left) and host (right) differ"
        );
        fate
    }

    /// Messages that were under way when what acts was exchanged.
    pub(crate) fn held(&self) -> usize {
        let halves = self.flows.values().flat_map(|(flow, _)| flow.halves);
        halves
            .filter(|half| half.flags & half_flags::HELD != 0)
            .count()
    }

    /// Headers of the packet, later fragments completed.
    fn read(&mut self, passing: &Passing) -> Result<Parsed, Skip> {
        let how = how(&self.settings, passing);
        let mut parsed = Parsed::default();
        parse::read(passing.frame.as_slice(), how, &mut parsed)?;
        let key = fragment::key(&parsed, TEST_IFINDEX);
        match parsed.fragment.kind {
            Kind::Whole => {}
            Kind::First => drop(self.fragments.insert(key, fragment::first(&parsed))),
            Kind::Later => {
                let first = self.fragments.get(&key).ok_or(Skip::LaterFragment)?;
                fragment::join(&mut parsed, first);
            }
        }
        Ok(parsed)
    }

    fn account(
        &mut self,
        hook: Hook,
        packet: &Packet<'_>,
        clocks: Clocks,
        hashing: &Hashing,
    ) -> (u8, Expected) {
        let Packet {
            headers, identity, ..
        } = *packet;
        let mut pass = Pass {
            hook,
            settings: &self.settings,
            hashing,
            now_ns: clocks.fine_ns,
            tag: identity.tag,
            network: history::network(headers, hook),
            means: &mut self.means,
            shadow: self.shadow.as_deref(),
            beside: &mut self.beside,
            counters: vec![packets_of(hook)],
            samples: Vec::new(),
        };
        let mut step = Step {
            half: identity.half,
            segments: packet.segments,
            now_ticks: clocks.coarse_ticks,
            ..Step::default()
        };
        let (mut flow, mut story) = self.flows.get(&identity.tag).copied().unwrap_or_else(|| {
            pass.counters.push(Counter::FlowsCreated);
            step.events = event::ENTERED;
            let mut flow = Flow::default();
            flow::open(&mut flow, identity.tag, clocks.coarse_ticks);
            (flow, Story::default())
        });
        flow::advance(&mut flow, headers, &self.settings, &mut step);
        if step.has(event::PAGE) {
            let entry = (&mut flow, &mut story);
            flow::turn_page(entry, headers, &self.settings, clocks.fine_ns, &mut step);
            pass.turn(
                headers,
                (&mut flow, &mut story),
                &mut step,
                self.table.as_deref(),
            );
        }
        let band = pass.judge(&flow, &step);
        self.flows.insert(identity.tag, (flow, story));
        let expected = expected(
            hook,
            (Some(band), pass.counters),
            pass.samples,
            Some((flow, story)),
        );
        (band, expected)
    }

    /// What the clocks said when the kernel saw the packet, as far as it was written down; what was not
    /// has no effect that could differ.
    fn clocks(&mut self, packet: &Packet<'_>, real: &(Flow, Story), ran: &Ran) -> Clocks {
        let half = packet.identity.half as usize;
        let known = self.flows.get(&packet.identity.tag);
        let coarse_ticks = match known {
            Some((flow, _)) if real.0.halves[half].last_ticks == flow.halves[half].last_ticks => {
                self.latest.coarse_ticks
            }
            _ => real.0.halves[half].last_ticks,
        };
        let looked = |story: &Story| story.halves[half].looked_ticks;
        let fine_ns = match (known, ran.samples.first()) {
            (None, _) => real.1.first_ns,
            (Some(_), Some(sample)) => sample.time_ns,
            // A stream that goes on is looked at and leaves no sample.
            (Some((_, story)), None) if looked(story) != looked(&real.1) => {
                let from = real.1.first_ns >> TICK_SHIFT;
                let ticks = looked(&real.1).wrapping_sub(from as u32);
                (from + u64::from(ticks)) << TICK_SHIFT
            }
            // The client's packet that ends the handshake leaves no other trace.
            (Some(_), None) => real.1.first_ns + ns_of(real.1.rtt_us),
        };
        self.latest = Clocks {
            coarse_ticks,
            fine_ns,
        };
        self.latest
    }
}

impl Pass<'_> {
    /// Everything behind `flow::turn_page`, as the programs do it.
    fn turn(
        &mut self,
        headers: &Headers,
        (flow, story): (&mut Flow, &mut Story),
        step: &mut Step,
        table: Option<&Table>,
    ) {
        let half = step.half;
        self.ended(headers, (flow, story), (half ^ 1, step), &step.other_end);
        if step.has(event::STARTED) {
            self.counters.push(Counter::MessagesStarted);
            let places = self.places(headers, story, (half, half));
            story.halves[half as usize].history_log2_q8 = places.map(|place| self.mean(place));
        }
        if step.has(event::DECISION) {
            self.decide(headers, (flow, story), step, table);
        }
        self.ended(headers, (flow, story), (half, step), &step.own_end);
    }

    fn judge(&mut self, flow: &Flow, step: &Step) -> u8 {
        let own = &flow.halves[step.half as usize];
        if step.has(event::RETRANSMITTED) {
            self.counters.push(Counter::RetransmittedPackets);
        }
        if step.has(event::CONTROL) {
            self.counters.push(Counter::ControlPackets);
            return 0;
        }
        if self.hook == Hook::Egress {
            self.counters
                .push(if own.flags & half_flags::PREDICTED == 0 {
                    Counter::AgingPackets
                } else {
                    Counter::ModelPackets
                });
        }
        own.band
    }

    fn places(&self, headers: &Headers, story: &Story, halves: (u32, u32)) -> [Place; 2] {
        let hook = (self.hook, TEST_IFINDEX);
        history::places(headers, story, halves, hook, self.hashing)
    }

    fn mean(&self, place: Place) -> u16 {
        match self.means.get(&place.index) {
            Some(entry) if entry.tag == place.tag => entry.log2_q8,
            _ => 0,
        }
    }

    fn decide(
        &mut self,
        headers: &Headers,
        (flow, story): (&mut Flow, &mut Story),
        step: &mut Step,
        table: Option<&Table>,
    ) {
        self.counters.push(Counter::DecisionPoints);
        let half = step.half as usize;
        match stream::look(&mut flow.halves[half], step.gap_us, self.settings) {
            Found::Message => {}
            Found::Stream => return,
            Found::Turned => return flow::cut((flow, story), step),
        }
        let mut features = [0; SLOTS];
        // A test run has no TCP socket.
        let socket = Socket::default();
        features::extract(headers, (flow, story), (step, &socket), &mut features);
        let (own, page) = (&mut flow.halves[half], &mut story.halves[half]);
        let (mut generation, mut predicted_log2_q8) = (0, 0);
        let mut shadow = None;
        if self.hook == Hook::Egress {
            shadow = self
                .shadow
                .and_then(|table| Some((table.generation, table.walk(&features)?)));
            let leaf = table.and_then(|table| Some((table.generation, table.walk(&features)?)));
            match leaf {
                Some((of, leaf)) => {
                    generation = of;
                    predicted_log2_q8 = u32::from(leaf.log2_q8);
                    if verdict::asks(own, self.settings) {
                        let slot = (of % GENERATION_SLOTS) as u8;
                        verdict::take(own, page, leaf.bytes_to_come(), slot);
                    }
                }
                None => {
                    page.predicted_bytes = 0;
                    own.flags &= !half_flags::PREDICTED;
                }
            }
        }
        verdict::settle(own, page, self.settings);
        if let Some((of, leaf)) = shadow
            && verdict::asks(own, self.settings)
        {
            let alone = verdict::alone(own.bytes, leaf.bytes_to_come(), self.settings);
            self.beside.count(of, own.band, alone);
        }
        let shadow = shadow.map_or((0, 0), |(of, leaf)| (of, u32::from(leaf.log2_q8)));
        let sample = Sample {
            bytes: u64::from(own.bytes),
            message: page.message,
            packets: own.packets,
            generation,
            predicted_log2_q8,
            shadow_generation: shadow.0,
            shadow_log2_q8: shadow.1,
            band: own.band,
            features,
            ..self.record(SampleKind::Decision, (self.hook, step.half))
        };
        self.emit(sample);
    }

    fn ended(
        &mut self,
        headers: &Headers,
        (flow, story): (&Flow, &Story),
        (half, step): (u32, &Step),
        ended: &Ended,
    ) {
        let counter = match ended.cause {
            Cause::None => return,
            Cause::Turn => Counter::EndedByTurn,
            Cause::Gap => Counter::EndedByGap,
            Cause::Close => Counter::EndedByClose,
        };
        self.counters.push(counter);
        for place in self.places(headers, story, (half, step.half)) {
            let entry = self.means.entry(place.index).or_default();
            if entry.tag != place.tag {
                *entry = HistoryEntry {
                    tag: place.tag,
                    ..HistoryEntry::default()
                };
            }
            entry.add(ended.bytes);
        }
        let hook = match (half == step.half, self.hook) {
            (true, hook) => hook,
            (false, Hook::Egress) => Hook::Ingress,
            (false, Hook::Ingress) => Hook::Egress,
        };
        let sample = Sample {
            bytes: u64::from(ended.bytes),
            message: ended.message,
            packets: ended.packets,
            band: flow.halves[half as usize].band,
            ..self.record(SampleKind::MessageEnd, (hook, half))
        };
        self.emit(sample);
    }

    fn record(&self, kind: SampleKind, (hook, half): (Hook, u32)) -> Sample {
        Sample {
            flow_hash: hash::sample_name(self.tag, self.hashing),
            time_ns: self.now_ns,
            bytes: 0,
            message: 0,
            packets: 0,
            generation: 0,
            predicted_log2_q8: 0,
            abi_version: ABI_VERSION as u16,
            kind: kind as u16,
            hook: hook as u8,
            half: half as u8,
            band: 0,
            _pad: 0,
            network_hash: hash::network_name(self.network, self.hashing),
            shadow_generation: 0,
            shadow_log2_q8: 0,
            flow_set: hash::set_of(self.tag, self.hashing),
            features: [0; SLOTS],
        }
    }

    fn emit(&mut self, sample: Sample) {
        if (self.tag >> 3) as u32 & self.settings.sample_mask == 0 {
            self.samples.push(sample);
            self.counters.push(Counter::SamplesSent);
        }
    }
}

/// How the program reads the packet: at TC it knows the EtherType, which in a test run is the frame's
/// own, or that of a frame with a length instead.
fn how(settings: &Settings, passing: &Passing) -> How {
    const LENGTHS_BELOW: u16 = 0x600;
    const WITH_LENGTH: u16 = 1;
    let field = u16::from_be_bytes([passing.frame[12], passing.frame[13]]);
    let ethertype = match passing.hook {
        Hook::Egress if field < LENGTHS_BELOW => WITH_LENGTH,
        Hook::Egress => field,
        Hook::Ingress => 0,
    };
    How {
        ethertype,
        network_frames: settings.flags & settings_flags::NETWORK_FRAMES != 0,
        inner: settings.flags & settings_flags::INNER != 0,
    }
}

/// The earliest time that the programs count as so many microseconds.
fn ns_of(us: u32) -> u64 {
    let near = (u64::from(us) * 1000) >> TICK_SHIFT;
    // The programs' factor is 2 in a million off.
    let first = near - (near >> 16) - near.min(2);
    let ticks = (first..).find(|ticks| flow::to_us(*ticks as u32) >= us);
    ticks.expect("ticks have no end") << TICK_SHIFT
}

fn expected(
    hook: Hook,
    (band, counters): (Option<u8>, Vec<Counter>),
    samples: Vec<Sample>,
    flow: Option<(Flow, Story)>,
) -> Expected {
    let mut counted = vec![0; Counter::COUNT];
    for counter in counters {
        counted[counter as usize] += 1;
    }
    Expected {
        verdict: match hook {
            Hook::Egress => TC_ACT_UNSPEC,
            Hook::Ingress => XDP_PASS,
        },
        priority: match (hook, band) {
            (Hook::Egress, Some(band)) => class_handle(band),
            _ => UNTOUCHED,
        },
        counted: named(counted.into_iter()),
        samples,
        flow,
    }
}

/// Only what was counted, so that a difference can be read.
fn named(counted: impl Iterator<Item = u64>) -> Vec<(&'static str, u64)> {
    let names = Counter::ALL.iter().map(|counter| counter.name());
    names.zip(counted).filter(|(_, count)| *count > 0).collect()
}

const fn packets_of(hook: Hook) -> Counter {
    match hook {
        Hook::Egress => Counter::EgressPackets,
        Hook::Ingress => Counter::IngressPackets,
    }
}
