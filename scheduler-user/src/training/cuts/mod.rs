//! Where bands are cut on this host, searched in the closed form of the queue.
//!
//! A descent over one cut at a time, and over the first bytes, from several starts: what messages out of the whole window may expect at three
//! loads ([`expected`]), for a replay of few large ones has its own luck in it, and a search would find that. It draws
//! nothing at random and looks at most [`MOST_LOOKS`] times at [`MOST_MESSAGES`] messages, so it takes a known time.
//! What is found has to hold on later messages, as they came: the judge sees to that.

#[cfg(test)]
mod choices;

use scheduler_common::class::{BANDS, FIRST_BYTES};

use super::{
    JudgeLimits,
    advantage::{Advantage, contest},
    evaluate::{InKernel, Predictor, mean},
    forecast::{Arena, LOADS},
};
use crate::{
    dataset::Row,
    model::{CompileError, Model, Thresholds, compile},
    simulate::{
        Bottleneck, Expected, Guessed, Job, Paths, Tally, Traffic, Weighed, banded, expected,
    },
};

/// Messages that one look takes in at most, out of all: the latest alone may be those of one busy service.
const MOST_MESSAGES: usize = 4000;
/// Messages below which nothing is searched: what stands then stays, and all first bytes on top.
const LEAST_MESSAGES: usize = 200;
/// Looks that a search takes at most.
const MOST_LOOKS: usize = 480;
/// Factors that cuts are moved by, in turn.
const STEPS: [f64; 4] = [2.5, 1.6, 1.25, 1.1];
/// A step is taken only for so much better a score, a logarithm of a ratio.
const LEAST_STEP: f64 = 0.0005;
/// What stands stays unless something is better by this: the cuts of aging shall not wander.
const LEAST_CHANGE: f64 = 0.01;
/// The same of a model, which brings its own: before it leaves those in force, and before its guess counts from the first
/// packet on.
const LEAST_OWN_CHANGE: f64 = 0.002;

/// Shares of the messages that count as short, each with all shorter ones.
const SHORT_SHARES: [f64; 3] = [0.5, 0.8, 0.95];
/// What it costs that short messages take longer than under aging, as a multiple of that ratio's logarithm: more than all
/// others could win by it.
const SHORT_WEIGHT: f64 = 2.0;

/// A model with the cuts that suit it on these rows, and those that would suit aging there.
///
/// # Errors
/// The model does not fit the kernel's table.
pub fn fit_cuts(model: Model, train: &[Row], limits: &JudgeLimits) -> Result<Model, CompileError> {
    let predictor = InKernel(compile(&model)?);
    let ground = Ground::of(train, limits.link);
    let in_force = Thresholds::from(&limits.link.settings);
    let aging = ground.for_aging(limits.aging);
    let own = ground.for_model(&predictor, (in_force, aging));
    Ok(Model {
        thresholds: own,
        aging_thresholds: Some(aging),
        ..model
    })
}

/// What other cuts are worth to aging.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recut {
    /// The cuts.
    pub thresholds: Thresholds,
    /// What they win over those in force, on rows that they were not searched on.
    pub advantage: Advantage,
}

/// Whether aging surely gains by `thresholds` over the cuts in force ([`JudgeLimits::aging`]); `None` if not.
pub fn recut(thresholds: Thresholds, held_out: &[Row], limits: &JudgeLimits) -> Option<Recut> {
    let traffic = Traffic::of(held_out).latest(limits.max_messages);
    if thresholds == limits.aging || traffic.messages().len() < limits.min_messages {
        return None;
    }
    let arena = Arena::fitted(traffic, limits.link, &[limits.aging]);
    let paths = arena.aging_paths(&thresholds);
    let tallies = contest(&arena, &[&paths, &arena.aging], limits.seed);
    let advantage = Advantage::of(&tallies[0], &tallies[1]);
    let is_better = advantage.is_sure(limits.sure, limits.min_gain)
        && !advantage.slows_a_class(limits.sure, limits.max_class_loss);
    is_better.then_some(Recut {
        thresholds,
        advantage,
    })
}

/// Messages that are looked at under many cuts.
struct Ground {
    traffic: Traffic,
    link: Bottleneck,
    messages: Vec<Weighed>,
    /// Up to which messages are short.
    short_bytes: [f64; SHORT_SHARES.len()],
    /// The largest of all.
    largest: f64,
    /// Cuts that follow from the sizes alone, of all.
    known: Vec<[u32; BANDS - 1]>,
}

