//! Whether what comes, or what a model makes of it, has changed.
//!
//! Two questions, a message at a time. Does the acting model err more than it did when it was new? Page's cumulative sum
//! answers ("Continuous inspection schemes", 1954), with Hinkley's estimate of when it began (1970). Is the traffic of
//! another kind? The population stability index of single features does, which holds recent messages against those
//! before. Crates for it exist, but each brings a whole library of online learning with the few lines that are needed here,
//! and none tells when the change began.

use std::collections::BTreeMap;

use scheduler_common::features::Feature;

use crate::dataset::Row;

/// Messages that what is usual is learned from.
const USUAL_MESSAGES: usize = 200;
/// Change of the mean error that does not matter, in standard deviations.
const SLACK: f64 = 0.5;
/// One message counts for so many standard deviations at most: sizes have heavy tails.
const MOST: f64 = 3.0;
/// Sum of deviations from which it is no chance: for independent errors once in some million messages.
const ALARM: f64 = 20.0;
/// Ranges that a feature's usual values are divided into, about as many messages in each.
const RANGES: usize = 10;
/// Index from which a feature's distribution counts as another one: "major shift" in the usual reading.
const SHIFT: f64 = 0.5;

/// Features that tell what traffic is. Ages, counts and histories grow as a connection does, and tell nothing.
const KINDS: [Feature; 4] = [
    Feature::ServicePort,
    Feature::Protocol,
    Feature::PacketBytes,
    Feature::RequestBytes,
];

/// [`Alarm::of`] where the acting model's error has changed.
pub const ERROR: &str = "error";

/// A change that is no chance.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    /// What has changed: [`ERROR`], or the name of a feature.
    pub of: &'static str,
    /// When it began, monotonic clock.
    pub since_ns: u64,
    /// How it shows, in one sentence.
    pub reason: String,
    /// The far network that more than half of the change is owed to, if it is an error's and there is such a one.
    pub owed_to: Option<u32>,
}

/// Watches for both kinds of change.
#[derive(Debug, Default)]
pub struct Drift {
    errors: Errors,
    kinds: Kinds,
    generation: u32,
}

impl Drift {
    /// Takes in the rows of one message; `acting` is the generation whose error counts, 0 = none.
    ///
    /// After an alarm what is usual is learned anew. If it was owed to one network the others are asked first, for as many messages,
    /// whether they changed as well.
    pub fn see(&mut self, rows: &[Row], acting: u32) -> Option<Alarm> {
        let first = rows.first()?;
        if self.generation != acting {
            self.generation = acting;
            self.errors = Errors::default();
        }
        let alarm = self
            .kinds
            .see(first)
            .or_else(|| self.errors.see(first, mean_error(rows, acting)?));
        match alarm.as_ref().map(|alarm| alarm.owed_to) {
            Some(Some(network)) if self.errors.set_aside.is_none() => self.errors.without(network),
            Some(_) => self.errors = Errors::default(),
            None => return None,
        }
        self.kinds = Kinds::default();
        alarm
    }
}

/// How far `acting` was off on the rows that it judged, in factors of two.
fn mean_error(rows: &[Row], acting: u32) -> Option<f64> {
    let judged = rows
        .iter()
        .filter(|row| acting != 0 && row.generation == acting);
    let errors = judged.map(|row| (row.target() - f64::from(row.predicted_log2_q8) / 256.0).abs());
    let (sum, count) = errors.fold((0.0, 0u32), |(sum, count), error| (sum + error, count + 1));
    (count > 0).then(|| sum / f64::from(count))
}

/// Page's cumulative sum over the errors.
#[derive(Debug, Default)]
struct Errors {
    usual: Vec<f64>,
    mean: f64,
    deviation: f64,
    sum: f64,
    since_ns: u64,
    /// What each far network added to the sum since then.
    by_network: BTreeMap<u32, f64>,
    /// One that has given its alarm, and for how many messages of anybody it is not heard.
    set_aside: Option<(u32, usize)>,
}

