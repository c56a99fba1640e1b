//! What a replay meant for the messages: completion times and slowdowns.

use scheduler_common::settings::Settings;
use serde::{Deserialize, Serialize};

use super::{Job, Traffic, Within};

/// Largest messages of the classes small and medium.
pub const CLASS_BOUNDS_BYTES: [u64; 2] = [100_000, 10_000_000];

/// Classes of size: small, medium, large.
pub(crate) const CLASSES: usize = CLASS_BOUNDS_BYTES.len() + 1;

/// The link that is replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// Its rate.
    pub rate_bps: u64,
    /// What a message takes on an idle link beside its bytes: round trips, the ends' own work. Without it a
    /// message of 100 bytes that waits for one packet would count as slowed down fifteenfold.
    pub base_ns: u64,
    /// Bytes that it sends at a time, which nothing interrupts; 0 where any byte may follow any other.
    pub packet_bytes: u64,
    /// Cuts and first bytes.
    pub settings: Settings,
    /// How messages of one band share it.
    pub within: Within,
}

impl Bottleneck {
    /// A link of that rate with the default settings, and with the base that was measured on the idle test bed, over a
    /// connection that stood already: a handshake is no part of a message.
    pub fn of_rate(rate_bps: u64) -> Self {
        Self {
            rate_bps: rate_bps.max(1),
            base_ns: 60_000,
            packet_bytes: 0,
            settings: Settings::default(),
            within: Within::default(),
        }
    }

    /// The same with the packets of this traffic.
    pub(crate) fn under(self, traffic: &Traffic) -> Self {
        Self {
            packet_bytes: traffic.packet_bytes(),
            ..self
        }
    }

    fn ns_per_byte(&self) -> f64 {
        8e9 / self.rate_bps as f64
    }

    /// Completion time in nanoseconds of a message that is under way while the link could send so many bytes.
    pub(super) fn felt_ns(&self, took: f64) -> f64 {
        took.mul_add(self.ns_per_byte(), self.base_ns as f64)
    }
}

/// Completion times and slowdowns of some messages.
///
/// Completion time is from arrival to the last byte, base included; slowdown is that time relative to the
/// same on an idle link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Messages it was measured on; with 0 the rest says nothing.
    pub messages: u64,
    /// Mean completion time.
    pub mean_fct_ms: f64,
    /// Mean slowdown.
    pub mean_slowdown: f64,
    /// The slowdown that one message in a hundred exceeds.
    pub p99_slowdown: f64,
}

/// What one discipline did, in all and by class of size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// All messages.
    pub all: Figures,
    /// Up to 100 kB.
    pub small: Figures,
    /// Above, up to 10 MB.
    pub medium: Figures,
    /// Above that.
    pub large: Figures,
}

/// Sums over the messages of each class: what the bootstrap needs, without the sorting for the rest.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) messages: [u64; CLASSES],
    fct_ns: [f64; CLASSES],
    slowdown: [f64; CLASSES],
}

/// Class of a message by its size.
pub(crate) fn class_of(bytes: f64) -> usize {
    let above = |bound: &&u64| bytes > **bound as f64;
    CLASS_BOUNDS_BYTES.iter().filter(above).count()
}

impl Tally {
    pub(crate) fn of(jobs: &[Job], took: &[f64], link: &Bottleneck) -> Self {
        Self::of_those(jobs, took, link, |_| true)
    }

    /// The same of some of the messages.
    pub(crate) fn of_those(
        jobs: &[Job],
        took: &[f64],
        link: &Bottleneck,
        counts: impl Fn(&Job) -> bool,
    ) -> Self {
        let mut tally = Self::default();
        for (job, took) in jobs.iter().zip(took).filter(|(job, _)| counts(job)) {
            let class = class_of(job.bytes);
            let (fct_ns, slowdown) = felt(job, *took, link);
            tally.messages[class] += 1;
            tally.fct_ns[class] += fct_ns;
            tally.slowdown[class] += slowdown;
        }
        tally
    }