/// Mean times of short messages, at each load, that are not to be exceeded.
type Owed = [[f64; SHORT_SHARES.len()]; LOADS.len()];
/// Of aging, which owes nobody anything.
const NOTHING_OWED: Owed = [[f64::INFINITY; SHORT_SHARES.len()]; LOADS.len()];

impl Ground {
    fn of(rows: &[Row], link: Bottleneck) -> Self {
        let all = Traffic::of(rows);
        let mut sizes: Vec<u64> = all.messages().iter().map(|message| message.bytes).collect();
        sizes.sort_unstable();
        let bound = |share: f64| sizes.get((sizes.len() as f64 * share) as usize);
        let short_bytes = SHORT_SHARES.map(|share| bound(share).copied().unwrap_or(0) as f64);
        let known = distribution_cuts(&all);
        let (traffic, weights) = all.thinned(MOST_MESSAGES);
        let weighed = traffic.messages().iter().zip(weights);
        Self {
            messages: weighed
                .map(|(message, weight)| Weighed {
                    bytes: message.bytes as f64,
                    weight,
                })
                .collect(),
            short_bytes,
            largest: sizes.last().copied().unwrap_or(1) as f64,
            known,
            link: link.under(&traffic),
            traffic,
        }
    }

    fn for_aging(&self, in_force: Thresholds) -> Thresholds {
        if self.traffic.messages().len() < LEAST_MESSAGES {
            return in_force;
        }
        let guessed = Guessed::of(&self.traffic.sized(), |_| None);
        self.changed((&guessed, &NOTHING_OWED), in_force, LEAST_CHANGE)
            .0
    }

    /// The cuts of a model, where these are in force and those are what aging would have.
    fn for_model(
        &self,
        predictor: &impl Predictor,
        (in_force, aging): (Thresholds, Thresholds),
    ) -> Thresholds {
        let guess = |row: &Row| Some(predictor.bytes_to_come(row));
        let guessed = Guessed::of(&self.traffic.sized(), guess);
        let with = |first_bytes: u32| Thresholds {
            cuts_bytes: in_force.cuts_bytes,
            first_bytes,
        };
        if self.traffic.messages().len() < LEAST_MESSAGES {
            return with(FIRST_BYTES);
        }
        let unguessed = Guessed::of(&self.traffic.sized(), |_| None);
        let owed = self.expected(&unguessed, &aging).map(|of| of.short_ns);
        let search = (&guessed, &owed);
        // None is no number that a factor leads to, and has its own best cuts.
        let (safe, trusting) = std::thread::scope(|scope| {
            let own = |first_bytes| self.changed(search, with(first_bytes), LEAST_OWN_CHANGE);
            let trusting = scope.spawn(move || own(0));
            let safe = own(FIRST_BYTES);
            let trusting = trusting.join();
            (safe, trusting.expect("a search has no reason to panic"))
        });
        if trusting.1 < safe.1 - LEAST_OWN_CHANGE {
            trusting.0
        } else {
            safe.0
        }
    }

    /// What a search finds, or what stands if that is hardly worse.
    fn changed(
        &self,
        search: (&Guessed, &Owed),
        in_force: Thresholds,
        least_change: f64,
    ) -> (Thresholds, f64) {
        let stands = self.cost(search, &in_force);
        let (found, score) = self.search(search, &in_force);
        if score < stands - least_change {
            (found, score)
        } else {
            (in_force, stands)
        }
    }

    /// The last band is left to what is larger than all that has ended, and keeps what stands apart from it: transfers that do not end are
    /// not among the messages that are looked at, and share their band with whatever is cut into it.
    fn least_last_cut(&self, in_force: &Thresholds) -> u32 {
        let last = in_force.cuts_bytes.last().copied().unwrap_or(0);
        last.max(self.largest as u32)
    }

    fn expected(
        &self,
        guessed: &Guessed,
        thresholds: &Thresholds,
    ) -> [Expected<{ SHORT_SHARES.len() }>; LOADS.len()] {
        let paths = guessed.paths(&thresholds.within(self.link.settings));
        expected(
            (&self.messages, &self.short_bytes),
            &paths,
            &self.link,
            LOADS,
        )
    }

    fn cost(&self, (guessed, owed): (&Guessed, &Owed), thresholds: &Thresholds) -> f64 {
        cost(&self.expected(guessed, thresholds), owed, SHORT_WEIGHT)
    }

