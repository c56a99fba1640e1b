//! Oblivious trees by themselves, and beside ordinary ones.

use std::{collections::BTreeSet, fmt::Write as _, path::Path, process::Command};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use scheduler_common::tree::form;

use super::{
    super::{
        DecisionTree, JudgeLimits,
        end_to_end::{host_rows, ordinary, turned_over},
        evaluate::evaluate,
        split,
    },
    *,
};
use crate::{dataset::samples, model::compile};

const MIN_LEAF_ROWS: usize = 20;
/// Captures are split, not flows: those of one capture are often of one host.
const FOLDS: u64 = 5;

fn random_rows(count: usize, seed: u64) -> Vec<Row> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count as u64)
        .map(|time| {
            let port = *[80, 443, 5060].choose(&mut rng).unwrap();
            let mut row = samples::row(time, time, port);
            row.features[Feature::RequestBytes as usize] = 10 * rng.random_range(0..200);
            row.features[Feature::MessageBytes as usize] = 1 << rng.random_range(0..20);
            row.remaining_bytes = rng.random::<u64>() >> rng.random_range(32..64);
            row
        })
        .collect()
}

/// What is to come follows the port and the request by steps.
fn stepped(mut rows: Vec<Row>) -> Vec<Row> {
    for row in &mut rows {
        let web = row.feature(Feature::ServicePort) < 1000;
        let large = row.feature(Feature::RequestBytes) > 700;
        row.remaining_bytes =
            [[100, 9000], [200_000, 5_000_000]][usize::from(web)][usize::from(large)];
    }
    rows
}

#[test]
fn what_follows_two_questions_is_learned_whole() {
    let rows = stepped(random_rows(2000, 1));
    let model = Oblivious::default().train(&rows).unwrap();
    let [tree] = &model.trees[..] else {
        panic!("{} trees", model.trees.len());
    };
    assert_eq!((tree.depth(), tree.nodes.len()), (2, 7));
    for row in &rows {
        let leaf = tree.leaf(&row.features);
        assert!((leaf.output - row.target()).abs() < 1.0 / 256.0);
        assert!(leaf.sigma < 1e-9);
    }
}

#[test]
fn the_table_is_oblivious_and_predicts_what_the_model_does() {
    for seed in 0..5 {
        let rows = random_rows(1500, seed);
        let model = Oblivious::default().train(&rows).unwrap();
        let table = compile(&model).unwrap();
        assert_eq!((table.form, table.trees), (form::OBLIVIOUS, 1));
        assert_eq!(table.depth, model.trees[0].depth());
        assert!(table.depth > 2, "{}", table.depth);
        for row in random_rows(300, seed + 100) {
            let walked = table.walk(&row.features).unwrap();
            let leaf = model.trees[0].leaf(&row.features);
            assert!((f64::from(walked.log2_q8) - leaf.output * 256.0).abs() <= 0.5);
            assert!((f64::from(walked.sigma_q8) - leaf.sigma * 256.0).abs() <= 0.5);
        }
    }
}

#[test]
fn few_rows_have_no_word_of_their_own() {
    let mut rows = stepped(random_rows(1000, 2));
    let first = rows[0];
    for row in &mut rows[..MIN_LEAF_ROWS - 1] {
        *row = first;
        row.features[Feature::Segments as usize] = 44;
        row.remaining_bytes = 1 << 40;
    }
    let trainer = |min_leaf_rows| Oblivious {
        min_leaf_rows,
        ..Oblivious::default()
    };
    let model = trainer(MIN_LEAF_ROWS).train(&rows).unwrap();
    // Whatever node they are in, another row is in it too.
    assert!(model.predict(&rows[0].features) < 39.5);
    let model = trainer(MIN_LEAF_ROWS - 1).train(&rows).unwrap();
    assert!((model.predict(&rows[0].features) - 40.0).abs() < 0.01);
}

#[test]
fn the_same_rows_give_the_same_model() {
    let rows = random_rows(3000, 3);
    let trainer = Oblivious::default();
    assert_eq!(trainer.train(&rows), trainer.train(&rows));
}

#[test]
fn too_few_rows_are_an_error() {
    assert_eq!(
        Oblivious::default().train(&random_rows(39, 4)).unwrap_err(),
        TrainError::TooFewRows {
            rows: 39,
            needed: 40
        }
    );
}

#[test]
fn rows_that_are_all_alike_are_a_leaf() {
    let rows = vec![samples::row(1, 1, 80); 100];
    let model = Oblivious::default().train(&rows).unwrap();
    assert_eq!(model.trees[0].nodes.len(), 1);
    assert!((model.predict(&rows[0].features) - rows[0].target()).abs() < 1e-9);
}

