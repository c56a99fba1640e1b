//! What this program counts on this CPU.

use scheduler_common::counter::{Counter, Counts, GENERATION_SLOTS, Skip};

/// Adds one to `counter`.
#[inline(always)]
pub(crate) fn one(counts: &mut Counts, counter: Counter) {
    counts.counters[counter as usize] += 1;
}

/// Counts a packet that passes untouched.
#[inline(always)]
pub(crate) fn skip(counts: &mut Counts, skip: Skip) {
    if let Some(count) = counts.counters.get_mut(skip as usize) {
        *count += 1;
    }
}

/// Counts a packet that the generation of `slot` has classified.
#[inline(always)]
pub(crate) fn generation(counts: &mut Counts, slot: u8) {
    let slot = usize::from(slot) & (GENERATION_SLOTS as usize - 1);
    counts.generations[slot].packets += 1;
}

/// Gives the generation its slot, whose last owner is forgotten.
///
/// What a CPU has counted before it meets a decision of its own is the new owner's if the slot had none here; else it goes
/// with the last owner's: where a slot is used again, a few packets of each CPU are in no count.
#[inline(always)]
pub(crate) fn own_slot(counts: &mut Counts, generation: u32) -> u8 {
    let slot = generation as usize & (GENERATION_SLOTS as usize - 1);
    let count = &mut counts.generations[slot];
    if count.generation != generation {
        if count.generation != 0 {
            count.packets = 0;
        }
        count.generation = generation;
    }
    slot as u8
}
