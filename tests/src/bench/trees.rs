//! One random forest in the forms that treeline and the peers read.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::tree::{Leaf, Node, PackError, Table};

/// Features that splits test: the peers have twelve.
const FEATURES: u8 = 12;

/// The peers' tree.
pub(crate) const PEER_DEPTH: u32 = 8;

/// A split or a leaf.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) feature: u8,
    pub(crate) threshold: u32,
    /// The first of two neighbouring children; a leaf has none.
    pub(crate) child: Option<u32>,
}

/// What treeline is to walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forest {
    trees: u32,
    depth: u32,
    oblivious: bool,
}

impl Forest {
    /// Full trees whose splits have nothing in common.
    pub(crate) const fn of(trees: u32, depth: u32) -> Self {
        Self {
            trees,
            depth,
            oblivious: false,
        }
    }

    /// Trees of one test a level.
    pub(crate) const fn oblivious(trees: u32, depth: u32) -> Self {
        Self {
            oblivious: true,
            ..Self::of(trees, depth)
        }
    }
}

/// A full random tree, the same for the same arguments.
pub(crate) fn grown(depth: u32, seed: u64) -> Vec<Place> {
    let mut rng = StdRng::seed_from_u64(seed);
    let splits = (1u32 << depth) - 1;
    let mut place = |number: u32| Place {
        feature: rng.random_range(0..FEATURES),
        // Spread over the orders of magnitude, as features are.
        threshold: rng.random::<u32>() >> rng.random_range(0..32),
        child: (number < splits).then_some(2 * number + 1),
    };
    (0..=2 * splits).map(&mut place).collect()
}

/// The same with the tests of each level's first node in all of them.
fn oblivious(depth: u32, seed: u64) -> Vec<Place> {
    let mut places = grown(depth, seed);
    for level in 0..depth {
        let first = (1 << level) - 1;
        let Place {
            feature, threshold, ..
        } = places[first];
        for place in &mut places[first..2 * first + 1] {
            *place = Place {
                feature,
                threshold,
                ..*place
            };
        }
    }
    places
}

/// Treeline's table of them.
///
/// # Errors
///
/// They do not fit.
pub(crate) fn table(forest: Forest) -> Result<Box<Table>, PackError> {
    let tree = if forest.oblivious { oblivious } else { grown };
    let trees: Vec<Vec<Node>> = (0..forest.trees)
        .map(|seed| {
            let places = tree(forest.depth, u64::from(seed));
            places.iter().map(node).collect()
        })
        .collect();
    Table::pack(1, &trees)
}

fn node(place: &Place) -> Node {
    match place.child {
        Some(child) => Node::Split {
            feature: place.feature,
            threshold: place.threshold,
            at_most: child,
            above: child + 1,
        },
        None => Node::Leaf(Leaf {
            log2_q8: (place.threshold % (26 << 8)) as u16,
            sigma_q8: 10,
        }),
    }
}

#[cfg(test)]
mod tests {
    use scheduler_common::tree::form;

    use super::*;

    #[test]
    fn every_forest_of_the_bench_is_sound_and_of_its_form() {
        for (trees, depth) in [(1, 6), (1, 8), (1, 12), (8, 6)] {
            for (forest, expected) in [
                (Forest::of(trees, depth), form::BLOCKS),
                (Forest::oblivious(trees, depth), form::OBLIVIOUS),
            ] {
                let table = table(forest).unwrap();
                table.check().unwrap();
                assert_eq!((table.form, table.depth), (expected, depth));
            }
        }
    }
}
