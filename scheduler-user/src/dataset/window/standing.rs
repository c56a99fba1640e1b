//! Which far networks have been here for long.

use std::collections::BTreeMap;

/// Slots of time in which a network was seen before it has standing.
const SLOTS: u64 = 5;
/// Networks that are remembered at most.
const MOST_NETWORKS: usize = 1 << 16;
/// Slots after which a network with standing that was silent may be forgotten, if there are too many.
const SILENT_SLOTS: u64 = 100;
/// Slots, from the first in which somebody has standing, of which the least share of newcomers is the usual one.
const FIRST_SLOTS: u64 = 5;
/// Slots in which the usual odds of newcomers double at most, and halve: six times as long as it takes to get standing,
/// and a night.
const DOUBLING_SLOTS: f64 = 30.0;
const HALVING_SLOTS: f64 = 360.0;
/// Usual share from which it rises, lest nothing doubled stay nothing.
const LEAST_SHARE: f64 = 0.05;
/// The most that the usual share can be.
const MOST_SHARE: f64 = 0.99;

/// How often each far network was seen, and what part of the rows newcomers usually bring.
///
/// Whoever can talk to the host can make rows, and a thousand networks cost as little as one. Time is what a flood
/// can't make up: a network has standing once it was seen in more than five slots of time. Until then it is a newcomer.
///
/// What newcomers usually bring must not follow a flood either. It is the least share of the first five slots in which
/// somebody had standing, and from then on its odds rise by a fortieth a slot at most. So a flood that lasts until its
/// networks have standing has raised it by an eighth, and a host that many strangers begin to visit takes hours to heed most of
/// what they bring.
#[derive(Debug)]
pub(super) struct Standing {
    slot_ns: u64,
    networks: BTreeMap<u32, Presence>,
    established: usize,
    slot: u64,
    /// Slots that the usual share was learned from.
    learned_slots: u64,
    usual_share: f64,
}

#[derive(Clone, Copy, Debug)]
struct Presence {
    slots: u64,
    last: u64,
    /// Rows in the last of them.
    rows: u64,
}

impl Standing {
    /// Nobody is known; a newcomer remains one for `newcomer_ns` at least.
    pub(super) fn new(newcomer_ns: u64) -> Self {
        Self {
            slot_ns: (newcomer_ns / SLOTS).max(1),
            networks: BTreeMap::new(),
            established: 0,
            slot: 0,
            learned_slots: 0,
            usual_share: 0.0,
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
            rows: 0,
        };
        let presence = self.networks.entry(network).or_insert(first);
        if presence.last != slot {
            presence.last = slot;
            presence.slots += 1;
            presence.rows = 0;
            self.established += usize::from(presence.has_just_got_standing());
        }
        presence.rows += 1;
    }

    /// Whether the network is new while others are not.
    pub(super) fn is_newcomer(&self, network: u32) -> bool {
        self.established > 0
            && !self
                .networks
                .get(&network)
                .is_some_and(Presence::has_standing)
    }

    /// The part of the rows that newcomers usually bring.
    pub(super) const fn usual_share(&self) -> f64 {
        self.usual_share
    }

    fn end_slot(&mut self, next: u64) {
        if self.established > 0 {
            self.learn_usual_share();
        }
        self.slot = next;
        if self.networks.len() > MOST_NETWORKS {
            // Newcomers begin anew: it costs a flood more than it costs a visitor.
            self.networks.retain(|_, presence| {
                presence.has_standing() && presence.last + SILENT_SLOTS > next
            });
            self.established = self.networks.len();
        }
    }

    /// From the slot that ends.
    fn learn_usual_share(&mut self) {
        let seen = (self.networks.values()).filter(|presence| presence.last == self.slot);
        let (mut new, mut all) = (0, 0);
        for presence in seen {
            all += presence.rows;
            new += if presence.has_standing() {
                0
            } else {
                presence.rows
            };
        }
        if all == 0 {
            return;
        }
        let share = new as f64 / all as f64;
        self.usual_share = match self.learned_slots {
            0 => share.min(MOST_SHARE),
            1..FIRST_SLOTS => share.min(self.usual_share),
            _ => nearer(self.usual_share, share),
        };
        self.learned_slots += 1;
    }
}

impl Presence {
    const fn has_standing(&self) -> bool {
        self.slots > SLOTS
    }

    const fn has_just_got_standing(&self) -> bool {
        self.slots == SLOTS + 1
    }
}

/// A slot's step from the usual share towards `share`.
fn nearer(usual: f64, share: f64) -> f64 {
    let odds = |share: f64| {
        let share = share.clamp(LEAST_SHARE, MOST_SHARE);
        share / (1.0 - share)
    };
    let step = (odds(share) / odds(usual))
        .clamp((-1.0 / HALVING_SLOTS).exp2(), (1.0 / DOUBLING_SLOTS).exp2());
    let odds = odds(usual) * step;
    odds / (1.0 + odds)
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

    /// A slot of a regular and of so many rows of networks that never return.
    fn visited(standing: &mut Standing, slot: u64, visitors: u64) {
        for _ in 0..10 {
            standing.note(1, slot * SLOT_NS);
        }
        for visitor in 0..visitors {
            standing.note((1000 + slot * 10_000 + visitor) as u32, slot * SLOT_NS);
        }
    }

    #[test]
    fn what_is_usual_follows_no_flood_even_where_little_is_known_yet() {
        let mut standing = standing();
        (0..8).for_each(|slot| visited(&mut standing, slot, 0));
        // Ten times as much as there is, for as long as newcomers are that.
        (8..8 + SLOTS).for_each(|slot| visited(&mut standing, slot, 100));
        assert!(standing.usual_share() < 0.1, "{}", standing.usual_share());
    }

    #[test]
    fn a_host_that_has_visitors_from_the_start_heeds_them_at_once() {
        let mut standing = standing();
        for slot in 0..60 {
            // Nine of ten rows are of visitors; for a while ten times as many come.
            let crowd = if (20..24).contains(&slot) { 900 } else { 90 };
            visited(&mut standing, slot, crowd);
            let usual = standing.usual_share();
            assert!(
                slot <= SLOTS + 1 || (0.88..0.93).contains(&usual),
                "{slot}: {usual}"
            );
        }
    }

    #[test]
    fn visitors_that_keep_coming_become_usual_within_hours() {
        let mut standing = standing();
        (0..20).for_each(|slot| visited(&mut standing, slot, 0));
        let mut slots_to = |share: f64, from: u64| {
            let reached = (from..from + 1000).find(|slot| {
                visited(&mut standing, *slot, 200);
                standing.usual_share() > share
            });
            reached.unwrap() - from
        };
        assert!((90..140).contains(&slots_to(0.5, 20)));
        assert!(slots_to(0.9, 2000) < 140);
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
