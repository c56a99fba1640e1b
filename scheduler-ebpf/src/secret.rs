//! The secret of this load, in read-only data: no look-up leads there.

use scheduler_common::flow::{Hashing, MULTIPLIERS};

/// Set before the programs are loaded. No numbers that a program has elsewhere, for LLVM merges equal constants.
#[unsafe(no_mangle)]
static SECRET: Hashing = Hashing {
    multipliers: [0x5eed_5eed_0000_0001; MULTIPLIERS],
    sample_key: [0x5eed_5eed_0000_0002, 0x5eed_5eed_0000_0003],
    set_mask: 0xffff_fffa,
    _pad: 0,
};

/// The secret in force.
#[inline(always)]
pub(crate) fn get() -> &'static Hashing {
    let mut pointer: *const Hashing = &raw const SECRET;
    let pointer = &raw mut pointer;
    // Through the stack, or the compiler would take the values above for those in force.
    // SAFETY: the pointer is to the local variable.
    let secret = unsafe { pointer.read_volatile() };
    // SAFETY: it is that of the static.
    unsafe { &*secret }
}
