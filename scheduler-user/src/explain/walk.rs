//! The way of a message's features through the acting model.

use scheduler_common::{
    features::{Feature, Features},
    tree::Table,
};
use serde::{Deserialize, Serialize};

use super::known::{Rebuilt, Source};
use crate::model::{
    CompileError, Model, Tree, compile,
    rules::{Range, Rule, human},
};

/// What the model makes of a direction's features.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Walk {
    /// The model.
    pub generation: u32,
    /// What it was asked with.
    pub features: Vec<Value>,
    /// The way through each tree.
    pub trees: Vec<TreePath>,
    /// Predicted bytes to come.
    pub bytes_to_come: u64,
    /// Predicted size of the message, with what is sent.
    pub predicted_bytes: u64,
    /// Whether the kernel's own prediction may have come about so; absent without one.
    pub agrees: Option<bool>,
    /// Leaves of a single tree that fit all that is known and what the kernel predicted: one is certain.
    pub fitting: Vec<Fitting>,
}

/// One feature.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Value {
    /// Its name.
    pub feature: String,
    /// Its value.
    pub value: u32,
    /// The value with a unit that a person reads.
    pub text: String,
    /// How it is known.
    pub source: Source,
}

/// A way through a tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TreePath {
    /// Number of the tree, from 1.
    pub tree: usize,
    /// Questions from the root on.
    pub turns: Vec<Asked>,
    /// Index of the leaf.
    pub leaf: usize,
    /// What the leaf says: mean log2(floor + bytes to come) of its rows.
    pub output: f64,
    /// The same in words.
    pub text: String,
    /// Factor of one standard deviation of the leaf's rows.
    pub factor: f64,
    /// Training rows of the leaf.
    pub rows: u64,
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Asked {
    /// The feature.
    pub feature: String,
    /// Its value.
    pub value: u32,
    /// What the answer says, in words.
    pub text: String,
    /// How the value is known.
    pub source: Source,
}

/// A leaf that fits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Fitting {
    /// Index of the leaf.
    pub leaf: usize,
    /// What leads to it.
    #[schema(value_type = Vec<Object>)]
    pub conditions: Vec<Range>,
    /// Bytes of the message at the decision, if this is the leaf.
    pub bytes_at_decision: u64,
    /// Predicted bytes to come then.
    pub bytes_to_come: u64,
}

impl Walk {
    /// Asks `model`; `predicted_bytes` is what the kernel's own decision gave for the whole message.
    ///
    /// # Errors
    /// If the model is none that the kernel could walk.
    pub fn through(
        model: &Model,
        rebuilt: &Rebuilt,
        predicted_bytes: Option<u32>,
    ) -> Result<Self, CompileError> {
        let sent = u64::from(rebuilt.features[Feature::MessageBytes as usize]);
        let table = compile(model)?;
        let leaf = table.walk(&rebuilt.features).unwrap_or_default();
        let bytes_to_come = leaf.bytes_to_come();
        let trees = model.trees.iter().enumerate();
        let values = Feature::ALL.iter().map(|feature| value(rebuilt, *feature));
        let mut walk = Self {
            generation: model.generation,
            features: values.collect(),
            trees: trees
                .map(|(index, tree)| path((model, tree), index, rebuilt))
                .collect(),
            bytes_to_come,
            predicted_bytes: (sent + bytes_to_come).min(u64::from(u32::MAX)),
            agrees: predicted_bytes.map(|kernel| sent_then(kernel, bytes_to_come, sent).is_some()),
            fitting: Vec::new(),
        };
        if let ([tree], Some(kernel)) = (walk.trees.as_slice(), predicted_bytes) {
            walk.fitting = fitting((model, &table), rebuilt, (kernel, sent));
            walk.agrees = Some(walk.fitting.iter().any(|it| it.leaf == tree.leaf));
        }
        Ok(walk)
    }
}

/// Bytes of the message at the decision, if `to_come` was added to them.
fn sent_then(kernel: u32, to_come: u64, sent: u64) -> Option<u64> {
    if kernel == u32::MAX {
        return (to_come + sent >= u64::from(u32::MAX)).then_some(sent);
    }
    u64::from(kernel)
        .checked_sub(to_come)
        .filter(|then| *then <= sent)
}

fn fitting(
    (model, table): (&Model, &Table),
    rebuilt: &Rebuilt,
    (kernel, sent): (u32, u64),
) -> Vec<Fitting> {
    let rules = model.rules().into_iter();
    rules
        .filter_map(|rule| {
            let bytes_to_come = table
                .walk(&an_example(&rule))
                .unwrap_or_default()
                .bytes_to_come();
            let bytes_at_decision = sent_then(kernel, bytes_to_come, sent)?;
            let mut then = *rebuilt;
            then.set(
                Feature::MessageBytes,
                bytes_at_decision as u32,
                Source::Known,
            );
            let mut ranges = rule.ranges.iter();
            ranges
                .all(|range| then.may_be_in(range.feature, (range.low, range.high)))
                .then_some(())?;
            Some(Fitting {
                leaf: rule.leaf,
                conditions: rule.ranges,
                bytes_at_decision,
                bytes_to_come,
            })
        })
        .collect()
}

