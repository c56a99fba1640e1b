//! Rows by chance, for tests.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::features::Feature;

use crate::dataset::{Row, samples};

/// Rows whose features repeat (`kinds` values each, some of them huge) and whose size hangs on
/// two of them.
pub(super) fn random_rows(count: usize, kinds: u32, seed: u64) -> Vec<Row> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count as u64)
        .map(|time| {
            let mut row = samples::row(time, time, 443);
            for value in &mut row.features[..Feature::ALL.len()] {
                *value = random.random_range(0..kinds);
            }
            row.features[14] = row.features[14].wrapping_mul(0x3fff_fff1);
            let log2 = row.features[2] % 7 + row.features[14] % 5;
            row.remaining_bytes = (1 << log2) + random.random_range(0..3u64);
            row
        })
        .collect()
}
