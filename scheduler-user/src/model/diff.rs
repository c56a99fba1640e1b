//! What two models have in common and what not.

use std::collections::BTreeMap;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::{
    class::BANDS,
    features::{Feature, Features},
};
use serde::Serialize;
use serde_json::Value;

use super::{
    Importance, Model, Summary,
    rules::{Range, Turn, bytes_of, ranges},
};

/// Version of the JSON.
const SCHEMA: u32 = 1;

/// Made-up packets that both models are asked about.
const PROBES: usize = 4096;
/// Packets that are shown where the models disagree most.
const EXAMPLES: usize = 5;

/// Two models beside one another.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Diff {
    /// Version of this structure.
    pub schema: u32,
    /// In six numbers.
    pub summaries: [Summary; 2],
    /// Names of the trainers.
    pub trainers: [String; 2],
    /// Whether they predict the same because they are the same.
    pub same_trees: bool,
    /// Facts and scores that differ, by their path in the file.
    pub values: BTreeMap<String, [Option<Value>; 2]>,
    /// Features that either asks for, with the share of what its splits explain.
    pub features: Vec<FeatureDiff>,
    /// What they say of made-up packets.
    pub verdicts: Verdicts,
}

/// One feature in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FeatureDiff {
    /// Its name.
    pub feature: &'static str,
    /// See [`Importance::share`]; absent where the model does not ask for it.
    pub shares: [Option<f64>; 2],
}

/// Bands that both give to the same packets.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verdicts {
    /// Number of packets.
    pub packets: usize,
    /// Packets by the band of the first model (row) and of the second (column).
    pub bands: [[usize; BANDS]; BANDS],
    /// Packets that the second model takes for shorter, by band.
    pub shorter: usize,
    /// Packets that it takes for longer.
    pub longer: usize,
    /// Where they are furthest apart.
    pub examples: Vec<Example>,
}

/// A packet that the models disagree about.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Example {
    /// What the leaves of both trees have in common there.
    pub conditions: Vec<Range>,
    /// Predicted bytes to come.
    pub bytes: [f64; 2],
    /// Bands of those.
    pub bands: [u8; 2],
}

/// Compares two models.
///
/// The packets are made up, the same ones at each call: every feature takes a value at or just beyond a split of
/// either model, so that all parts of both are met; how often real packets come there is not in the files.
/// Bands are cut by each model's own thresholds.
pub fn diff(a: &Model, b: &Model) -> Diff {
    Diff {
        schema: SCHEMA,
        summaries: [a.summary(), b.summary()],
        trainers: [a.trainer.clone(), b.trainer.clone()],
        same_trees: a.trees == b.trees,
        values: values(a, b),
        features: features(&a.importances(), &b.importances()),
        verdicts: verdicts(a, b),
    }
}

/// What differs in the files but for trees and the feature list.
fn values(a: &Model, b: &Model) -> BTreeMap<String, [Option<Value>; 2]> {
    let mut values: BTreeMap<String, [Option<Value>; 2]> = BTreeMap::new();
    for (side, model) in [a, b].into_iter().enumerate() {
        let value = serde_json::to_value(model).expect("a model has no map with odd keys");
        let mut leaves = Vec::new();
        if let Value::Object(members) = value {
            for (name, member) in members {
                if !["trees", "features"].contains(&name.as_str()) {
                    flatten(&name, member, &mut leaves);
                }
            }
        }
        for (path, leaf) in leaves {
            values.entry(path).or_default()[side] = Some(leaf);
        }
    }
    values.retain(|_, [a, b]| a != b);
    values
}

fn flatten(path: &str, value: Value, leaves: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                flatten(&format!("{path}.{name}"), member, leaves);
            }
        }
        Value::Null => {}
        leaf => leaves.push((path.to_owned(), leaf)),
    }
}

fn features(a: &[Importance], b: &[Importance]) -> Vec<FeatureDiff> {
    let share = |of: &[Importance], feature| {
        let found = of.iter().find(|importance| importance.feature == feature);
        found.map(|importance| importance.share)
    };
    let names = Feature::ALL.iter().map(|feature| feature.name());
    let mut features: Vec<FeatureDiff> = names
        .map(|feature| FeatureDiff {
            feature,
            shares: [share(a, feature), share(b, feature)],
        })
        .filter(|it| it.shares.iter().any(Option::is_some))
        .collect();
    let weight = |it: &FeatureDiff| it.shares.iter().flatten().sum::<f64>();
    features.sort_by(|x, y| weight(y).total_cmp(&weight(x)));
    features
}

