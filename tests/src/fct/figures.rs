//! What one run came to, and what several rounds have in common.

use std::collections::BTreeMap;

use bed::{
    machine::Disturbance,
    played::Played,
    stats::{Class, Figures, Observation, millis},
    workload::{Item, Workload},
};
use serde::Serialize;

/// Sizes up to these are small and medium, before they are scaled.
const CLASS_BOUNDS_BYTES: (f64, f64) = (100_000.0, 10_000_000.0);
/// A generator that starts messages later than this did not offer what it says it did.
const LATENESS_MEAN_LIMIT_MS: f64 = 2.0;
const LATENESS_P99_LIMIT_MS: f64 = 10.0;

/// Figures of one group of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Times {
    /// Completion time, milliseconds.
    pub(crate) fct_ms: Figures,
    /// Completion time over that of the idle link.
    pub(crate) slowdown: Figures,
    /// Payload over completion time, all messages together, bits per second.
    pub(crate) throughput_bps: f64,
}

impl Times {
    pub(crate) fn of(seen: impl Iterator<Item = Observation> + Clone) -> Self {
        let bits: f64 = seen.clone().map(|one| one.reply_bytes as f64 * 8.0).sum();
        let seconds: f64 = seen.clone().map(|one| one.fct_ms / 1e3).sum();
        Self {
            fct_ms: Figures::of(seen.clone().map(|one| one.fct_ms)),
            slowdown: Figures::of(seen.map(|one| one.slowdown)),
            throughput_bps: if seconds > 0.0 { bits / seconds } else { 0.0 },
        }
    }
}

/// One run of one scheme.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RunReport {
    /// Counted from one.
    pub(crate) round: u32,
    /// How often it was played until it was taken.
    pub(crate) attempts: u32,
    /// Whether the one that was taken was disturbed all the same.
    pub(crate) disturbed: bool,
    /// By size class, of the sizes before scaling.
    pub(crate) by_class: BTreeMap<Class, Times>,
    /// By name of the service.
    pub(crate) by_service: BTreeMap<&'static str, Times>,
    /// Payload of finished messages over the time in which messages arrive.
    pub(crate) goodput_bps: f64,
    /// Segments that the server sent.
    pub(crate) sent_segments: u64,
    /// Segments that the server sent again.
    pub(crate) retransmitted_segments: u64,
    /// Packets dropped by the queues.
    pub(crate) drops: u64,
    /// Most bytes seen waiting.
    pub(crate) backlog_peak_bytes: u64,
    /// Packets sent by each band; one number for one queue.
    pub(crate) packets_per_band: Vec<u64>,
    /// Messages not finished when waiting ended.
    pub(crate) unfinished: usize,
    /// Messages whose connection failed.
    pub(crate) failed: usize,
    /// How late the generator started messages, milliseconds.
    pub(crate) lateness_ms: Figures,
    /// CPU time of the generator as a share of one core.
    pub(crate) generator_cpu: f64,
    /// What else went on in the machine.
    pub(crate) machine: Disturbance,
}

/// What a run is judged against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) workload: &'static Workload,
    pub(crate) scale: f64,
    pub(crate) run_s: f64,
    /// Whether a model is kept from learning.
    pub(crate) learned: bool,
}

impl Frame {
    pub(crate) fn class_of(&self, reply_bytes: u64) -> Class {
        let bound = |bytes: f64| (bytes * self.scale) as u64;
        let bounds = (bound(CLASS_BOUNDS_BYTES.0), bound(CLASS_BOUNDS_BYTES.1));
        Class::within(reply_bytes, bounds)
    }
}

impl RunReport {
    /// Sums up a run; `seen` is what of it is judged.
    pub(crate) fn new(frame: &Frame, played: &Played<Item>, seen: &[Observation]) -> Self {
        let outcomes = &played.run.outcomes;
        let failed = outcomes.iter().filter(|outcome| outcome.failed).count();
        let finished = outcomes
            .iter()
            .filter(|outcome| outcome.completion.is_some());
        let unfinished = outcomes.len() - finished.clone().count() - failed;
        let bytes: u64 = finished.map(|outcome| outcome.received_bytes).sum();
        let class = |class| {
            let chosen = seen
                .iter()
                .filter(move |one| class == Class::All || frame.class_of(one.reply_bytes) == class);
            (class, Times::of(chosen.copied()))
        };
        let service = |(place, service): (usize, &bed::workload::Service)| {
            let chosen = seen.iter().filter(move |one| one.service == place);
            (service.name, Times::of(chosen.copied()))
        };
        let lateness_ms = Figures::of(outcomes.iter().map(|outcome| millis(outcome.lateness)));
        Self {
            round: 0,
            attempts: 1,
            disturbed: is_disturbed(&played.run.disturbance, &lateness_ms),
            by_class: Class::ALL.map(class).into(),
            by_service: frame
                .workload
                .services
                .iter()
                .enumerate()
                .map(service)
                .collect(),
            goodput_bps: bytes as f64 * 8.0 / frame.run_s,
            sent_segments: played.segments.sent,
            retransmitted_segments: played.segments.retransmitted,
            drops: played.queues.drops,
            backlog_peak_bytes: played.backlog_peak_bytes,
            packets_per_band: played.queues.packets.clone(),
            unfinished,
            failed,
            lateness_ms,
            generator_cpu: played.run.generator_cpu,
            machine: played.run.disturbance,
        }
    }

    pub(crate) fn times(&self, class: Class) -> Times {
        self.by_class.get(&class).copied().unwrap_or_default()
    }
}

