//! The walks over the tables of the active and of the watched generation.

use scheduler_common::{
    ABI_VERSION,
    counter::{Counter, Counts},
    features::Features,
    names,
    tree::{Leaf, Table},
};

use crate::{count, maps::MODEL};

/// What is asked of the models at one decision point, and what they say.
///
/// It stands in map memory and is read through [`Answers::joined`], so that the verifier forgets which of it there is: else
/// it would follow each kind of question and of answer through both walks and all that comes behind.
pub(crate) struct Answers {
    /// 1 if the active model's answer can change the message's band.
    pub(crate) matters: u8,
    /// 1 if the flow is sampled.
    pub(crate) sampled: u8,
    /// 1 if there is an active model.
    pub(crate) is_there: u8,
    /// Explicit padding.
    _pad: u8,
    /// Its generation, 0 = none.
    pub(crate) generation: u32,
    /// Its leaf's prediction.
    pub(crate) log2_q8: u32,
    /// Generation of the watched model, 0 = none.
    pub(crate) beside_generation: u32,
    /// Its leaf's prediction.
    pub(crate) beside_log2_q8: u32,
}

impl Answers {
    /// Nobody has answered yet.
    #[inline(always)]
    pub(crate) const fn begin(&mut self, matters: bool, sampled: bool) {
        *self = Self {
            matters: matters as u8,
            sampled: sampled as u8,
            is_there: 0,
            _pad: 0,
            generation: 0,
            log2_q8: 0,
            beside_generation: 0,
            beside_log2_q8: 0,
        };
    }

    /// The same, of which nothing is known any more.
    #[inline(always)]
    pub(crate) fn joined(&mut self) -> &mut Self {
        let mut pointer: *mut Self = self;
        let pointer = &raw mut pointer;
        // SAFETY: the pointer is to the local variable.
        let answers = unsafe { pointer.read_volatile() };
        // SAFETY: it was made from a reference that is not used any more.
        unsafe { &mut *answers }
    }

    /// The active model's leaf, but for its spread.
    #[inline(always)]
    pub(crate) const fn own(&self) -> Leaf {
        leaf(self.log2_q8)
    }

    /// The watched model's leaf, likewise.
    #[inline(always)]
    pub(crate) const fn beside(&self) -> Leaf {
        leaf(self.beside_log2_q8)
    }
}

#[inline(always)]
const fn leaf(log2_q8: u32) -> Leaf {
    Leaf {
        log2_q8: log2_q8 as u16,
        sigma_q8: 0,
    }
}

/// What a model says.
pub(crate) struct Prediction {
    /// The model's generation.
    pub(crate) generation: u32,
    /// The leaf reached.
    pub(crate) leaf: Leaf,
}

/// Asks the active model.
#[inline(always)]
pub(crate) fn ask(features: &Features, answers: &mut Answers, counts: &mut Counts) {
    if let Some(prediction) = predict(features, counts) {
        answers.is_there = 1;
        answers.generation = prediction.generation;
        answers.log2_q8 = u32::from(prediction.leaf.log2_q8);
    }
}

/// Asks the watched model.
#[inline(always)]
pub(crate) fn ask_beside(features: &Features, answers: &mut Answers, counts: &mut Counts) {
    let Some(table) = MODEL.get_value(names::MODEL_IN_SHADOW, &0) else {
        return;
    };
    if let Some(prediction) = walk(table, features, counts) {
        answers.beside_generation = prediction.generation;
        answers.beside_log2_q8 = u32::from(prediction.leaf.log2_q8);
    }
}

/// Asks the active model; `None` if there is none, or none for this ABI.
#[inline(always)]
pub(crate) fn predict(features: &Features, counts: &mut Counts) -> Option<Prediction> {
    walk(MODEL.get_value(names::MODEL_ACTS, &0)?, features, counts)
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
