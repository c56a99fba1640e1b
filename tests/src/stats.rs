//! Turns outcomes into completion times and slowdowns by class.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    mix::{MEDIUM_BYTES, SMALL_BYTES, Service, wire_bytes},
    traffic::{Base, Exchange, Outcome},
    workload::FIRST_PORT,
};

/// Size class of a message.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Up to [`SMALL_BYTES`].
    Small,
    /// Up to [`MEDIUM_BYTES`].
    Medium,
    /// Above that.
    Large,
    /// Every message.
    All,
}

impl Class {
    /// In the order of tables.
    pub const ALL: [Self; 4] = [Self::Small, Self::Medium, Self::Large, Self::All];

    /// Class of a reply of that length.
    #[must_use]
    pub const fn of(reply_bytes: u64) -> Self {
        Self::within(reply_bytes, (SMALL_BYTES, MEDIUM_BYTES))
    }

    /// Name for tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
            Self::All => "all",
        }
    }

    /// Class of a reply of that length, where small and medium end at `bounds`.
    #[must_use]
    pub const fn within(reply_bytes: u64, bounds: (u64, u64)) -> Self {
        if reply_bytes <= bounds.0 {
            Self::Small
        } else if reply_bytes <= bounds.1 {
            Self::Medium
        } else {
            Self::Large
        }
    }

    const fn holds(self, reply_bytes: u64) -> bool {
        matches!(self, Self::All) || self as u8 == Self::of(reply_bytes) as u8
    }
}

/// A finished message.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    /// Place of the service that sent it, in the order of the ports.
    pub service: usize,
    /// When it started, from the start of the run.
    pub at: Duration,
    /// Its length.
    pub reply_bytes: u64,
    /// Completion time.
    pub fct_ms: f64,
    /// Completion time over that of the idle link.
    pub slowdown: f64,
}

impl Observation {
    /// Judges an outcome; `None` if it did not finish.
    #[must_use]
    pub fn of<A: Exchange>(outcome: &Outcome<A>, base: &Base, rate_bps: u64) -> Option<Self> {
        let arrival = &outcome.arrival;
        let fct = outcome.completion?;
        let line = arrival.line();
        let reply_bytes = arrival.reply_bytes();
        let wire_s = wire_bytes(reply_bytes) as f64 * 8.0 / rate_bps as f64;
        let base = base.of(line.kept);
        Some(Self {
            service: usize::from(line.port.saturating_sub(FIRST_PORT)),
            at: arrival.at(),
            reply_bytes,
            fct_ms: millis(fct),
            slowdown: fct.as_secs_f64() / (base.as_secs_f64() + wire_s),
        })
    }
}

/// Mean, percentiles and number of values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Arithmetic mean; zero without values.
    pub mean: f64,
    /// Median by nearest rank; zero without values.
    pub p50: f64,
    /// 99th percentile by nearest rank; zero without values.
    pub p99: f64,
    /// How many values.
    pub count: usize,
}

impl Figures {
    /// Sums up some values.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count.max(1) as f64;
        let at = |percent: usize| {
            let rank = (count * percent).div_ceil(100).max(1);
            values.get(rank - 1).copied().unwrap_or(0.0)
        };
        Self {
            mean,
            p50: at(50),
            p99: at(99),
            count,
        }
    }
}

/// Figures of some observations by class and by service.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Completion times in milliseconds by class.
    pub fct_ms: BTreeMap<Class, Figures>,
    /// Slowdown of all messages.
    pub slowdown: Figures,
    /// Slowdown by class.
    pub slowdown_by_class: BTreeMap<Class, Figures>,
    /// Completion times in milliseconds by service.
    pub fct_ms_by_service: BTreeMap<Service, Figures>,
}

impl Summary {
    /// Sums up observations, of one run or of several.
    #[must_use]
    pub fn of(observations: &[Observation]) -> Self {
        let class = |class: Class, value: fn(&Observation) -> f64| {
            let chosen = observations
                .iter()
                .filter(|seen| class.holds(seen.reply_bytes));
            (class, Figures::of(chosen.map(value)))
        };
        let fct_ms = Class::ALL
            .map(|name| class(name, |seen| seen.fct_ms))
            .into();
        let slowdown_by_class = Class::ALL
            .map(|name| class(name, |seen| seen.slowdown))
            .into();
        let fct_ms_by_service = Service::ALL
            .map(|service| {
                let place = service.index();
                let chosen = observations.iter().filter(|seen| seen.service == place);
                (service, Figures::of(chosen.map(|seen| seen.fct_ms)))
            })
            .into();
        let slowdown = Figures::of(observations.iter().map(|seen| seen.slowdown));
        Self {
            fct_ms,
            slowdown,
            slowdown_by_class,
            fct_ms_by_service,
        }
    }

    /// Mean completion time of a class.
    #[must_use]
    pub fn mean_ms(&self, class: Class) -> f64 {
        self.fct_ms.get(&class).map_or(0.0, |figures| figures.mean)
    }
}

/// A gap smaller than this share of the floor is within what two runs of one scheme differ by.
const LEAST_GAP: f64 = 0.05;

/// Share of the way from `floor` to `best` that `reached` has come; `None` if the way is too short
/// for its parts to mean anything.
#[must_use]
pub fn gap_closed(floor: f64, reached: f64, best: f64) -> Option<f64> {
    let gap = floor - best;
    (gap > LEAST_GAP * floor && gap.is_finite()).then(|| (floor - reached) / gap)
}

/// A duration in milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::Arrival;

    #[test]
    fn the_99th_percentile_is_the_nearest_rank() {
        let figures = Figures::of((1..=200).map(f64::from));
        assert_eq!(
            figures,
            Figures {
                mean: 100.5,
                p50: 100.0,
                p99: 198.0,
                count: 200
            }
        );
        assert_eq!(
            Figures::of([3.0]),
            Figures {
                mean: 3.0,
                p50: 3.0,
                p99: 3.0,
                count: 1
            }
        );
        assert_eq!(Figures::of([]), Figures::default());
    }

    #[test]
    fn classes_end_at_their_bounds() {
        assert_eq!(Class::of(100_000), Class::Small);
        assert_eq!(Class::of(100_001), Class::Medium);
        assert_eq!(Class::of(1_000_000), Class::Medium);
        assert_eq!(Class::of(1_000_001), Class::Large);
    }

    #[test]
    fn slowdown_is_one_when_only_the_link_takes_time() {
        let base = Base {
            kept: Duration::from_micros(200),
            fresh: Duration::from_micros(300),
        };
        let arrival = Arrival {
            at: Duration::ZERO,
            service: Service::Bulk,
            request_bytes: 100,
            reply_bytes: 1_448_000,
            kept: false,
        };
        let outcome = Outcome {
            arrival,
            completion: Some(Duration::from_nanos(300_000 + 1_514_000 * 80)),
            received_bytes: arrival.reply_bytes,
            lateness: Duration::ZERO,
            failed: false,
        };
        let seen = Observation::of(&outcome, &base, 100_000_000).unwrap();
        assert!((seen.slowdown - 1.0).abs() < 1e-9, "{seen:?}");
        assert!((seen.fct_ms - 121.42).abs() < 1e-9, "{seen:?}");
    }

    #[test]
    fn the_gap_is_undefined_unless_the_oracle_beats_aging() {
        assert_eq!(gap_closed(30.0, 25.0, 20.0), Some(0.5));
        assert_eq!(gap_closed(20.0, 25.0, 20.0), None);
        assert_eq!(gap_closed(19.0, 25.0, 20.0), None);
        assert_eq!(gap_closed(20.5, 25.0, 20.0), None);
    }
}