/// Whether the machine was taken from a run, or the generator late.
pub(crate) fn is_disturbed(machine: &Disturbance, lateness_ms: &Figures) -> bool {
    machine.is_stolen_from()
        || lateness_ms.mean > LATENESS_MEAN_LIMIT_MS
        || lateness_ms.p99 > LATENESS_P99_LIMIT_MS
}

/// Median and range over rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one; of an even number the mean of the two middle ones.
    pub(crate) median: f64,
    /// The least.
    pub(crate) min: f64,
    /// The largest.
    pub(crate) max: f64,
}

impl Spread {
    /// `None` without values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        values.sort_unstable_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(*values.get(middle.checked_sub(1)?)?, values[middle])
        } else {
            values[middle]
        };
        Some(Self {
            median,
            min: *values.first()?,
            max: *values.last()?,
        })
    }
}

/// Spread of the figures of one group of messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct SpreadTimes {
    pub(crate) messages: usize,
    pub(crate) fct_mean_ms: Spread,
    pub(crate) fct_p50_ms: Spread,
    pub(crate) fct_p99_ms: Spread,
    pub(crate) slowdown_mean: Spread,
    pub(crate) slowdown_p99: Spread,
    pub(crate) throughput_bps: Spread,
}

impl SpreadTimes {
    pub(crate) fn of(rounds: &[Times]) -> Self {
        let spread =
            |value: fn(&Times) -> f64| Spread::of(rounds.iter().map(value)).unwrap_or_default();
        Self {
            messages: rounds.iter().map(|times| times.fct_ms.count).sum(),
            fct_mean_ms: spread(|times| times.fct_ms.mean),
            fct_p50_ms: spread(|times| times.fct_ms.p50),
            fct_p99_ms: spread(|times| times.fct_ms.p99),
            slowdown_mean: spread(|times| times.slowdown.mean),
            slowdown_p99: spread(|times| times.slowdown.p99),
            throughput_bps: spread(|times| times.throughput_bps),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use super::*;

    /// A run whose messages all took `factor` times what they would have alone.
    pub(crate) fn run_of(round: u32, factor: f64) -> RunReport {
        let frame = Frame {
            workload: bed::workload::find("services").unwrap(),
            scale: 0.1,
            run_s: 10.0,
            learned: true,
        };
        let played = Played {
            run: bed::traffic::Run {
                outcomes: Vec::new(),
                generator_cpu: 0.1,
                disturbance: Disturbance::default(),
            },
            queues: bed::scheme::Queues::default(),
            segments: bed::netns::Segments::default(),
            backlog_peak_bytes: 0,
        };
        let seen = observations(factor);
        RunReport {
            round,
            ..RunReport::new(&frame, &played, &seen)
        }
    }

    pub(crate) fn observations(factor: f64) -> Vec<Observation> {
        (0..300u32)
            .map(|i| Observation {
                service: (i % 5) as usize,
                at: Duration::from_millis(u64::from(i) * 100),
                reply_bytes: 1 + u64::from(i * i) * 40,
                fct_ms: f64::from(i + 1) * factor,
                slowdown: factor,
            })
            .collect()
    }

    #[test]
    fn spreads_are_medians_and_ranges() {
        let spread = Spread::of([3.0, 1.0, 10.0]).unwrap();
        assert_eq!((spread.median, spread.min, spread.max), (3.0, 1.0, 10.0));
        assert_eq!(Spread::of([4.0, 2.0]).unwrap().median, 3.0);
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([f64::NAN]), None);
    }

    #[test]
    fn classes_are_of_the_sizes_before_scaling() {
        let frame = Frame {
            workload: bed::workload::find("services").unwrap(),
            scale: 0.1,
            run_s: 1.0,
            learned: true,
        };
        assert_eq!(frame.class_of(10_000), Class::Small);
        assert_eq!(frame.class_of(10_001), Class::Medium);
        assert_eq!(frame.class_of(1_000_001), Class::Large);
    }

    #[test]
    fn throughput_is_all_bits_over_all_time() {
        let seen = observations(2.0);
        let times = Times::of(seen.iter().copied());
        let bits: u64 = seen.iter().map(|one| one.reply_bytes * 8).sum();
        // 1 + 2 + … + 300 messages of twice as many milliseconds.
        let wanted = bits as f64 / (45_150.0 * 2e-3);
        assert!((times.throughput_bps / wanted - 1.0).abs() < 1e-9);
        assert_eq!(times.slowdown.mean, 2.0);
        assert_eq!(times.fct_ms.p50, 300.0);
    }

    #[test]
    fn runs_are_split_by_class_and_service() {
        let run = run_of(1, 1.0);
        let parts =
            [Class::Small, Class::Medium, Class::Large].map(|class| run.times(class).fct_ms.count);
        assert_eq!(
            parts.iter().sum::<usize>(),
            run.times(Class::All).fct_ms.count
        );
        assert!(parts.iter().all(|count| *count > 0), "{parts:?}");
        assert_eq!(run.by_service.len(), 5);
        assert_eq!(run.by_service["web"].fct_ms.count, 60);
    }

    #[test]
    fn a_late_generator_or_a_stolen_processor_disturbs_a_run() {
        let calm = Figures::of([0.5; 100]);
        assert!(!is_disturbed(&Disturbance::default(), &calm));
        assert!(is_disturbed(
            &Disturbance::default(),
            &Figures::of([3.0; 100])
        ));
        let stolen = Disturbance {
            steal_mean: 0.05,
            ..Disturbance::default()
        };
        assert!(is_disturbed(&stolen, &calm));
        let busy = Disturbance {
            busy: 1.0,
            ..Disturbance::default()
        };
        assert!(!is_disturbed(&busy, &calm));
    }
}
