//! A tree that asks one question a level.
//!
//! Level by level the question is taken that leaves the least squares over all nodes of the level, as CatBoost's trees
//! grow (Dorogush, Ershov and Gulin, "CatBoost: gradient boosting with categorical features support", 2018). The
//! kernel's table has a form of its own for such trees, whose walk is far shorter.

use scheduler_common::{features::Feature, tree::MAX_DEPTH};

use super::{TrainError, Trainer, examples::Examples, parameters::Parameters};
use crate::{
    dataset::Row,
    model::{Combine, Model, Split, Tree, TreeNode},
};

/// Ranges of values that a feature is divided into at most, about as many rows in each.
const BINS: usize = 256;
/// What a question must explain of the squares, in log2² a row.
const LEAST_GAIN: f64 = 1e-9;

/// Parameters of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oblivious {
    /// Questions at most; the kernel takes 12.
    pub splits: u16,
    /// Training rows at least on either side of a question, where it is to change what a node predicts.
    pub min_leaf_rows: usize,
}

impl Default for Oblivious {
    fn default() -> Self {
        Self {
            splits: 8,
            min_leaf_rows: 20,
        }
    }
}

impl Trainer for Oblivious {
    fn name(&self) -> &'static str {
        "oblivious"
    }

    fn train(&self, rows: &[Row]) -> Result<Model, TrainError> {
        let parameters = Parameters {
            splits: self.splits,
            min_leaf_rows: self.min_leaf_rows,
            ..Parameters::TREE
        };
        let examples = Examples::of(rows, &parameters, 2 * self.min_leaf_rows.max(1))?;
        let tree = self.tree(&examples.rows, &examples.targets);
        examples.model(self.name(), vec![tree], Combine::Mean)
    }
}

impl Oblivious {
    /// The tree of these rows, of which there must be some, and a target for each.
    pub(super) fn tree(&self, rows: &[Row], targets: &[f64]) -> Tree {
        let columns: Vec<Column> = (0..Feature::ALL.len())
            .filter_map(|feature| Column::of(rows, feature))
            .collect();
        let mut growth = Growth::new(targets, self.min_leaf_rows.max(1));
        for _ in 0..u32::from(self.splits).min(MAX_DEPTH) {
            let Some(question) = growth.best(&columns) else {
                break;
            };
            growth.ask(&columns[question.column], question.cut);
        }
        growth.tree()
    }
}

/// A feature's values by range.
struct Column {
    feature: u8,
    /// The largest value of each range but the last, and the next larger one.
    cuts: Vec<(u32, u32)>,
    /// By row.
    bins: Vec<u8>,
}

impl Column {
    /// `None` if all rows are alike.
    fn of(rows: &[Row], feature: usize) -> Option<Self> {
        let values: Vec<u32> = rows.iter().map(|row| row.features[feature]).collect();
        let mut sorted = values.clone();
        sorted.sort_unstable();
        let mut distinct = sorted.clone();
        distinct.dedup();
        let steps = distinct.array_windows().map(|[cut, next]| (*cut, *next));
        let mut cuts: Vec<(u32, u32)> = steps.collect();
        if cuts.len() >= BINS {
            let quantiles = (1..BINS).map(|place| sorted[place * sorted.len() / BINS]);
            let mut quantiles: Vec<u32> = quantiles.collect();
            quantiles.dedup();
            cuts.retain(|(cut, _)| quantiles.binary_search(cut).is_ok());
        }
        if cuts.is_empty() {
            return None;
        }
        let bin = |value: &u32| cuts.partition_point(|(cut, _)| cut < value) as u8;
        Some(Self {
            feature: feature as u8,
            bins: values.iter().map(bin).collect(),
            cuts,
        })
    }
}

/// Rows of a node or of a range of values within it.
#[derive(Clone, Copy, Default)]
struct Share {
    sum: f64,
    rows: u32,
}

impl Share {
    fn mean(self) -> f64 {
        self.sum / f64::from(self.rows.max(1))
    }

    /// What it explains of the squares that its own mean is said and not `instead`.
    fn gain(self, instead: f64) -> f64 {
        f64::from(self.rows) * (self.mean() - instead).powi(2)
    }
}

/// A node of the level that is grown.
#[derive(Clone, Copy)]
struct Place {
    share: Share,
    /// What is predicted: the mean of its rows, or of those of the node above that spoke last.
    output: f64,
    sigma: f64,
    /// Level of the node that spoke last.
    spoke: usize,
}

#[derive(Clone, Copy)]
struct Question {
    column: usize,
    cut: usize,
    gain: f64,
}

struct Growth<'a> {
    targets: &'a [f64],
    min_rows: u32,
    /// Node of the last level by row: the outcomes, that of the first question in the highest place.
    place_of: Vec<u16>,
    levels: Vec<Vec<Place>>,
    /// Feature and value of each question.
    asked: Vec<(u8, f64)>,
}

impl<'a> Growth<'a> {
    fn new(targets: &'a [f64], min_rows: usize) -> Self {
        let rows = targets.len() as u32;
        let sum = targets.iter().sum();
        let share = Share { sum, rows };
        let mut growth = Self {
            targets,
            min_rows: min_rows as u32,
            place_of: vec![0; targets.len()],
            levels: Vec::new(),
            asked: Vec::new(),
        };
        let sigma = growth.sigmas(&[share.mean()])[0];
        growth.levels.push(vec![Place {
            share,
            output: share.mean(),
            sigma,
            spoke: 0,
        }]);
        growth
    }