    /// Mean completion time of all, nanoseconds.
    pub(crate) fn mean_fct_ns(&self) -> f64 {
        self.fct_ns.iter().sum::<f64>() / self.messages.iter().sum::<u64>().max(1) as f64
    }

    /// Mean slowdown of all.
    pub(crate) fn mean_slowdown(&self) -> f64 {
        self.slowdown.iter().sum::<f64>() / self.messages.iter().sum::<u64>().max(1) as f64
    }

    /// Mean slowdown of a class that has messages.
    pub(crate) fn class_slowdown(&self, class: usize) -> f64 {
        self.slowdown[class] / self.messages[class].max(1) as f64
    }
}

/// Completion time in nanoseconds and slowdown.
pub(crate) fn felt(job: &Job, took: f64, link: &Bottleneck) -> (f64, f64) {
    let fct_ns = link.felt_ns(took);
    (fct_ns, fct_ns / link.felt_ns(job.bytes))
}

impl Replay {
    /// What `took`, of [`super::replay`], means on `link`.
    pub fn of(jobs: &[Job], took: &[f64], link: &Bottleneck) -> Self {
        let felt: Vec<(usize, (f64, f64))> = (jobs.iter().zip(took))
            .map(|(job, took)| (class_of(job.bytes), felt(job, *took, link)))
            .collect();
        let figures = |class: Option<usize>| {
            let of_class = felt.iter().filter(|it| class.is_none_or(|c| c == it.0));
            Figures::of(of_class.map(|it| it.1))
        };
        Self {
            all: figures(None),
            small: figures(Some(0)),
            medium: figures(Some(1)),
            large: figures(Some(2)),
        }
    }
}

impl Figures {
    fn of(felt: impl Iterator<Item = (f64, f64)>) -> Self {
        let (fct_ns, mut slowdowns): (Vec<f64>, Vec<f64>) = felt.unzip();
        let messages = slowdowns.len();
        if messages == 0 {
            return Self::default();
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / messages as f64;
        let (mean_fct_ms, mean_slowdown) = (mean(&fct_ns) / 1e6, mean(&slowdowns));
        let place = (messages * 99 / 100).min(messages - 1);
        let (_, p99, _) = slowdowns.select_nth_unstable_by(place, f64::total_cmp);
        Self {
            messages: messages as u64,
            mean_fct_ms,
            mean_slowdown,
            p99_slowdown: *p99,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(bytes: f64) -> Job {
        Job {
            arrival: 0.0,
            bytes,
            message: 0,
        }
    }

    #[test]
    fn slowdown_is_relative_to_an_idle_link() {
        let link = Bottleneck {
            base_ns: 1_000_000,
            ..Bottleneck::of_rate(8_000_000)
        };
        // 1000 bytes take a millisecond, and the base one more.
        let replay = Replay::of(&[job(1000.0); 2], &[1000.0, 5000.0], &link);
        assert_eq!(replay.all.messages, 2);
        assert!((replay.all.mean_slowdown - 2.0).abs() < 1e-9, "{replay:?}");
        assert!((replay.all.mean_fct_ms - 4.0).abs() < 1e-9);
        assert!((replay.all.p99_slowdown - 3.0).abs() < 1e-9);
    }

    #[test]
    fn classes_are_told_by_size_and_add_up() {
        let jobs = [100_000.0, 100_001.0, 10_000_000.0, 10_000_001.0].map(job);
        let took = jobs.map(|job| job.bytes);
        let link = Bottleneck::of_rate(1_000_000_000);
        let replay = Replay::of(&jobs, &took, &link);
        let counts = [replay.small, replay.medium, replay.large].map(|figures| figures.messages);
        assert_eq!(counts, [1, 2, 1]);
        let tally = Tally::of(&jobs, &took, &link);
        assert_eq!(tally.messages, counts);
        assert!((tally.mean_fct_ns() / 1e6 - replay.all.mean_fct_ms).abs() < 1e-9);
        assert!((tally.mean_slowdown() - 1.0).abs() < 1e-9);
        assert!((tally.class_slowdown(1) - 1.0).abs() < 1e-9);
        assert_eq!(Replay::of(&[], &[], &link), Replay::default());
    }
}
