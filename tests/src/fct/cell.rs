//! One workload on one bed: learning, then rounds at one load.

use std::time::Duration;

use anyhow::{Context as _, Result};
use bed::{
    agent::{Running, Treeline},
    beds::Bed,
    netns::SERVER_V4,
    played::{self, Played},
    stats::{Observation, millis},
    thresholds::{self, Knowing, Link, Sized},
    traffic::{Base, Marking, Play},
    wait, words,
    workload::{self, Demand, Item, Workload},
};
use scheduler_common::class::{BANDS, Cuts};
use serde_json::Value;

use crate::{
    bench::{Bench, run_length},
    figures::{Frame, RunReport},
    options::{BedKind, TreelineCuts},
    report::{Cell, GapClosed, SchemeReport},
    scheme::{self, Scheme, Tuned},
};

/// Messages that arrive earlier fill the link, and what the kernel remembers of services, and are not judged.
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);
/// After learning's traffic, how long a candidate may still take to act.
pub(crate) const LEARNING_EXTRA: Duration = Duration::from_secs(6);
/// Training cycles while learning.
pub(crate) const TRAIN_EVERY: Duration = Duration::from_secs(4);
/// Training cycles while measuring: what was learned before is what is measured.
const MEASURED_TRAIN_EVERY: Duration = Duration::from_secs(60);
const MODEL_LIMIT: Duration = Duration::from_secs(20);
/// The longest packet that a router sends, with its Ethernet header.
const FRAME_BYTES: u32 = 1514;
/// After the last message, how long to wait for the replies.
pub(crate) const DRAIN: Duration = Duration::from_secs(15);
/// Added to the seed while learning, so that no measured message is learned by heart.
pub(crate) const LEARNING_SEED: u64 = 0x6c65_6172_6e00;

/// A bed, and treeline on it.
pub(crate) struct Place<'a> {
    pub(crate) kind: BedKind,
    pub(crate) bed: &'a Bed,
    pub(crate) base: Base,
    /// What its uplink sends at a time.
    pub(crate) packet_bytes: u32,
    /// What learns.
    pub(crate) treeline: Treeline<'a>,
    /// What never does: another instance, so that it takes nobody's model out.
    pub(crate) aging: Treeline<'a>,
}

impl<'a> Place<'a> {
    pub(crate) fn new(
        bench: &Bench<'_>,
        kind: BedKind,
        bed: &'a Bed,
        base: Base,
        what: &str,
    ) -> Self {
        Self {
            kind,
            bed,
            base,
            packet_bytes: match kind {
                BedKind::Host => bench.options.gso_max_bytes(),
                BedKind::Router => FRAME_BYTES,
            },
            treeline: bench.treeline(bed, what),
            aging: bench.treeline(bed, "aging"),
        }
    }

    /// Starts the agent with what it has learned so far.
    pub(crate) fn start_agent(&self, bench: &Bench<'_>, train_every: Duration) -> Result<Running> {
        self.treeline.run(&bench.log, train_every)
    }

