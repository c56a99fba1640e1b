//! What a leaf says to a scheduler: the Gittins rank of its messages.
//!
//! Trainers split by squared error of a logarithm, so a leaf says the geometric mean of the bytes to come. Where a leaf holds
//! both short and long messages that is far below what they take of the link. What should be served first is told by the
//! Gittins rank: the least, over amounts of service, of the bytes that serving each message of the leaf up to that
//! amount takes, for each message that ends by it. (Gittins, Glazebrook, Weber, Multi-armed Bandit Allocation
//! Indices, 2011; Scully, Harchol-Balter, Scheller-Wolf, SOAP, 2018: it has the least mean response time in an M/G/1 queue
//! among all that know no more.) Where all messages of a leaf are alike it is their size; it is never above their mean.

use scheduler_common::tree::TARGET_FLOOR_BYTES;

use super::examples::tell_something;
use crate::{
    dataset::Row,
    model::{Model, Tree},
};

/// Share of a leaf's rows that an amount of service must end at least: above what all newcomers together or one network may
/// bring, so that a few made-up short messages among bulk lift nothing.
const LEAST_ENDED: f64 = 0.25;

/// The model with leaves that say their rows' Gittins rank, as the log2 of bytes above the floor like any prediction.
///
/// Only where its trees are averaged: a leaf of a sum says a correction, and such a model stays as it is.
#[must_use]
pub fn rank_leaves(model: Model, rows: &[Row]) -> Model {
    if !model.combine.is_mean() {
        return model;
    }
    let rows = tell_something(rows);
    let trees = model.trees.iter().map(|tree| ranked(tree, &rows));
    Model {
        trees: trees.collect(),
        ..model
    }
    .on_grid()
}

fn ranked(tree: &Tree, rows: &[Row]) -> Tree {
    let mut to_come: Vec<Vec<f64>> = vec![Vec::new(); tree.nodes.len()];
    for row in rows {
        if let Some(leaf) = tree.leaf_index(&row.features) {
            to_come[leaf].push(row.remaining_bytes as f64 + f64::from(TARGET_FLOOR_BYTES));
        }
    }
    let mut tree = tree.clone();
    for (node, bytes) in tree.nodes.iter_mut().zip(&mut to_come) {
        if let Some(rank_bytes) = rank(bytes) {
            node.output = rank_bytes.log2();
            let squares = bytes.iter().map(|it| (it.log2() - node.output).powi(2));
            node.sigma = (squares.sum::<f64>() / bytes.len() as f64).sqrt();
        }
    }
    tree
}

/// The Gittins rank of messages with so many bytes to come; `None` if there are none.
fn rank(bytes: &mut [f64]) -> Option<f64> {
    bytes.sort_by(f64::total_cmp);
    let least_ended = (bytes.len() as f64 * LEAST_ENDED).ceil() as usize;
    let mut of_ended = 0.0;
    let ranks = bytes.iter().enumerate().map(|(place, amount)| {
        of_ended += amount;
        let ended = place + 1;
        let served = of_ended + (bytes.len() - ended) as f64 * amount;
        (ended, served / ended as f64)
    });
    ranks
        .filter(|(ended, _)| *ended >= least_ended)
        .map(|(_, rank)| rank)
        .min_by(f64::total_cmp)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Boosted, DecisionTree, Parameters, Trainer as _, made_up::random_rows},
        *,
    };
    use crate::dataset::samples;

    fn rank_of(bytes: &[f64]) -> f64 {
        rank(&mut bytes.to_vec()).unwrap()
    }

    #[test]
    fn the_rank_is_what_an_end_costs() {
        assert_eq!(rank(&mut []), None);
        assert_eq!(rank_of(&[7.0; 9]), 7.0);
        // Half of them end at 10: 20 bytes served for each end. To serve all costs 505 an end.
        assert_eq!(rank_of(&[10.0, 1000.0]), 20.0);
        // Little more for all than for some.
        assert_eq!(rank_of(&[10.0, 12.0]), 11.0);
        // One in five is too few to be served for; four in five are not.
        assert_eq!(rank_of(&[1.0, 1000.0, 1000.0, 1000.0, 1000.0]), 800.2);
        assert_eq!(rank_of(&[1.0, 1.0, 1.0, 1.0, 1000.0]), 1.25);
    }

    #[test]
    fn it_is_never_above_the_mean_and_never_below_the_shortest() {
        for seed in 0..20 {
            let rows = random_rows(50, 9, seed);
            let bytes: Vec<f64> = rows
                .iter()
                .map(|row| row.remaining_bytes as f64 + 1.0)
                .collect();
            let mean = bytes.iter().sum::<f64>() / bytes.len() as f64;
            let least = bytes.iter().copied().fold(f64::INFINITY, f64::min);
            assert!((least..=mean * (1.0 + 1e-12)).contains(&rank_of(&bytes)));
        }
    }

    #[test]
    fn a_leaf_of_short_and_long_says_what_serving_the_short_costs() {
        let mut rows: Vec<Row> = (0..200).map(|time| samples::row(time, time, 443)).collect();
        for (index, row) in rows.iter_mut().enumerate() {
            row.remaining_bytes = if index % 2 == 0 { 0 } else { 10_000_000 };
        }
        let model = DecisionTree(Parameters::TREE).train(&rows).unwrap();
        let ranked = rank_leaves(model.clone(), &rows);
        assert_eq!(ranked.trees[0].nodes.len(), 1);
        assert_eq!(ranked.trees[0].nodes[0].output, 13.0);
        assert!(model.trees[0].nodes[0].output > 17.0);
        ranked.check().unwrap();
    }

    #[test]
    fn a_sum_of_corrections_stays() {
        let rows = random_rows(300, 5, 1);
        let model = Boosted(Parameters::BOOSTED).train(&rows).unwrap();
        assert_eq!(rank_leaves(model.clone(), &rows), model);
    }
}