    fn last(&self) -> &[Place] {
        self.levels.last().expect("the root is a level")
    }

    /// The first of the questions that explain most; `None` if none explains anything.
    fn best(&self, columns: &[Column]) -> Option<Question> {
        let mut best = Question {
            column: 0,
            cut: 0,
            gain: LEAST_GAIN * self.targets.len() as f64,
        };
        let mut found = None;
        for (column, of) in columns.iter().enumerate() {
            for (cut, gain) in self.gains(of).into_iter().enumerate() {
                if gain > best.gain {
                    best = Question { column, cut, gain };
                    found = Some(best);
                }
            }
        }
        found
    }

    /// What each cut of a feature explains of the squares, over all nodes.
    fn gains(&self, column: &Column) -> Vec<f64> {
        let bins = column.cuts.len() + 1;
        let places = self.last();
        let mut shares = vec![Share::default(); places.len() * bins];
        for ((target, place), bin) in self.targets.iter().zip(&self.place_of).zip(&column.bins) {
            let share = &mut shares[usize::from(*place) * bins + usize::from(*bin)];
            share.sum += target;
            share.rows += 1;
        }
        let mut gains = vec![0.0; column.cuts.len()];
        for (place, shares) in places.iter().zip(shares.chunks(bins)) {
            let mut low = Share::default();
            for (gain, share) in gains.iter_mut().zip(shares) {
                low.sum += share.sum;
                low.rows += share.rows;
                let high = Share {
                    sum: place.share.sum - low.sum,
                    rows: place.share.rows - low.rows,
                };
                // Only where both sides are heard later on.
                if low.rows.min(high.rows) >= self.min_rows {
                    *gain += low.gain(place.output) + high.gain(place.output);
                }
            }
        }
        gains
    }

    /// Grows a level.
    fn ask(&mut self, column: &Column, cut: usize) {
        let mut shares = vec![Share::default(); 2 * self.last().len()];
        for ((place, bin), target) in self.place_of.iter_mut().zip(&column.bins).zip(self.targets) {
            *place = 2 * *place + u16::from(usize::from(*bin) > cut);
            let share = &mut shares[usize::from(*place)];
            share.sum += target;
            share.rows += 1;
        }
        let means: Vec<f64> = shares.iter().map(|share| share.mean()).collect();
        let sigmas = self.sigmas(&means);
        let level = self.levels.len();
        let places = (0..shares.len()).map(|index| {
            let above = self.last()[index / 2];
            let share = shares[index];
            if share.rows.min(shares[index ^ 1].rows) < self.min_rows {
                return Place { share, ..above };
            }
            Place {
                share,
                output: means[index],
                sigma: sigmas[index],
                spoke: level,
            }
        });
        let places = places.collect();
        self.levels.push(places);
        let (low, high) = column.cuts[cut];
        let middle = f64::midpoint(f64::from(low), f64::from(high));
        self.asked.push((column.feature, middle));
    }

    /// Standard deviations of the rows of each node of the last level from its mean.
    fn sigmas(&self, means: &[f64]) -> Vec<f64> {
        let mut squares = vec![(0.0, 0u32); means.len()];
        for (place, target) in self.place_of.iter().zip(self.targets) {
            let place = usize::from(*place);
            squares[place].0 += (target - means[place]).powi(2);
            squares[place].1 += 1;
        }
        let sigma = |(squares, rows): (f64, u32)| (squares / f64::from(rows.max(1))).sqrt();
        squares.into_iter().map(sigma).collect()
    }

    /// The tree as models hold it, breadth first; a path ends where nothing below has a word of its own.
    fn tree(&self) -> Tree {
        let ends = self.ends();
        let mut waiting = vec![(0, 0)];
        let mut nodes = Vec::new();
        while let Some(&(level, index)) = waiting.get(nodes.len()) {
            let place = self.levels[level][index];
            let split = (!ends[level][index]).then(|| {
                let at_most = waiting.len() as u32;
                waiting.extend([(level + 1, 2 * index), (level + 1, 2 * index + 1)]);
                let (feature, value) = self.asked[level];
                Split {
                    feature,
                    value,
                    at_most,
                    above: at_most + 1,
                }
            });
            nodes.push(TreeNode {
                output: place.output,
                sigma: place.sigma,
                rows: u64::from(place.share.rows),
                split,
            });
        }
        Tree { nodes }
    }

    /// By level and node, whether nothing below has a word of its own.
    fn ends(&self) -> Vec<Vec<bool>> {
        let mut ends: Vec<Vec<bool>> = vec![vec![true; self.last().len()]];
        for level in (1..self.levels.len()).rev() {
            let below = self.levels[level].chunks(2).zip(ends[0].chunks(2));
            let silent = below.map(|(places, ends)| {
                ends.iter().all(|end| *end) && places.iter().all(|place| place.spoke < level)
            });
            let silent = silent.collect();
            ends.insert(0, silent);
        }
        ends
    }
}

#[cfg(test)]
mod tests;
