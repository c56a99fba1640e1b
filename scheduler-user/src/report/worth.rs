//! The same messages without a scheduler, by bytes sent, and by what was learned.

use serde::Serialize;

use super::{Described, Period};
use crate::{
    advice::{Advice, Comparison, Service},
    simulate::{CLASS_BOUNDS_BYTES, Figures, Replay},
    status::Status,
};

/// Where the figures come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The agent's latest replay of what it had seen.
    LatestReplay,
    /// What the judge has written into the model's file when it accepted it; services are not told apart there.
    Judgement,
}

/// What scheduling did to the messages' completion times, or would have.
#[derive(Clone, Debug, Serialize)]
pub struct Worth {
    /// Where the figures come from.
    pub source: Source,
    /// When they were worked out, seconds since 1970.
    pub unix_s: u64,
    /// The model among the rivals; absent where only aging stands against first come, first served.
    pub generation: Option<u32>,
    /// Whether packets are scheduled so, or were; else it is what would have been.
    pub acts: bool,
    /// Rate of the link that was replayed, bits per second.
    pub rate_bps: u64,
    /// Share of it that was asked for.
    pub load: f64,
    /// Messages that were replayed.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// All messages, also by class of size.
    pub all: Comparison,
    /// The same by service, the one with most bytes first.
    pub services: Vec<Service>,
}

/// The latest replay if it is of the period, else what the acting model's file says.
pub(super) fn of(
    advice: Option<Advice>,
    model: Option<&Described>,
    (acting, now): (Option<u32>, Option<&Status>),
    period: &Period,
) -> Option<Worth> {
    let fresh = advice.filter(|advice| period.holds(advice.unix_s));
    if let Some(advice) = fresh {
        let watches = now.is_some_and(|now| now.observes_only);
        let schedules = now.is_some_and(|now| !now.interfaces.is_empty());
        let replayed = advice.all.learned.and(advice.generation);
        return Some(Worth {
            source: Source::LatestReplay,
            unix_s: advice.unix_s,
            generation: advice.generation,
            acts: !watches && replayed == acting && (acting.is_some() || schedules),
            rate_bps: advice.rate_bps,
            load: advice.load,
            messages: advice.messages,
            bytes: advice.bytes,
            all: advice.all,
            services: advice.services,
        });
    }
    let model = model.filter(|model| acting == Some(model.summary.generation))?;
    let gains = model.scores.as_ref()?.gains.as_ref()?;
    let load = gains.loads.get(gains.loads.len() / 2)?;
    Some(Worth {
        source: Source::Judgement,
        unix_s: model.created_unix_s,
        generation: Some(model.summary.generation),
        acts: true,
        rate_bps: gains.link_rate_bps,
        load: load.load,
        messages: gains.messages,
        bytes: gains.bytes,
        all: Comparison {
            fifo: load.fifo,
            aging: load.aging,
            learned: load.candidate,
        },
        services: Vec::new(),
    })
}

impl Worth {
    /// What the messages met: by the model, else by bytes sent.
    pub(super) fn scheduled(&self) -> &Replay {
        scheduled(&self.all)
    }

    /// How many times sooner messages were complete than as they come, in the mean.
    pub(super) fn gain(&self) -> f64 {
        ratio(&self.all.fifo.all, &self.scheduled().all)
    }

    /// The same over bytes sent alone; absent without a model.
    pub(super) fn gain_of_learning(&self) -> Option<f64> {
        let learned = self.all.learned?;
        Some(ratio(&self.all.aging.all, &learned.all))
    }
}

/// What the messages met: by the model, else by bytes sent.
pub(super) fn scheduled(of: &Comparison) -> &Replay {
    of.learned.as_ref().unwrap_or(&of.aging)
}

/// Completion time of the first over that of the second.
pub(super) fn ratio(before: &Figures, after: &Figures) -> f64 {
    if after.mean_fct_ms > 0.0 {
        before.mean_fct_ms / after.mean_fct_ms
    } else {
        1.0
    }
}

/// The figures of one class of size.
pub(super) type OfClass = fn(&Replay) -> Figures;

/// Classes of size that have messages, by name.
pub(super) fn classes(of: &Replay) -> Vec<(String, OfClass)> {
    let [small, medium] = CLASS_BOUNDS_BYTES.map(|bytes| crate::model::human_bytes(bytes as f64));
    let all: [(String, OfClass); 3] = [
        (format!("up to {small}"), |it| it.small),
        (format!("{small} to {medium}"), |it| it.medium),
        (format!("above {medium}"), |it| it.large),
    ];
    all.into_iter()
        .filter(|(_, figures)| figures(of).messages > 0)
        .collect()
}
