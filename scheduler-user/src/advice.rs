//! What scheduling would have meant for what was seen: advice before anything acts.

use std::{collections::BTreeMap, fs, io, path::Path};

use scheduler_common::{features::Feature, sample::Hook};
use serde::{Deserialize, Serialize};

use crate::{
    dataset::Row,
    learning::unix_now_s,
    model::{Model, Thresholds, compile},
    simulate::{Bottleneck, Paths, Replay, Scheme, Traffic, banded, replay},
    training::{JudgeLimits, split},
};

/// Version of the JSON.
pub const SCHEMA: u32 = 1;
/// Share of the link that is asked for in the replay: the middle of [`crate::training::LOADS`].
const LOAD: f64 = 0.8;
/// Services named; the others stand together.
const MAX_SERVICES: usize = 12;
/// Ports from here on are what the kernel gives clients that name none, and no service.
const FIRST_EPHEMERAL: u32 = 32_768;

/// The same messages under three disciplines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// First come, first served: what a link does without a scheduler.
    pub fifo: Replay,
    /// Bands by bytes sent, which needs no learning.
    pub aging: Replay,
    /// Bands by the model; absent where there is none that may act.
    pub learned: Option<Replay>,
}

/// The messages of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// As `tcp 443`; `other` for what is not named.
    pub name: String,
    /// Its messages.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What they would have met.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// What was learned by watching, and what it would be worth.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Rate of the link that was replayed, bits per second.
    pub rate_bps: u64,
    /// Share of it that was asked for.
    pub load: f64,
    /// Messages that were replayed: later ones, which the model has not learned from.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether a model may act.
    pub accepted: bool,
    /// Why, in one sentence.
    pub reason: String,
    /// When it was worked out, seconds since 1970; 0 in files from before that was noted.
    #[serde(default)]
    pub unix_s: u64,
    /// The model that was replayed; absent where there is none, or it has no number yet.
    #[serde(default)]
    pub generation: Option<u32>,
    /// All messages, also by class of size.
    pub all: Comparison,
    /// The same by service, the one with most bytes first.
    pub services: Vec<Service>,
}

impl Advice {
    /// Replays the later rows that `model` has not learned from; `None` where there are too few messages.
    pub fn of(rows: &[Row], model: Option<&Model>, limits: &JudgeLimits) -> Option<Self> {
        let mut fresh = split(rows, limits).held_out;
        fresh.retain(|row| {
            let learned =
                |model: &Model| (model.data.from_ns..=model.data.to_ns).contains(&row.time_ns);
            row.hook == Hook::Egress && !model.is_some_and(learned)
        });
        let traffic = Traffic::of(&fresh).latest(limits.max_messages);
        if traffic.messages().len() < limits.min_messages {
            return None;
        }
        let table = model.and_then(|model| compile(model).ok());
        // Each under the cuts that it has where it rules.
        let cuts = [
            limits.aging,
            model.map_or(limits.aging, |model| model.thresholds),
        ];
        let ran = Ran::of(&traffic, &limits.link, &cuts, |row| {
            let leaf = table.as_ref()?.walk(&row.features)?;
            Some(leaf.bytes_to_come())
        });
        let has_model = table.is_some();
        Some(Self {
            schema: SCHEMA,
            rate_bps: limits.link.rate_bps,
            load: LOAD,
            messages: traffic.messages().len() as u64,
            bytes: traffic.bytes(),
            accepted: has_model,
            reason: String::new(),
            unix_s: unix_now_s(),
            generation: model
                .map(|model| model.generation)
                .filter(|generation| *generation > 0),
            all: ran.compare(&limits.link, has_model, |_| true),
            services: services(&traffic, &ran, &limits.link, has_model),
        })
    }

    /// The same, with what the judge says.
    #[must_use]
    pub fn because(self, accepted: bool, reason: &str) -> Self {
        Self {
            accepted,
            reason: reason.to_owned(),
            ..self
        }
    }

