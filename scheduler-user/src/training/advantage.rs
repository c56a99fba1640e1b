//! By how much one way of giving bands beats another, and how surely.

use rand::{SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};

use super::{
    evaluate::mean,
    forecast::{Arena, LOADS},
};
use crate::simulate::{CLASSES, Job, Paths, Tally};

/// Redraws of the messages; each is replayed at every load under every contender.
const REDRAWS: u64 = 24;
/// Runs of messages that a redraw is made of.
const BLOCKS: usize = 40;
/// Messages of a class in a redraw below which its slowdown is left out.
const MIN_CLASS_MESSAGES: u64 = 10;

/// What a contender wins over another.
///
/// The measure is the mean, over loads, of the logarithm of the ratio in mean slowdown and of that in mean
/// completion time: 0.1 is about ten per cent in both. Mean and error come from redraws of the messages in blocks,
/// each replayed anew under both, so the error holds what other messages, another order of arrival and other
/// queues would have changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Advantage {
    /// Mean gain, as a logarithm of a ratio; negative if it loses.
    pub gain: f64,
    /// Standard error of the same.
    pub standard_error: f64,
    /// Change of mean slowdown in the class of size (small, medium, large) that fares worst, as a logarithm of a ratio;
    /// above 0 it is slower.
    pub worst_class: f64,
    /// Standard error of the same.
    #[serde(default)]
    pub worst_class_error: f64,
}

/// Sums of one contender, by redraw and load.
pub(super) type Tallies = Vec<[Tally; LOADS.len()]>;

/// Replays `contenders` on the same redraws; the order of the answer is theirs.
pub(super) fn contest(arena: &Arena, contenders: &[&Paths], seed: u64) -> Vec<Tallies> {
    contest_without(arena, contenders, seed, None)
}

/// The same, where what the messages of one network met is not counted.
pub(super) fn contest_without(
    arena: &Arena,
    contenders: &[&Paths],
    seed: u64,
    unheard: Option<u32>,
) -> Vec<Tallies> {
    let redraws: Vec<u64> = (0..REDRAWS)
        .map(|redraw| seed.wrapping_add(redraw))
        .collect();
    // Each redraw has a seed of its own, so the number of threads changes nothing but the time.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let of_seeds: Vec<Vec<[Tally; LOADS.len()]>> = std::thread::scope(|scope| {
        let shares = redraws.chunks(redraws.len().div_ceil(threads));
        let running: Vec<_> = shares
            .map(|seeds| {
                scope.spawn(|| {
                    let replayed = seeds
                        .iter()
                        .map(|seed| redraw(arena, contenders, *seed, unheard));
                    replayed.collect::<Vec<_>>()
                })
            })
            .collect();
        (running.into_iter())
            .flat_map(|share| share.join().expect("a replay has no reason to panic"))
            .collect()
    });
    (0..contenders.len())
        .map(|contender| of_seeds.iter().map(|tallies| tallies[contender]).collect())
        .collect()
}

/// One redraw under every contender.
fn redraw(
    arena: &Arena,
    contenders: &[&Paths],
    seed: u64,
    unheard: Option<u32>,
) -> Vec<[Tally; LOADS.len()]> {
    let mut random = StdRng::seed_from_u64(seed);
    let places = arena.traffic.redrawn(BLOCKS, &mut random);
    let jobs = LOADS.map(|load| arena.traffic.jobs_of(places.iter().copied(), load));
    (contenders.iter())
        .map(|paths| {
            let network = |job: &Job| arena.traffic.messages()[job.message].network;
            let heard = |job: &Job| unheard.is_none_or(|it| it != network(job));
            let tally = |jobs| Tally::of_those(jobs, &arena.took(jobs, paths), &arena.link, heard);
            std::array::from_fn(|load| tally(&jobs[load]))
        })
        .collect()
}

impl Advantage {
    /// Of the contender with `own` tallies over that with `other` ones, of the same contest.
    pub(super) fn of(own: &Tallies, other: &Tallies) -> Self {
        let gains: Vec<f64> = own
            .iter()
            .zip(other)
            .map(|(own, other)| gain(own, other))
            .collect();
        let (gain, standard_error) = mean_and_error(&gains);
        let (worst_class, worst_class_error) = (0..CLASSES)
            .filter_map(|class| class_change(own, other, class))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .unwrap_or_default();
        Self {
            gain,
            standard_error,
            worst_class,
            worst_class_error,
        }
    }

