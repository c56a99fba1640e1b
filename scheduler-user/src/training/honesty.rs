//! The judge among hosts where there is something to learn, and where there is not.

use super::{
    Closed, DecisionTree, JudgeLimits, Scores, Trainer as _, Verdict, judge,
    mixes::{Hangs, demo, host},
    split,
};
use crate::{dataset::Row, simulate::cdf::Cdf};

/// A distribution and where it comes from; the last needs no data.
fn distributions() -> Vec<(&'static str, Cdf)> {
    let published = ["websearch_dctcp", "datamining_vl2"];
    let mut all: Vec<_> = (published.into_iter())
        .filter_map(|name| Some((name, Cdf::published(name)?)))
        .collect();
    all.push(("pareto", Cdf::pareto(1.2, (1_000.0, 50e6))));
    all
}

fn verdict_on(rows: &[Row], limits: &JudgeLimits) -> Verdict {
    let parts = split(rows, limits);
    let candidate = DecisionTree::default().train(&parts.train).unwrap();
    judge(&candidate, None, &parts, limits)
}

/// The hosts on which something can be learned, and how many messages of each.
fn learnable(count: u64, seed: u64) -> Vec<(String, Vec<Row>)> {
    let mut hosts = vec![("demo".to_owned(), demo(count / 60, seed))];
    for (table, hangs) in [
        ("websearch_dctcp", Hangs::Service),
        ("facebook_cache_follower", Hangs::Request),
        ("fbhadoop_interrack_opera", Hangs::History),
    ] {
        let (name, cdf) = match Cdf::published(table) {
            Some(cdf) => (table, cdf),
            None => ("pareto", Cdf::pareto(1.2, (5_000.0, 30e6))),
        };
        let rows = host(&cdf, hangs, (count, 0.05, seed));
        hosts.push((format!("{name} by {hangs:?}"), rows));
    }
    hosts
}

fn closed(scores: &Scores) -> Vec<Closed> {
    let gains = scores.gains.as_ref().unwrap();
    gains.loads.iter().map(|load| load.closed()).collect()
}

#[test]
fn where_nothing_is_learnable_nothing_is_deployed() {
    for (name, cdf) in distributions() {
        for seed in 0..10 {
            let rows = host(&cdf, Hangs::Nowhere, (1500, 0.0, seed));
            let verdict = verdict_on(&rows, &JudgeLimits::default());
            println!("{name} {seed}: {}", verdict.reason);
            assert!(!verdict.accepted, "{name} {seed}: {}", verdict.reason);
        }
    }
}

#[test]
fn where_sizes_hang_on_something_half_of_the_gap_is_closed() {
    for (name, rows) in learnable(3000, 1) {
        let verdict = verdict_on(&rows, &JudgeLimits::default());
        println!("{name}: {} {}", verdict.accepted, verdict.reason);
        for closed in closed(&verdict.scores) {
            println!("  {closed:?}");
        }
    }
}
