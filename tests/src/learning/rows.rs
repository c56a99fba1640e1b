//! Rows of a made-up host, as many as wanted.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::{
    class::{Cuts, FIRST_BYTES},
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

/// Mean time between messages.
const MEAN_GAP_NS: f64 = 2e6;
/// Shape and bounds of the sizes of messages: bounded Pareto.
const SHAPE: f64 = 0.6;
const SIZES_BYTES: [f64; 2] = [500.0, 30e6];
const SEGMENT_BYTES: u64 = 1448;

/// Rows of whole messages at the kernel's decision points, whose size the request's length tells: what the replay needs.
pub(crate) fn messages(count: usize, seed: u64) -> Vec<Row> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut rows = Vec::with_capacity(count);
    let (mut at_ns, mut number) = (0, 0);
    while rows.len() < count {
        at_ns += (-(1.0 - random.random::<f64>()).ln() * MEAN_GAP_NS) as u64;
        let place: f64 = random.random();
        let total_bytes = pareto(place) as u64;
        let request_bytes = 100 + (20_000.0 * place) as u32 + random.random_range(0..20);
        for packets in decision_points(total_bytes) {
            let bytes_at = (packets * SEGMENT_BYTES).min(total_bytes);
            let mut row = row(number, &mut random);
            let mut set = |feature: Feature, value: u32| row.features[feature as usize] = value;
            set(Feature::ServicePort, 443);
            set(Feature::FromService, 1);
            set(Feature::RequestBytes, request_bytes);
            set(Feature::RequestPackets, request_bytes / 1448 + 1);
            set(
                Feature::PacketBytes,
                (bytes_at - (packets - 1) * SEGMENT_BYTES) as u32,
            );
            set(Feature::TcpFlags, 0x18);
            set(Feature::MessagePackets, packets as u32);
            set(Feature::MessageBytes, bytes_at as u32);
            // What went before tells nothing.
            set(Feature::ServiceLog2Q8, 0);
            set(Feature::PeerLog2Q8, 0);
            rows.push(Row {
                bytes_at,
                total_bytes,
                remaining_bytes: total_bytes - bytes_at,
                time_ns: at_ns + packets * 10_000,
                ..row
            });
        }
        number += 1;
    }
    rows.truncate(count);
    rows
}

/// Packets, from 1, at which the count doubles or a cut is passed.
fn decision_points(bytes: u64) -> Vec<u64> {
    let packets = bytes.div_ceil(SEGMENT_BYTES).max(1);
    let cuts = Cuts::default().bytes.into_iter().chain([FIRST_BYTES]);
    let passed = cuts.map(|cut| u64::from(cut) / SEGMENT_BYTES + 1);
    let mut points: Vec<u64> = (0..40).map(|power| 1 << power).chain(passed).collect();
    points.retain(|point| *point <= packets);
    points.sort_unstable();
    points.dedup();
    points
}

fn pareto(place: f64) -> f64 {
    let [least, most] = SIZES_BYTES;
    let share = 1.0 - (least / most).powf(SHAPE);
    least / (1.0 - place * share).powf(1.0 / SHAPE)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_whole_and_looked_at_where_the_kernel_does() {
        let rows = messages(5000, 1);
        assert_eq!(rows.len(), 5000);
        for message in rows.chunk_by(|a, b| (a.flow_hash, a.message) == (b.flow_hash, b.message)) {
            let packets: Vec<u32> = (message.iter())
                .map(|row| row.feature(Feature::MessagePackets))
                .collect();
            assert!(message[0].is_first_packet() || message[0].total_bytes <= SEGMENT_BYTES);
            assert_eq!(packets[0], 1);
            assert!(packets.is_sorted_by(|a, b| a < b), "{packets:?}");
            assert!(
                message
                    .iter()
                    .all(|row| row.bytes_at + row.remaining_bytes == row.total_bytes)
            );
        }
        assert_eq!(decision_points(30_000), [1, 2, 4, 8, 11, 16]);
    }

    #[test]
    fn sizes_fill_their_bounds() {
        let [least, most] = SIZES_BYTES;
        assert!((pareto(0.0) - least).abs() < 1.0 && (pareto(1.0) - most).abs() < most / 1e6);
    }
}
