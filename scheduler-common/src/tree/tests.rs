//! Packing, checking and walking, against a walk of single splits.

use proptest::prelude::*;

use super::*;
use crate::features::Feature;

const fn leaf(log2_q8: u16, sigma_q8: u16) -> Node {
    Node::Leaf(Leaf { log2_q8, sigma_q8 })
}

fn stump() -> Box<Table> {
    let split = Node::Split {
        feature: 3,
        threshold: 10,
        at_most: 1,
        above: 2,
    };
    let table = Table::pack(1, &[vec![split, leaf(100, 1), leaf(200, 2)]]).unwrap();
    table.check().unwrap();
    table
}

/// A tree whose only long path is `depth` splits long.
fn comb(depth: u32) -> Vec<Node> {
    let mut nodes = Vec::new();
    for step in 0..depth {
        nodes.push(Node::Split {
            feature: 0,
            threshold: step,
            at_most: 2 * step + 1,
            above: 2 * step + 2,
        });
        nodes.push(leaf(step as u16, 0));
    }
    nodes.push(leaf(depth as u16, 0));
    nodes
}

#[test]
fn equal_goes_left_and_greater_right() {
    let table = stump();
    let mut features = [0; SLOTS];
    for (value, expected) in [(0, 100), (10, 100), (11, 200), (u32::MAX, 200)] {
        features[3] = value;
        assert_eq!(table.walk(&features).unwrap().log2_q8, expected);
    }
}

#[test]
fn an_empty_table_predicts_nothing() {
    assert_eq!(Table::EMPTY.walk(&[0; SLOTS]), None);
    Table::EMPTY.check().unwrap();
    assert_eq!(*Table::pack(0, &[]).unwrap(), Table::EMPTY);
}

#[test]
fn a_sum_of_corrections_is_a_mean_less_the_bias() {
    let corrections = [[-300, 40], [20, 500], [-7, 7]];
    let bias_q8 = 1000;
    let trees = corrections.map(|pair| {
        let [low, high] = pair.map(|delta| leaf((bias_q8 + 3 * delta) as u16, 30));
        let split = Node::Split {
            feature: 3,
            threshold: 10,
            at_most: 1,
            above: 2,
        };
        vec![split, low, high]
    });
    let mut table = Table::pack(1, &trees).unwrap();
    table.bias_q8 = bias_q8 as u32;
    table.check().unwrap();
    let mut features = [0; SLOTS];
    // -300 + 20 - 7 is less than nothing to come.
    assert_eq!(
        table.walk(&features),
        Some(Leaf {
            log2_q8: 0,
            sigma_q8: 30
        })
    );
    features[3] = 11;
    assert_eq!(table.walk(&features).unwrap().log2_q8, 40 + 500 + 7);
}

#[test]
fn a_walk_that_has_arrived_stays() {
    let mut table = stump();
    table.steps = MAX_STEPS;
    assert_eq!(table.walk(&[u32::MAX; SLOTS]).unwrap().log2_q8, 200);
    assert_eq!(table.walk(&[5; SLOTS]).unwrap().log2_q8, 100);
}

#[test]
fn two_splits_are_one_step() {
    for (depth, steps) in [(0, 0), (1, 1), (2, 1), (3, 2), (11, 6), (12, 6)] {
        let table = Table::pack(1, &[comb(depth)]).unwrap();
        assert_eq!((table.steps, table.depth), (steps, depth));
        assert_eq!(table.block_count, 16 + 4 * steps);
        assert_eq!(table.node_count, 2 * depth + 1);
    }
}

#[test]
fn faults_are_found() {
    let fault = |change: fn(&mut Table)| {
        let mut table = stump();
        change(&mut table);
        table.check().unwrap_err()
    };
    let split = |features, child| Block::split([10, u32::MAX, u32::MAX], features, child);
    assert_eq!(fault(|t| t.abi_version = 99), TableError::AbiVersion(99));
    assert_eq!(fault(|t| t.depth = 13), TableError::TooLarge);
    assert_eq!(fault(|t| t.trees = 17), TableError::TooLarge);
    assert_eq!(
        fault(|t| t.block_count = MAX_BLOCKS as u32 + 1),
        TableError::TooLarge
    );
    assert_eq!(fault(|t| t.steps = 7), TableError::TooLarge);
    assert_eq!(
        fault(|t| t.mean_factor -= 1),
        TableError::MeanFactor(0xff_ffff)
    );
    assert_eq!(fault(|t| t.bias_q8 = 1), TableError::Bias(1));
    let mut two = Table::pack(1, &[comb(1), comb(1)]).unwrap();
    two.bias_q8 = 1 << 16;
    assert_eq!(two.check(), Err(TableError::Bias(1 << 16)));
    assert_eq!(fault(|t| t.block_count = 15), TableError::Root { tree: 15 });
    assert_eq!(
        fault(|t| t.blocks[9].thresholds[2] = 1),
        TableError::Root { tree: 9 }
    );
    for (features, child, expected) in [
        ([3; 3], 0, TableError::Backwards { at: 0 }),
        ([3; 3], 20, TableError::OutOfRange { at: 0 }),
        ([ZERO_SLOT, 3, 3], 16, TableError::BadFeature { at: 0 }),
    ] {
        let mut table = stump();
        table.blocks[0] = split(features, child);
        assert_eq!(table.check().unwrap_err(), expected);
    }
    let mut table = Table::pack(1, &[comb(4)]).unwrap();
    table.blocks[0] = split([3; 3], 17);
    assert_eq!(table.check(), Err(TableError::Unaligned { at: 0 }));
    // A leaf that does not point to itself is a split on nothing.
    assert_eq!(
        fault(|t| t.blocks[17] = t.blocks[18]),
        TableError::BadFeature { at: 17 }
    );
    assert_eq!(fault(|t| t.steps = 0), TableError::TooDeep { tree: 0 });
}