    /// Writes it to a file, whole or not at all.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let partial = path.with_extension("partial");
        fs::write(&partial, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&partial, path)
    }

    /// Reads what [`Advice::save`] has written; `None` if there is nothing.
    ///
    /// # Errors
    /// If the file can't be read or is damaged.
    pub fn load(path: &Path) -> io::Result<Option<Self>> {
        match fs::read(path) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The replays, message by message.
struct Ran {
    jobs: Vec<crate::simulate::Job>,
    fifo: Vec<f64>,
    aging: Vec<f64>,
    learned: Vec<f64>,
}

impl Ran {
    fn of(
        traffic: &Traffic,
        link: &Bottleneck,
        [aging, learned]: &[Thresholds; 2],
        guess: impl FnMut(&Row) -> Option<u64>,
    ) -> Self {
        let jobs = traffic.jobs(LOAD);
        let sized = traffic.sized();
        let aging = Paths::of_verdicts(&sized, &aging.within(link.settings), |_| None);
        let learned = Paths::of_verdicts(&sized, &learned.within(link.settings), guess);
        let link = link.under(traffic);
        let banded = |paths: &Paths| banded(&jobs, paths, &link);
        Self {
            fifo: replay(&jobs, Scheme::Fifo),
            aging: banded(&aging),
            learned: banded(&learned),
            jobs,
        }
    }

    /// Figures of the messages, by their place, that are wanted.
    fn compare(
        &self,
        link: &Bottleneck,
        has_model: bool,
        wanted: impl Fn(usize) -> bool,
    ) -> Comparison {
        let jobs: Vec<_> = (self.jobs.iter().copied())
            .filter(|job| wanted(job.message))
            .collect();
        let figures = |took: &[f64]| {
            let of_jobs = self.jobs.iter().zip(took);
            let took: Vec<f64> = of_jobs
                .filter(|(job, _)| wanted(job.message))
                .map(|(_, took)| *took)
                .collect();
            Replay::of(&jobs, &took, link)
        };
        Comparison {
            fifo: figures(&self.fifo),
            aging: figures(&self.aging),
            learned: has_model.then(|| figures(&self.learned)),
        }
    }
}

fn services(traffic: &Traffic, ran: &Ran, link: &Bottleneck, has_model: bool) -> Vec<Service> {
    let names: Vec<String> = (traffic.sized().iter())
        .map(|(_, rows)| rows.first().map_or_else(String::new, name_of))
        .collect();
    let mut bytes_of: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, message) in names.iter().zip(traffic.messages()) {
        *bytes_of.entry(name).or_default() += message.bytes;
    }
    let mut ranked: Vec<(&str, u64)> = bytes_of.into_iter().collect();
    ranked.sort_by_key(|(name, bytes)| (*name == OTHER, std::cmp::Reverse(*bytes)));
    let shown: Vec<&str> = (ranked.iter().take(MAX_SERVICES))
        .map(|(name, _)| *name)
        .filter(|name| *name != OTHER)
        .collect();
    let belongs = |place: usize, wanted: &str| {
        let name = names[place].as_str();
        name == wanted || (wanted == OTHER && !shown.contains(&name))
    };
    (shown.iter().copied().chain([OTHER]))
        .map(|wanted| {
            let places = (0..names.len()).filter(|place| belongs(*place, wanted));
            let bytes = places.map(|place| traffic.messages()[place].bytes);
            Service {
                name: wanted.to_owned(),
                messages: bytes.clone().count() as u64,
                bytes: bytes.sum(),
                comparison: ran.compare(link, has_model, |place| belongs(place, wanted)),
            }
        })
        .filter(|service| service.messages > 0)
        .collect()
}

const OTHER: &str = "other";

fn name_of(row: &Row) -> String {
    let port = row.feature(Feature::ServicePort);
    let protocol = match row.feature(Feature::Protocol) {
        6 => "tcp",
        17 => "udp",
        _ => return OTHER.to_owned(),
    };
    if port == 0 || port >= FIRST_EPHEMERAL {
        return OTHER.to_owned();
    }
    format!("{protocol} {port}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dataset::samples,
        training::{DecisionTree, Trainer as _},
    };

    /// Short messages on port 80 and long ones on 443, in turn.
    fn rows() -> Vec<Row> {
        (0..4000)
            .map(|time| {
                let is_long = time % 4 == 0;
                let mut row = samples::row(time, time * 1_000_000, if is_long { 443 } else { 80 });
                row.features[Feature::Protocol as usize] = 6;
                row.total_bytes = if is_long { 3_000_000 } else { 40_000 };
                row.remaining_bytes = row.total_bytes - row.bytes_at;
                row
            })
            .collect()
    }

    #[test]
    fn short_messages_are_promised_what_a_model_gives_them() {
        let rows = rows();
        let limits = JudgeLimits::of_rate(100_000_000);
        let parts = split(&rows, &limits);
        let model = DecisionTree::default().train(&parts.train).unwrap();
        let advice = Advice::of(&rows, Some(&model), &limits).unwrap();
        assert!(advice.messages > 1000 && advice.rate_bps == 100_000_000);
        let names: Vec<&str> = advice.services.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["tcp 443", "tcp 80"]);
        let short = &advice.services[1].comparison;
        let slowdown = |replay: &Replay| replay.all.mean_slowdown;
        assert!(
            slowdown(&short.learned.unwrap()) < slowdown(&short.fifo) / 2.0,
            "{short:?}"
        );
        let messages: u64 = advice.services.iter().map(|it| it.messages).sum();
        assert_eq!(messages, advice.messages);
        assert_eq!(advice.all.fifo.all.messages, advice.messages);
    }

    #[test]
    fn without_a_model_aging_is_told_and_few_messages_tell_nothing() {
        let limits = JudgeLimits::default();
        let advice = Advice::of(&rows(), None, &limits).unwrap();
        assert!(!advice.accepted && advice.all.learned.is_none());
        assert!(advice.all.aging.small.mean_slowdown < advice.all.fifo.small.mean_slowdown);
        assert_eq!(Advice::of(&rows()[..60], None, &limits), None);
    }

    #[test]
    fn advice_survives_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("advice.json");
        assert_eq!(Advice::load(&path).unwrap(), None);
        let advice = Advice::of(&rows(), None, &JudgeLimits::default())
            .unwrap()
            .because(false, "too few");
        advice.save(&path).unwrap();
        let read = Advice::load(&path).unwrap().unwrap();
        assert_eq!(
            (read.messages, read.reason),
            (advice.messages, advice.reason)
        );
    }
}