    pub(crate) fn play(
        &self,
        items: Vec<Item>,
        marking: Option<Marking>,
        check: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Played<Item>> {
        let play = Play {
            server: SERVER_V4,
            drain: DRAIN,
            band: None,
        };
        played::play(self.bed, items, play, marking, check)
    }
}

pub(crate) fn demand(bench: &Bench<'_>, load: f64, seconds: u32) -> Demand {
    Demand {
        rate_bps: bench.options.rate,
        load,
        length: Duration::from_secs(seconds.into()),
        scale: bench.options.scale,
    }
}

/// Lets the agent learn from messages that are not measured; the model it ends with, if any acts.
///
/// # Errors
/// When the agent can't be started or ends by itself.
pub(crate) fn learn(
    bench: &mut Bench<'_>,
    place: &Place<'_>,
    workload: &'static Workload,
    load: f64,
) -> Result<Option<Value>> {
    let seconds = bench.options.learning_s();
    bench.progress.say(&format!(
        "{} on the {} bed: learning",
        workload.name,
        place.kind.name()
    ));
    let demand = demand(bench, load, seconds);
    let items = workload.schedule(&demand, bench.options.seed.wrapping_add(LEARNING_SEED));
    let mut agent = place.start_agent(bench, TRAIN_EVERY)?;
    place.play(items, None, &mut || agent.check())?;
    // A candidate that is watched acts after the next cycle, or not at all.
    let waited = wait::until("a model", LEARNING_EXTRA, || {
        agent.check()?;
        place.treeline.model()
    });
    let model = match waited {
        Ok(model) => Some(model),
        Err(error) if wait::interrupted() => return Err(error),
        Err(_nothing_learned) => None,
    };
    agent.stop()?;
    place.treeline.down()?;
    bench.progress.done(demand.length + LEARNING_EXTRA);
    bench.progress.say(&model.as_ref().map_or_else(
        || "no model acts: nothing that was learned was worth it".to_owned(),
        |model| format!("learned: {}", words::model_line(model)),
    ));
    Ok(model)
}

/// Plays all rounds at one load.
///
/// # Errors
/// When a run can't be made.
pub(crate) fn measure(
    bench: &mut Bench<'_>,
    place: &Place<'_>,
    workload: &'static Workload,
    load: f64,
    model: Option<Value>,
) -> Result<Cell> {
    let demand = demand(bench, load, bench.options.run_s());
    let tuned = tune(place, workload, &demand);
    let frame = Frame {
        workload,
        scale: bench.options.scale,
        run_s: demand.length.as_secs_f64(),
        learned: model.is_some(),
    };
    let rate_bps = bench.options.rate;
    let schemes = bench
        .schemes
        .iter()
        .map(|name| {
            let settings = scheme::describe(*name, place.kind, rate_bps, &tuned)?;
            Ok(SchemeReport::new(*name, settings, tuned.of(*name)))
        })
        .collect::<Result<_>>()?;
    let mut cell = Cell {
        workload: workload.name,
        about: workload.about,
        group: workload.group.letter(),
        bed: place.kind,
        load,
        base_kept_ms: millis(place.base.kept),
        base_fresh_ms: millis(place.base.fresh),
        model,
        schemes,
        gap_closed: GapClosed::default(),
    };
    for round in 0..bench.options.rounds() {
        let seed = bench.options.seed.wrapping_add(u64::from(round));
        let items = workload.schedule(&demand, seed);
        bench.progress.say(&format!(
            "{} on the {} bed at load {load}, round {} of {}: {} messages, offered {:.3}",
            workload.name,
            place.kind.name(),
            round + 1,
            bench.options.rounds(),
            items.len(),
            workload::offered_load(&items, &demand)
        ));
        let count = cell.schemes.len();
        for turn in 0..count {
            let index = (turn + round as usize) % count;
            let scheme = cell.schemes[index].name;
            let judged = judged_run(bench, place, &frame, &tuned, (scheme, &items))?;
            let entry = &mut cell.schemes[index];
            entry.runs.push(RunReport {
                round: round + 1,
                ..judged.report
            });
            entry.seen.extend(judged.seen);
            if let Some(cuts) = judged.cuts {
                entry.cuts_bytes = cuts.bytes.to_vec();
            }
            bench.progress.done(run_length(bench.options));
        }
    }
    cell.sum_up();
    Ok(cell)
}

/// A run that was taken.
struct Judged {
    report: RunReport,
    seen: Vec<Observation>,
    /// Those in force under treeline.
    cuts: Option<Cuts>,
}

/// Plays a run, again while it is disturbed and may be repeated.
fn judged_run(
    bench: &Bench<'_>,
    place: &Place<'_>,
    frame: &Frame,
    tuned: &Tuned,
    (scheme, items): (Scheme, &[Item]),
) -> Result<Judged> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let (played, cuts) = if scheme == Scheme::Treeline {
            play_treeline(bench, place, tuned, items, frame.learned)?
        } else {
            let standing =
                scheme::set_up(scheme, place.bed, bench.options.rate, tuned, &place.aging)?;
            let played = place.play(items.to_vec(), standing.marking(), &mut || Ok(()))?;
            (played, None)
        };
        let seen: Vec<Observation> = played
            .run
            .outcomes
            .iter()
            .filter(|outcome| outcome.arrival.at >= WARM_UP)
            .filter_map(|outcome| Observation::of(outcome, &place.base, bench.options.rate))
            .collect();
        let report = RunReport {
            attempts,
            ..RunReport::new(frame, &played, &seen)
        };
        let again = report.disturbed && attempts <= bench.options.repeats;
        say(bench, scheme, &report, again);
        if !again {
            return Ok(Judged { report, seen, cuts });
        }
    }
}

fn say(bench: &Bench<'_>, scheme: Scheme, report: &RunReport, again: bool) {
    let all = report.times(bed::stats::Class::All);
    bench.progress.say(&format!(
        "  {:<13} mean {:7.2} ms, p99 {:7.1} ms, slowdown {:6.2}; resent {}, dropped {}, unfinished {}{}",
        scheme.name(),
        all.fct_ms.mean,
        all.fct_ms.p99,
        all.slowdown.mean,
        report.retransmitted_segments,
        report.drops,
        report.unfinished + report.failed,
        match (report.disturbed, again) {
            (true, true) => "; disturbed, played again",
            (true, false) => "; disturbed",
            (false, _) => "",
        }
    ));
}

