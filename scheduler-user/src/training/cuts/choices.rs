//! What the choices about bands and guesses are worth, one at a time: the table of `docs/decisions/0009`.

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::features::Feature;

use super::{
    super::{
        DecisionTree, Parameters, Trainer as _,
        honesty::{DESIGNED, RATE_BPS, demo_window, window},
        rank_leaves, split,
    },
    *,
};

/// Descents from drawn cuts, beside those from known ones.
const DRAWN_STARTS: usize = 20;
const SEEDS: std::ops::RangeInclusive<u64> = 1..=3;

/// What tells the size of a message.
#[derive(Clone, Copy, PartialEq)]
enum Guess {
    Nothing,
    Model,
    /// The truth, at the first packet.
    Truth,
}

/// What stands, or something else in one respect.
#[derive(Clone, Copy)]
struct Choice {
    name: &'static str,
    guess: Guess,
    bands: usize,
    /// Only so many of a message's decision points ask.
    points: u32,
    /// Whether a message sinks when it has sent more than was guessed.
    ages: bool,
    short_weight: f64,
    first_bytes: [u32; 2],
    drawn_starts: usize,
}

impl Choice {
    const STANDS: Self = Self {
        name: "what stands",
        guess: Guess::Model,
        bands: BANDS,
        points: u32::MAX,
        ages: true,
        short_weight: SHORT_WEIGHT,
        first_bytes: [0, FIRST_BYTES],
        drawn_starts: 0,
    };

    const fn with_bands(guess: Guess, bands: usize) -> Self {
        let name = match guess {
            Guess::Nothing => "aging, bands",
            Guess::Model => "model, bands",
            Guess::Truth => "oracle, bands",
        };
        Self {
            name,
            guess,
            bands,
            ..Self::STANDS
        }
    }

    fn all() -> Vec<Self> {
        let stands = Self::STANDS;
        let of_bands = [2, 3, 4, 6, BANDS].into_iter().flat_map(|bands| {
            let guesses = [Guess::Nothing, Guess::Model, Guess::Truth];
            guesses.map(|guess| Self::with_bands(guess, bands))
        });
        let of_points = [1, 2, 4].map(|points| Self {
            name: match points {
                1 => "asks once",
                2 => "asks twice",
                _ => "asks four times",
            },
            points,
            ..stands
        });
        let of_weights = [0.0, 1.0, 4.0].map(|short_weight| Self {
            name: match short_weight {
                0.0 => "short messages count as all",
                1.0 => "their price 1",
                _ => "their price 4",
            },
            short_weight,
            ..stands
        });
        let others = [
            Self {
                name: "no aging beneath the first guess",
                ages: false,
                ..stands
            },
            Self {
                name: "first bytes on top",
                first_bytes: [FIRST_BYTES; 2],
                ..stands
            },
            Self {
                name: "no first bytes",
                first_bytes: [0; 2],
                ..stands
            },
            Self {
                name: "drawn starts",
                drawn_starts: DRAWN_STARTS,
                ..stands
            },
        ];
        (of_bands.chain(of_points).chain(of_weights))
            .chain(others)
            .collect()
    }

    /// The paths under any cuts, of messages whose sizes the predictor tells or not.
    fn ways<'a>(
        &self,
        (traffic, link): (&'a Traffic, &'a Bottleneck),
        predictor: &InKernel,
    ) -> Box<dyn Fn(&Thresholds) -> Paths + 'a> {
        let Self { bands, points, .. } = *self;
        let sized = traffic.sized();
        if self.guess == Guess::Truth || !self.ages {
            let of_first = |(bytes, rows): &(u64, &[Row])| match (self.guess, rows.first()) {
                (Guess::Model, Some(first)) => first.bytes_at + predictor.bytes_to_come(first),
                _ => *bytes,
            };
            let guesses: Vec<_> = sized.iter().map(|it| (it.0, of_first(it))).collect();
            return Box::new(move |thresholds| {
                let cuts = limited(thresholds, bands).cuts();
                let messages = guesses.iter();
                Paths::of_bands(messages.map(|(bytes, guess)| (*bytes, cuts.band_of(*guess))))
            });
        }
        let asks = |row: &Row| row.feature(Feature::MessagePackets) < 1 << points.min(31);
        let guess = |row: &Row| {
            (self.guess == Guess::Model && asks(row)).then(|| predictor.bytes_to_come(row))
        };
        let guessed = Guessed::of(&sized, guess);
        Box::new(move |thresholds| guessed.paths(&limited(thresholds, bands).within(link.settings)))
    }

    /// The best that descents find without a bound on looks.
    fn search(&self, ground: &Ground, predictor: &InKernel, owed: &Owed) -> Thresholds {
        let ways = self.ways((&ground.traffic, &ground.link), predictor);
        let owed = match self.guess {
            Guess::Model => owed,
            _ => &NOTHING_OWED,
        };
        let look = |thresholds: &Thresholds| {
            let bytes = (&ground.messages[..], &ground.short_bytes);
            let of_loads = expected(bytes, &ways(thresholds), &ground.link, LOADS);
            cost(&of_loads, owed, self.short_weight)
        };
        let largest = ground.largest;
        let mut known = ground.known.clone();
        known.push(Thresholds::default().cuts_bytes);
        let mut random = StdRng::seed_from_u64(1);
        let drawn = (0..self.drawn_starts).map(|_| {
            let cut = |_| 300.0 * (largest / 300.0).powf(random.random::<f64>());
            ascending(std::array::from_fn(cut))
        });
        let drawn: Vec<_> = drawn.collect();
        let of_first = self.first_bytes.into_iter().flat_map(|first_bytes| {
            let start = move |cuts_bytes: &[u32; BANDS - 1]| Thresholds {
                cuts_bytes: *cuts_bytes,
                first_bytes,
            };
            let best = known.iter().map(start);
            let best = best.min_by(|a, b| look(a).total_cmp(&look(b)));
            best.into_iter()
                .chain(drawn.iter().map(start))
                .collect::<Vec<_>>()
        });
        let least_last = ground.least_last_cut(&Thresholds::default());
        let found = of_first.map(|start| {
            let start = with_last(start, least_last);
            let from = (start, look(&start));
            descend(from, (largest, least_last), |at| Some(look(at)))
        });
        let best = found.min_by(|a, b| a.1.total_cmp(&b.1));
        best.map(|it| it.0).unwrap_or_default()
    }
}