    /// The best cuts that a descent finds.
    fn search(&self, search: (&Guessed, &Owed), in_force: &Thresholds) -> (Thresholds, f64) {
        let first_bytes = in_force.first_bytes;
        let least_last = self.least_last_cut(in_force);
        let known = self.known.iter().copied();
        let starts = known
            .chain([in_force.cuts_bytes, Thresholds::default().cuts_bytes])
            .map(|cuts_bytes| Thresholds {
                cuts_bytes,
                first_bytes,
            })
            .map(|start| with_last(start, least_last));
        let mut looks = 0;
        let mut look = |thresholds: &Thresholds| {
            looks += 1;
            (looks <= MOST_LOOKS).then(|| self.cost(search, thresholds))
        };
        let (mut at, mut least) = (*in_force, f64::INFINITY);
        for start in starts {
            match look(&start) {
                Some(score) if score < least => (at, least) = (start, score),
                _ => {}
            }
        }
        descend((at, least), (self.largest, least_last), look)
    }
}

/// Moves one cut at a time for as long as that helps, until `look` tells no more scores. The last cut stays at `least_last` at least.
fn descend(
    (mut at, mut least): (Thresholds, f64),
    (largest, least_last): (f64, u32),
    mut look: impl FnMut(&Thresholds) -> Option<f64>,
) -> (Thresholds, f64) {
    for moves in std::iter::once(settlings()).chain(STEPS.map(steps)) {
        loop {
            let before = least;
            for step in &moves {
                let moved = with_last(step.of(&at, largest), least_last);
                let Some(score) = look(&moved) else {
                    return (at, least);
                };
                if score < least - LEAST_STEP {
                    (at, least) = (moved, score);
                }
            }
            if least > before - LEAST_STEP {
                break;
            }
        }
    }
    (at, least)
}

/// Mean over loads of the logarithms of expected slowdown and completion time, and what short messages pay: less is better.
fn cost(of_loads: &[Expected<{ SHORT_SHARES.len() }>], owed: &Owed, short_weight: f64) -> f64 {
    mean(of_loads.iter().zip(owed).map(|(of, owed)| {
        let shorts = of.short_ns.iter().zip(owed);
        let ratios = shorts.map(|(short, owed)| short / owed);
        let paid = ratios.fold(1.0, f64::max).ln();
        short_weight.mul_add(paid, f64::midpoint(of.slowdown.ln(), of.fct_ns.ln()))
    }))
}

/// Mean over loads of the logarithms of mean slowdown and mean completion time: less is better.
pub(super) fn score(jobs: &[Vec<Job>], paths: &Paths, link: &Bottleneck) -> f64 {
    mean(jobs.iter().map(|jobs| {
        let took = banded(jobs, paths, link);
        let tally = Tally::of(jobs, &took, link);
        f64::midpoint(tally.mean_slowdown().ln(), tally.mean_fct_ns().ln())
    }))
}

/// Cuts that follow from the sizes alone: at equal shares of the bytes, of the messages, and at equal ratios.
pub(super) fn distribution_cuts(traffic: &Traffic) -> Vec<[u32; BANDS - 1]> {
    let mut sizes: Vec<f64> = (traffic.messages().iter())
        .map(|message| message.bytes as f64)
        .collect();
    sizes.sort_by(f64::total_cmp);
    let Some(largest) = sizes.last().copied() else {
        return Vec::new();
    };
    let at = |share: f64| sizes[((sizes.len() - 1) as f64 * share) as usize];
    let total: f64 = sizes.iter().sum();
    let mut sum = 0.0;
    let below: Vec<f64> = (sizes.iter())
        .map(|size| {
            sum += size;
            sum / total
        })
        .collect();
    let of_bytes = |share: f64| {
        let place = below.partition_point(|below| *below < share);
        sizes[place.min(sizes.len() - 1)]
    };
    let ranks: [f64; BANDS - 1] = std::array::from_fn(|cut| (cut + 1) as f64 / BANDS as f64);
    let rising = |from: f64| ranks.map(|rank| from * (largest / 2.0 / from).powf(rank));
    [
        ranks.map(of_bytes),
        ranks.map(at),
        rising(at(0.3)),
        rising(at(0.7)),
    ]
    .map(ascending)
    .to_vec()
}

/// One change of the cuts or the first bytes.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// All cuts by a factor.
    All(f64),
    /// One cut by a factor.
    One(usize, f64),
    /// The first bytes by a factor.
    First(f64),
    /// One cut to the middle of a gap between the others: step by step it would have to pass worse places.
    Settle { cut: usize, gap: usize },
}