/// Features that lead to the rule's leaf.
fn an_example(rule: &Rule) -> Features {
    let mut features = Features::default();
    for range in &rule.ranges {
        features[range.feature as usize] = range.low as u32;
    }
    features
}

fn value(rebuilt: &Rebuilt, feature: Feature) -> Value {
    let value = rebuilt.features[feature as usize];
    Value {
        feature: feature.name().to_owned(),
        value,
        text: human(feature, value),
        source: rebuilt.sources[feature as usize],
    }
}

fn path((model, tree): (&Model, &Tree), index: usize, rebuilt: &Rebuilt) -> TreePath {
    let (turns, leaf) = tree.turns(&rebuilt.features);
    let node = tree.nodes[leaf];
    let asked = turns.iter().filter_map(|turn| {
        let range = turn.range()?;
        let Value {
            feature,
            value,
            source,
            ..
        } = value(rebuilt, range.feature);
        Some(Asked {
            feature,
            value,
            text: range.to_string(),
            source,
        })
    });
    TreePath {
        tree: index + 1,
        turns: asked.collect(),
        leaf,
        output: node.output,
        text: model.leaf_text(&node),
        factor: node.sigma.exp2(),
        rows: node.rows,
    }
}

#[cfg(test)]
mod tests {
    use scheduler_common::{
        features::SLOTS,
        flow::{Flow, Half, Story, StoryHalf},
    };

    use super::*;
    use crate::model::{DataWindow, Split, TreeNode};

    /// Packets up to 500 bytes lead to about 1 MB, larger ones to 16 MB; service 80 to 4 kB less a floor.
    fn model() -> Model {
        let leaf = |output| TreeNode {
            output,
            rows: 20,
            ..TreeNode::default()
        };
        let node = |feature: Feature, value, child| TreeNode {
            split: Some(Split {
                feature: feature as u8,
                value,
                at_most: child,
                above: child + 1,
            }),
            ..leaf(0.0)
        };
        let nodes = vec![
            node(Feature::ServicePort, 80.5, 1),
            leaf(12.0),
            node(Feature::PacketBytes, 500.5, 3),
            leaf(20.0),
            leaf(24.0),
        ];
        Model::new("made up", DataWindow::default(), vec![Tree { nodes }])
    }

    fn entry(bytes: u32, packets: u32) -> (Flow, Story) {
        let own = Half {
            bytes,
            packets,
            ..Half::ZERO
        };
        let page = StoryHalf {
            message: 1,
            ..StoryHalf::default()
        };
        let flow = Flow {
            tag: 1,
            halves: [own, Half::ZERO],
        };
        let story = Story {
            service_port: 443,
            halves: [page, StoryHalf::default()],
            ..Story::default()
        };
        (flow, story)
    }

    #[test]
    fn what_the_entry_does_not_keep_is_marked_and_found_again_by_the_prediction() {
        let (flow, story) = entry(4000, 4);
        let rebuilt = Rebuilt::of(&flow, &story, (0, 6));
        let kernel = 16_777_216 - 4096 + 2000;
        let walk = Walk::through(&model(), &rebuilt, Some(kernel)).unwrap();
        let [path] = walk.trees.as_slice() else {
            panic!("{walk:?}")
        };
        assert_eq!(path.turns[0].text, "service port above 80 (http)");
        assert_eq!(path.turns[0].source, Source::Known);
        assert_eq!(path.turns[1].source, Source::Assumed);
        assert_eq!((path.leaf, walk.agrees), (4, Some(true)));
        let [only] = walk.fitting.as_slice() else {
            panic!("{walk:?}")
        };
        assert_eq!((only.leaf, only.bytes_at_decision), (4, 2000));

        // The mean of the packets leads elsewhere than the packet at the decision did.
        let (flow, story) = entry(4000, 40);
        let rebuilt = Rebuilt::of(&flow, &story, (0, 6));
        let walk = Walk::through(&model(), &rebuilt, Some(kernel)).unwrap();
        assert_eq!((walk.trees[0].leaf, walk.agrees), (3, Some(false)));
        assert_eq!(
            walk.fitting.iter().map(|it| it.leaf).collect::<Vec<_>>(),
            [4]
        );
        let walk = Walk::through(&model(), &rebuilt, None).unwrap();
        assert!(walk.agrees.is_none() && walk.fitting.is_empty());
        assert_eq!(walk.predicted_bytes, 4000 + (1 << 20) - 4096);
    }

    #[test]
    fn a_given_value_counts_for_more_than_an_assumed_one() {
        let (flow, story) = entry(4000, 40);
        let mut rebuilt = Rebuilt::of(&flow, &story, (0, 6));
        rebuilt.set(Feature::PacketBytes, 1448, Source::Given);
        let walk = Walk::through(&model(), &rebuilt, None).unwrap();
        assert_eq!(walk.trees[0].leaf, 4);
        assert_eq!(rebuilt.sources.len(), SLOTS);
    }
}