/// Only so many bands: the cuts above are nowhere.
fn limited(thresholds: &Thresholds, bands: usize) -> Thresholds {
    let mut limited = *thresholds;
    limited.cuts_bytes[bands - 1..].fill(u32::MAX);
    limited
}

/// Logarithms, means over loads: slowdown, completion time, slowdown of small messages.
fn measured(arena: &Arena, paths: &Paths) -> [f64; 3] {
    let of_loads = LOADS.map(|load| {
        let jobs = arena.traffic.jobs(load);
        let tally = Tally::of(&jobs, &arena.took(&jobs, paths), &arena.link);
        [
            tally.mean_slowdown(),
            tally.mean_fct_ns(),
            tally.class_slowdown(0),
        ]
    });
    std::array::from_fn(|figure| mean(of_loads.iter().map(|of| of[figure].ln())))
}

/// What every choice comes to on later messages of one window.
fn of_window(rows: &[Row], choices: &[Choice]) -> Vec<[f64; 3]> {
    let limits = JudgeLimits::of_rate(RATE_BPS);
    let parts = split(rows, &limits);
    let trainer = DecisionTree(Parameters::tree_of(parts.train.len()));
    let model = rank_leaves(trainer.train(&parts.train).unwrap(), &parts.train);
    let predictor = InKernel(compile(&model).unwrap());
    let ground = Ground::of(&parts.train, limits.link);
    let aging = ground.for_aging(limits.aging);
    let unguessed = Guessed::of(&ground.traffic.sized(), |_| None);
    let owed = ground.expected(&unguessed, &aging).map(|of| of.short_ns);
    let later = Traffic::of(&parts.held_out).latest(limits.max_messages);
    let arena = Arena::fitted(later, limits.link, &[aging]);
    let in_force = Thresholds::from(&limits.link.settings);
    let agent = ground.for_model(&predictor, (in_force, aging));
    let of_agent = measured(&arena, &arena.paths_under(&agent, &predictor));
    let mut figures = vec![of_agent];
    figures.extend(choices.iter().map(|choice| {
        let found = choice.search(&ground, &predictor, &owed);
        let ways = choice.ways((&arena.traffic, &arena.link), &predictor);
        measured(&arena, &ways(&found))
    }));
    figures
}

/// By how many per cent a choice is above what stands, in all three figures: mean over seeds [lowest, highest].
///
/// `cargo test --release -p treeline --lib -- --ignored --nocapture what_each_choice_is_worth`
#[test]
#[ignore = "prints the table of docs/decisions/0009"]
fn what_each_choice_is_worth() {
    let choices = Choice::all();
    let stands = choices
        .iter()
        .position(|it| it.guess == Guess::Model && it.bands == BANDS);
    let hosts = std::iter::once(None).chain(DESIGNED.into_iter().map(Some));
    for made in hosts {
        println!("\n{made:?}");
        let windows =
            SEEDS.map(|seed| made.map_or_else(|| demo_window(seed), |it| window(it, seed)));
        let of_seeds: Vec<_> = windows.map(|rows| of_window(&rows, &choices)).collect();
        let names = choices.iter().map(|it| (it.name, it.bands));
        let names = std::iter::once(("the agent's own search", BANDS)).chain(names);
        for (place, (name, bands)) in names.enumerate() {
            let told: Vec<String> = (0..3)
                .map(|figure| {
                    let over = of_seeds.iter().map(|of| {
                        let stands = of[stands.unwrap() + 1][figure];
                        (of[place][figure] - stands).exp_m1() * 100.0
                    });
                    let over: Vec<f64> = over.collect();
                    let least = over.iter().copied().fold(f64::INFINITY, f64::min);
                    let most = over.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                    format!("{:6.1} [{least:.1}, {most:.1}]", mean(over.iter().copied()))
                })
                .collect();
            println!("{name:34} {bands}: {}", told.join("  "));
        }
    }
}
