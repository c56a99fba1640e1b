//! Rows of a made-up host, as many as wanted.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::{
    features::{Feature, SLOTS},
    sample::Hook,
};
use treeline::dataset::Row;

/// Ports of services, log2 of their usual reply, and how much the request adds to it.
const SERVICES: [(u32, f64, f64); 8] = [
    (22, 7.0, 0.5),
    (53, 8.0, 0.2),
    (80, 13.0, 2.0),
    (443, 14.0, 3.0),
    (873, 22.0, 1.0),
    (3306, 11.0, 4.0),
    (5201, 24.0, 0.1),
    (9000, 17.0, 2.5),
];

/// Rows whose size follows service, request, peer and packets so far, with noise; the same seed gives the same rows.
pub(crate) fn made_up(count: usize, seed: u64) -> Vec<Row> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|index| row(index as u64, &mut random))
        .collect()
}

fn row(index: u64, random: &mut StdRng) -> Row {
    let (port, usual, by_request) = SERVICES[random.random_range(0..SERVICES.len())];
    let from_service = random.random_bool(0.7);
    let request = random.random_range(0.0..14.0f64);
    let peer = random.random_range(-2.0..2.0f64);
    let packets = 1u32 << random.random_range(0..7u32);
    let noise = random.random_range(-1.5..1.5f64);
    let size = if from_service {
        usual + by_request * (request / 14.0) + peer
    } else {
        request
    };
    let total = (size + noise).max(0.0).exp2() as u64 + 1;
    let sent = (u64::from(packets) * 1448).min(total);
    let mut features = [0; SLOTS];
    let mut set = |feature: Feature, value: u32| features[feature as usize] = value;
    set(Feature::ServicePort, port);
    set(Feature::FromService, u32::from(from_service));
    set(Feature::Protocol, 6);
    set(
        Feature::PacketBytes,
        (sent / u64::from(packets)).min(1448) as u32,
    );
    set(Feature::Segments, random.random_range(1..4));
    set(
        Feature::TcpFlags,
        if total - sent == 0 { 0x18 } else { 0x10 },
    );
    set(Feature::MessagePackets, packets);
    set(Feature::MessageBytes, sent as u32);
    set(Feature::MessageIndex, random.random_range(1..50));
    set(Feature::RequestBytes, request.exp2() as u32);
    set(
        Feature::RequestPackets,
        (request.exp2() / 1448.0) as u32 + 1,
    );
    set(
        Feature::PreviousBytes,
        random.random_range(0.0..20.0f64).exp2() as u32,
    );
    set(Feature::TurnaroundUs, random.random_range(50..500_000));
    set(Feature::GapUs, random.random_range(0..200_000));
    set(Feature::FlowAgeUs, random.random_range(0..60_000_000));
    set(
        Feature::ServiceLog2Q8,
        ((usual + random.random_range(-1.0..1.0f64)) * 256.0) as u32,
    );
    set(
        Feature::PeerLog2Q8,
        ((usual + peer + random.random_range(-0.5..0.5f64)) * 256.0) as u32,
    );
    set(Feature::SocketRttUs, random.random_range(100..100_000));
    set(Feature::SocketWindowPackets, random.random_range(10..200));
    Row {
        features,
        bytes_at: sent,
        remaining_bytes: total - sent,
        total_bytes: total,
        time_ns: index * 1000,
        flow_hash: index / 4,
        message: (index % 4) as u32,
        half: 0,
        hook: Hook::Egress,
        generation: 0,
        predicted_log2_q8: 0,
        network_hash: 0,
        censored: false,
        shadow_generation: 0,
        shadow_log2_q8: 0,
    }
}
