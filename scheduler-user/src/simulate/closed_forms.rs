//! The simulator beside what queueing theory says in closed form.
//!
//! All forms are of the M/G/1 queue; distributions are tables of (bytes, cumulative probability) joined by straight
//! lines, and integrals are sums over quantiles. Sources: Kleinrock, *Queueing Systems* 2 (1976), 3.6, 4.4, 4.6 and 4.7
//! (priorities, processor sharing, foreground-background, multilevel); Schrage and Miller 1966 (shortest remaining).

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use scheduler_common::{
    class::{BANDS, DEFAULT_CUTS_BYTES},
    settings::Settings,
};

use super::{Bottleneck, Job, Paths, Scheme, Weighed, Within, cdf::Cdf, expected, replay};
use crate::dataset::Row;

/// Quantiles in an integral.
const STEPS: usize = 20_000;
const CUTS: [u32; BANDS - 1] = DEFAULT_CUTS_BYTES;

/// A distribution of sizes.
struct Sizes {
    /// Sizes at the middles of equally likely steps, ascending.
    quantiles: Vec<f64>,
    /// Up to each quantile: mean of size, and of its square, of those that are not larger.
    below: Vec<[f64; 2]>,
}

impl Sizes {
    fn new(quantile: impl Fn(f64) -> f64) -> Self {
        let at = |step: usize| quantile((step as f64 + 0.5) / STEPS as f64);
        let quantiles: Vec<f64> = (0..STEPS).map(at).collect();
        let mut sums = [0.0, 0.0];
        let below = quantiles
            .iter()
            .map(|size| {
                sums[0] += size / STEPS as f64;
                sums[1] += size * size / STEPS as f64;
                sums
            })
            .collect();
        Self { quantiles, below }
    }

    fn exponential(mean: f64) -> Self {
        Self::new(|q| -mean * (1.0 - q).ln())
    }

    fn mean(&self) -> f64 {
        self.below[STEPS - 1][0]
    }

    /// Share that is at most `size`, and the means of size and square over them.
    fn up_to(&self, size: f64) -> (f64, [f64; 2]) {
        let count = self.quantiles.partition_point(|other| *other <= size);
        let below = count.checked_sub(1).map_or([0.0, 0.0], |at| self.below[at]);
        (count as f64 / STEPS as f64, below)
    }

    /// Means of min(size, `bound`) and of its square.
    fn cut_at(&self, bound: f64) -> [f64; 2] {
        let (share, [first, second]) = self.up_to(bound);
        let rest = 1.0 - share;
        [first + rest * bound, second + rest * bound * bound]
    }

    /// Mean over all sizes of `of(size)`.
    fn mean_of(&self, of: impl Fn(f64) -> f64) -> f64 {
        self.quantiles.iter().map(|size| of(*size)).sum::<f64>() / STEPS as f64
    }

    /// Poisson arrivals; every quantile comes equally often and the load is met exactly, so that what the replay differs
    /// by is its own doing and not the draw's.
    fn jobs(&self, load: f64, rounds: usize, seed: u64) -> Vec<Job> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut sizes = self.quantiles.repeat(rounds);
        sizes.shuffle(&mut random);
        let mut now = 0.0;
        let arrivals: Vec<f64> = (sizes.iter())
            .map(|_| {
                now -= (1.0 - random.random::<f64>()).ln();
                now
            })
            .collect();
        let scale = sizes.iter().sum::<f64>() / load / now;
        let jobs = sizes.into_iter().zip(arrivals).enumerate();
        jobs.map(|(message, (bytes, arrival))| Job {
            arrival: arrival * scale,
            bytes,
            message,
        })
        .collect()
    }
}

/// A queue: arrivals per byte time, and sizes.
struct Queue<'a> {
    rate: f64,
    sizes: &'a Sizes,
}

impl<'a> Queue<'a> {
    fn new(sizes: &'a Sizes, load: f64) -> Self {
        Self {
            rate: load / sizes.mean(),
            sizes,
        }
    }

    /// Load and mean backlog of all work, with each message cut at `bound`.
    fn of_cut(&self, bound: f64) -> (f64, f64) {
        let [first, second] = self.sizes.cut_at(bound);
        let load = self.rate * first;
        (load, self.rate * second / (2.0 * (1.0 - load)))
    }

    fn fifo(&self, size: f64) -> f64 {
        size + self.of_cut(f64::INFINITY.min(f64::MAX.sqrt())).1
    }

