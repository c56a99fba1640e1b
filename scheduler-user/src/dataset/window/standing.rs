//! Which far networks have been here for long.

use std::collections::{BTreeMap, VecDeque};

/// Slots of time in which a network was seen before it has standing.
const SLOTS: u64 = 5;
/// Networks that are remembered at most.
const MOST_NETWORKS: usize = 1 << 16;
/// Slots after which a network with standing that was silent may be forgotten, if there are too many.
const SILENT_SLOTS: u64 = 100;
/// Slots from which the usual share of newcomers is taken.
const SHARES: usize = 30;

/// How often each far network was seen, and what part of the rows newcomers bring.
///
/// Whoever can talk to the host can make rows, and a thousand networks cost as little as one. Time is what a flood
/// can't make up: a network has standing once it was seen in five slots of time. Until then it is a newcomer.
#[derive(Debug)]
pub(super) struct Standing {
    slot_ns: u64,
    networks: BTreeMap<u32, Presence>,
    established: usize,
    slot: u64,
    /// Rows of newcomers and of all in the current slot.
    rows: [u64; 2],
    /// Share of newcomers in each of the latest slots in which somebody had standing.
    shares: VecDeque<f64>,
}

#[derive(Clone, Copy, Debug)]
struct Presence {
    slots: u64,
    last: u64,
}

impl Standing {
    /// Nobody is known; a newcomer remains one for `newcomer_ns` at least.
    pub(super) fn new(newcomer_ns: u64) -> Self {
        Self {
            slot_ns: (newcomer_ns / SLOTS).max(1),
            networks: BTreeMap::new(),
            established: 0,
            slot: 0,
            rows: [0; 2],
            shares: VecDeque::new(),
        }
    }

    /// Notes that a row of the network came.
    pub(super) fn note(&mut self, network: u32, time_ns: u64) {
        // A row that comes late counts as of now: a slot shall not count twice.
        let slot = (time_ns / self.slot_ns).max(self.slot);
        if slot > self.slot {
            self.end_slot(slot);
        }
        let first = Presence {
            slots: 0,
            last: u64::MAX,
        };
        let presence = self.networks.entry(network).or_insert(first);
        if presence.last != slot {
            presence.last = slot;
            presence.slots += 1;
            self.established += usize::from(presence.slots == SLOTS + 1);
        }
        if self.established > 0 {
            self.rows[0] += u64::from(self.is_newcomer(network));
            self.rows[1] += 1;
        }
    }

    /// Whether the network is new while others are not.
    pub(super) fn is_newcomer(&self, network: u32) -> bool {
        let has_standing = |presence: &Presence| presence.slots > SLOTS;
        self.established > 0 && !self.networks.get(&network).is_some_and(has_standing)
    }

    /// The part of the rows that newcomers usually bring: the median of recent slots, so that no flood raises it that
    /// lasts less than half of them.
    pub(super) fn usual_share(&self) -> f64 {
        let mut shares: Vec<f64> = self.shares.iter().copied().collect();
        shares.sort_unstable_by(f64::total_cmp);
        shares.get(shares.len() / 2).copied().unwrap_or(0.0)
    }

    fn end_slot(&mut self, slot: u64) {
        let [new, all] = std::mem::take(&mut self.rows);
        if all > 0 {
            self.shares.truncate(SHARES - 1);
            self.shares.push_front(new as f64 / all as f64);
        }
        self.slot = slot;
        if self.networks.len() > MOST_NETWORKS {
            // Newcomers begin anew: it costs a flood more than it costs a visitor.
            self.networks.retain(|_, presence| {
                presence.slots > SLOTS && presence.last + SILENT_SLOTS > slot
            });
            self.established = self.networks.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT_NS: u64 = 100;

    fn standing() -> Standing {
        Standing::new(SLOT_NS * SLOTS)
    }

    #[test]
    fn a_network_is_new_until_it_was_seen_for_long() {
        let mut standing = standing();
        for slot in 0..=SLOTS {
            assert!(
                !standing.is_newcomer(7),
                "nobody is new before somebody is known"
            );
            standing.note(7, slot * SLOT_NS);
        }
        assert!(!standing.is_newcomer(7) && standing.is_newcomer(8));
        for _ in 0..1000 {
            standing.note(8, SLOTS * SLOT_NS);
        }
        assert!(standing.is_newcomer(8), "many rows at once are no standing");
        for slot in SLOTS..=2 * SLOTS {
            standing.note(8, slot * SLOT_NS);
        }
        assert!(!standing.is_newcomer(8));
    }

    #[test]
    fn the_usual_share_is_not_that_of_a_short_flood() {
        let mut standing = standing();
        for slot in 0..40 {
            for visitor in 0..10 {
                // A regular brings half the rows, visitors that never return the rest.
                standing.note(1, slot * SLOT_NS);
                standing.note(1000 + slot as u32 * 10 + visitor, slot * SLOT_NS);
            }
            if (20..24).contains(&slot) {
                (0..1000).for_each(|n| standing.note(1_000_000 + n, slot * SLOT_NS));
            }
        }
        assert!((standing.usual_share() - 0.5).abs() < 0.05);
    }

    #[test]
    fn networks_without_number_are_forgotten_but_for_those_that_have_standing() {
        let mut standing = standing();
        for slot in 0..10 {
            standing.note(7, slot * SLOT_NS);
            for network in 0..20_000 {
                standing.note(1000 + slot as u32 * 20_000 + network, slot * SLOT_NS);
            }
        }
        assert!(standing.networks.len() <= MOST_NETWORKS + 40_000);
        assert!(!standing.is_newcomer(7));
    }
}
