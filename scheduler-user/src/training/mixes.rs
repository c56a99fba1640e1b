//! Made-up hosts: messages with sizes that hang on what a packet tells, or on nothing.

use std::{cmp::Reverse, collections::BinaryHeap, collections::HashMap, time::Duration};

use bed::mix;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::{
    class::{Cuts, FIRST_BYTES},
    features::{Feature, SLOTS},
    history::HistoryEntry,
};

use crate::{
    dataset::{Row, samples},
    simulate::cdf::Cdf,
};

const SEGMENT_BYTES: u64 = 1448;
/// What a message's end is reckoned with: the rate that one message gets of a link that others share.
const BYTES_PER_S: f64 = 5e6;
/// Services, networks, and connections to each, of the made-up hosts.
const SERVICES: u64 = 8;
const NETWORKS: u64 = 60;
const CONNECTIONS: u64 = 2;

/// One message as an application sends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) at_ns: u64,
    pub(super) flow: u64,
    pub(super) port: u32,
    pub(super) network: u64,
    pub(super) request_bytes: u32,
    pub(super) bytes: u64,
}

/// What the size of a message hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hangs {
    /// Nothing at all.
    Nowhere,
    /// The service's port: each has its own stretch of the distribution.
    Service,
    /// The length of the request, on one port.
    Request,
    /// The far network and the connection, on one port: what went there before tells.
    History,
}

/// Messages of a made-up host: `count` of them with sizes of `cdf`, at a Poisson process's times.
///
/// The quantile of a size is that of what it hangs on, moved by up to `blur` either way and thrown back at the ends, so
/// sizes as a whole follow the distribution exactly, however they hang together.
pub(crate) fn host(cdf: &Cdf, hangs: Hangs, (count, blur, seed): (u64, f64, u64)) -> Vec<Row> {
    rows(&sent_by_host(cdf, hangs, (count, blur, seed)), seed)
}

/// The messages of [`host`], in order of time.
pub(super) fn sent_by_host(
    cdf: &Cdf,
    hangs: Hangs,
    (count, blur, seed): (u64, f64, u64),
) -> Vec<Sent> {
    let mut random = StdRng::seed_from_u64(seed);
    let network_places: Vec<f64> = (0..NETWORKS)
        .map(|network| (network as f64 + 0.5) / NETWORKS as f64)
        .collect();
    let mut at_ns = 0;
    let sent = (0..count).map(|number| {
        at_ns += (-(1.0 - random.random::<f64>()).ln() * 2e6) as u64;
        let service = random.random_range(0..SERVICES);
        let network = random.random_range(0..NETWORKS);
        let asked: f64 = random.random();
        let own: f64 = random.random();
        let place = match hangs {
            Hangs::Nowhere => random.random(),
            Hangs::Service => (service as f64 + own) / SERVICES as f64,
            Hangs::Request => asked,
            Hangs::History => network_places[network as usize] + (own - 0.5) / NETWORKS as f64,
        };
        let blurred = thrown_back(place + blur * random.random_range(-1.0..1.0));
        let kept = hangs == Hangs::History || random.random_bool(0.5);
        Sent {
            at_ns,
            flow: if kept {
                (service * NETWORKS + network) * CONNECTIONS + random.random_range(0..CONNECTIONS)
            } else {
                1_000_000 + number
            },
            port: if matches!(hangs, Hangs::Request | Hangs::History) {
                443
            } else {
                8000 + service as u32
            },
            network,
            request_bytes: 100 + (700.0 * asked) as u32,
            bytes: (cdf.quantile(blurred) as u64).max(1),
        }
    });
    sent.collect()
}

/// The demo's mix as a router sees it, `seconds` of a link of `rate_bps`; the largest messages are made smaller by
/// `shrink`.
pub(super) fn demo((rate_bps, shrink): (u64, f64), seconds: u64, seed: u64) -> Vec<Row> {
    let plan = mix::Plan {
        rate_bps,
        load: 0.8,
        length: Duration::from_secs(seconds),
        shrink,
    };
    let mut random = StdRng::seed_from_u64(seed);
    let arrivals = mix::schedule(&plan, seed).into_iter().enumerate();
    let sent = arrivals.map(|(number, arrival)| {
        let port = u32::from(arrival.service.port());
        Sent {
            at_ns: arrival.at.as_nanos() as u64,
            flow: if arrival.kept {
                u64::from(port) * 100 + random.random_range(0..6)
            } else {
                1_000_000 + number as u64
            },
            port,
            network: 1,
            request_bytes: arrival.request_bytes,
            bytes: arrival.reply_bytes,
        }
    });
    let sent: Vec<Sent> = sent.collect();
    rows(&sent, seed)
}

/// Into 0 to 1, as from mirrors at both ends: what was spread evenly stays so.
fn thrown_back(place: f64) -> f64 {
    let place = place.abs();
    if place > 1.0 { 2.0 - place } else { place }
}

/// What the host knows of a flow, and of messages that have ended.
#[derive(Default)]
struct Memory {
    flows: HashMap<u64, (u32, u64, u64)>,
    history: HashMap<(u32, Option<u64>), HistoryEntry>,
    /// Ends to come: time, port, network, bytes.
    ends: BinaryHeap<Reverse<(u64, u32, u64, u32)>>,
}

