//! What a packet costs: programs of our own, run by the kernel on made-up packets.
//!
//! Nothing that is attached is touched: programs and maps are loaded once more, hang nowhere and go with the process.

use std::time::Duration;

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, ArrayOfMaps, Map, MapError},
    programs::{ProgramError, SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use scheduler_common::{flow::Hashing, names, sample::Hook, settings::Settings, tree::Table};
use serde::Serialize;

use super::{DatapathError, OBJECT, clock, program, refused, sets_of, types};

/// Runs of one packet in a row, over which the kernel gives the mean.
const REPEAT: u32 = 100_000;
/// Flows of a round whose single packets are timed.
const FLOWS: u16 = 200;
/// Packets of a message before the one that is timed as a decision: the next one doubles their count.
const BEFORE_DECISION: u32 = 31;
/// Bytes of a made-up packet: that many packets are past the first bytes of a message, where a model is asked.
const FRAME_BYTES: usize = 1200;

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packet {
    /// Neither IPv4 nor IPv6: passed at once. What the call itself costs is in it.
    PassedOver,
    /// One more of a message under way: it takes the band that stands.
    KnownFlow,
    /// One at which its message is looked at afresh, on egress by the model.
    Decision,
    /// The first one of a flow.
    FirstPacket,
}

/// Nanoseconds of one kind of packet at one hook.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// The hook.
    #[serde(serialize_with = "hook_name")]
    pub hook: Hook,
    /// The packet.
    pub packet: Packet,
    /// The least of the rounds, which nothing has disturbed.
    pub least_ns: f64,
    /// Their median.
    pub median_ns: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn hook_name<S: serde::Serializer>(hook: &Hook, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match hook {
        Hook::Egress => "egress",
        Hook::Ingress => "ingress",
    })
}

/// Programs that hang nowhere.
pub struct Bench {
    ebpf: Ebpf,
    next_flow: u32,
    timed: Vec<(Hook, Packet, Vec<f64>)>,
}

impl Bench {
    /// Loads the programs with a table for `flow_entries` flows and the model that is to be asked.
    ///
    /// # Errors
    /// What the kernel objects to.
    pub fn load(flow_entries: u32, model: Option<&Table>) -> Result<Self, DatapathError> {
        let sets = sets_of(flow_entries);
        let hashing = Hashing {
            multipliers: rand::random(),
            sample_key: rand::random(),
            set_mask: sets - 1,
            _pad: 0,
        };
        let write_seq_offset = types::member_offset("tcp_sock", "write_seq");
        let clock = clock::of_this_boot();
        let mut loader = EbpfLoader::new();
        if let Some(offset) = &write_seq_offset {
            loader.override_global("WRITE_SEQ_OFFSET", offset, true);
        }
        let mut ebpf = loader
            .override_global("CLOCK", &clock, true)
            .override_global("SECRET", &hashing, true)
            .map_max_entries(names::FLOWS, sets)
            .map_max_entries(names::STORIES, sets * scheduler_common::flow::WAYS as u32)
            .map_max_entries(names::CPUS, super::ingress::cpus()?)
            .load(OBJECT)
            .map_err(|source| refused(source, sets))?;
        let fault = |op| {
            move |source| DatapathError::Program {
                op,
                source: Box::new(source),
            }
        };
        egress(&mut ebpf)?
            .load()
            .map_err(fault("load the egress program"))?;
        ingress(&mut ebpf)?
            .load()
            .map_err(fault("load the ingress program"))?;
        set(&mut ebpf, names::SETTINGS, &Settings::default())?;
        if let Some(table) = model {
            ask(&mut ebpf, table)?;
        }
        Ok(Self {
            ebpf,
            next_flow: 0,
            timed: Vec::new(),
        })
    }

    /// Times every kind of packet once.
    ///
    /// # Errors
    /// If the kernel can't run a program on a packet.
    pub fn round(&mut self) -> Result<(), DatapathError> {
        for hook in [Hook::Egress, Hook::Ingress] {
            let idle = self.run(hook, &not_ip(), REPEAT)?;
            self.note(hook, Packet::PassedOver, idle);
            let frame = self.next_frame();
            let known = self.run(hook, &frame, REPEAT)?;
            self.note(hook, Packet::KnownFlow, known);
            if hook == Hook::Ingress {
                // To run an XDP program once the kernel first waits for all CPUs, and it runs cold.
                continue;
            }
            // A single run has the clock's own time in it, which one that passes at once tells.
            let (mut first, mut decision, mut single) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..FLOWS {
                let frame = self.next_frame();
                single.push(self.run(hook, &not_ip(), 1)?);
                first.push(self.run(hook, &frame, 1)?);
                self.run(hook, &frame, BEFORE_DECISION - 1)?;
                decision.push(self.run(hook, &frame, 1)?);
            }
            let beyond = |times: &mut [f64], single: f64| (median(times) - single).max(0.0) + idle;
            let single = median(&mut single);
            let (first, decision) = (beyond(&mut first, single), beyond(&mut decision, single));
            self.note(hook, Packet::Decision, decision);
            self.note(hook, Packet::FirstPacket, first);
        }
        Ok(())
    }

