//! Candidates come through the shadow, are dropped there, and leave when they turn wrong.

use std::time::{Duration, Instant};

use bed::{
    mix::{Arrival, Service},
    netns::{Bed, SERVER_V4},
    traffic::{self, Play},
};
use nix::sys::signal::Signal;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;

use crate::support::{agent::Site, privileged};

const LIMIT: Duration = Duration::from_secs(60);
/// Requests for short replies and for long ones; history by port tells nothing of which comes.
const REQUEST_BYTES: [u32; 2] = [120, 700];

/// What a longer request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nature {
    Longer,
    Shorter,
}

/// One second of requests at one port, of which one in four is for a long reply.
fn arrivals(nature: Nature, seed: u64) -> Vec<Arrival> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut at = Duration::ZERO;
    let mut arrivals = Vec::new();
    while at < Duration::from_secs(1) {
        let is_long = random.random_range(0..4) == 0;
        let reply_bytes = if is_long { 600_000 } else { 60_000 };
        let asks_long = is_long == (nature == Nature::Longer);
        arrivals.push(Arrival {
            at,
            service: Service::Media,
            request_bytes: REQUEST_BYTES[usize::from(asks_long)] + random.random_range(0..50),
            reply_bytes: reply_bytes * random.random_range(80..120) / 100,
            kept: false,
        });
        at += Duration::from_micros(random.random_range(0..42_000));
    }
    arrivals
}

/// Offers traffic, a second of it at a time, until `done` says so.
fn offer(
    bed: &Bed,
    site: &Site<'_>,
    second: impl Fn(u64) -> Vec<Arrival>,
    mut done: impl FnMut(&Value) -> bool,
) {
    let deadline = Instant::now() + LIMIT;
    for seed in 0.. {
        let play = Play {
            server: SERVER_V4,
            drain: Duration::from_secs(5),
            band: None,
        };
        let played = traffic::run(bed, second(seed), play, None, &mut || Ok(()));
        if let Err(error) = played {
            // The second before may not have let go of its ports yet.
            assert!(Instant::now() < deadline, "{error:#}");
            continue;
        }
        let status = site.status();
        if done(&status) {
            return;
        }
        let logs = || site.call(&["logs", "-n", "100"]).stdout;
        assert!(Instant::now() < deadline, "{status}\n{}", logs());
    }
}

/// One second of short replies of one service.
fn short_replies(service: Service, seed: u64) -> Vec<Arrival> {
    let mut random = StdRng::seed_from_u64(seed);
    let arrival = |number| Arrival {
        at: Duration::from_millis(5) * number,
        service,
        request_bytes: random.random_range(100..300),
        reply_bytes: random.random_range(2_000..20_000),
        kept: false,
    };
    (0..200).map(arrival).collect()
}

/// What was decided, oldest first.
fn journal(site: &Site<'_>) -> Vec<Value> {
    let log = site.call(&["model", "log", "-n", "1000", "--format", "json"]);
    let log = log.expect(0).json();
    log["decisions"].as_array().unwrap().clone()
}

fn step<'a>(journal: &'a [Value], name: &str, generation: u64) -> Option<(usize, &'a Value)> {
    let is_it = |(_, it): &(usize, &Value)| it["step"] == name && it["generation"] == generation;
    journal.iter().enumerate().find(is_it)
}

const SHORT_CYCLES: [&str; 4] = ["--train-every", "1s", "--min-samples", "300"];