impl Memory {
    fn recall(&mut self, sent: &Sent) -> [u32; 2] {
        while let Some(Reverse((at_ns, port, network, bytes))) = self.ends.peek().copied() {
            if at_ns > sent.at_ns {
                break;
            }
            self.ends.pop();
            for place in [(port, None), (port, Some(network))] {
                self.history.entry(place).or_default().add(bytes);
            }
        }
        let took_ns = (sent.bytes as f64 / BYTES_PER_S * 1e9) as u64;
        let bytes = u32::try_from(sent.bytes).unwrap_or(u32::MAX);
        let end = (sent.at_ns + took_ns, sent.port, sent.network, bytes);
        self.ends.push(Reverse(end));
        [None, Some(sent.network)].map(|network| {
            let entry = self.history.get(&(sent.port, network));
            entry.map_or(0, |entry| u32::from(entry.log2_q8))
        })
    }
}

/// The rows of messages at the kernel's decision points, without a local socket's help.
pub(super) fn rows(sent: &[Sent], seed: u64) -> Vec<Row> {
    let mut random = StdRng::seed_from_u64(!seed);
    let mut memory = Memory::default();
    let mut rows = Vec::new();
    for sent in sent {
        let history = memory.recall(sent);
        let first = (0, sent.at_ns, 0);
        let (message, since_ns, previous) = memory.flows.get(&sent.flow).copied().unwrap_or(first);
        memory
            .flows
            .insert(sent.flow, (message + 1, since_ns, sent.bytes));
        let mut features = [0; SLOTS];
        for (feature, value) in [
            (Feature::ServicePort, sent.port),
            (Feature::FromService, 1),
            (Feature::Protocol, 6),
            (Feature::TcpFlags, 0x18),
            (Feature::Segments, 1),
            (Feature::MessageIndex, message + 1),
            (Feature::RequestBytes, sent.request_bytes),
            (Feature::RequestPackets, 1),
            (
                Feature::PreviousBytes,
                u32::try_from(previous).unwrap_or(u32::MAX),
            ),
            (Feature::TurnaroundUs, random.random_range(50..5000)),
            (Feature::GapUs, random.random_range(50..5000)),
            (Feature::FlowAgeUs, ((sent.at_ns - since_ns) / 1000) as u32),
            (Feature::ServiceLog2Q8, history[0]),
            (Feature::PeerLog2Q8, history[1]),
        ] {
            features[feature as usize] = value;
        }
        for (packet, bytes_at) in decision_points(sent.bytes) {
            let mut row = Row {
                features,
                bytes_at,
                total_bytes: sent.bytes,
                remaining_bytes: sent.bytes - bytes_at,
                message: message + 1,
                network_hash: sent.network as u32,
                // A packet in 100 µs or so.
                ..samples::row(sent.flow, sent.at_ns + packet * 100_000, sent.port)
            };
            let packet_bytes = bytes_at - (packet - 1) * SEGMENT_BYTES;
            row.features[Feature::PacketBytes as usize] = packet_bytes as u32;
            row.features[Feature::MessagePackets as usize] = packet as u32;
            row.features[Feature::MessageBytes as usize] = bytes_at as u32;
            if packet > 1 {
                row.features[Feature::GapUs as usize] = random.random_range(50..5000);
            }
            rows.push(row);
        }
    }
    rows.sort_by_key(|row| row.time_ns);
    rows
}

/// Packets, from 1, at which the count doubles or a cut is passed, and the bytes up to and with them.
pub(super) fn decision_points(bytes: u64) -> Vec<(u64, u64)> {
    let packets = bytes.div_ceil(SEGMENT_BYTES).max(1);
    let doubled = (0..40).map(|power| 1 << power);
    let cuts = Cuts::default().bytes.into_iter().chain([FIRST_BYTES]);
    let passed = cuts.map(|cut| u64::from(cut) / SEGMENT_BYTES + 1);
    let mut points: Vec<u64> = doubled.chain(passed).filter(|it| *it <= packets).collect();
    points.sort_unstable();
    points.dedup();
    points
        .into_iter()
        .map(|packet| (packet, (packet * SEGMENT_BYTES).min(bytes)))
        .collect()
}

#[test]
fn a_message_is_looked_at_where_the_kernel_does() {
    let packets = |bytes| -> Vec<u64> { decision_points(bytes).iter().map(|it| it.0).collect() };
    assert_eq!(packets(1), [1]);
    assert_eq!(packets(30_000), [1, 2, 4, 8, 11, 16]);
    assert_eq!(
        decision_points(30_000).last(),
        Some(&(16, 16 * SEGMENT_BYTES))
    );
    assert_eq!(decision_points(2000).last(), Some(&(2, 2000)));
}

#[test]
fn sizes_follow_the_distribution_whatever_they_hang_on() {
    let cdf = Cdf::pareto(1.1, (1_000.0, 1e7));
    for hangs in [
        Hangs::Nowhere,
        Hangs::Service,
        Hangs::Request,
        Hangs::History,
    ] {
        let rows = host(&cdf, hangs, (4000, 0.1, 1));
        let firsts = rows.iter().filter(|row| row.is_first_packet());
        let sizes: Vec<f64> = firsts.map(|row| row.total_bytes as f64).collect();
        for q in [0.25, 0.5, 0.75, 0.9] {
            let below = sizes
                .iter()
                .filter(|size| **size <= cdf.quantile(q))
                .count();
            let share = below as f64 / sizes.len() as f64;
            assert!((share - q).abs() < 0.03, "{hangs:?}: {share} at {q}");
        }
    }
}
