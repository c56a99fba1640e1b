//! Whose rows teach, and whose judge.

use std::collections::{BTreeMap, BTreeSet};

use super::{WindowLimits, network_of, order};
use crate::dataset::Row;

/// The rows of a window that may teach, and of whom none may judge.
///
/// A small part of the rows hardly moves what is learned, but it can outvote all others: one message of a kilobyte that a model
/// puts behind the bulk is a hundred times slower, and a hundredth of such messages doubles the mean.
#[derive(Clone, Debug, Default)]
pub struct Heeded {
    rows: Vec<Row>,
    mute: BTreeSet<u32>,
}

impl Heeded {
    pub(super) const fn new(rows: Vec<Row>, mute: BTreeSet<u32>) -> Self {
        Self { rows, mute }
    }

    /// All that may teach, in order of time.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The same, handed over.
    pub fn into_rows(self) -> Vec<Row> {
        self.rows
    }

    /// Of `rows` those that may judge.
    pub fn judging(&self, rows: &[Row]) -> Vec<Row> {
        let heard = |row: &&Row| !self.mute.contains(&network_of(row));
        rows.iter().filter(heard).copied().collect()
    }
}

impl From<Vec<Row>> for Heeded {
    /// Everybody is heard.
    fn from(rows: Vec<Row>) -> Self {
        Self::new(rows, BTreeSet::new())
    }
}

/// So many rows, and so many messages: what judges counts messages, and short ones have few rows.
#[derive(Clone, Copy, Debug)]
struct Quota {
    rows: usize,
    messages: usize,
}

impl Quota {
    fn of(rows: &[Row]) -> Self {
        let messages: BTreeSet<_> = rows.iter().map(message).collect();
        Self {
            rows: rows.len(),
            messages: messages.len(),
        }
    }

    fn scaled(self, factor: f64) -> Self {
        let scaled = |count: usize| (count as f64 * factor) as usize;
        Self {
            rows: scaled(self.rows),
            messages: scaled(self.messages),
        }
    }

    const fn holds(self, other: Self) -> bool {
        other.rows <= self.rows && other.messages <= self.messages
    }
}

/// Rows of which no network has more than its share, if so many compete that it can be kept, or than its
/// undisputed rows; which of a network's stay is drawn by lot.
pub(super) fn thinned(rows: Vec<Row>, limits: &WindowLimits) -> Vec<Row> {
    let share = limits.network_share;
    let mut groups: BTreeMap<u32, Vec<Row>> = BTreeMap::new();
    for row in &rows {
        groups.entry(network_of(row)).or_default().push(*row);
    }
    // With fewer groups one of them must have more.
    if (groups.len() as f64) * share < 1.0 {
        return rows;
    }
    let sizes: Vec<Quota> = groups.values().map(|rows| Quota::of(rows)).collect();
    let leveled = |of: fn(&Quota) -> usize| level(&Vec::from_iter(sizes.iter().map(of)), share);
    let messages: usize = sizes.iter().map(|size| size.messages).sum();
    let undisputed_messages = limits.undisputed_rows * messages / rows.len().max(1);
    let allowed = Quota {
        rows: leveled(|size| size.rows).max(limits.undisputed_rows),
        messages: leveled(|size| size.messages).max(undisputed_messages),
    };
    if sizes.iter().all(|size| allowed.holds(*size)) {
        return rows;
    }
    (groups.into_values())
        .flat_map(|group| lot(group, allowed))
        .collect()
}

/// `known` and so much of `new` as makes `part` of both, in rows and in messages.
pub(super) fn with_newcomers(mut known: Vec<Row>, new: Vec<Row>, part: f64) -> Vec<Row> {
    let factor = part / (1.0 - part).max(1e-3);
    let allowed = Quota::of(&known).scaled(factor);
    known.append(&mut lot(new, allowed));
    known
}

/// At most so much of the rows, whole messages of them: one that has lost half its rows would judge with the weight of a
/// whole one. Networks take turns, so that none with many messages leaves others without. The same rows give the same choice, so
/// that a cycle can be repeated.
fn lot(mut rows: Vec<Row>, allowed: Quota) -> Vec<Row> {
    if allowed.holds(Quota::of(&rows)) {
        return rows;
    }
    // The flow's hash is keyed: nobody can aim at a low number.
    let number = |row: &Row| {
        let (flow, count, half) = message(row);
        (flow ^ u64::from(count) << 1 ^ u64::from(half)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    };
    rows.sort_by_key(|row| (network_of(row), number(row), order(row)));
    let mut messages: Vec<(usize, u64, &[Row])> = Vec::new();
    for of_network in rows.chunk_by(|a, b| network_of(a) == network_of(b)) {
        let drawn = of_network.chunk_by(|a, b| message(a) == message(b));
        messages.extend(
            drawn
                .enumerate()
                .map(|(turn, rows)| (turn, number(&rows[0]), rows)),
        );
    }
    messages.sort_by_key(|(turn, number, rows)| (*turn, *number, network_of(&rows[0])));
    let mut kept = Vec::new();
    for (_, _, of_message) in messages.into_iter().take(allowed.messages) {
        if kept.len() + of_message.len() > allowed.rows {
            break;
        }
        kept.extend_from_slice(of_message);
    }
    kept
}

/// The largest size to which groups can be cut so that it is at most `share` of what is left of all of them.
pub(super) fn level(sizes: &[usize], share: f64) -> usize {
    let mut sorted = sizes.to_vec();
    sorted.sort_unstable();
    let mut below = 0;
    for (index, size) in sorted.iter().enumerate() {
        // From here on all are cut to one size.
        let cut = (sorted.len() - index) as f64;
        let fits = |level: f64| level <= share * (below as f64 + cut * level) + 1e-9;
        if !fits(*size as f64) {
            // level = share * (below + cut * level), where the groups that are cut are fewer than 1 / share.
            return (share * below as f64 / (1.0 - share * cut)) as usize;
        }
        below += size;
    }
    sorted.last().copied().unwrap_or(0)
}

/// What tells messages apart.
const fn message(row: &Row) -> (u64, u32, u8) {
    (row.flow_hash, row.message, row.half)
}