#[test]
fn a_candidate_comes_through_the_shadow_and_leaves_when_it_turns_wrong() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let agent = site.run(&[&SHORT_CYCLES[..], &["--canary-rows", "400"]].concat());
    let mut watched = None;
    let mut promoted = 0;
    offer(
        &bed,
        &site,
        |seed| arrivals(Nature::Longer, seed),
        |status| {
            if let Some(generation) = status["shadow"]["generation"].as_u64() {
                watched = Some(status.clone());
                assert_ne!(status["model"]["generation"], generation, "{status}");
            }
            promoted = status["model"]["generation"].as_u64().unwrap_or(0);
            promoted > 0
        },
    );
    let watched = watched.expect("a candidate stays in the shadow for a cycle at least");
    assert!(watched["shadow"]["since_unix_s"].is_u64(), "{watched}");

    offer(
        &bed,
        &site,
        |seed| arrivals(Nature::Shorter, seed),
        |_| {
            step(&journal(&site), "fell-back", promoted).is_some()
                || journal(&site)
                    .iter()
                    .any(|it| it["step"] == "promoted" && it["before"] == promoted)
        },
    );
    let decisions = journal(&site);
    let (shadowed, _) = step(&decisions, "shadowed", promoted).unwrap();
    let (at, decision) = step(&decisions, "promoted", promoted).unwrap();
    assert!(shadowed < at, "{decisions:?}");
    assert_eq!(decision["acting"], promoted);
    let (fell, decision) =
        step(&decisions, "fell-back", promoted).unwrap_or_else(|| panic!("{decisions:?}"));
    assert!(fell > at && decision["acting"].is_null(), "{decision}");
    let cycles = decisions[at..fell]
        .iter()
        .filter(|it| it["step"] == "trained");
    assert!(cycles.count() <= 15, "{decisions:?}");
    // Nothing ever acted that had not been watched.
    for decision in decisions.iter().filter(|it| it["step"] == "promoted") {
        let generation = decision["generation"].as_u64().unwrap();
        assert!(
            step(&decisions, "shadowed", generation).is_some(),
            "{decision}"
        );
    }
    site.call(&["model", "log"])
        .expect(0)
        .says("shadowed")
        .says("fell-back");
    let (ended, log) = agent.end(Signal::SIGTERM);
    assert!(ended.success(), "{ended}\n{log}");
    assert!(site.status()["shadow"].is_null(), "nobody watches it now");
    site.down().expect(0);
    site.assert_no_trace();
}

#[test]
fn a_candidate_that_is_wrong_on_fresh_traffic_is_dropped_and_never_acts() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    // So many that what came before the change is a small part of them.
    let agent = site.run(&[&SHORT_CYCLES[..], &["--canary-rows", "2000"]].concat());
    let mut candidate = 0;
    offer(
        &bed,
        &site,
        |seed| arrivals(Nature::Longer, seed),
        |status| {
            candidate = status["shadow"]["generation"].as_u64().unwrap_or(0);
            candidate > 0
        },
    );
    offer(
        &bed,
        &site,
        |seed| arrivals(Nature::Shorter, seed),
        |status| {
            assert_ne!(status["model"]["generation"], candidate, "{status}");
            status["shadow"]["generation"] != candidate
        },
    );
    let decisions = journal(&site);
    let (shadowed, _) = step(&decisions, "shadowed", candidate).unwrap();
    let (dropped, decision) =
        step(&decisions, "dropped", candidate).unwrap_or_else(|| panic!("{decisions:?}"));
    assert!(shadowed < dropped);
    assert!(decision["rows"].as_u64() >= Some(2000), "{decision}");
    assert!(
        decision["why"].as_str().unwrap().contains("gain"),
        "{decision}"
    );
    assert!(step(&decisions, "promoted", candidate).is_none());
    assert_eq!(site.datapath().packets_of(candidate as u32).unwrap(), 0);
    assert!(agent.end(Signal::SIGTERM).0.success());
    site.down().expect(0);
    site.assert_no_trace();
}

#[test]
fn a_change_of_the_traffic_is_noticed_and_brings_a_cycle_before_its_time() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let agent = site.run(&["--train-every", "1h", "--min-samples", "300"]);
    let mut seconds = 0;
    offer(
        &bed,
        &site,
        |seed| short_replies(Service::Web, seed),
        |_| {
            seconds += 1;
            seconds == 3
        },
    );
    assert_eq!(
        journal(&site),
        Vec::<Value>::new(),
        "nothing has changed yet"
    );
    offer(
        &bed,
        &site,
        |seed| short_replies(Service::Download, seed),
        |_| journal(&site).iter().any(|it| it["step"] == "trained"),
    );
    let decisions = journal(&site);
    let drifted = &decisions[0];
    assert_eq!(
        (&drifted["step"], &drifted["of"]),
        (&"drifted".into(), &"service_port".into())
    );
    // Another kind of traffic makes nothing false that was learned.
    assert_eq!(drifted["forgotten"], 0, "{drifted}");
    assert!(agent.end(Signal::SIGTERM).0.success());
    site.down().expect(0);
    site.assert_no_trace();
}
