//! Packing, checking and walking tables made by hand.

use super::*;

pub(super) const fn leaf(log2_q8: u16, sigma_q8: u16) -> Node {
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
        let table = Table::pack_blocks(1, &[comb(depth)]).unwrap();
        assert_eq!((table.steps, table.depth), (steps.max(1), depth));
        // The last step leads to one block of four leaves.
        assert_eq!(table.block_count, 16 + 4 * steps - 3 * steps.min(1));
        assert_eq!(table.node_count, 2 * depth + 1);
    }
}

fn faults_of_either_form(table: &Table) {
    let fault = |change: fn(&mut Table)| {
        let mut table = Box::new(*table);
        change(&mut table);
        table.check().unwrap_err()
    };
    assert_eq!(fault(|t| t.abi_version = 99), TableError::AbiVersion(99));
    assert_eq!(fault(|t| t.form = 2), TableError::Form(2));
    assert_eq!(fault(|t| t.depth = 13), TableError::TooLarge);
    assert_eq!(fault(|t| t.trees = 17), TableError::TooLarge);
    assert_eq!(fault(|t| t.steps = 7), TableError::TooLarge);
    assert_eq!(
        fault(|t| t.block_count = MAX_BLOCKS as u32 + 1),
        TableError::TooLarge
    );
    assert_eq!(
        fault(|t| t.mean_factor -= 1),
        TableError::MeanFactor(0xff_ffff)
    );
    assert_eq!(fault(|t| t.bias_q8 = 1), TableError::Bias(1));
    let mut two = Table::pack(1, &[comb(1), comb(1)]).unwrap();
    two.bias_q8 = 1 << 16;
    assert_eq!(two.check(), Err(TableError::Bias(1 << 16)));
}

#[test]
fn faults_of_blocks_are_found() {
    let table = Table::pack_blocks(1, &[comb(4)]).unwrap();
    table.check().unwrap();
    assert_eq!((table.form, table.block_count), (form::BLOCKS, 21));
    faults_of_either_form(&table);
    let fault = |change: fn(&mut Table)| {
        let mut table = table.clone();
        change(&mut table);
        table.check().unwrap_err()
    };
    let split = |features, child| Block::split([10, u32::MAX, u32::MAX], features, child);
    assert_eq!(fault(|t| t.block_count = 15), TableError::Root { tree: 15 });
    assert_eq!(
        fault(|t| t.blocks[9].words[0] = 1),
        TableError::Root { tree: 9 }
    );
    for (features, child, expected) in [
        ([3; 3], 0, TableError::Shared { at: 0 }),
        ([3; 3], 12, TableError::Shared { at: 12 }),
        ([3; 3], 17, TableError::Unaligned { at: 0 }),
        ([3; 3], 20, TableError::OutOfRange { at: 0 }),
        ([ZERO_SLOT, 3, 3], 16, TableError::BadFeature { at: 0 }),
    ] {
        let mut table = table.clone();
        table.blocks[0] = split(features, child);
        assert_eq!(table.check().unwrap_err(), expected);
    }
    // A leaf that does not point to itself is a split on nothing.
    assert_eq!(
        fault(|t| t.blocks[17] = t.blocks[16]),
        TableError::BadFeature { at: 17 }
    );
    assert_eq!(fault(|t| t.steps = 0), TableError::Unreached { at: 17 });
    assert_eq!(fault(|t| t.steps = 3), TableError::OutOfRange { at: 19 });
}

#[test]
fn faults_of_the_oblivious_form_are_found() {
    let table = Table::pack(1, &[comb(5)]).unwrap();
    table.check().unwrap();
    assert_eq!((table.form, table.steps), (form::OBLIVIOUS, 2));
    // 2^5 leaves, four to a block.
    assert_eq!(table.block_count, 8);
    faults_of_either_form(&table);
    let fault = |change: fn(&mut Table)| {
        let mut table = table.clone();
        change(&mut table);
        table.check().unwrap_err()
    };
    assert_eq!(
        fault(|t| t.heads[0].leaves = 1),
        TableError::Leaves { tree: 0 }
    );
    assert_eq!(
        fault(|t| t.heads[0].leaves = u32::MAX),
        TableError::Leaves { tree: 0 }
    );
    assert_eq!(fault(|t| t.block_count = 7), TableError::Leaves { tree: 0 });
    assert_eq!(
        fault(|t| t.heads[0].tests[1].thresholds[1] = 7),
        TableError::BadTest { tree: 0, level: 5 }
    );
    assert_eq!(
        fault(|t| t.heads[0].tests[0].features |= 0xff00),
        TableError::BadTest { tree: 0, level: 1 }
    );
    assert_eq!(
        fault(|t| t.heads[0].tests[1].features |= 0xff00_0000),
        TableError::BadTest { tree: 0, level: 7 }
    );
    assert_eq!(fault(|t| t.steps = 4), TableError::TooLarge);
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
    let blocks_of = |trees: &[Vec<Node>]| {
        let table = Table::pack_blocks(1, trees).unwrap();
        table.check().unwrap();
        table.block_count
    };
    assert_eq!(blocks_of(&vec![full(8); 16]), 16 + 16 * (84 + 64));
    assert_eq!(blocks_of(&[full(12)]), 16 + 1364 + 1024);
    assert_eq!(blocks_of(&vec![full(12); 3]), 16 + 3 * (1364 + 1024));
    assert_eq!(
        Table::pack_blocks(1, &vec![full(12); 4]).unwrap_err(),
        PackError::TooManyBlocks { nodes: 4 * 8191 }
    );
    // These are oblivious too; eight of them fill the table.
    let eight = Table::pack(1, &vec![full(12); 8]).unwrap();
    eight.check().unwrap();
    assert_eq!(
        (eight.form, eight.block_count),
        (form::OBLIVIOUS, MAX_BLOCKS as u32)
    );
    assert_eq!(
        Table::pack(1, &vec![full(12); 9]).unwrap_err(),
        PackError::TooManyBlocks { nodes: 9 * 8191 }
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