impl Errors {
    fn see(&mut self, row: &Row, error: f64) -> Option<Alarm> {
        if let Some((network, messages)) = &mut self.set_aside {
            *messages -= 1;
            if *messages == 0 {
                *self = Self::default();
            } else if *network == row.network_hash {
                return None;
            }
        }
        if self.usual.len() < USUAL_MESSAGES {
            self.usual.push(error);
            let count = self.usual.len() as f64;
            self.mean = self.usual.iter().sum::<f64>() / count;
            let squares = self.usual.iter().map(|it| (it - self.mean).powi(2));
            // A tenth of a factor of two is noise, however even the errors were.
            self.deviation = (squares.sum::<f64>() / count).sqrt().max(0.1);
            return None;
        }
        let excess = ((error - self.mean) / self.deviation).clamp(-MOST, MOST) - SLACK;
        if self.sum <= 0.0 {
            // Hinkley: the change begins where the sum last stood at its lowest.
            self.since_ns = row.time_ns;
            self.by_network.clear();
        }
        self.sum = (self.sum + excess).max(0.0);
        *self.by_network.entry(row.network_hash).or_default() += excess;
        (self.sum > ALARM).then(|| Alarm {
            of: ERROR,
            since_ns: self.since_ns,
            reason: format!(
                "the model's error grew beyond its usual {:.2} ± {:.2} factors of two a message",
                self.mean, self.deviation
            ),
            owed_to: self.owed_to(),
        })
    }

    /// Goes on from nought with what is usual, and without one network for a while.
    fn without(&mut self, network: u32) {
        (self.sum, self.set_aside) = (0.0, Some((network, USUAL_MESSAGES)));
        self.by_network.clear();
    }

    /// The network without which not even half of the sum would be there.
    fn owed_to(&self) -> Option<u32> {
        let loudest = (self.by_network.iter()).max_by(|a, b| a.1.total_cmp(b.1));
        loudest
            .filter(|(_, added)| **added > self.sum / 2.0)
            .map(|(network, _)| *network)
    }
}

/// Recent messages beside those before, by feature.
#[derive(Debug, Default)]
struct Kinds {
    usual: Vec<[u32; KINDS.len()]>,
    recent: Vec<[u32; KINDS.len()]>,
    since_ns: u64,
}

impl Kinds {
    fn see(&mut self, row: &Row) -> Option<Alarm> {
        let values = KINDS.map(|feature| row.feature(feature));
        if self.usual.len() < USUAL_MESSAGES {
            self.usual.push(values);
            return None;
        }
        if self.recent.is_empty() {
            self.since_ns = row.time_ns;
        }
        self.recent.push(values);
        if self.recent.len() < USUAL_MESSAGES {
            return None;
        }
        let recent = std::mem::take(&mut self.recent);
        let index = |place: usize| {
            let of = |rows: &[[u32; KINDS.len()]]| rows.iter().map(|row| row[place]).collect();
            stability_index(of(&self.usual), &Vec::<u32>::from_iter(of(&recent)))
        };
        let (place, worst) = (0..KINDS.len())
            .map(|place| (place, index(place)))
            .max_by(|a, b| a.1.total_cmp(&b.1))?;
        (worst > SHIFT).then(|| Alarm {
            of: KINDS[place].name(),
            since_ns: self.since_ns,
            reason: format!(
                "{} is distributed otherwise than before: stability index {worst:.2}, {SHIFT} is the limit",
                KINDS[place].name()
            ),
            owed_to: None,
        })
    }
}

/// Population stability index: the sum over ranges of (q - p) ln(q / p), with half a message more in each.
fn stability_index(mut usual: Vec<u32>, recent: &[u32]) -> f64 {
    usual.sort_unstable();
    let mut ends: Vec<u32> = (1..RANGES)
        .map(|range| usual[range * usual.len() / RANGES])
        .collect();
    ends.dedup();
    let shares = |values: &[u32]| {
        let mut counts = vec![0.5; ends.len() + 1];
        for value in values {
            // A value that makes up much of the usual ones has a range of its own.
            counts[ends.partition_point(|end| end < value)] += 1.0;
        }
        let all: f64 = counts.iter().sum();
        counts.iter().map(|count| count / all).collect::<Vec<f64>>()
    };
    let pairs = shares(&usual).into_iter().zip(shares(recent));
    pairs.map(|(p, q)| (q - p) * (q / p).ln()).sum()
}

#[cfg(test)]
mod tests {
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::dataset::samples;

    /// A message whose model was off by so many factors of two.
    fn message(time_ns: u64, port: u32, error: f64) -> Row {
        let mut row = samples::row(time_ns, time_ns, port);
        row.generation = 3;
        row.predicted_log2_q8 = ((row.target() + error) * 256.0) as u32;
        row
    }

    /// A little of everything, so that what is usual has a spread.
    fn ordinary(random: &mut StdRng) -> (u32, f64) {
        let port = [22, 80, 443, 5201][random.random_range(0..4usize)];
        (port, random.random_range(0.0..2.0))
    }