fn verdicts(a: &Model, b: &Model) -> Verdicts {
    let mut verdicts = Verdicts {
        packets: PROBES,
        bands: [[0; BANDS]; BANDS],
        shorter: 0,
        longer: 0,
        examples: Vec::new(),
    };
    for packet in probes([a, b]) {
        let bytes = [a, b].map(|model| bytes_of(model.predict(&packet)));
        let bands = [
            a.thresholds.band_of(bytes[0]),
            b.thresholds.band_of(bytes[1]),
        ];
        verdicts.bands[usize::from(bands[0])][usize::from(bands[1])] += 1;
        verdicts.shorter += usize::from(bands[1] < bands[0]);
        verdicts.longer += usize::from(bands[1] > bands[0]);
        if bands[0] != bands[1] {
            verdicts.examples.push(Example {
                conditions: conditions([a, b], &packet),
                bytes,
                bands,
            });
        }
    }
    let apart = |example: &Example| example.bands[0].abs_diff(example.bands[1]);
    let examples = &mut verdicts.examples;
    // Stable, so that the same packets are shown each time.
    examples.sort_by_key(|example| (u8::MAX - apart(example), example.conditions.len()));
    let mut told = Vec::new();
    examples.retain(|example| {
        let new = !told.contains(&example.bytes);
        told.push(example.bytes);
        new
    });
    examples.truncate(EXAMPLES);
    verdicts
}

/// Packets at the splits of both models.
fn probes(models: [&Model; 2]) -> Vec<Features> {
    let mut values: Vec<Vec<u32>> = vec![vec![0]; Feature::ALL.len()];
    let nodes = models
        .iter()
        .flat_map(|model| &model.trees)
        .flat_map(|tree| &tree.nodes);
    for split in nodes.filter_map(|node| node.split) {
        if let Some(values) = values.get_mut(usize::from(split.feature)) {
            let at = split.value.max(0.0) as u32;
            values.extend([at, at.saturating_add(1)]);
        }
    }
    for values in &mut values {
        values.sort_unstable();
        values.dedup();
        // Beside the lowest value at a split, 0 tells nothing new.
        if values.len() > 2 {
            values.remove(0);
        }
    }
    let mut random = StdRng::seed_from_u64(0);
    let packet = |random: &mut StdRng| {
        let mut packet = Features::default();
        for (slot, values) in packet.iter_mut().zip(&values) {
            *slot = values[random.random_range(0..values.len())];
        }
        packet
    };
    (0..PROBES).map(|_| packet(&mut random)).collect()
}

/// What must hold for all trees of both to end where this packet does.
fn conditions(models: [&Model; 2], packet: &Features) -> Vec<Range> {
    let trees = models.iter().flat_map(|model| &model.trees);
    let turns: Vec<Turn> = trees.flat_map(|tree| tree.turns(packet).0).collect();
    ranges(&turns)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{DataWindow, Scores, Split, Tree, TreeNode},
        *,
    };

    /// Service ports up to 100 lead to `below`, others to `above`.
    fn by_port(below: f64, above: f64) -> Model {
        let leaf = |output| TreeNode {
            output,
            rows: 10,
            ..TreeNode::default()
        };
        let split = Split {
            feature: 0,
            value: 100.5,
            at_most: 1,
            above: 2,
        };
        let root = TreeNode {
            split: Some(split),
            rows: 0,
            ..leaf(0.0)
        };
        let nodes = vec![root, leaf(below), leaf(above)];
        Model::new("made up", DataWindow::default(), vec![Tree { nodes }])
    }

    #[test]
    fn a_model_does_not_differ_from_itself() {
        let model = by_port(12.0, 24.0);
        let diff = diff(&model, &model);
        assert!(diff.same_trees && diff.values.is_empty());
        assert_eq!((diff.verdicts.shorter, diff.verdicts.longer), (0, 0));
        assert!(diff.verdicts.examples.is_empty());
        assert_eq!(diff.features[0].shares, [Some(1.0), Some(1.0)]);
    }

    #[test]
    fn what_differs_is_told_and_what_does_not_is_not() {
        let a = by_port(12.0, 24.0);
        let b = Model {
            generation: 4,
            scores: Some(Scores::default()),
            ..by_port(12.0, 12.0)
        };
        let diff = diff(&a, &b);
        assert!(!diff.same_trees);
        assert_eq!(diff.values["generation"], [Some(0.into()), Some(4.into())]);
        assert!(
            diff.values
                .keys()
                .any(|path| path.starts_with("scores.candidate."))
        );
        assert!(!diff.values.contains_key("trainer"));
        let Verdicts {
            bands,
            shorter,
            longer,
            examples,
            packets,
        } = diff.verdicts;
        assert_eq!(longer, 0);
        assert_eq!(bands[0][0] + shorter, packets, "{bands:?}");
        // Half of the packets are beyond the split; 2^24 bytes are in the last band.
        assert!(
            (packets / 3..packets * 2 / 3).contains(&bands[7][0]),
            "{bands:?}"
        );
        assert_eq!(examples.len(), 1, "the same disagreement is told once");
        assert_eq!(examples[0].bands, [7, 0]);
        assert_eq!(
            examples[0].conditions[0].to_string(),
            "service port above 100"
        );
    }
}