/// Held-out R² of an ordinary and an oblivious tree of one depth.
fn compare(train: &[Row], test: &[Row], depth: u16) -> [f64; 2] {
    let cart = DecisionTree(Parameters {
        splits: depth,
        min_leaf_rows: MIN_LEAF_ROWS,
        ..Parameters::TREE
    });
    let cart = cart.train(train).unwrap();
    let oblivious = Oblivious {
        splits: depth,
        min_leaf_rows: MIN_LEAF_ROWS,
    };
    let oblivious = oblivious.train(train).unwrap();
    [evaluate(&cart, test), evaluate(&oblivious, test)].map(|scores| scores.all.r2)
}

/// By `gzip`, for the crate has no gzip of its own: decision points of the captures' flows that end, by capture; nothing where there are no captures.
fn captured() -> Vec<(String, Row)> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/captures/flows.csv.gz");
    let text = Command::new("gzip")
        .arg("-dc")
        .arg(path)
        .output()
        .unwrap()
        .stdout;
    let text = String::from_utf8(text).unwrap();
    let mut rows = Vec::new();
    for (flow, line) in text.lines().skip(1).enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        if fields[15] == "1" {
            rows.extend(
                points(flow as u64, &fields)
                    .into_iter()
                    .map(|row| (fields[0].to_owned(), row)),
            );
        }
    }
    rows
}

/// Packets 1, 2, 4 and 8 of each direction among the first ten of the flow.
fn points(flow: u64, fields: &[&str]) -> Vec<Row> {
    let number = |index: usize| fields[index].parse::<u64>().unwrap();
    let service = number(3).min(number(4)) as u32;
    let whole = [number(8), number(10)];
    let (mut bytes, mut packets, mut last_us) = ([0u64; 2], [0u32; 2], [0u64; 2]);
    let mut rows = Vec::new();
    for packet in fields[18].split_whitespace() {
        let parts: Vec<&str> = packet.split(':').collect();
        let own = usize::from(parts[0] == "<");
        let of = |index: usize| parts[index].parse::<u64>().unwrap();
        let time_us = of(7);
        bytes[own] += of(1);
        packets[own] += 1;
        if packets[own].is_power_of_two() {
            let mut row = samples::row(flow, time_us, service);
            let mut set = |feature: Feature, value| row.features[feature as usize] = value;
            set(
                Feature::FromService,
                u32::from((number(3) < number(4)) == (own == 0)),
            );
            set(Feature::Protocol, number(1) as u32);
            set(Feature::PacketBytes, of(2) as u32);
            set(Feature::TcpFlags, of(3) as u32);
            set(Feature::MessagePackets, packets[own]);
            set(Feature::MessageBytes, bytes[own] as u32);
            set(Feature::RequestBytes, bytes[own ^ 1] as u32);
            set(Feature::RequestPackets, packets[own ^ 1]);
            set(Feature::GapUs, (time_us - last_us[own].min(time_us)) as u32);
            set(Feature::FlowAgeUs, time_us as u32);
            row.remaining_bytes = whole[own].saturating_sub(bytes[own]);
            rows.push(row);
        }
        last_us[own] = time_us;
    }
    rows
}

#[test]
#[ignore = "an experiment: its figures are in docs/decisions/0003-tree-table.md"]
fn trees_of_one_test_a_level_beside_ordinary_ones() {
    let mut report = String::new();
    let mut note = |name: &str, depth: u16, [cart, oblivious]: [f64; 2]| {
        let gap = cart - oblivious;
        writeln!(
            report,
            "{name}, depth {depth}: {cart:.3} {oblivious:.3} ({gap:+.3})"
        )
        .unwrap();
    };
    for (name, rows) in [
        ("ordinary host", host_rows(ordinary, 3000, 1)),
        ("turned over", host_rows(turned_over, 3000, 2)),
    ] {
        let parts = split(&rows, &JudgeLimits::default());
        for depth in [3, 6, 8] {
            note(name, depth, compare(&parts.train, &parts.held_out, depth));
        }
    }
    let rows = captured();
    let files: BTreeSet<&String> = rows.iter().map(|(file, _)| file).collect();
    let files: Vec<&String> = files.into_iter().collect();
    for fold in 0..FOLDS {
        let is_test = |file: &String| files.binary_search(&file).unwrap() as u64 % FOLDS == fold;
        let pick = |wanted: bool| -> Vec<Row> {
            let picked = rows.iter().filter(|(file, _)| is_test(file) == wanted);
            picked.map(|(_, row)| *row).collect()
        };
        let (train, test) = (pick(false), pick(true));
        if !test.is_empty() {
            for depth in [6, 8] {
                let name = format!("captures, fold {fold} ({} rows)", test.len());
                note(&name, depth, compare(&train, &test, depth));
            }
        }
    }
    print!("{report}");
}