    fn run(seed: u64, change: impl Fn(u64, (u32, f64)) -> (u32, f64)) -> Option<(u64, Alarm)> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut drift = Drift::default();
        (0..20_000).find_map(|time| {
            let (port, error) = change(time, ordinary(&mut random));
            let alarm = drift.see(&[message(time, port, error)], 3)?;
            Some((time, alarm))
        })
    }

    #[test]
    fn what_stays_as_it_was_gives_no_alarm() {
        for seed in 0..5 {
            assert_eq!(run(seed, |_, usual| usual), None);
        }
    }

    #[test]
    fn a_growing_error_is_told_soon_and_when_it_began() {
        for seed in 0..5 {
            let (time, alarm) = run(seed, |time, (port, error)| {
                (port, if time < 3000 { error } else { error + 1.5 })
            })
            .unwrap();
            assert_eq!(alarm.of, "error");
            assert!((3000..3030).contains(&time), "{time}");
            assert!((2980..3010).contains(&alarm.since_ns), "{alarm:?}");
        }
    }

    #[test]
    fn another_kind_of_traffic_is_told_by_its_feature() {
        let (time, alarm) = run(1, |time, (port, error)| {
            (if time < 3000 { port } else { 8080 }, error)
        })
        .unwrap();
        assert_eq!(alarm.of, "service_port");
        assert!((3000..3400).contains(&time), "{time}");
        assert!(alarm.since_ns >= 2800, "{alarm:?}");
    }

    /// Four networks in turn, of which those `that_err` do from some time on; to whom the alarms are owed.
    fn owed(that_err: &[u32]) -> Vec<Option<u32>> {
        let mut random = StdRng::seed_from_u64(1);
        let mut drift = Drift::default();
        let alarms = (0..3100).filter_map(|time| {
            let (port, error) = ordinary(&mut random);
            let network = (time % 4) as u32;
            let errs = time >= 3000 && that_err.contains(&network);
            let mut row = message(time, port, if errs { error + 8.0 } else { error });
            row.network_hash = network;
            Some(drift.see(&[row], 3)?.owed_to)
        });
        alarms.collect()
    }

    #[test]
    fn an_alarm_names_the_network_that_it_is_owed_to_alone() {
        assert_eq!(owed(&[2]), [Some(2)], "once, for it is set aside");
        assert_eq!(owed(&[0, 1, 2, 3]).first(), Some(&None));
    }

    #[test]
    fn behind_the_alarm_of_one_network_that_of_the_others_is_heard() {
        let mut drift = Drift::default();
        let mut random = StdRng::seed_from_u64(1);
        let mut see = |network: u32, more: f64| {
            let (port, error) = ordinary(&mut random);
            let mut row = message(1, port, error + more);
            row.network_hash = network;
            drift.see(&[row], 3)
        };
        for time in 0..3000 {
            assert_eq!(see(time % 4, 0.0), None);
        }
        let first = (0..30).find_map(|_| see(2, 8.0)).unwrap();
        assert_eq!(first.owed_to, Some(2));
        let second = (0..60).find_map(|time| see(time % 4, 8.0)).unwrap();
        assert_eq!((second.of, second.owed_to), (ERROR, None));
    }

    #[test]
    fn only_the_acting_models_error_counts_and_from_when_it_acts() {
        let mut drift = Drift::default();
        for time in 0..5000 {
            let error = if time < 2000 { 0.1 } else { 5.0 };
            let acting = if time < 2000 { 3 } else { 4 };
            let mut row = message(time, 80, error);
            row.generation = acting;
            assert_eq!(drift.see(&[row], acting), None);
            assert_eq!(drift.see(&[message(time, 80, 9.0)], 0), None);
        }
    }

    #[test]
    fn the_index_is_that_of_the_book() {
        let same = Vec::from_iter(0..200);
        assert!(stability_index(same.clone(), &same).abs() < 1e-9);
        // All at one value of two, with half a message more in each range, of which one is empty.
        let halves = Vec::from_iter((0..200).map(|it| it % 2));
        let [p, q] =
            [[100.5, 100.5, 0.5], [200.5, 0.5, 0.5]].map(|counts| counts.map(|it: f64| it / 201.5));
        let index: f64 = (0..3)
            .map(|it| (q[it] - p[it]) * (q[it] / p[it]).ln())
            .sum();
        assert!((stability_index(halves, &[0; 200]) - index).abs() < 1e-9);
    }
}
