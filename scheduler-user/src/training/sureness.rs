//! How sure of a candidate's gain the judge has to be: the table of `docs/decisions/0011`.

use super::{
    JudgeLimits, LOADS,
    evaluate::{InKernel, mean},
    forecast::Arena,
    honesty::{BARREN, BLUR, DESIGNED, HARD, Made, RATE_BPS, candidate_of, table},
    judge,
    mixes::{Hangs, demo, host},
    split,
};
use crate::{
    dataset::Row,
    model::{Model, compile},
    simulate::{Paths, Tally, Traffic, Within},
};

/// Standard errors that a gain over aging must exceed.
const LEVELS: [f64; 3] = [2.0, 1.5, 1.0];
const WINDOWS: u64 = 16;
/// Windows of the same host on which an accepted candidate shows what it gains in truth.
const FRESH_WINDOWS: u64 = 4;

/// A host, its link, and its rows by seed.
struct Host {
    name: String,
    rate_bps: u64,
    rows: Box<dyn Fn(u64) -> Vec<Row>>,
}

fn hosts() -> Vec<Host> {
    let slow = [60, 120, 240].map(|seconds| Host {
        name: format!("demo, 40 Mbit/s, {seconds} s"),
        rate_bps: 40_000_000,
        rows: Box::new(move |seed| demo((40_000_000, 0.05), seconds, seed)),
    });
    let fast = Host {
        name: "demo, 200 Mbit/s, 60 s".to_owned(),
        rate_bps: RATE_BPS,
        rows: Box::new(|seed| demo((RATE_BPS, 0.1), 60, seed)),
    };
    let of_made = |(cdf, hangs): Made, count: u64| Host {
        name: format!("{count} messages, {cdf} by {hangs:?}"),
        rate_bps: RATE_BPS,
        rows: Box::new(move |seed| {
            let blur = if hangs == Hangs::Nowhere { 0.0 } else { BLUR };
            host(&table(cdf), hangs, (count, blur, seed))
        }),
    };
    let made = DESIGNED.into_iter().chain(HARD).chain(BARREN);
    (slow.into_iter())
        .chain([fast])
        .chain(made.map(|made| of_made(made, 1500)))
        .collect()
}

/// What the model gains over aging on rows that nobody has seen, as a logarithm of a ratio.
fn gain_on(rows: &[Row], model: &Model, limits: &JudgeLimits) -> f64 {
    let choices: Vec<_> = [limits.aging]
        .into_iter()
        .chain(model.aging_thresholds)
        .collect();
    let arena = Arena::fitted(Traffic::of(rows), limits.link, &choices);
    let guess = InKernel(compile(model).unwrap());
    let paths = arena.paths_under(&model.thresholds, &guess);
    mean(LOADS.into_iter().map(|load| {
        let jobs = arena.traffic.jobs(load);
        let of = |paths: &Paths| Tally::of(&jobs, &arena.took(&jobs, paths), &arena.link);
        let [own, aging] = [of(&paths), of(&arena.aging)];
        let slowdown = (aging.mean_slowdown() / own.mean_slowdown()).ln();
        f64::midpoint(slowdown, (aging.mean_fct_ns() / own.mean_fct_ns()).ln())
    }))
}

/// A network's history is cold in each fresh window, so hosts by history are worse there than they were judged.
///
/// `cargo test --release -p treeline --lib -- --ignored --nocapture how_sure_the_judge_has_to_be`
#[test]
#[ignore = "prints the table of docs/decisions/0011"]
fn how_sure_the_judge_has_to_be() {
    for host in hosts() {
        for within in [Within::Fifo, Within::Fair] {
            let mut limits = JudgeLimits::of_rate(host.rate_bps);
            limits.link.within = within;
            let mut judged = Vec::new();
            let mut in_truth: [Vec<f64>; LEVELS.len()] = Default::default();
            for seed in 1..=WINDOWS {
                let parts = split(&(host.rows)(seed), &limits);
                let candidate = candidate_of(&parts, &limits);
                let fresh = (0..FRESH_WINDOWS).map(|more| {
                    let seed = 1000 + FRESH_WINDOWS * seed + more;
                    gain_on(&(host.rows)(seed), &candidate, &limits)
                });
                let gain = mean(fresh);
                for (level, in_truth) in LEVELS.into_iter().zip(&mut in_truth) {
                    let limits = JudgeLimits {
                        promising: level,
                        ..limits
                    };
                    let verdict = judge(&candidate, None, &parts, &limits);
                    judged.extend(verdict.scores.advantages.get("aging").copied());
                    if verdict.accepted {
                        in_truth.push(gain);
                    }
                }
            }
            let percent = |it: f64| it * 100.0;
            let told = LEVELS.iter().zip(&in_truth).map(|(level, gains)| {
                let worst = gains.iter().copied().fold(f64::INFINITY, f64::min);
                let gain = mean(gains.iter().copied());
                format!(
                    "{level}: {} gain {:.1} [{:.1}]",
                    gains.len(),
                    percent(gain),
                    percent(worst)
                )
            });
            println!(
                "{}, {within:?}: judged {:.1} ± {:.1}; {}",
                host.name,
                percent(mean(judged.iter().map(|it| it.gain))),
                percent(mean(judged.iter().map(|it| it.standard_error))),
                told.collect::<Vec<_>>().join("; ")
            );
        }
    }
}
