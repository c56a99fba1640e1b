//! Walks of any table, against a walk of single splits.

use proptest::prelude::*;

use super::{tests::leaf, *};
use crate::features::{Feature, Features};

/// One split at a time.
fn reference(nodes: &[Node], features: &Features) -> (Leaf, u32) {
    let (mut index, mut depth) = (0, 0);
    loop {
        match nodes[index as usize] {
            Node::Leaf(leaf) => return (leaf, depth),
            Node::Split {
                feature,
                threshold,
                at_most,
                above,
            } => {
                let value = features[usize::from(feature)];
                index = if value <= threshold { at_most } else { above };
                depth += 1;
            }
        }
    }
}

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        6 => 0u32..20,
        2 => any::<u32>(),
        1 => Just(u32::MAX),
        1 => Just(u32::MAX - 1),
        1 => Just(1 << 31),
    ]
}

/// A tree of at most `depth` splits a path; a word says whether a node goes on and where.
fn tree() -> impl Strategy<Value = Vec<Node>> {
    let words = proptest::collection::vec((any::<u32>(), number()), 0..60);
    (0u32..=MAX_DEPTH, words).prop_map(|(depth, words)| {
        let mut levels = vec![0];
        let mut nodes = Vec::new();
        let mut words = words.into_iter();
        while let Some(&level) = levels.get(nodes.len()) {
            let split = words
                .next()
                .filter(|(word, _)| level < depth && word % 5 != 0);
            nodes.push(match split {
                Some((word, threshold)) => {
                    let at_most = levels.len() as u32;
                    levels.extend([level + 1; 2]);
                    Node::Split {
                        feature: (word / 5 % Feature::ALL.len() as u32) as u8,
                        threshold,
                        at_most,
                        above: at_most + 1,
                    }
                }
                None => leaf(nodes.len() as u16 ^ 0xff0f, nodes.len() as u16),
            });
        }
        nodes
    })
}

/// A path as long as the table allows, with leaves beside it at every level.
fn winding(turns: u32, depth: u32) -> Vec<Node> {
    let mut nodes = Vec::new();
    for step in 0..depth {
        let [near, far] = [2 * step + 1, 2 * step + 2];
        let left = turns >> step & 1 == 0;
        nodes.push(Node::Split {
            feature: (step % 3) as u8,
            threshold: 10 - step / 2 * u32::from(left),
            at_most: if left { far } else { near },
            above: if left { near } else { far },
        });
        nodes.push(leaf(step as u16 + 1, 7));
    }
    nodes.push(leaf(999, 8));
    nodes
}

/// Questions of up to ten levels, of which sixteen trees fit, and words that say where a path ends early.
fn levels() -> impl Strategy<Value = (Vec<(u8, u32)>, u32)> {
    let question = (0..Feature::ALL.len() as u8, number());
    (proptest::collection::vec(question, 0..=10), any::<u32>())
}

/// A tree of one question a level; a third of the paths end early where `ends` says so.
fn oblivious(tests: &[(u8, u32)], ends: u32) -> Vec<Node> {
    let mut levels = vec![0];
    let mut nodes = Vec::new();
    while let Some(&level) = levels.get(nodes.len()) {
        let number = nodes.len() as u32;
        let early = ends >> (level + 16) & 1 == 1 && (number ^ ends).is_multiple_of(3);
        // The first of each level goes on, for else all of them may have ended.
        let first = levels[..nodes.len()].last() != Some(&level);
        nodes.push(match tests.get(level).filter(|_| first || !early) {
            Some(&(feature, threshold)) => {
                let at_most = levels.len() as u32;
                levels.extend([level + 1; 2]);
                Node::Split {
                    feature,
                    threshold,
                    at_most,
                    above: at_most + 1,
                }
            }
            None => leaf(number as u16 ^ 0xf0f, number as u16),
        });
    }
    nodes
}

fn features() -> impl Strategy<Value = Features> {
    proptest::array::uniform32(number()).prop_map(|mut features| {
        features[usize::from(ZERO_SLOT)] = 0;
        features
    })
}