    fn fair(&self, size: f64) -> f64 {
        size / (1.0 - self.rate * self.sizes.mean())
    }

    fn las(&self, size: f64) -> f64 {
        let (load, backlog) = self.of_cut(size);
        (size + backlog) / (1.0 - load)
    }

    /// Bands by bytes sent, in order within each: before a message of a band go all that came earlier, cut at
    /// the band's end, and those that come later, cut at its beginning.
    fn aging(&self, size: f64) -> f64 {
        let band = CUTS.iter().filter(|cut| size > f64::from(**cut)).count();
        let end = CUTS.get(band).map_or(1e15, |cut| f64::from(*cut));
        let begin = band.checked_sub(1).map_or(0.0, |at| f64::from(CUTS[at]));
        (size + self.of_cut(end).1) / (1.0 - self.of_cut(begin).0)
    }

    /// Bands by size, in order within each, preemptive.
    fn oracle(&self, size: f64) -> f64 {
        let band = CUTS.iter().filter(|cut| size > f64::from(**cut)).count();
        let end = CUTS.get(band).map_or(1e15, |cut| f64::from(*cut));
        let begin = band.checked_sub(1).map_or(0.0, |at| f64::from(CUTS[at]));
        let (_, [above, _]) = self.sizes.up_to(begin);
        let (_, [own, second]) = self.sizes.up_to(end);
        let (above, own) = (1.0 - self.rate * above, 1.0 - self.rate * own);
        size / above + self.rate * second / (2.0 * above * own)
    }

    /// Mean slowdown under shortest remaining size first.
    fn srpt_slowdown(&self) -> f64 {
        let sizes = self.sizes;
        // How long the rest of a message takes once it is being served, summed up as sizes grow.
        let (mut residence, mut before, mut sum) = (0.0, 0.0, 0.0);
        for (size, [first, second]) in sizes.quantiles.iter().zip(&sizes.below) {
            let idle = 1.0 - self.rate * first;
            residence += (size - before) / idle;
            before = *size;
            let (share, _) = sizes.up_to(*size);
            let waiting = self.rate * (second + (1.0 - share) * size * size) / (2.0 * idle * idle);
            sum += (residence + waiting) / size;
        }
        sum / STEPS as f64
    }

    /// Mean slowdown where `took` is the time of a size.
    fn slowdown(&self, took: impl Fn(f64) -> f64) -> f64 {
        self.sizes.mean_of(|size| took(size) / size)
    }
}

fn measured(jobs: &[Job], scheme: Scheme<'_>) -> (f64, f64) {
    let took = replay(jobs, scheme);
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / jobs.len() as f64;
    (
        mean(&mut took.iter().copied()),
        mean(&mut took.iter().zip(jobs).map(|(took, job)| took / job.bytes)),
    )
}

#[track_caller]
fn near(what: &str, measured: f64, theory: f64, within: f64) {
    let off = measured / theory - 1.0;
    println!(
        "{what}: measured {measured:.4}, theory {theory:.4}, {:+.2} %",
        off * 100.0
    );
    assert!(off.abs() < within, "{what}: {measured} against {theory}");
}

/// A discipline, and how long a message of a size takes under it.
type Form<'a> = (&'a str, Scheme<'a>, &'a dyn Fn(f64) -> f64);

/// What [`expected`] says of paths, against their replay.
///
/// Taking turns in several bands one after the other is more than [`expected`] knows of.
fn check_expected(name: &str, jobs: &[Job], (paths, within): (&Paths, Within), load: f64) {
    let off = if within == Within::Fair { 0.12 } else { 0.03 };
    // A link on which a message of no size takes no time: its slowdown is the one of the forms.
    let link = Bottleneck {
        base_ns: 0,
        within,
        ..Bottleneck::of_rate(8_000_000_000)
    };
    let messages = jobs.iter().map(|job| Weighed {
        bytes: job.bytes,
        weight: 1.0,
    });
    let messages: Vec<Weighed> = messages.collect();
    let [said] = expected((&messages, &[]), paths, &link, [load]);
    let measured = measured(jobs, Scheme::Bands(paths, within));
    near(
        &format!("{name}, expected time"),
        measured.0,
        said.fct_ns,
        off,
    );
    near(
        &format!("{name}, expected slowdown"),
        measured.1,
        said.slowdown,
        off,
    );
}

