//! Hand-made tree tables.

use rand::{Rng as _, rngs::StdRng};
use scheduler_common::{
    features::Feature,
    tree::{Leaf, MAX_TREES, Node, Table, form},
};

/// Predicted log2 of the bytes to come on the port of [`by_port`], in 1/256: about 10 MB.
pub(crate) const TEN_MEGABYTES_LOG2_Q8: u16 = 5953;

fn packed(generation: u32, trees: &[Vec<Node>]) -> Box<Table> {
    Table::pack(generation, trees).expect("the tests' trees fit the table")
}

/// One tree in blocks: about 10 MB to come for service `port`, 16 bytes for every other.
pub(crate) fn by_port(generation: u32, port: u16) -> Box<Table> {
    let split = |threshold, at_most| Node::Split {
        feature: Feature::ServicePort as u8,
        threshold,
        at_most,
        above: at_most + 1,
    };
    let leaf = |log2_q8| {
        let sigma_q8 = 10;
        Node::Leaf(Leaf { log2_q8, sigma_q8 })
    };
    let nodes = vec![
        split(u32::from(port) - 1, 1),
        leaf(4 << 8),
        split(u32::from(port), 3),
        leaf(TEN_MEGABYTES_LOG2_Q8),
        leaf(4 << 8),
    ];
    Table::pack_blocks(generation, &[nodes]).expect("five nodes fit the table")
}

/// As many trees as a table takes, full, whose every leaf predicts `log2_q8`; the splits differ by seed, so
/// a walk that mixed two such tables would end in leaves of both.
pub(crate) fn unanimous(generation: u32, log2_q8: u16, rng: &mut StdRng) -> Box<Table> {
    agreed(generation, log2_q8, grown((MAX_TREES, 6), rng))
}

/// Likewise, of one test a level.
pub(crate) fn unanimous_oblivious(generation: u32, log2_q8: u16, rng: &mut StdRng) -> Box<Table> {
    agreed(generation, log2_q8, levelled((MAX_TREES, 10), rng))
}

fn agreed(generation: u32, log2_q8: u16, mut trees: Vec<Vec<Node>>) -> Box<Table> {
    for node in trees.iter_mut().flatten() {
        if let Node::Leaf(leaf) = node {
            let sigma_q8 = 1;
            *leaf = Leaf { log2_q8, sigma_q8 };
        }
    }
    packed(generation, &trees)
}

/// Full trees of one depth with random splits and leaves.
pub(crate) fn forest(generation: u32, size: (usize, u32), rng: &mut StdRng) -> Box<Table> {
    packed(generation, &grown(size, rng))
}

/// Likewise, of one test a level.
pub(crate) fn oblivious(generation: u32, size: (usize, u32), rng: &mut StdRng) -> Box<Table> {
    let table = packed(generation, &levelled(size, rng));
    assert_eq!(table.form, form::OBLIVIOUS);
    table
}

fn grown((trees, depth): (usize, u32), rng: &mut StdRng) -> Vec<Vec<Node>> {
    let splits = (1u32 << depth) - 1;
    let mut tree = || {
        let node = |index| {
            if index < splits {
                split(index, (threshold(rng), feature(rng)))
            } else {
                leaf(rng)
            }
        };
        (0..=2 * splits).map(node).collect()
    };
    (0..trees).map(|_| tree()).collect()
}

fn levelled((trees, depth): (usize, u32), rng: &mut StdRng) -> Vec<Vec<Node>> {
    let splits = (1u32 << depth) - 1;
    let mut tree = || {
        let tests: Vec<_> = (0..depth).map(|_| (threshold(rng), feature(rng))).collect();
        let node = |index: u32| match tests.get((index + 1).ilog2() as usize) {
            Some(test) => split(index, *test),
            None => leaf(rng),
        };
        (0..=2 * splits).map(node).collect()
    };
    (0..trees).map(|_| tree()).collect()
}

const fn split(index: u32, (threshold, feature): (u32, u8)) -> Node {
    Node::Split {
        threshold,
        feature,
        at_most: 2 * index + 1,
        above: 2 * index + 2,
    }
}

fn leaf(rng: &mut StdRng) -> Node {
    let log2_q8 = rng.random_range(0..26 << 8);
    let sigma_q8 = rng.random_range(0..3 << 8);
    Node::Leaf(Leaf { log2_q8, sigma_q8 })
}

fn feature(rng: &mut StdRng) -> u8 {
    rng.random_range(0..Feature::ALL.len() as u8)
}

/// Spread over the orders of magnitude, as features are.
fn threshold(rng: &mut StdRng) -> u32 {
    rng.random::<u32>() >> rng.random_range(0..32)
}