/// The agent starts with its kept model, if it has one, and runs on.
fn play_treeline(
    bench: &Bench<'_>,
    place: &Place<'_>,
    tuned: &Tuned,
    items: &[Item],
    learned: bool,
) -> Result<(Played<Item>, Option<Cuts>)> {
    let treeline = &place.treeline;
    let mut agent = place.start_agent(bench, MEASURED_TRAIN_EVERY)?;
    if learned {
        wait::until("the kept model", MODEL_LIMIT, || {
            agent.check()?;
            treeline.model()
        })
        .with_context(|| format!("see {}", bench.log.display()))?;
    }
    match bench.options.treeline_cuts {
        TreelineCuts::Own => {}
        TreelineCuts::Aging => treeline.set_cuts(tuned.aging)?,
        TreelineCuts::Oracle => treeline.set_cuts(tuned.oracle)?,
    }
    let played = place.play(items.to_vec(), None, &mut || agent.check())?;
    let cuts = treeline.cuts()?;
    agent.stop()?;
    treeline.down()?;
    Ok((played, Some(cuts)))
}

/// Cut points that are best for the very sizes of the workload: no baseline is to suffer from bad ones.
pub(crate) fn tune(place: &Place<'_>, workload: &'static Workload, demand: &Demand) -> Tuned {
    let sizes: Vec<Sized> = workload
        .schedule(
            &Demand {
                length: Duration::from_secs(60),
                ..*demand
            },
            LEARNING_SEED,
        )
        .iter()
        .map(|item| Sized {
            bytes: item.reply_bytes,
            base_s: place.base.of(item.kept).as_secs_f64(),
        })
        .collect();
    let link = Link {
        rate_bps: demand.rate_bps,
        load: demand.load,
        packet_bytes: place.packet_bytes,
    };
    let best = |knowing| thresholds::best_cuts(&sizes, &link, knowing);
    Tuned {
        aging: best(Knowing::BytesSent),
        oracle: best(Knowing::Size),
        two_bands: Cuts {
            bytes: [(100_000.0 * demand.scale) as u32; BANDS - 1],
            _pad: 0,
        },
        services: workload.services,
    }
}

#[cfg(test)]
mod tests {
    use bed::{stats::Class, traffic, workload::find};
    use clap::Parser as _;

    use super::*;
    use crate::{options::Options, progress::Progress};

    /// Plays two seconds of a workload under schemes that need no agent; every byte must arrive.
    fn delivers(kind: BedKind, name: &str, schemes: [Scheme; 2]) {
        let bed = match kind {
            BedKind::Host => Bed::host().unwrap(),
            BedKind::Router => Bed::router().unwrap(),
        };
        let options = Options::parse_from(["fct", "--seconds", "3"]);
        let bench = Bench::of(&options, Progress::new(Duration::ZERO));
        let base = traffic::measure_base(&bed).unwrap();
        let place = Place::new(&bench, kind, &bed, base, "test");
        let workload = find(name).unwrap();
        let demand = Demand {
            length: Duration::from_secs(2),
            ..demand(&bench, 0.5, 2)
        };
        let items = workload.schedule(&demand, 1);
        let tuned = tune(&place, workload, &demand);
        for scheme in schemes {
            let standing =
                scheme::set_up(scheme, &bed, options.rate, &tuned, &place.aging).unwrap();
            let played = place
                .play(items.clone(), standing.marking(), &mut || Ok(()))
                .unwrap();
            for outcome in &played.run.outcomes {
                let wanted = outcome.arrival.reply_bytes;
                assert_eq!(outcome.received_bytes, wanted, "{outcome:?}");
                assert!(outcome.completion.is_some() && !outcome.failed);
            }
            let frame = Frame {
                workload,
                scale: options.scale,
                run_s: 2.0,
                learned: false,
            };
            let seen: Vec<Observation> = played
                .run
                .outcomes
                .iter()
                .filter_map(|outcome| Observation::of(outcome, &base, options.rate))
                .collect();
            let report = RunReport::new(&frame, &played, &seen);
            assert_eq!(report.times(Class::All).fct_ms.count, items.len());
            let used = report.packets_per_band.iter().filter(|count| **count > 0);
            // Marks reach the queue on either bed: the oracle uses most of its bands.
            let least = if scheme == Scheme::Oracle { 5 } else { 1 };
            assert!(used.count() >= least, "{:?}", report.packets_per_band);
        }
    }

    #[test]
    fn every_byte_arrives_on_the_host_bed() {
        delivers(BedKind::Host, "services", [Scheme::Fifo, Scheme::Oracle]);
    }

    #[test]
    fn every_byte_arrives_on_the_router_bed_from_every_network() {
        delivers(
            BedKind::Router,
            "networks",
            [Scheme::PfifoFast, Scheme::Oracle],
        );
    }
}
