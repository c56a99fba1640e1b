//! Any bytes as a tree table are refused, or walked to an end that they foretell.
#![no_main]
#![forbid(unsafe_code)]

use libfuzzer_sys::fuzz_target;
use scheduler_common::{
    features::{Features, SLOTS, ZERO_SLOT},
    tree::{MAX_DEPTH, MAX_TREES, Table},
};
use zerocopy::{FromBytes as _, IntoBytes as _};

const FEATURES_BYTES: usize = size_of::<Features>();

/// Features first, then the table's own bytes; what is not given is an empty table's.
fn parts(bytes: &[u8]) -> Option<(Features, Box<Table>)> {
    let (words, rest) = bytes.split_at_checked(FEATURES_BYTES)?;
    let mut features = <[u32; SLOTS]>::read_from_bytes(words).ok()?;
    features[usize::from(ZERO_SLOT)] = 0;
    let mut table = Table::empty();
    let given = rest.len().min(size_of::<Table>());
    table.as_mut_bytes()[..given].copy_from_slice(&rest[..given]);
    Some((features, table))
}

fuzz_target!(|bytes: &[u8]| {
    let Some((features, table)) = parts(bytes) else {
        return;
    };
    let checked = table.check();
    // Ends without a panic, whatever the check says: the kernel program has no other guard.
    let leaf = table.walk(&features);
    assert_eq!(leaf.is_some(), table.trees > 0);
    if checked.is_ok() {
        assert!(table.trees as usize <= MAX_TREES && table.depth <= MAX_DEPTH);
    }
});