    /// Whether a class of size is slower by more than `most`, by so many standard errors.
    ///
    /// It is the worst of several figures, each of few messages, so by itself it is too high.
    pub fn slows_a_class(&self, standard_errors: f64, most: f64) -> bool {
        self.worst_class - standard_errors * self.worst_class_error > most
    }

    /// Whether the gain is above `least` and above so many standard errors.
    pub fn is_sure(&self, standard_errors: f64, least: f64) -> bool {
        self.gain > least && self.gain > standard_errors * self.standard_error
    }
}

fn gain(own: &[Tally; LOADS.len()], other: &[Tally; LOADS.len()]) -> f64 {
    mean(own.iter().zip(other).map(|(own, other)| {
        let slowdown = (other.mean_slowdown() / own.mean_slowdown()).ln();
        let fct = (other.mean_fct_ns() / own.mean_fct_ns()).ln();
        f64::midpoint(slowdown, fct)
    }))
}

/// Mean over redraws, and the deviation of one redraw: what other messages would have changed.
fn mean_and_error(values: &[f64]) -> (f64, f64) {
    let middle = mean(values.iter().copied());
    let squares = values.iter().map(|it| (it - middle).powi(2)).sum::<f64>();
    let variance = squares / values.len().saturating_sub(1).max(1) as f64;
    (middle, variance.sqrt())
}

/// Change of a class over redraws with its error, at the load where it is worst.
fn class_change(own: &Tallies, other: &Tallies, class: usize) -> Option<(f64, f64)> {
    let at_load = |load: usize| {
        let changes: Vec<f64> = (own.iter().zip(other))
            .map(|(own, other)| (&own[load], &other[load]))
            .filter(|(own, _)| own.messages[class] >= MIN_CLASS_MESSAGES)
            .map(|(own, other)| (own.class_slowdown(class) / other.class_slowdown(class)).ln())
            .collect();
        (!changes.is_empty()).then(|| mean_and_error(&changes))
    };
    (0..LOADS.len())
        .filter_map(at_load)
        .max_by(|a, b| a.0.total_cmp(&b.0))
}

#[cfg(test)]
mod tests {
    use super::{
        super::mixes::{Hangs, host},
        *,
    };
    use crate::{
        dataset::Row,
        simulate::{Bottleneck, Traffic, cdf::Cdf},
    };

    fn arena() -> Arena {
        let cdf = Cdf::pareto(1.2, (5_000.0, 30e6));
        let rows: Vec<Row> = host(&cdf, Hangs::Nowhere, (500, 0.0, 1));
        Arena::new(Traffic::of(&rows), Bottleneck::of_rate(100_000_000))
    }

    #[test]
    fn nobody_wins_against_himself() {
        let arena = arena();
        let tallies = contest(&arena, &[&arena.aging, &arena.aging], 1);
        let none = Advantage::of(&tallies[0], &tallies[1]);
        assert_eq!(none, Advantage::default());
        assert!(!none.is_sure(0.0, 0.0), "no gain is no gain, however sure");
    }

    #[test]
    fn what_one_wins_the_other_loses() {
        let arena = arena();
        let perfect = Paths::of_verdicts(&arena.traffic.sized(), &arena.link.settings, |row| {
            Some(row.remaining_bytes)
        });
        let tallies = contest(&arena, &[&perfect, &arena.aging], 1);
        let won = Advantage::of(&tallies[0], &tallies[1]);
        let lost = Advantage::of(&tallies[1], &tallies[0]);
        assert!(won.gain > 0.05 && won.is_sure(2.0, 0.01), "{won:?}");
        assert!((won.gain + lost.gain).abs() < 1e-9, "{won:?} {lost:?}");
        assert!(
            !lost.is_sure(0.0, 0.0) && lost.worst_class > 0.0,
            "{lost:?}"
        );
    }
}
