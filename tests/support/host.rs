//! The packet's path on the host: the programs' own code over an ordinary map.

use std::collections::HashMap;

use scheduler_common::{
    ABI_VERSION,
    class::class_handle,
    counter::{Counter, Skip},
    features::SLOTS,
    flow::{FlowKey, FlowState, Half},
    sample::{Hook, Sample, SampleKind},
    settings::{Settings, settings_flags},
    tree::Table,
};
use scheduler_ebpf::{
    features,
    flow::{self, Cause, Ended, Step},
    fragment::{self, FirstFragment, FragmentKey, Kind},
    parse::{self, Headers, How, Parsed},
    verdict,
};
use zerocopy::IntoBytes as _;

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
    flow: Option<FlowState>,
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
    flows: HashMap<Vec<u8>, FlowState>,
    fragments: HashMap<FragmentKey, FirstFragment>,
    latest_ns: u64,
}

/// Where a packet's outcome is collected.
struct Pass<'a> {
    hook: Hook,
    settings: &'a Settings,
    now_ns: u64,
    counters: Vec<Counter>,
    samples: Vec<Sample>,
}

impl Twin {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            table: None,
            flows: HashMap::new(),
            fragments: HashMap::new(),
            latest_ns: 0,
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
                let (key, half) = flow::key(&headers, TEST_IFINDEX);
                let real = kernel
                    .flow(&key)
                    .unwrap_or_else(|| panic!("{name}: the kernel has no entry for {key:?}"));
                let (band, mut expected) =
                    self.account(passing, &headers, (&key, half), (&real, &ran));
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
        passing: &Passing,
        headers: &Headers,
        (key, half): (&FlowKey, usize),
        (real, ran): (&FlowState, &Ran),
    ) -> (u8, Expected) {
        let known = self.flows.get(key.as_bytes()).copied();
        let now_ns = clock_of(known.as_ref(), real, half, ran).unwrap_or(self.latest_ns);
        assert!(now_ns >= self.latest_ns, "the kernel's clock went back");
        self.latest_ns = now_ns;
        let mut pass = Pass {
            hook: passing.hook,
            settings: &self.settings,
            now_ns,
            counters: vec![packets_of(passing.hook)],
            samples: Vec::new(),
        };
        let mut state = known.unwrap_or_else(|| {
            pass.counters.push(Counter::FlowsCreated);
            let mut state = FlowState::ZERO;
            // Only the kernel knows the secret of the hash.
            flow::open(&mut state, headers, half, real.hash, now_ns);
            state
        });
        let segments = match passing.hook {
            Hook::Egress => passing.segments.max(1),
            Hook::Ingress => 1,
        };
        let mut step = Step {
            half,
            segments,
            ..Step::default()
        };
        flow::advance(&mut state, headers, &self.settings, now_ns, &mut step);
        let band = pass.judge(headers, (&mut state, &step), self.table.as_deref());
        self.flows.insert(key.as_bytes().to_vec(), state);
        let expected = expected(
            passing.hook,
            (Some(band), pass.counters),
            pass.samples,
            Some(state),
        );
        (band, expected)
    }
}

impl Pass<'_> {
    /// Everything behind the flow step, as the programs do it.
    fn judge(
        &mut self,
        headers: &Headers,
        (state, step): (&mut FlowState, &Step),
        table: Option<&Table>,
    ) -> u8 {
        for (happened, counter) in [
            (step.control, Counter::ControlPackets),
            (step.started, Counter::MessagesStarted),
            (step.retransmitted, Counter::RetransmittedPackets),
        ] {
            if happened {
                self.counters.push(counter);
            }
        }
        let other_hook = match self.hook {
            Hook::Egress => Hook::Ingress,
            Hook::Ingress => Hook::Egress,
        };
        self.ended(state, (other_hook, step.half ^ 1), &step.other_end);
        if step.decision {
            self.decide(headers, (state, step), table);
        }
        self.ended(state, (self.hook, step.half), &step.own_end);
        if step.control {
            return 0;
        }
        let own = &mut state.halves[step.half];
        let band = verdict::settle(own, self.settings);
        if self.hook == Hook::Egress {
            self.counters.push(if own.generation == 0 {
                Counter::AgingPackets
            } else {
                Counter::ModelPackets
            });
        }
        band
    }

    fn decide(
        &mut self,
        headers: &Headers,
        (state, step): (&mut FlowState, &Step),
        table: Option<&Table>,
    ) {
        self.counters.push(Counter::DecisionPoints);
        let features = features::extract(headers, state, step);
        let own = &mut state.halves[step.half];
        let mut predicted_log2_q8 = 0;
        if self.hook == Hook::Egress {
            let leaf = table.and_then(|table| Some((table.generation, table.walk(&features)?)));
            (own.generation, own.predicted_bytes) = leaf.map_or((0, 0), |(generation, leaf)| {
                (generation, own.bytes + leaf.bytes_to_come())
            });
            predicted_log2_q8 = leaf.map_or(0, |(_, leaf)| u32::from(leaf.log2_q8));
            verdict::settle(own, self.settings);
        }
        let Half {
            bytes,
            message,
            packets,
            generation,
            band,
            ..
        } = *own;
        let sample = Sample {
            bytes,
            message,
            packets,
            generation,
            predicted_log2_q8,
            band,
            features,
            ..self.record(state, SampleKind::Decision, (self.hook, step.half))
        };
        self.emit(state, sample);
    }

    fn ended(&mut self, state: &FlowState, (hook, half): (Hook, usize), ended: &Ended) {
        let counter = match ended.cause {
            Cause::None => return,
            Cause::Turn => Counter::EndedByTurn,
            Cause::Gap => Counter::EndedByGap,
            Cause::Close => Counter::EndedByClose,
        };
        self.counters.push(counter);
        let sample = Sample {
            bytes: ended.bytes,
            message: ended.message,
            packets: ended.packets,
            band: state.halves[half].band,
            ..self.record(state, SampleKind::MessageEnd, (hook, half))
        };
        self.emit(state, sample);
    }

    fn record(&self, state: &FlowState, kind: SampleKind, (hook, half): (Hook, usize)) -> Sample {
        Sample {
            flow_hash: state.hash,
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
            features: [0; SLOTS],
        }
    }

    fn emit(&mut self, state: &FlowState, sample: Sample) {
        if state.hash as u32 & self.settings.sample_mask == 0 {
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

/// The time at which the kernel saw the packet, if anything of it was written down.
fn clock_of(known: Option<&FlowState>, real: &FlowState, half: usize, ran: &Ran) -> Option<u64> {
    let Some(known) = known else {
        return Some(real.first_ns);
    };
    if let Some(sample) = ran.samples.first() {
        return Some(sample.time_ns);
    }
    if real.halves[half].last_ns != known.halves[half].last_ns {
        return Some(real.halves[half].last_ns);
    }
    (real.rtt_us != known.rtt_us).then(|| real.first_ns + u64::from(real.rtt_us) * 1000)
}

fn expected(
    hook: Hook,
    (band, counters): (Option<u8>, Vec<Counter>),
    samples: Vec<Sample>,
    flow: Option<FlowState>,
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
