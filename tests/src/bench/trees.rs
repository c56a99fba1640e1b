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

/// Levels that are full even where the deepest are not.
const FULL_LEVELS: u32 = 10;

/// A random tree, the same for the same arguments; full up to ten levels.
///
/// A full tree of twelve would not fit the table: below the tenth level a third of the nodes go on.
/// The walk takes as many steps whichever path it is on.
pub(crate) fn grown(depth: u32, seed: u64) -> Vec<Place> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut levels = vec![0];
    let mut places = Vec::new();
    while let Some(&level) = levels.get(places.len()) {
        let full = depth <= FULL_LEVELS || level != FULL_LEVELS || places.len() % 3 == 1;
        let child = (level < depth && full).then_some(levels.len() as u32);
        if child.is_some() {
            levels.extend([level + 1, level + 1]);
        }
        places.push(Place {
            feature: rng.random_range(0..FEATURES),
            // Spread over the orders of magnitude, as features are.
            threshold: rng.random::<u32>() >> rng.random_range(0..32),
            child,
        });
    }
    places
}

/// So many trees of such a depth as treeline's table.
///
/// # Errors
///
/// They do not fit.
pub(crate) fn table((trees, depth): (u32, u32)) -> Result<Box<Table>, PackError> {
    let trees: Vec<Vec<Node>> = (0..trees)
        .map(|tree| grown(depth, u64::from(tree)).iter().map(node).collect())
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
    use super::*;

    #[test]
    fn every_forest_of_the_bench_is_sound() {
        for forest in [(1, 6), (1, 8), (1, 12), (8, 6)] {
            table(forest).unwrap().check().unwrap();
        }
    }
}
