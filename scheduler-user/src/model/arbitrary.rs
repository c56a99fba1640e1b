//! Trees of any shape, for property tests.

use proptest::prelude::*;

use super::*;

/// One entry a node to be: feature, split value, output.
type Seed = (u8, f64, f64);

fn seed() -> impl Strategy<Value = Seed> {
    let value = prop_oneof![
        4 => (0u32..20).prop_map(|v| f64::from(v) + 0.5),
        2 => any::<u32>().prop_map(f64::from),
        1 => -3.0..3.0,
        1 => Just(f64::from(u32::MAX)),
        1 => Just(-0.5),
        1 => Just(1e12),
    ];
    (0u8..15, value, -2.0..60.0f64)
}

/// A tree with up to eleven splits, grown by splitting leaves at random.
pub(crate) fn tree() -> impl Strategy<Value = Tree> {
    proptest::collection::vec((seed(), any::<prop::sample::Index>()), 1..12).prop_map(|seeds| {
        let leaf = |output| TreeNode {
            output,
            sigma: output.abs() / 3.0,
            rows: 1,
            split: None,
        };
        let mut nodes = vec![leaf(3.0)];
        for ((feature, value, output), at) in seeds {
            let leaves: Vec<usize> = (0..nodes.len())
                .filter(|index| nodes[*index].split.is_none())
                .collect();
            let parent = leaves[at.index(leaves.len())];
            let next = nodes.len() as u32;
            nodes[parent].split = Some(Split {
                feature,
                value,
                at_most: next,
                above: next + 1,
            });
            nodes.extend([leaf(output), leaf(output / 2.0)]);
        }
        Tree { nodes }
    })
}

pub(crate) fn features() -> impl Strategy<Value = Features> {
    let value = prop_oneof![4 => 0u32..20, 1 => any::<u32>(), 1 => Just(u32::MAX)];
    proptest::array::uniform15(value).prop_map(|values| {
        let mut features = Features::default();
        features[..15].copy_from_slice(&values);
        features
    })
}

pub(crate) fn model() -> impl Strategy<Value = Model> {
    let combine = prop_oneof![
        Just(Combine::Mean),
        (0.0..30.0f64).prop_map(|base| Combine::Sum { base }),
    ];
    let trees = proptest::collection::vec(tree(), 1..9);
    (trees, combine).prop_map(|(mut trees, combine)| {
        if let Combine::Sum { .. } = combine {
            // Corrections: small ones, of either sign.
            for node in trees.iter_mut().flat_map(|tree| &mut tree.nodes) {
                node.output = node.output / 10.0 - 3.0;
            }
        }
        let mut model = Model::new("made up", DataWindow::default(), trees);
        model.combine = combine;
        model
    })
}