impl Move {
    fn of(self, at: &Thresholds, largest: f64) -> Thresholds {
        let mut cuts = at.cuts_bytes.map(f64::from);
        let mut first_bytes = f64::from(at.first_bytes);
        match self {
            Self::All(factor) => cuts = cuts.map(|cut| cut * factor),
            Self::One(cut, factor) => cuts[cut] *= factor,
            Self::First(factor) => first_bytes *= factor,
            Self::Settle { cut, gap } => {
                // The gaps of the others, the first from a quarter of the least, the last to the largest message.
                let others = |place: usize| cuts[place + usize::from(place >= cut)];
                let from = gap.checked_sub(1).map_or_else(|| others(0) / 4.0, others);
                let to = if gap < cuts.len() - 1 {
                    others(gap)
                } else {
                    largest
                };
                cuts[cut] = (from * to.max(from)).sqrt();
            }
        }
        Thresholds {
            cuts_bytes: ascending(cuts),
            first_bytes: first_bytes as u32,
        }
    }
}

/// With the last cut at `least_bytes` at least.
fn with_last(mut thresholds: Thresholds, least_bytes: u32) -> Thresholds {
    if let Some(last) = thresholds.cuts_bytes.last_mut() {
        *last = least_bytes.max(*last);
    }
    thresholds
}

/// Each by a factor either way, from the lowest cut.
fn steps(factor: f64) -> Vec<Move> {
    let either = [factor, 1.0 / factor];
    let one = (0..BANDS - 1).flat_map(|cut| either.map(|by| Move::One(cut, by)));
    (either.map(Move::All).into_iter())
        .chain(one)
        .chain(either.map(Move::First))
        .collect()
}

/// Each cut to each gap between the others.
fn settlings() -> Vec<Move> {
    let cuts = (0..BANDS - 1).rev();
    cuts.flat_map(|cut| (0..BANDS - 1).map(move |gap| Move::Settle { cut, gap }))
        .collect()
}

