//! Which features a model lives on, and how it answers to each.

use std::fmt::{self, Display};

use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use scheduler_common::features::Feature;
use serde::{Deserialize, Serialize};

use crate::{
    dataset::Row,
    model::{Model, Tree, human_bytes},
};

/// Rounds of shuffling that are averaged.
const SHUFFLES: u32 = 5;
/// Rows that stand for all in a partial dependence.
const DEPENDENCE_ROWS: usize = 500;
/// Values of a feature at which it is taken.
const DEPENDENCE_POINTS: usize = 16;

/// What a feature is worth to a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Importance {
    /// Name of the feature.
    pub feature: String,
    /// Its share of the squared error that the model's splits take away on the training rows; all add up to 1.
    pub gain: f64,
    /// How much less of the held-out rows' variance is explained once the feature is shuffled among them
    /// (Breiman, Machine Learning 45, 2001, §10); none without such rows.
    pub permutation: Option<f64>,
}

/// What a model predicts, on average over the rows, as one feature is set to several values (Friedman,
/// Annals of Statistics 29, 2001, §8.2).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Dependence {
    /// Name of the feature.
    pub feature: String,
    /// By value, ascending.
    pub points: Vec<DependencePoint>,
}

/// One value of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DependencePoint {
    /// The value: a quantile of the rows'.
    pub value: u32,
    /// Mean prediction, log2 of floor and bytes to come.
    pub log2: f64,
    /// The same in bytes to come.
    pub bytes: f64,
}

/// Importances of all features that the model asks for, the most important first.
///
/// Gains come from the rows counted in the model's nodes; a model from elsewhere that counts none has gains of 0.
pub fn importances(model: &Model, held_out: &[Row], seed: u64) -> Vec<Importance> {
    let gains = gains(model);
    let permutations = permutations(model, held_out, seed);
    let mut all: Vec<Importance> = Feature::ALL
        .iter()
        .filter(|feature| asked_for(model, **feature))
        .map(|feature| Importance {
            feature: feature.name().to_owned(),
            gain: gains[*feature as usize],
            permutation: permutations.as_ref().map(|all| all[*feature as usize]),
        })
        .collect();
    let worth = |it: &Importance| it.permutation.unwrap_or(it.gain);
    all.sort_by(|a, b| {
        worth(b)
            .total_cmp(&worth(a))
            .then(b.gain.total_cmp(&a.gain))
    });
    all
}

fn asked_for(model: &Model, feature: Feature) -> bool {
    let mut splits = model.trees.iter().flat_map(|tree| &tree.nodes);
    splits.any(|node| {
        node.split
            .is_some_and(|split| split.feature == feature as u8)
    })
}

fn gains(model: &Model) -> Vec<f64> {
    let mut gains = vec![0.0; Feature::ALL.len()];
    for tree in &model.trees {
        add_gains(tree, &mut gains);
    }
    let sum: f64 = gains.iter().sum();
    if sum > 0.0 {
        gains.iter_mut().for_each(|gain| *gain /= sum);
    }
    gains
}

/// Of each split: rows of one side times rows of the other, by all of them, times their distance squared.
fn add_gains(tree: &Tree, gains: &mut [f64]) {
    // Rows, and the mean of the leaves' outputs, from the leaves up: children stand behind parents.
    let mut below = vec![(0.0, 0.0); tree.nodes.len()];
    for (index, node) in tree.nodes.iter().enumerate().rev() {
        let Some(split) = node.split else {
            below[index] = (node.rows as f64, node.output);
            continue;
        };
        let ((low, low_mean), (high, high_mean)) =
            (below[split.at_most as usize], below[split.above as usize]);
        let rows: f64 = low + high;
        if rows > 0.0 {
            below[index] = (rows, (low * low_mean + high * high_mean) / rows);
            if let Some(gain) = gains.get_mut(usize::from(split.feature)) {
                *gain += low * high / rows * (low_mean - high_mean).powi(2);
            }
        }
    }
}

fn permutations(model: &Model, rows: &[Row], seed: u64) -> Option<Vec<f64>> {
    let count = rows.len() as f64;
    let centre = rows.iter().map(Row::target).sum::<f64>() / count;
    let variance: f64 = rows.iter().map(|row| (row.target() - centre).powi(2)).sum();
    if rows.is_empty() || variance <= 0.0 {
        return None;
    }
    let squares = |rows: &[Row]| -> f64 {
        let error = |row: &Row| (row.target() - model.predict(&row.features)).powi(2);
        rows.iter().map(error).sum()
    };
    let whole = squares(rows);
    let mut random = StdRng::seed_from_u64(seed);
    let mut lost = vec![0.0; Feature::ALL.len()];
    for feature in Feature::ALL.iter().filter(|it| asked_for(model, **it)) {
        let index = *feature as usize;
        let mut shuffled = rows.to_vec();
        let mut values: Vec<u32> = rows.iter().map(|row| row.features[index]).collect();
        for _ in 0..SHUFFLES {
            values.shuffle(&mut random);
            for (row, value) in shuffled.iter_mut().zip(&values) {
                row.features[index] = *value;
            }
            lost[index] += (squares(&shuffled) - whole) / variance / f64::from(SHUFFLES);
        }
    }
    Some(lost)
}

