//! How near trees of one test a level come to ordinary ones.

use std::{collections::BTreeSet, fmt::Write as _, path::Path, process::Command};

use scheduler_common::features::Feature;

use super::{
    DecisionTree, JudgeLimits, Parameters, Trainer as _,
    end_to_end::{host_rows, ordinary, turned_over},
    evaluate::{Predictor, evaluate},
    split,
};
use crate::dataset::{Row, samples};

/// Thresholds tried for a feature and level.
const QUANTILES: usize = 64;
const MIN_LEAF_ROWS: usize = 20;
/// Captures are split, not flows: those of one capture are often of one host.
const FOLDS: u64 = 5;

/// The same test for all nodes of a level; leaves are numbered by the outcomes.
struct Oblivious {
    tests: Vec<(usize, u32)>,
    leaves: Vec<f64>,
}

impl Oblivious {
    /// Level by level the test that leaves the least squares; a leaf of few rows leans on all of its parent's.
    fn train(rows: &[Row], depth: u32) -> Self {
        let targets: Vec<f64> = rows.iter().map(Row::target).collect();
        let mut leaf_of = vec![0usize; rows.len()];
        let mut tests = Vec::new();
        let mut leaves = vec![targets.iter().sum::<f64>() / targets.len() as f64];
        for level in 0..depth {
            let best = candidates(rows)
                .into_iter()
                .map(|test| {
                    (
                        explained(rows, &targets, (&leaf_of, 1 << level), test),
                        test,
                    )
                })
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let Some((_, test)) = best else { break };
            tests.push(test);
            for (leaf, row) in leaf_of.iter_mut().zip(rows) {
                *leaf = 2 * *leaf + usize::from(row.features[test.0] > test.1);
            }
            let sums = sums(&targets, leaf_of.iter().copied(), leaves.len() * 2);
            leaves = (0..sums.len())
                .map(|leaf| match sums[leaf] {
                    (sum, count) if count as usize >= MIN_LEAF_ROWS => sum / f64::from(count),
                    _ => leaves[leaf / 2],
                })
                .collect();
        }
        Self { tests, leaves }
    }
}

impl Predictor for Oblivious {
    fn predict(&self, row: &Row) -> f64 {
        let leaf = self.tests.iter().fold(0, |leaf, (feature, at_most)| {
            2 * leaf + usize::from(row.features[*feature] > *at_most)
        });
        self.leaves[leaf]
    }
}

fn sums(targets: &[f64], leaf_of: impl Iterator<Item = usize>, leaves: usize) -> Vec<(f64, u32)> {
    let mut sums = vec![(0.0, 0); leaves];
    for (target, leaf) in targets.iter().zip(leaf_of) {
        sums[leaf].0 += target;
        sums[leaf].1 += 1;
    }
    sums
}

/// What the test explains of the squares, over all leaves; children of few rows explain nothing.
fn explained(
    rows: &[Row],
    targets: &[f64],
    (leaf_of, leaves): (&[usize], usize),
    (feature, at_most): (usize, u32),
) -> f64 {
    let children = leaf_of
        .iter()
        .zip(rows)
        .map(|(leaf, row)| 2 * leaf + usize::from(row.features[feature] > at_most));
    let sums = sums(targets, children, leaves * 2);
    let square = |(sum, count): (f64, u32)| sum * sum / f64::from(count.max(1));
    sums.chunks(2)
        .map(|pair| {
            let whole = (pair[0].0 + pair[1].0, pair[0].1 + pair[1].1);
            if pair
                .iter()
                .all(|(_, count)| *count as usize >= MIN_LEAF_ROWS)
            {
                square(pair[0]) + square(pair[1])
            } else {
                square(whole)
            }
        })
        .sum()
}

/// Quantiles of each feature.
fn candidates(rows: &[Row]) -> Vec<(usize, u32)> {
    let mut all = Vec::new();
    for feature in 0..Feature::ALL.len() {
        let mut values: Vec<u32> = rows.iter().map(|row| row.features[feature]).collect();
        values.sort_unstable();
        let mut cuts: Vec<u32> = (0..QUANTILES)
            .map(|place| values[place * values.len() / QUANTILES])
            .collect();
        let mut distinct = values.clone();
        distinct.dedup();
        if distinct.len() <= QUANTILES {
            cuts = distinct;
        }
        cuts.dedup();
        all.extend(cuts.into_iter().map(|cut| (feature, cut)));
    }
    all
}

/// Held-out R² of an ordinary and an oblivious tree of one depth.
fn compare(train: &[Row], test: &[Row], depth: u16) -> [f64; 2] {
    let cart = DecisionTree(Parameters {
        splits: depth,
        min_leaf_rows: MIN_LEAF_ROWS,
        ..Parameters::TREE
    });
    let cart = cart.train(train).unwrap();
    let oblivious = Oblivious::train(train, u32::from(depth));
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
