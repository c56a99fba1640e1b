//! The walks over the tables of the active and of the watched generation.

use scheduler_common::{
    ABI_VERSION,
    counter::{Counter, Counts},
    features::Features,
    names,
    tree::{Leaf, Table},
};

use crate::{count, maps::MODEL};

/// What a model says.
pub(crate) struct Prediction {
    /// The model's generation.
    pub(crate) generation: u32,
    /// The leaf reached.
    pub(crate) leaf: Leaf,
}

/// Asks the active model; `None` if there is none, or none for this ABI.
#[inline(always)]
pub(crate) fn predict(features: &Features, counts: &mut Counts) -> Option<Prediction> {
    walk(MODEL.get_value(names::MODEL_ACTS, &0)?, features, counts)
}

/// Asks the watched model; `None` if there is none, or none for this ABI.
#[inline(always)]
pub(crate) fn predict_beside(features: &Features, counts: &mut Counts) -> Option<Prediction> {
    walk(
        MODEL.get_value(names::MODEL_IN_SHADOW, &0)?,
        features,
        counts,
    )
}

#[inline(always)]
fn walk(table: &Table, features: &Features, counts: &mut Counts) -> Option<Prediction> {
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