/// How the model answers to each feature that it asks for.
pub fn partial_dependence(model: &Model, rows: &[Row]) -> Vec<Dependence> {
    let asked = Feature::ALL.iter().filter(|it| asked_for(model, **it));
    asked
        .map(|feature| dependence(model, rows, *feature))
        .collect()
}

fn dependence(model: &Model, rows: &[Row], feature: Feature) -> Dependence {
    let index = feature as usize;
    let mut values: Vec<u32> = rows.iter().map(|row| row.features[index]).collect();
    values.sort_unstable();
    let mut quantiles: Vec<u32> = (0..DEPENDENCE_POINTS)
        .filter_map(|point| {
            let last = values.len().checked_sub(1)?;
            Some(values[last * point / (DEPENDENCE_POINTS - 1)])
        })
        .collect();
    quantiles.dedup();
    // Every so many rows, in the order they came.
    let stride = rows.len().div_ceil(DEPENDENCE_ROWS).max(1);
    let points = quantiles.into_iter().map(|value| {
        let (mut sum, mut count) = (0.0, 0u32);
        for row in rows.iter().step_by(stride) {
            let mut features = row.features;
            features[index] = value;
            sum += model.predict(&features);
            count += 1;
        }
        let log2 = sum / f64::from(count.max(1));
        DependencePoint {
            value,
            log2,
            bytes: crate::model::bytes_to_come(log2),
        }
    });
    Dependence {
        feature: feature.name().to_owned(),
        points: points.collect(),
    }
}

impl Display for Importance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            feature,
            gain,
            permutation,
        } = self;
        write!(f, "{feature:<22} {:5.1} % of the gain", gain * 100.0)?;
        match permutation {
            Some(lost) => write!(f, ", R² {lost:+.3} by it"),
            None => Ok(()),
        }
    }
}

impl Display for Dependence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.feature)?;
        for point in &self.points {
            write!(f, " {} → {}", point.value, human_bytes(point.bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{DecisionTree, Trainer as _, trainer},
        *,
    };
    use crate::training::made_up::random_rows;

    /// A port that tells 4 kB from 1 MB, and one feature that tells a little more.
    fn rows(seed: u64) -> Vec<Row> {
        let mut rows = random_rows(800, 8, seed);
        for row in &mut rows {
            let port = row.feature(Feature::ServicePort);
            let flags = row.feature(Feature::TcpFlags);
            row.remaining_bytes = (1 << (if port > 3 { 20 } else { 12 })) << (flags / 4);
        }
        rows
    }

    #[test]
    fn what_decides_is_most_important_by_both_measures() {
        for name in ["tree", "forest", "boosted"] {
            let model = trainer(name).unwrap().train(&rows(1)).unwrap();
            let all = importances(&model, &rows(2), 0);
            assert_eq!(all[0].feature, "service_port", "{name}: {all:?}");
            assert_eq!(all[1].feature, "tcp_flags", "{name}: {all:?}");
            assert!(
                all[0].gain > 0.8 && all[0].permutation.unwrap() > 1.0,
                "{name}: {all:?}"
            );
            let noise = all[2..]
                .iter()
                .all(|it| it.gain < 0.05 && it.permutation.unwrap().abs() < 0.05);
            assert!(noise, "{name}: {all:?}");
            assert!((all.iter().map(|it| it.gain).sum::<f64>() - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn dependence_shows_the_step_where_it_is() {
        let model = DecisionTree::default().train(&rows(1)).unwrap();
        let all = partial_dependence(&model, &rows(2));
        let port = all.iter().find(|it| it.feature == "service_port").unwrap();
        let low = port.points.iter().filter(|point| point.value <= 3);
        assert!(low.clone().all(|point| point.log2 < 15.0) && low.count() == 4);
        assert!(port.points[4..].iter().all(|point| point.log2 > 19.0));
        assert!(port.to_string().starts_with("service_port: 0 → "));
    }

    #[test]
    fn without_rows_there_are_gains_only() {
        let model = DecisionTree::default().train(&rows(1)).unwrap();
        assert!(
            importances(&model, &[], 0)
                .iter()
                .all(|it| it.permutation.is_none())
        );
        assert!(
            partial_dependence(&model, &[])
                .iter()
                .all(|it| it.points.is_empty())
        );
    }
}
