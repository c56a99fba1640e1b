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

/// What the models say of one packet; it stands in map memory, so that the verifier forgets which of them there were.
pub(crate) struct Answers {
    /// Generation of the active model, 0 = none.
    pub(crate) generation: u32,
    /// Its prediction.
    pub(crate) log2_q8: u32,
    /// Generation of the watched model, 0 = none.
    pub(crate) beside_generation: u32,
    /// Its prediction.
    pub(crate) beside_log2_q8: u32,
    /// The band that this alone would give.
    pub(crate) beside_band: u32,
}

impl Answers {
    #[inline(always)]
    pub(crate) const fn clear(&mut self) {
        self.generation = 0;
        self.log2_q8 = 0;
        self.beside_generation = 0;
        self.beside_log2_q8 = 0;
        self.beside_band = 0;
    }

    /// The same, but that nothing is known of its values: else the verifier would follow each answer there can be
    /// through all that comes behind.
    #[inline(always)]
    pub(crate) fn joined(&mut self) -> &mut Self {
        let mut pointer: *mut Self = self;
        let pointer = &raw mut pointer;
        // SAFETY: the pointer is to the local variable.
        let answers = unsafe { pointer.read_volatile() };
        // SAFETY: it was made from a reference that is not used any more.
        unsafe { &mut *answers }
    }
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
