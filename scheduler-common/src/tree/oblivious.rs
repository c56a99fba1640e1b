//! Trees that ask one question a level → the table's oblivious form.

use super::{BLOCK_WORDS, GROUP_TESTS, Head, Leaf, MAX_WORDS, Table, form, pack::Node};

/// Trees of which each asks the same question of all nodes of a level.
pub(super) struct Oblivious(Vec<Levels>);

struct Levels {
    /// Feature and threshold of each level.
    tests: Vec<(u8, u32)>,
    /// By the outcomes, that of the first level in the lowest place.
    leaves: Vec<Leaf>,
}

impl Oblivious {
    /// `None` if there are none, a level has two questions, or the leaves are more than the table has words.
    ///
    /// The trees must be such, and of a depth that the table takes.
    pub(super) fn of(trees: &[Vec<Node>]) -> Option<Self> {
        let tests: Vec<_> = trees
            .iter()
            .map(|nodes| tests(nodes))
            .collect::<Option<_>>()?;
        let words: usize = tests.iter().map(|tests| 1 << tests.len()).sum();
        if trees.is_empty() || words > MAX_WORDS {
            return None;
        }
        let levels = trees.iter().zip(tests).map(|(nodes, tests)| Levels {
            leaves: (0..1u32 << tests.len())
                .map(|outcomes| leaf(nodes, outcomes))
                .collect(),
            tests,
        });
        Some(Self(levels.collect()))
    }

    /// Fills in heads and leaves; they fit, as was found.
    pub(super) fn place(self, mut table: Box<Table>) -> Box<Table> {
        table.form = form::OBLIVIOUS;
        table.steps = table.depth.div_ceil(GROUP_TESTS as u32);
        let mut words = 0;
        for (tree, levels) in self.0.into_iter().enumerate() {
            let head = &mut table.heads[tree];
            *head = Head::EMPTY;
            head.leaves = words as u32;
            for (level, (feature, threshold)) in levels.tests.into_iter().enumerate() {
                let group = &mut head.tests[level / GROUP_TESTS];
                let place = level % GROUP_TESTS;
                group.features &= !(0xff << (8 * place));
                group.features |= u32::from(feature) << (8 * place);
                group.thresholds[place] = threshold;
            }
            for leaf in levels.leaves {
                table.blocks[words / BLOCK_WORDS].words[words % BLOCK_WORDS] = leaf.pack();
                words += 1;
            }
        }
        table.block_count = words.div_ceil(BLOCK_WORDS) as u32;
        table
    }
}

/// The question of each level, if there is but one.
fn tests(nodes: &[Node]) -> Option<Vec<(u8, u32)>> {
    let mut tests: Vec<(u8, u32)> = Vec::new();
    let mut levels = vec![None; nodes.len()];
    *levels.first_mut()? = Some(0);
    for (index, node) in nodes.iter().enumerate() {
        let Node::Split {
            feature,
            threshold,
            at_most,
            above,
        } = *node
        else {
            continue;
        };
        let Some(level) = levels[index] else { continue };
        if level == tests.len() {
            tests.push((feature, threshold));
        }
        if tests[level] != (feature, threshold) {
            return None;
        }
        for child in [at_most, above] {
            let known = levels.get_mut(child as usize)?.replace(level + 1);
            if known.is_some_and(|known| known != level + 1) {
                return None;
            }
        }
    }
    Some(tests)
}

/// Where these outcomes lead; a path may end early, whatever the others' outcomes.
fn leaf(nodes: &[Node], outcomes: u32) -> Leaf {
    let (mut index, mut left) = (0, outcomes);
    loop {
        match nodes[index as usize] {
            Node::Leaf(leaf) => return leaf,
            Node::Split { at_most, above, .. } => {
                index = if left & 1 == 0 { at_most } else { above };
                left >>= 1;
            }
        }
    }
}