#[test]
fn what_is_no_tree_or_too_large_is_not_packed() {
    let split = |at_most, above| Node::Split {
        feature: 0,
        threshold: 0,
        at_most,
        above,
    };
    let malformed = Err(PackError::Malformed { tree: 1 });
    for nodes in [vec![], vec![split(0, 0)], vec![split(1, 2), leaf(0, 0)]] {
        assert_eq!(Table::pack(1, &[comb(1), nodes]).map(drop), malformed);
    }
    assert_eq!(
        Table::pack(1, &[comb(13)]).unwrap_err(),
        PackError::TooDeep { tree: 0, depth: 13 }
    );
    assert_eq!(
        Table::pack(1, &vec![comb(0); 17]).unwrap_err(),
        PackError::TooManyTrees { trees: 17 }
    );
    let full = |depth: u32| -> Vec<Node> {
        let splits = (1 << depth) - 1;
        let splits = (0..splits).map(|index| split(2 * index + 1, 2 * index + 2));
        splits.chain((0..1 << depth).map(|_| leaf(0, 0))).collect()
    };
    Table::pack(1, &vec![full(6); 16]).unwrap().check().unwrap();
    Table::pack(1, &[full(10)]).unwrap().check().unwrap();
    assert_eq!(
        Table::pack(1, &vec![full(12); 2]).unwrap_err(),
        PackError::TooManyBlocks { nodes: 2 * 8191 }
    );
}

#[test]
fn the_mean_is_that_of_a_division() {
    for trees in 1..=MAX_TREES as u32 {
        let most = trees * u32::from(u16::MAX);
        for sum in (0..=most).rev().step_by(7).chain(0..100.min(most)) {
            let mean = (u64::from(sum) * u64::from(mean_factor(trees))) >> MEAN_SHIFT;
            assert_eq!(mean, u64::from(sum / trees));
        }
    }
    assert_eq!(mean_factor(0), 0);
}

#[test]
fn the_floor_is_taken_off_again() {
    let to_come = |log2_q8| {
        Leaf {
            log2_q8,
            sigma_q8: 0,
        }
        .bytes_to_come()
    };
    assert_eq!(to_come(20 << 8), (1 << 20) - 4096);
    assert_eq!(to_come(12 << 8), 0);
    assert_eq!(to_come(0), 0);
}

#[test]
fn exp2_is_exact_at_powers_and_near_between() {
    assert_eq!(exp2_q8(0), 1);
    assert_eq!(exp2_q8(20 << 8), 1 << 20);
    assert_eq!(exp2_q8(u16::MAX), 1 << 48);
    for q8 in (4 << 8)..(40 << 8) {
        let exact = (f64::from(q8) / 256.0).exp2();
        let ratio = exp2_q8(q8) as f64 / exact;
        assert!((0.93..1.07).contains(&ratio), "{q8}: {ratio}");
    }
}

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
    let mut table = Table::pack(1, trees).unwrap();
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
    fn whatever_the_table_holds_a_walk_ends(
        words in proptest::collection::vec(any::<([u32; 3], u32)>(), 64),
        steps in any::<u32>(),
        (trees, mean_factor, bias_q8) in (0u32..40, any::<u32>(), any::<u32>()),
        features in any::<Features>(),
    ) {
        let mut table = Box::new(Table { trees, mean_factor, bias_q8, steps, ..Table::EMPTY });
        for (index, (thresholds, link)) in words.into_iter().enumerate() {
            table.blocks[index] = Block { thresholds, link };
        }
        prop_assert_eq!(table.walk(&features).is_some(), trees > 0);
    }
}
