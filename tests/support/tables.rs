//! Hand-made tree tables.

use rand::{Rng as _, rngs::StdRng};
use scheduler_common::{
    features::{Feature, ZERO_SLOT},
    tree::{Leaf, MAX_NODES, MAX_TREES, Node, Table},
};

/// Predicted log2 of the bytes to come on the port of [`by_port`], in 1/256: about 10 MB.
pub(crate) const TEN_MEGABYTES_LOG2_Q8: u16 = 5953;

/// A table without nodes yet.
pub(crate) fn empty(generation: u32) -> Box<Table> {
    Box::new(Table {
        generation,
        ..Table::EMPTY
    })
}

/// One tree: about 10 MB to come for service `port`, 16 bytes for every other.
pub(crate) fn by_port(generation: u32, port: u16) -> Box<Table> {
    let split = |threshold, child| Node {
        threshold,
        child,
        feature: Feature::ServicePort as u8,
        _pad: 0,
    };
    let leaf = |index, log2_q8| {
        let sigma_q8 = 10;
        Node::leaf(index, Leaf { log2_q8, sigma_q8 })
    };
    let mut table = empty(generation);
    table.trees = 1;
    table.depth = 2;
    table.node_count = 5;
    table.nodes[0] = split(u32::from(port) - 1, 1);
    table.nodes[1] = leaf(1, 4 << 8);
    table.nodes[2] = split(u32::from(port), 3);
    table.nodes[3] = leaf(3, TEN_MEGABYTES_LOG2_Q8);
    table.nodes[4] = leaf(4, 4 << 8);
    table
}

/// As many full trees as fit, whose every leaf predicts `log2_q8`; the splits differ by seed, so
/// a walk that mixed two such tables would end in leaves of both.
pub(crate) fn unanimous(generation: u32, log2_q8: u16, rng: &mut StdRng) -> Box<Table> {
    const DEPTH: u32 = 7;
    const NODES: usize = (1 << (DEPTH + 1)) - 1;
    let mut table = forest(generation, (MAX_TREES, DEPTH), rng);
    const { assert!(MAX_TREES * NODES <= MAX_NODES) };
    for index in 0..table.node_count as u16 {
        let node = &mut table.nodes[usize::from(index)];
        if node.is_leaf(index) {
            let sigma_q8 = 1;
            *node = Node::leaf(index, Leaf { log2_q8, sigma_q8 });
        }
    }
    table
}

/// Full trees of one depth with random splits and leaves.
pub(crate) fn forest(
    generation: u32,
    (trees, depth): (usize, u32),
    rng: &mut StdRng,
) -> Box<Table> {
    let nodes_of_tree = (1usize << (depth + 1)) - 1;
    let mut table = empty(generation);
    table.trees = trees as u32;
    table.depth = depth;
    table.node_count = (trees * nodes_of_tree) as u32;
    for tree in 0..trees {
        let root = tree * nodes_of_tree;
        table.roots[tree] = root as u16;
        for place in 0..nodes_of_tree {
            let index = root + place;
            let child = root + 2 * place + 1;
            table.nodes[index] = if 2 * place + 1 < nodes_of_tree {
                Node {
                    threshold: threshold(rng),
                    child: child as u16,
                    feature: rng.random_range(0..ZERO_SLOT),
                    _pad: 0,
                }
            } else {
                let log2_q8 = rng.random_range(0..26 << 8);
                let sigma_q8 = rng.random_range(0..3 << 8);
                Node::leaf(index as u16, Leaf { log2_q8, sigma_q8 })
            };
        }
    }
    table
}

/// Spread over the orders of magnitude, as features are.
fn threshold(rng: &mut StdRng) -> u32 {
    rng.random::<u32>() >> rng.random_range(0..32)
}
