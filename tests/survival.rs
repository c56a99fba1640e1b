//! Traffic goes on when the agent dies, and the next agent adopts what is pinned.

use std::time::{Duration, Instant};

use bed::{
    mix::{Arrival, Plan, Service, schedule},
    netns::{Bed, SERVER_V4, UPLINK},
    traffic::{self, Play},
};
use nix::sys::signal::Signal;

use crate::support::{
    agent::{Agent, Site},
    privileged, tables,
};

const GENERATION: u32 = 41;
const KILL_AT: Duration = Duration::from_millis(1200);
const RESTART_AT: Duration = Duration::from_millis(1800);

fn load(length: Duration, seed: u64) -> Vec<Arrival> {
    let plan = Plan {
        rate_bps: 100_000_000,
        load: 0.7,
        length,
        shrink: 4.0,
    };
    schedule(&plan, seed)
}

/// A transfer that the agent's death and the next start fall into: over 2 s at the link's rate.
const LONG: Arrival = Arrival {
    at: Duration::from_millis(300),
    service: Service::Bulk,
    request_bytes: 200,
    reply_bytes: 30_000_000,
    kept: false,
};

const fn play() -> Play {
    Play {
        server: SERVER_V4,
        drain: Duration::from_secs(20),
        band: None,
    }
}

/// What has happened so far while traffic runs.
enum Phase {
    Before(Agent),
    Dead { at: Instant, packets: u64 },
    Again(Agent),
}

#[test]
fn sigkill_under_load_breaks_no_transfer_and_a_second_agent_adopts() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let agent = site.run(&["--model", "none"]);
    site.datapath()
        .activate(&tables::by_port(GENERATION, 7005))
        .unwrap();
    let loaded = site.loaded();

    let started = Instant::now();
    let mut phase = Some(Phase::Before(agent));
    let mut killed_at = Duration::ZERO;
    let mut arrivals = load(Duration::from_secs(3), 5);
    arrivals.push(LONG);
    arrivals.sort_by_key(|arrival| arrival.at);
    let run = traffic::run(&bed, arrivals, play(), None, &mut || {
        let elapsed = started.elapsed();
        let now = match phase.take().expect("every look leaves a phase") {
            Phase::Before(agent) if elapsed > KILL_AT => {
                assert!(site.status()["agent"]["pid"].is_u64());
                agent.kill();
                killed_at = started.elapsed();
                Phase::Dead {
                    at: Instant::now(),
                    packets: site.counter("egress_packets"),
                }
            }
            Phase::Dead { at, packets } if elapsed > RESTART_AT => {
                let status = site.status();
                assert!(status["agent"].is_null(), "{status}");
                let now = site.counter("egress_packets");
                let dead = at.elapsed();
                assert!(now > packets + 100, "{} packets in {dead:?}", now - packets);
                Phase::Again(site.run(&["--model", "latest"]))
            }
            other => other,
        };
        phase = Some(now);
        Ok(())
    })
    .unwrap();

    let Some(Phase::Again(second)) = phase else {
        panic!("the run ended before the second agent started");
    };
    let spanned = run
        .outcomes
        .iter()
        .find(|outcome| outcome.arrival == LONG)
        .unwrap();
    let end = LONG.at + spanned.completion.expect("the long transfer ended");
    assert!(
        killed_at > LONG.at && killed_at < end,
        "killed at {killed_at:?}: {spanned:?}"
    );
    for outcome in &run.outcomes {
        assert!(
            outcome.completion.is_some() && !outcome.failed,
            "{outcome:?}"
        );
        assert_eq!(outcome.received_bytes, outcome.arrival.reply_bytes);
    }
    assert_eq!(site.loaded(), loaded, "the programs were loaded anew");
    let log = second.log();
    assert!(log.contains("adopted"), "{log}");
    let status = site.status();
    assert_eq!(status["model"]["generation"], GENERATION);
    assert!(
        status["model"]["packets"].as_u64().unwrap() > 100,
        "{status}"
    );

    site.call(&["run", UPLINK, "--rate", "100mbit"])
        .expect(7)
        .says(&status["agent"]["pid"].to_string());
    assert_eq!(
        site.status()["agent"],
        status["agent"],
        "the first one goes on"
    );
    let (ended, log) = second.end(Signal::SIGTERM);
    assert!(ended.success(), "{ended}\n{log}");
}

#[test]
fn an_agent_that_is_told_to_end_leaves_the_programs_at_work() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (ended, log) = site.run(&[]).end(signal);
        assert!(ended.success(), "{ended}\n{log}");
        assert!(site.status()["agent"].is_null());
        let before = site.counter("egress_packets");
        let arrivals = load(Duration::from_millis(200), 6);
        let run = traffic::run(&bed, arrivals, play(), None, &mut || Ok(())).unwrap();
        assert!(
            run.outcomes
                .iter()
                .all(|outcome| outcome.completion.is_some())
        );
        assert!(site.counter("egress_packets") > before + 100);
    }
    let loaded = site.loaded();
    site.down().expect(0);
    loaded.assert_freed();
}

#[test]
fn an_agent_whose_interface_is_taken_down_ends_and_leaves_nothing() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let agent = site.run(&["--train-every", "100ms"]);
    let loaded = site.loaded();
    site.down().expect(0);
    let (ended, log) = agent.ended();
    assert!(ended.success(), "{ended}\n{log}");
    site.assert_no_trace();
    loaded.assert_freed();
}