fn bias() -> impl Strategy<Value = u16> {
    prop_oneof![2 => Just(0), 2 => 0u16..300, 1 => any::<u16>()]
}

fn walks_alike(trees: &[Vec<Node>], rows: &[Features], bias: u16) -> Result<(), TestCaseError> {
    table_walks_alike(Table::pack_blocks(1, trees).unwrap(), trees, rows, bias)?;
    table_walks_alike(Table::pack(1, trees).unwrap(), trees, rows, bias)
}

fn table_walks_alike(
    mut table: Box<Table>,
    trees: &[Vec<Node>],
    rows: &[Features],
    bias: u16,
) -> Result<(), TestCaseError> {
    table.bias_q8 = if trees.len() > 1 { u32::from(bias) } else { 0 };
    prop_assert_eq!(table.check(), Ok(()));
    for features in rows {
        let (mut log2, mut sigma) = (0, 0);
        for nodes in trees {
            let (leaf, depth) = reference(nodes, features);
            prop_assert!(depth <= table.depth);
            log2 += u32::from(leaf.log2_q8);
            sigma += u32::from(leaf.sigma_q8);
        }
        let walked = table.walk(features).unwrap();
        let mean = |sum| sum / trees.len() as u32;
        let less = mean(log2).saturating_sub(table.bias_q8);
        prop_assert_eq!(u32::from(walked.log2_q8), less);
        prop_assert_eq!(u32::from(walked.sigma_q8), mean(sigma));
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_packed_forest_walks_as_its_single_splits_do(
        trees in proptest::collection::vec(tree(), 1..=MAX_TREES),
        rows in proptest::collection::vec(features(), 20),
        bias in bias(),
    ) {
        walks_alike(&trees, &rows, bias)?;
    }

    #[test]
    fn leaves_at_every_level_are_met(
        shapes in proptest::collection::vec((any::<u32>(), 0..=MAX_DEPTH), 1..=MAX_TREES),
        rows in proptest::collection::vec(features(), 20),
        bias in bias(),
    ) {
        let trees: Vec<_> = shapes
            .into_iter()
            .map(|(turns, depth)| winding(turns, depth))
            .collect();
        walks_alike(&trees, &rows, bias)?;
    }

    #[test]
    fn oblivious_trees_are_known_and_walk_as_their_single_splits_do(
        shapes in proptest::collection::vec(levels(), 1..=MAX_TREES),
        rows in proptest::collection::vec(features(), 20),
        bias in bias(),
    ) {
        let trees: Vec<_> = shapes
            .into_iter()
            .map(|(tests, ends)| oblivious(&tests, ends))
            .collect();
        let table = Table::pack(1, &trees).unwrap();
        prop_assert_eq!(table.form, form::OBLIVIOUS);
        table_walks_alike(table, &trees, &rows, bias)?;
        if let Ok(table) = Table::pack_blocks(1, &trees) {
            table_walks_alike(table, &trees, &rows, bias)?;
        }
    }

    #[test]
    fn whatever_the_table_holds_a_walk_ends(
        words in proptest::collection::vec(any::<[u32; 4]>(), 64),
        heads in proptest::collection::vec(any::<[u32; 16]>(), MAX_TREES),
        (form, steps) in (0u32..3, prop_oneof![0u32..4, any::<u32>()]),
        (trees, mean_factor, bias_q8) in (0u32..40, any::<u32>(), any::<u32>()),
        features in any::<Features>(),
    ) {
        let mut table = Box::new(Table { trees, mean_factor, bias_q8, steps, form, ..Table::EMPTY });
        for (index, words) in words.into_iter().enumerate() {
            table.blocks[index] = Block { words };
        }
        for (head, words) in table.heads.iter_mut().zip(heads) {
            head.leaves = words[0];
            for (tests, words) in head.tests.iter_mut().zip(words[1..].chunks(5)) {
                tests.features = words[0];
                tests.thresholds.copy_from_slice(&words[1..]);
            }
        }
        prop_assert_eq!(table.walk(&features).is_some(), trees > 0);
    }
}
