//! From records of made-up hosts to a model on disk, or to none.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::{features::Feature, sample::Sample};

use super::{DecisionTree, JudgeLimits, Parts, Trainer as _, Verdict, judge, retire, split};
use crate::{
    dataset::{Joiner, Row, Window, WindowLimits, samples},
    model::{LoadError, Model, Provenance, Registry, compile},
};

const SEGMENT_BYTES: u64 = 1448;

/// Size of the reply to a request at a service, before noise, log2.
pub(super) type Host = fn(port: u32, request_bytes: u32) -> f64;

pub(super) fn ordinary(port: u32, request_bytes: u32) -> f64 {
    match (port, request_bytes) {
        (22, _) => 7.0,
        (80, ..300) => 13.0,
        (80, _) => 17.0,
        _ => 21.0,
    }
}

pub(super) fn turned_over(port: u32, request_bytes: u32) -> f64 {
    28.0 - ordinary(port, request_bytes)
}

/// The records of `flows` replies: decision points at packets 1, 2, 4 and so on, then the end.
fn records(flows: u64, seed: u64, log2_size: impl Fn(u32, u32, &mut StdRng) -> f64) -> Vec<Sample> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut records = Vec::new();
    for flow in 0..flows {
        let start_ns = flow * 1_000_000;
        let port = [22, 80, 5201][random.random_range(0..3usize)];
        let request_bytes = random.random_range(100..500);
        let total = log2_size(port, request_bytes, &mut random).exp2() as u64 + 1;
        let mut packet = 1;
        while (packet - 1) * SEGMENT_BYTES < total {
            let bytes = (packet * SEGMENT_BYTES).min(total);
            let mut sample = samples::decision(flow, 1, start_ns + packet * 1000, bytes);
            let mut set = |feature: Feature, value| sample.features[feature as usize] = value;
            set(Feature::ServicePort, port);
            set(Feature::RequestBytes, request_bytes);
            set(Feature::FromService, 1);
            set(Feature::MessagePackets, packet as u32);
            set(
                Feature::PacketBytes,
                (bytes - (packet - 1) * SEGMENT_BYTES) as u32,
            );
            set(Feature::TurnaroundUs, random.random_range(50..5000));
            records.push(sample);
            packet *= 2;
        }
        records.push(samples::end(flow, 1, start_ns + 900_000, total));
    }
    records
}

fn rows_of(records: &[Sample]) -> Vec<Row> {
    let mut joiner = Joiner::default();
    let mut window = Window::new(WindowLimits::default(), 1);
    for record in records {
        joiner
            .push(record)
            .into_iter()
            .for_each(|row| window.push(row));
    }
    window.rows()
}

pub(super) fn host_rows(host: Host, flows: u64, seed: u64) -> Vec<Row> {
    rows_of(&records(flows, seed, |port, request, random| {
        host(port, request) + random.random_range(-0.5..0.5)
    }))
}

fn candidate(rows: &[Row], running: Option<&Model>) -> (Model, Verdict) {
    let limits = JudgeLimits::default();
    let parts: Parts = split(rows, &limits);
    let model = DecisionTree::default().train(&parts.train).unwrap();
    let verdict = judge(&model, running, &parts, &limits);
    (model, verdict)
}

#[test]
fn a_host_whose_sizes_follow_port_and_request_gets_a_model() {
    let (model, verdict) = candidate(&host_rows(ordinary, 1500, 1), None);
    assert!(verdict.accepted, "{}", verdict.reason);
    assert!(
        verdict.reason.contains("over bytes so far"),
        "{}",
        verdict.reason
    );
    let scores = verdict.scores;
    assert!(scores.candidate.all.r2 > 0.8, "{scores}");
    assert!(scores.candidate.first_packet.r2 > 0.95, "{scores}");

    let table = compile(&model).unwrap();
    let of = |port: u32, request: u32| {
        let mut features = [0; scheduler_common::features::SLOTS];
        features[Feature::ServicePort as usize] = port;
        features[Feature::RequestBytes as usize] = request;
        features[Feature::FromService as usize] = 1;
        features[Feature::MessagePackets as usize] = 1;
        features[Feature::MessageBytes as usize] = 1448;
        features[Feature::PacketBytes as usize] = 1448;
        f64::from(table.walk(&features).unwrap().log2_q8) / 256.0
    };
    assert!((of(80, 150) - 13.0).abs() < 1.0 && (of(80, 450) - 17.0).abs() < 1.0);
    assert!((of(5201, 150) - 21.0).abs() < 1.0);
    assert!(model.to_string().contains("service_port"));
}

#[test]
fn sizes_that_follow_nothing_get_no_model() {
    for seed in 0..20 {
        let records = records(1500, seed, |_, _, random| random.random_range(7.0..21.0));
        let (_, verdict) = candidate(&rows_of(&records), None);
        assert!(!verdict.accepted, "seed {seed}: {}", verdict.reason);
    }
}

#[test]
fn a_running_model_is_replaced_only_by_a_better_one() {
    let (running, _) = candidate(&host_rows(ordinary, 3000, 1), None);
    let (_, again) = candidate(&host_rows(ordinary, 800, 2), Some(&running));
    assert!(
        !again.accepted && again.reason.contains("running model"),
        "{}",
        again.reason
    );
    let (_, changed) = candidate(&host_rows(turned_over, 1500, 3), Some(&running));
    assert!(changed.accepted, "{}", changed.reason);
}

#[test]
fn a_model_that_has_gone_stale_is_retired() {
    let limits = JudgeLimits::default();
    let (running, _) = candidate(&host_rows(ordinary, 1500, 1), None);
    let later = |host: Host, flows, seed| -> Vec<Row> {
        let mut rows = host_rows(host, flows, seed);
        for row in &mut rows {
            row.time_ns += running.data.to_ns;
        }
        rows
    };
    let fresh = retire(&running, &later(ordinary, 600, 2), &limits);
    assert!(!fresh.retire, "{}", fresh.reason);
    let stale = retire(&running, &later(turned_over, 600, 3), &limits);
    assert!(
        stale.retire && stale.reason.contains("aging"),
        "{}",
        stale.reason
    );
    let silent = retire(&running, &later(turned_over, 5, 4), &limits);
    assert!(
        !silent.retire && silent.reason.contains("too few"),
        "{}",
        silent.reason
    );
}

#[test]
fn an_accepted_model_survives_the_disk_and_a_damaged_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::new(directory.path().to_owned());
    let (model, verdict) = candidate(&host_rows(ordinary, 1500, 1), None);
    let model = model.stamped(Provenance {
        generation: registry.next_generation().unwrap(),
        parent_generation: None,
        created_unix_s: 1_700_000_000,
        train_ms: 12,
        scores: verdict.scores,
    });
    let path = registry.save(&model).unwrap();
    let loaded = registry.latest_valid().unwrap().0.unwrap();
    assert_eq!(loaded, model);
    assert_eq!(compile(&loaded).unwrap(), compile(&model).unwrap());
    assert_eq!(loaded.summary().trained_on_samples, model.data.rows);

    let text = std::fs::read_to_string(&path).unwrap();
    let damaged = text.replacen("\"value\":", "\"value\":1", 1);
    assert_ne!(text, damaged);
    std::fs::write(&path, damaged).unwrap();
    assert!(matches!(
        Registry::load_file(&path),
        Err(LoadError::Hash { .. })
    ));
}
