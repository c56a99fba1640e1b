//! From the features to a leaf, in both forms.

use super::{
    BLOCK_WORDS, Block, CHILD_SHIFT, FEATURE_BITS, GROUP_TESTS, LANES, Leaf, MAX_BLOCKS, MAX_STEPS,
    MAX_TREES, MEAN_SHIFT, Table, Tests, form,
};
use crate::features::{Features, SLOTS};

/// Between the places that a step leads to, in bytes: blocks, or in the last step leaves.
const BLOCK: u64 = size_of::<Block>() as u64;
const WORD: u64 = size_of::<u32>() as u64;

/// Sums over the trees of the two halves of a leaf.
#[derive(Default)]
struct Sums {
    log2: u64,
    sigma: u64,
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, leaf: Leaf) {
        self.log2 += u64::from(leaf.log2_q8);
        self.sigma += u64::from(leaf.sigma_q8);
    }
}

impl Table {
    /// Mean of the trees less the bias, at least 0; `None` for a table without trees.
    #[inline(always)]
    pub fn walk(&self, features: &Features) -> Option<Leaf> {
        if self.trees == 0 {
            return None;
        }
        Some(if self.form == form::OBLIVIOUS {
            self.walk_oblivious(features)
        } else if self.trees == 1 {
            self.walk_one(features)
        } else {
            self.walk_all(features)
        })
    }

    #[inline(always)]
    fn walk_one(&self, features: &Features) -> Leaf {
        let mut at = 0;
        for step in 1..MAX_STEPS {
            if step >= self.steps {
                break;
            }
            at = self.step::<BLOCK>(at, features);
        }
        self.leaf(self.step::<WORD>(at, features))
    }

    /// The loop ends at what the table says; the verifier joins its ways out, for a place is a number of any size to it.
    #[inline(always)]
    fn walk_all(&self, features: &Features) -> Leaf {
        let mut sums = Sums::default();
        for quad in 0..(MAX_TREES / LANES) {
            let first = quad * LANES;
            if first as u32 >= self.trees {
                break;
            }
            let root = first as u64 * BLOCK;
            let [mut a, mut b, mut c, mut d] =
                [root, root + BLOCK, root + 2 * BLOCK, root + 3 * BLOCK];
            for step in 1..MAX_STEPS {
                if step >= self.steps {
                    break;
                }
                a = self.step::<BLOCK>(a, features);
                b = self.step::<BLOCK>(b, features);
                c = self.step::<BLOCK>(c, features);
                d = self.step::<BLOCK>(d, features);
            }
            for at in [a, b, c, d] {
                sums.add(self.leaf(self.step::<WORD>(at, features)));
            }
        }
        self.mean(&sums)
    }

    /// Nothing in a tree waits for anything but the features, nor one tree for another.
    #[inline(always)]
    fn walk_oblivious(&self, features: &Features) -> Leaf {
        let mut sums = Sums::default();
        for (tree, head) in self.heads.iter().enumerate() {
            if tree as u32 >= self.trees {
                break;
            }
            let [first, second, third] = &head.tests;
            let mut number = u64::from(head.leaves) + first.outcomes(features);
            if self.steps > 1 {
                number += second.outcomes(features) << GROUP_TESTS;
            }
            if self.steps > 2 {
                number += third.outcomes(features) << (2 * GROUP_TESTS);
            }
            sums.add(self.leaf(number * WORD));
        }
        if self.trees == 1 {
            return Leaf {
                log2_q8: sums.log2 as u16,
                sigma_q8: sums.sigma as u16,
            };
        }
        self.mean(&sums)
    }

    #[inline(always)]
    const fn mean(&self, sums: &Sums) -> Leaf {
        let log2 = sums.log2.wrapping_mul(self.mean_factor as u64) >> MEAN_SHIFT;
        let sigma = sums.sigma.wrapping_mul(self.mean_factor as u64) >> MEAN_SHIFT;
        Leaf {
            log2_q8: log2.saturating_sub(self.bias_q8 as u64) as u16,
            sigma_q8: sigma as u16,
        }
    }

    /// The leaf at byte `at` of the blocks.
    #[inline(always)]
    const fn leaf(&self, at: u64) -> Leaf {
        let word = (at / WORD) as usize & (BLOCK_WORDS - 1);
        Leaf::unpack(self.block(at).words[word])
    }

    /// From the block at byte `at` of the blocks to the place that the features lead to, likewise in bytes.
    #[inline(always)]
    fn step<const WIDTH: u64>(&self, at: u64, features: &Features) -> u64 {
        let [upper, left, right, link] = self.block(at).words.map(u64::from);
        let value = |place: u32| {
            u64::from(features[(link >> (place * FEATURE_BITS)) as usize & (SLOTS - 1)])
        };
        // The high half of a 64-bit difference of two 32-bit numbers is all ones if the value is the
        // greater, and zeroes otherwise; LLVM keeps this form without a branch. The shift is a logical one
        // and a shift chooses, for want of a mask: verifiers follow both values of a mask at each `and`.
        let right_of_upper = upper.wrapping_sub(value(0)) >> 32 & 1;
        let left = left.wrapping_sub(value(1)) >> 32 & WIDTH;
        let right = right.wrapping_sub(value(2)) >> 32 & (2 * WIDTH);
        let lower = (left | right) >> right_of_upper & WIDTH;
        (link >> CHILD_SHIFT) * BLOCK + right_of_upper * (2 * WIDTH) + lower
    }

    #[inline(always)]
    const fn block(&self, at: u64) -> &Block {
        &self.blocks[(at / BLOCK) as usize & (MAX_BLOCKS - 1)]
    }
}

impl Tests {
    /// A bit a question, the first in the lowest place: 1 where the value is above the threshold.
    #[inline(always)]
    fn outcomes(&self, features: &Features) -> u64 {
        let packed = u64::from(self.features);
        let mut outcomes = 0;
        for (test, threshold) in self.thresholds.into_iter().enumerate() {
            let value = features[(packed >> (test * 8)) as usize & (SLOTS - 1)];
            let above = u64::from(threshold).wrapping_sub(u64::from(value)) >> 32;
            outcomes |= above & (1 << test);
        }
        outcomes
    }
}
