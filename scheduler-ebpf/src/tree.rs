//! The walk over the table of the active generation.

use scheduler_common::{
    ABI_VERSION,
    counter::{Counter, Counts},
    features::Features,
    tree::{Leaf, Table},
};

use crate::{count, maps::MODEL};

/// What the active model says.
pub(crate) struct Prediction {
    /// The model's generation.
    pub(crate) generation: u32,
    /// The leaf reached.
    pub(crate) leaf: Leaf,
}

/// Asks the active model; `None` if there is none, or none for this ABI.
#[inline(always)]
pub(crate) fn predict(features: &Features, counts: &mut Counts) -> Option<Prediction> {
    let table: &Table = MODEL.get_value(0, &0)?;
    if table.abi_version != ABI_VERSION {
        count::one(counts, Counter::TableRefused);
        return None;
    }
    let leaf = table.walk(features)?;
    Some(Prediction {
        generation: table.generation,
        leaf,
    })
}