fn ascending(mut cuts: [f64; BANDS - 1]) -> [u32; BANDS - 1] {
    cuts.sort_by(f64::total_cmp);
    // A float beyond the range becomes its end.
    cuts.map(|cut| cut.max(1.0) as u32)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            DecisionTree, Trainer as _,
            mixes::{Hangs, host},
            split,
        },
        *,
    };
    use crate::{dataset::samples, simulate::cdf::Cdf};

    /// Messages a hundred times smaller than the default cuts are made for.
    fn small_host(hangs: Hangs, seed: u64) -> Vec<Row> {
        host(
            &Cdf::pareto(0.3, (500.0, 100_000.0)),
            hangs,
            (2500, 0.02, seed),
        )
    }

    /// What these very messages, as they came, have of these cuts.
    fn replayed(ground: &Ground, guessed: &Guessed, thresholds: &Thresholds) -> f64 {
        let jobs = LOADS.map(|load| ground.traffic.jobs(load));
        let paths = guessed.paths(&thresholds.within(ground.link.settings));
        score(&jobs, &paths, &ground.link)
    }

    fn limits() -> JudgeLimits {
        JudgeLimits::of_rate(20_000_000)
    }

    #[test]
    fn aging_gets_the_cuts_of_its_host_and_keeps_them() {
        let limits = limits();
        let of_aging = |rows: &[Row], limits: &JudgeLimits| {
            Ground::of(rows, limits.link).for_aging(limits.aging)
        };
        let found = of_aging(&small_host(Hangs::Nowhere, 1), &limits);
        assert!(
            found.cuts_bytes.is_sorted() && found.cuts_bytes[0] < 15_000,
            "{found:?}"
        );
        let later = small_host(Hangs::Nowhere, 2);
        let better = recut(found, &later, &limits).expect("default cuts lie beyond most sizes");
        assert!(better.advantage.gain > 0.02, "{better:?}");
        // Other rows of the same host are no reason for other cuts.
        let settled = JudgeLimits {
            aging: found,
            ..limits
        };
        let again = of_aging(&later, &settled);
        assert_eq!(recut(again, &small_host(Hangs::Nowhere, 3), &settled), None);
    }

    #[test]
    fn the_last_band_is_left_to_what_never_ends() {
        let limits = limits();
        let rows = small_host(Hangs::Nowhere, 1);
        let ended = rows.iter().map(|row| row.total_bytes).max().unwrap_or(0) as u32;
        let ground = Ground::of(&rows, limits.link);
        let guessed = Guessed::of(&ground.traffic.sized(), |_| None);
        // Not below what has ended, nor below what stands.
        for (stands, least) in [(1_000, ended), (50 * ended, 50 * ended)] {
            let mut in_force = limits.aging;
            in_force.cuts_bytes = std::array::from_fn(|cut| stands - 6 + cut as u32);
            let (found, _) = ground.search((&guessed, &NOTHING_OWED), &in_force);
            let last = found.cuts_bytes[BANDS - 2];
            assert!(last >= least, "{found:?} below {least}");
            assert!(found.cuts_bytes[BANDS - 3] < ended, "{found:?}");
        }
    }

    #[test]
    fn a_busy_service_of_short_answers_hides_nobody() {
        let limits = limits();
        let mut rows = small_host(Hangs::Nowhere, 1);
        let end_ns = rows.iter().map(|row| row.time_ns).max().unwrap_or(0);
        rows.extend((0..2 * MOST_MESSAGES as u64).map(|number| Row {
            bytes_at: 520,
            total_bytes: 520,
            remaining_bytes: 0,
            ..samples::row(1 << 40 | number, end_ns + number * 1000, 6379)
        }));
        let found = Ground::of(&rows, limits.link).for_aging(limits.aging);
        let among_others = found.cuts_bytes.iter();
        let among_others = among_others.filter(|cut| (1_000..100_000).contains(*cut));
        assert!(among_others.count() >= 3, "{found:?}");
    }

    #[test]
    fn a_few_transfers_that_are_most_of_the_bytes_get_a_band_of_their_own() {
        const LARGE_BYTES: u64 = 50_000_000;
        let limits = limits();
        let mut rows = small_host(Hangs::Nowhere, 1);
        let end_ns = rows.iter().map(|row| row.time_ns).max().unwrap_or(0);
        let sized = |number: u64, bytes: u64| Row {
            bytes_at: bytes,
            total_bytes: bytes,
            remaining_bytes: 0,
            ..samples::row(1 << 40 | number, end_ns + number * 1000, 443)
        };
        rows.extend((0..4 * MOST_MESSAGES as u64).map(|number| sized(number, 520)));
        // Too few to be met by one message in five.
        let places = [4_001, 8_001, 12_001];
        rows.extend(places.map(|place| sized(place, LARGE_BYTES)));
        let found = Ground::of(&rows, limits.link).for_aging(limits.aging);
        let apart = 100_000..LARGE_BYTES as u32;
        let keeps_apart = |cut: &u32| apart.contains(cut);
        assert!(found.cuts_bytes.iter().any(keeps_apart), "{found:?}");
    }

    #[test]
    fn a_model_with_its_cuts_serves_better_than_with_the_defaults() {
        let limits = limits();
        let parts = split(&small_host(Hangs::Request, 1), &limits);
        let model = DecisionTree::default().train(&parts.train).unwrap();
        let fitted = fit_cuts(model.clone(), &parts.train, &limits).unwrap();
        assert_eq!(
            fitted,
            fit_cuts(model.clone(), &parts.train, &limits).unwrap()
        );
        fitted.check().unwrap();
        let ground = Ground::of(&parts.held_out, limits.link);
        let predictor = InKernel(compile(&model).unwrap());
        let guessed = Guessed::of(&ground.traffic.sized(), |row| {
            Some(predictor.bytes_to_come(row))
        });
        let [before, after] =
            [model.thresholds, fitted.thresholds].map(|it| replayed(&ground, &guessed, &it));
        assert!(after < before - 0.05, "{after} after {before}");
    }

    #[test]
    fn short_messages_do_not_pay_for_the_others() {
        let limits = limits();
        let parts = split(&small_host(Hangs::Service, 4), &limits);
        let model = DecisionTree::default().train(&parts.train).unwrap();
        let ground = Ground::of(&parts.train, limits.link);
        let predictor = InKernel(compile(&model).unwrap());
        let [unguessed, guessed] = [false, true].map(|knows| {
            Guessed::of(&ground.traffic.sized(), |row| {
                knows.then(|| predictor.bytes_to_come(row))
            })
        });
        let aging = ground.for_aging(limits.aging);
        let owed = ground.expected(&unguessed, &aging).map(|of| of.short_ns);
        let in_force = Thresholds::from(&limits.link.settings);
        let own = ground.for_model(&predictor, (in_force, aging));
        let short = ground.expected(&guessed, &own).map(|of| of.short_ns);
        for (short, owed) in short.into_iter().flatten().zip(owed.into_iter().flatten()) {
            assert!(short <= owed * 1.02, "{short} ns instead of {owed}");
        }
    }

    #[test]
    fn nothing_to_cut_keeps_what_stands() {
        let limits = limits();
        let found = Ground::of(&[], limits.link).for_aging(limits.aging);
        assert_eq!(found, limits.aging);
        assert_eq!(recut(found, &[], &limits), None);
    }
}
