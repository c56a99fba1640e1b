//! What the kernel programs count and somebody should hear of who reads the log and no metrics.
//!
//! The programs log nothing of it themselves: it would be on the way of packets. The rules are those of the alerts in `contrib/prometheus`.

use std::time::{Duration, Instant};

use scheduler_common::counter::Counter;
use tracing::{debug, warn};

use super::Learner;
use crate::datapath::Datapath;

const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The same is said no more often.
const SAID_EVERY: Duration = Duration::from_secs(3600);
/// Of fewer new flows the share that displaces others says nothing.
const FEWEST_FLOWS: u64 = 1000;
/// By chance alone it is this much where the table is four times as large as it must be.
const USUAL_SHARE: f64 = 0.02;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    /// Such a share of the new flows took the place of one that was alive.
    TableTooSmall(f64),
    /// So many packets met no settings, or a model's table that the programs do not take.
    OfOtherVersions(u64),
}

/// Counts of the programs, from look to look.
#[derive(Debug)]
pub(super) struct Pressure {
    next_look: Instant,
    /// New flows, those of them that displaced one, and packets that the programs were not fit for.
    before: Option<[u64; 3]>,
    /// When which trouble was last said.
    said: [Option<Instant>; 2],
}

impl Pressure {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next_look: now,
            before: None,
            said: [None; 2],
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        now >= self.next_look
    }

    /// What is to be said.
    fn look(&mut self, now: Instant, counts: [u64; 3]) -> Vec<Trouble> {
        self.next_look = now + LOOK_EVERY;
        let before = *self.before.get_or_insert(counts);
        let grown: [u64; 3] = std::array::from_fn(|at| counts[at].saturating_sub(before[at]));
        let [created, evicted, unfit] = grown;
        let mut troubles = Vec::new();
        if created >= FEWEST_FLOWS {
            let share = evicted as f64 / created as f64;
            if share > USUAL_SHARE {
                troubles.push((0, Trouble::TableTooSmall(share)));
            }
            self.before = Some(counts);
        }
        if unfit > 0 {
            troubles.push((1, Trouble::OfOtherVersions(unfit)));
            if let Some(before) = &mut self.before {
                before[2] = counts[2];
            }
        }
        troubles.retain(|(kind, _)| {
            let is_new = self.said[*kind].is_none_or(|said| now >= said + SAID_EVERY);
            if is_new {
                self.said[*kind] = Some(now);
            }
            is_new
        });
        troubles.into_iter().map(|(_, trouble)| trouble).collect()
    }
}

impl Learner {
    /// Says what the programs count, if it is time to look.
    pub(super) fn feel_pressure(&mut self, datapath: &Datapath) {
        let now = Instant::now();
        if !self.pressure.is_due(now) {
            return;
        }
        let counters = match datapath.counters() {
            Ok(counters) => counters,
            Err(error) => {
                // The pins may be going at this moment; the next look at them ends the agent.
                debug!(%error, "no telling what the programs count");
                return;
            }
        };
        let sum = |wanted: &[Counter]| {
            let wanted = counters
                .iter()
                .filter(|(counter, _)| wanted.contains(counter));
            wanted.map(|(_, count)| count).sum()
        };
        let counts = [
            sum(&[Counter::FlowsCreated]),
            sum(&[Counter::FlowsEvicted]),
            sum(&[Counter::NoSettings, Counter::TableRefused]),
        ];
        for trouble in self.pressure.look(now, counts) {
            match trouble {
                Trouble::TableTooSmall(share) => warn!(
                    what = "flows lose their place while they are alive, and are scheduled as if they had just begun",
                    why = format!("{:.0} % of the new flows find no free one", share * 100.0),
                    remedy = "take the interfaces down and up with four times the flows that are alive at once in --flows",
                    "the flow table is too small"
                ),
                Trouble::OfOtherVersions(packets) => warn!(
                    packets,
                    what = "these packets passed without a band, or without their model",
                    why = "programs and maps are of different versions",
                    remedy =
                        self.instance.command("down --all") + " and a new start load them together",
                    "the programs do not understand what they were given"
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_too_small_is_said_once_an_hour() {
        let start = Instant::now();
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let mut pressure = Pressure::new(start);
        assert!(pressure.is_due(start));
        // What was before the agent is none of its time.
        assert!(pressure.look(start, [9000, 9000, 9]).is_empty());
        assert!(!pressure.is_due(at(0)) && pressure.is_due(at(1)));
        // Too few to tell, then enough of them together.
        assert!(pressure.look(at(1), [9600, 9060, 9]).is_empty());
        let told = pressure.look(at(2), [10_000, 9100, 9]);
        assert_eq!(told, [Trouble::TableTooSmall(0.1)]);
        assert!(pressure.look(at(3), [11_000, 9300, 9]).is_empty());
        let told = pressure.look(at(63), [13_000, 9400, 9]);
        assert_eq!(told, [Trouble::TableTooSmall(0.05)]);
        // By chance.
        assert!(pressure.look(at(200), [23_000, 9500, 9]).is_empty());
    }

    #[test]
    fn packets_that_the_programs_are_not_fit_for_are_said_at_once() {
        let start = Instant::now();
        let mut pressure = Pressure::new(start);
        assert!(pressure.look(start, [0, 0, 4]).is_empty());
        let later = start + LOOK_EVERY;
        assert_eq!(
            pressure.look(later, [5, 0, 6]),
            [Trouble::OfOtherVersions(2)]
        );
        assert!(pressure.look(later + LOOK_EVERY, [5, 0, 6]).is_empty());
    }
}