/// Every discipline against its closed form, in mean time and slowdown, but for FIFO: under a heavy tail its mean is
/// that of a few messages.
fn check(name: &str, sizes: &Sizes, (load, rounds, seed): (f64, usize, u64)) {
    let queue = Queue::new(sizes, load);
    let jobs = sizes.jobs(load, rounds, seed);
    let settings = Settings::default();
    let of_jobs = || jobs.iter().map(|job| job.bytes as u64);
    let unseen: Vec<(u64, &[Row])> = of_jobs().map(|bytes| (bytes, &[][..])).collect();
    let aging = Paths::of_verdicts(&unseen, &settings, |_| None);
    let oracle = Paths::of_sizes(of_jobs(), &settings.cuts);
    let forms: [Form<'_>; 4] = [
        ("fair", Scheme::Fair, &|x| queue.fair(x)),
        ("LAS", Scheme::Las, &|x| queue.las(x)),
        ("aging", Scheme::Bands(&aging, Within::Fifo), &|x| {
            queue.aging(x)
        }),
        ("oracle", Scheme::Bands(&oracle, Within::Fifo), &|x| {
            queue.oracle(x)
        }),
    ];
    for (what, scheme, form) in forms {
        let what = format!("{name} {load} {what}");
        let measured = measured(&jobs, scheme);
        near(
            &format!("{what}, time"),
            measured.0,
            sizes.mean_of(form),
            0.03,
        );
        near(
            &format!("{what}, slowdown"),
            measured.1,
            queue.slowdown(form),
            0.03,
        );
    }
    for (what, paths) in [("aging", &aging), ("oracle", &oracle)] {
        for within in [Within::Fifo, Within::Fair] {
            let what = format!("{name} {load} {what} {within:?}");
            check_expected(&what, &jobs, (paths, within), load);
        }
    }
    let srpt = measured(&jobs, Scheme::Srpt).1;
    near(
        &format!("{name} {load} SRPT, slowdown"),
        srpt,
        queue.srpt_slowdown(),
        0.03,
    );
}

#[test]
fn m_m_1_waits_as_the_book_says() {
    let sizes = Sizes::exponential(300_000.0);
    for load in [0.5, 0.8] {
        let theory = sizes.mean() / (1.0 - load);
        let queue = Queue::new(&sizes, load);
        near("FIFO", sizes.mean_of(|x| queue.fifo(x)), theory, 0.001);
        near("fair", sizes.mean_of(|x| queue.fair(x)), theory, 0.001);
        near("LAS", sizes.mean_of(|x| queue.las(x)), theory, 0.001);
        let jobs = sizes.jobs(load, 10, 1);
        near(
            "FIFO, replayed",
            measured(&jobs, Scheme::Fifo).0,
            theory,
            0.03,
        );
        check("M/M/1", &sizes, (load, 10, 2));
    }
}

#[test]
fn a_heavy_tail_is_served_as_theory_says() {
    let pareto = Cdf::pareto(1.3, (2_000.0, 20e6));
    check("Pareto", &Sizes::new(|q| pareto.quantile(q)), (0.8, 20, 3));
}

#[test]
fn web_search_is_served_as_theory_says() {
    let Some(cdf) = Cdf::published("websearch_dctcp") else {
        return;
    };
    let sizes = Sizes::new(|q| cdf.quantile(q));
    for load in [0.5, 0.8] {
        check("web search", &sizes, (load, 20, 4));
    }
}

#[test]
fn the_forms_give_the_published_headroom() {
    let Some(cdf) = Cdf::published("websearch_dctcp") else {
        return;
    };
    let sizes = Sizes::new(|q| cdf.quantile(q));
    let queue = Queue::new(&sizes, 0.8);
    let small = |x: f64| x <= 100_000.0;
    let of = |took: &dyn Fn(f64) -> f64, class: &dyn Fn(f64) -> bool| {
        let inside = |x: f64| f64::from(u8::from(class(x)));
        sizes.mean_of(|x| inside(x) * took(x) / x) / sizes.mean_of(inside)
    };
    near("LAS, small", of(&|x| queue.las(x), &small), 1.02, 0.01);
    let large = |x: f64| x > 10e6;
    near("LAS, large", of(&|x| queue.las(x), &large), 7.20, 0.01);
    near("fair, large", of(&|x| queue.fair(x), &large), 5.0, 0.01);
}
