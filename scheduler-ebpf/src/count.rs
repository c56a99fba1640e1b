//! Per-CPU counters.

use scheduler_common::counter::{Counter, GENERATION_SLOTS, Skip};

use crate::maps::{COUNTERS, GENERATIONS};

/// Adds one to `counter` on this CPU.
#[inline(always)]
pub(crate) fn one(counter: Counter) {
    at(counter as u32);
}

/// Counts a packet that passes untouched.
#[inline(always)]
pub(crate) fn skip(skip: Skip) {
    at(skip as u32);
}

#[inline(always)]
fn at(index: u32) {
    if let Some(value) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: the pointer is to this CPU's own value, and programs are not re-entered on a CPU.
        unsafe {
            *value += 1;
        }
    }
}

/// Counts a packet that `generation` has classified.
#[inline(always)]
pub(crate) fn generation(generation: u32) {
    let Some(value) = GENERATIONS.get_ptr_mut(generation & (GENERATION_SLOTS - 1)) else {
        return;
    };
    // SAFETY: as in `at`.
    let count = unsafe { &mut *value };
    if count.generation != generation {
        count.generation = generation;
        count.packets = 0;
    }
    count.packets += 1;
}