    /// What the rounds came to.
    pub fn costs(&self) -> Vec<Cost> {
        let of = |(hook, packet, times): &(Hook, Packet, Vec<f64>)| {
            let mut times = times.clone();
            let median_ns = median(&mut times);
            Cost {
                hook: *hook,
                packet: *packet,
                least_ns: times.first().copied().unwrap_or_default(),
                median_ns,
            }
        };
        self.timed.iter().map(of).collect()
    }

    fn note(&mut self, hook: Hook, packet: Packet, ns: f64) {
        let known = self
            .timed
            .iter_mut()
            .find(|timed| (timed.0, timed.1) == (hook, packet));
        match known {
            Some((_, _, times)) => times.push(ns),
            None => self.timed.push((hook, packet, vec![ns])),
        }
    }

    /// Mean time of a run.
    fn run(&mut self, hook: Hook, frame: &[u8], repeat: u32) -> Result<f64, DatapathError> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.repeat = repeat;
        let ran = match hook {
            Hook::Egress => egress(&mut self.ebpf)?.test_run(options),
            Hook::Ingress => ingress(&mut self.ebpf)?.test_run(options),
        };
        let ran = ran.map_err(|source: ProgramError| DatapathError::Program {
            op: "run a program on a packet",
            source: Box::new(source),
        })?;
        Ok(nanoseconds(ran.duration))
    }

    /// A packet of a flow that was not there before.
    fn next_frame(&mut self) -> Vec<u8> {
        self.next_flow += 1;
        udp(self.next_flow)
    }
}

/// The kernel tells whole nanoseconds.
fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

/// Sorts them as well.
fn median(times: &mut [f64]) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn egress(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, DatapathError> {
    program(ebpf, names::EGRESS)
}

fn ingress(ebpf: &mut Ebpf) -> Result<&mut Xdp, DatapathError> {
    program(ebpf, names::INGRESS)
}

fn set<T: aya::Pod>(ebpf: &mut Ebpf, name: &'static str, value: &T) -> Result<(), DatapathError> {
    let fault = |source| DatapathError::Map { name, source };
    let map = ebpf
        .map_mut(name)
        .ok_or(DatapathError::MissingInObject { name })?;
    Array::<_, T>::try_from(map)
        .and_then(|mut array| array.set(0, value, 0))
        .map_err(fault)
}

/// Has the programs ask a model.
fn ask(ebpf: &mut Ebpf, table: &Table) -> Result<(), DatapathError> {
    table
        .check()
        .map_err(|fault| DatapathError::UnsoundTable { fault })?;
    let [name, ..] = names::SLOTS;
    set(ebpf, name, table)?;
    let fault = |source: MapError| DatapathError::Map {
        name: names::MODEL,
        source,
    };
    let missing = |name| DatapathError::MissingInObject { name };
    let Some(Map::Array(slot)) = ebpf.take_map(name) else {
        return Err(missing(name));
    };
    let outer = ebpf
        .map_mut(names::MODEL)
        .ok_or_else(|| missing(names::MODEL))?;
    ArrayOfMaps::try_from(outer)
        .and_then(|mut outer| outer.set(names::MODEL_ACTS, &slot, 0))
        .map_err(fault)
}

/// A request of ARP.
fn not_ip() -> Vec<u8> {
    let mut frame = vec![
        2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1,
    ];
    frame.resize(60, 0);
    frame
}

/// A datagram of the flow with this number; of UDP, because each repetition brings new bytes.
fn udp(flow: u32) -> Vec<u8> {
    const ETHERNET_BYTES: usize = 14;
    const IP_BYTES: usize = 20;
    let ip_bytes = (FRAME_BYTES - ETHERNET_BYTES) as u16;
    let udp_bytes = ip_bytes - IP_BYTES as u16;
    let [_, high, middle, low] = flow.to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
    frame.extend(ip_bytes.to_be_bytes());
    frame.extend([
        0, 0, 0x40, 0, 64, 17, 0, 0, 10, 1, 0, 1, 10, high, middle, low,
    ]);
    frame.extend(5004u16.to_be_bytes());
    frame.extend(16_384u16.to_be_bytes());
    frame.extend(udp_bytes.to_be_bytes());
    frame.resize(FRAME_BYTES, 0x5a);
    frame
}

#[cfg(test)]
mod tests {
    use scheduler_common::counter::Skip;
    use scheduler_ebpf::parse;

    use super::*;

    #[test]
    fn a_median_is_the_middle_one_and_leaves_them_in_order() {
        let mut times = [5.0, 1.0, 3.0];
        assert_eq!(median(&mut times), 3.0);
        assert_eq!(times[0], 1.0);
        assert_eq!(median(&mut []), 0.0);
    }

    #[test]
    fn made_up_packets_are_what_they_are_said_to_be() {
        let skip = |frame: &[u8]| parse::headers(frame).err();
        assert_eq!(skip(&udp(0x0001_0203)), None);
        assert_eq!(skip(&not_ip()), Some(Skip::NotIp));
        assert_ne!(udp(1), udp(2));
    }
}
