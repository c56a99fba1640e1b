//! What scheduling by a model would have meant for recent messages.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use super::{
    cuts::{distribution_cuts, score},
    evaluate::{InKernel, Predictor},
};
use crate::{
    dataset::Row,
    model::{CompileError, Model, Thresholds, compile},
    simulate::{Bottleneck, Figures, Job, Paths, Replay, Scheme, Traffic, banded, replay},
};

/// Shares of the link that are asked for in turn.
pub const LOADS: [f64; 3] = [0.5, 0.8, 0.9];

/// A gap from aging to the oracle below this leaves nothing to win, and no share of it is named.
const LEAST_GAP: f64 = 0.05;

/// The same messages under every discipline, load by load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Gains {
    /// Rate of the link that was replayed.
    pub link_rate_bps: u64,
    /// Messages that were.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// By load, ascending.
    pub loads: Vec<LoadGains>,
}

/// The same messages under every discipline at one load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadGains {
    /// Share of the link that is asked for.
    pub load: f64,
    /// As they came.
    pub fifo: Replay,
    /// All at equal rates.
    pub fair: Replay,
    /// Bands by bytes sent, under the cuts that suit it: the floor.
    pub aging: Replay,
    /// Bands by what bytes so far foretell, which needs no feature.
    pub bytes_so_far: Option<Replay>,
    /// Bands by the running model.
    pub running: Option<Replay>,
    /// Bands by the model on trial.
    pub candidate: Option<Replay>,
    /// Bands by the program's own verdict with guesses that are always right, under the cuts of the model on trial.
    pub perfect: Replay,
    /// Bands by real sizes from the first byte, under the best of several cuts.
    pub oracle: Replay,
}

/// Share of the gap from aging to the oracle that is closed; absent where the gap is below 5 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Closed {
    /// Of the gap in mean slowdown.
    pub mean_slowdown: Option<f64>,
    /// Of the gap in mean completion time.
    pub mean_fct: Option<f64>,
}

impl LoadGains {
    /// What the model on trial, or else the running one, closes of the gap.
    pub fn closed(&self) -> Closed {
        let Some(model) = self.candidate.or(self.running) else {
            return Closed::default();
        };
        let share = |of: fn(&Replay) -> f64| {
            let (aging, oracle) = (of(&self.aging), of(&self.oracle));
            (aging > oracle * (1.0 + LEAST_GAP)).then(|| (aging - of(&model)) / (aging - oracle))
        };
        Closed {
            mean_slowdown: share(|replay| replay.all.mean_slowdown),
            mean_fct: share(|replay| replay.all.mean_fct_ms),
        }
    }
}

impl Display for Gains {
    /// The middle load alone: one line of a list.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(gains) = self.loads.get(self.loads.len() / 2) else {
            return write!(f, "nothing replayed");
        };
        let figures = |replay: &Replay| {
            let Figures {
                mean_slowdown,
                mean_fct_ms,
                ..
            } = replay.all;
            format!("{mean_slowdown:.2} and {mean_fct_ms:.1} ms")
        };
        write!(
            f,
            "mean slowdown and completion time at load {}: aging {}",
            gains.load,
            figures(&gains.aging)
        )?;
        if let Some(model) = gains.candidate.or(gains.running) {
            write!(f, ", model {}", figures(&model))?;
        }
        write!(f, ", oracle {}", figures(&gains.oracle))
    }
}

/// Replays the messages of `rows` on a link of that rate; without a model it tells what there would be to win.
///
/// Rows that the model was trained on flatter it: pass later ones.
///
/// # Errors
/// The model does not fit the kernel's table.
pub fn forecast(
    rows: &[Row],
    model: Option<&Model>,
    link_rate_bps: u64,
) -> Result<Gains, CompileError> {
    let link = Bottleneck::of_rate(link_rate_bps);
    let own = model.map_or_else(Thresholds::default, |model| model.thresholds);
    let fitted = model.and_then(|model| model.aging_thresholds);
    let choices: Vec<_> = fitted.into_iter().chain([Thresholds::default()]).collect();
    let arena = Arena::fitted(Traffic::of(rows), link, &choices);
    let candidate = match model {
        Some(model) => Some(arena.paths_under(&own, &InKernel(compile(model)?))),
        None => None,
    };
    let entrants = Entrants {
        candidate,
        ..Entrants::default()
    };
    Ok(arena.gains(&entrants, &own))
}

/// Messages, a link, and what needs no learning.
pub(super) struct Arena {
    pub(super) traffic: Traffic,
    pub(super) link: Bottleneck,
    pub(super) aging: Paths,
    /// The cuts that aging has here.
    aging_cuts: Thresholds,
}

/// Who is replayed beside aging and the oracle.
#[derive(Default)]
pub(super) struct Entrants {
    pub(super) candidate: Option<Paths>,
    pub(super) running: Option<Paths>,
    pub(super) bytes_so_far: Option<Paths>,
}

impl Arena {
    /// With the link's own cuts for aging.
    #[cfg(test)]
    pub(super) fn new(traffic: Traffic, link: Bottleneck) -> Self {
        Self::fitted(traffic, link, &[Thresholds::from(&link.settings)])
    }

    /// With aging under that of `aging_choices` which suits these messages best; the first where there are none.
    pub(super) fn fitted(traffic: Traffic, link: Bottleneck, aging_choices: &[Thresholds]) -> Self {
        let mut arena = Self {
            aging: Paths::default(),
            aging_cuts: aging_choices.first().copied().unwrap_or_default(),
            link: link.under(&traffic),
            traffic,
        };
        let aged = |cuts: &Thresholds| (arena.aging_paths(cuts), *cuts);
        (arena.aging, arena.aging_cuts) = match aging_choices {
            [] | [_] => aged(&arena.aging_cuts),
            several => arena.best(several.iter().map(aged)),
        };
        arena
    }

    /// Of some paths those under which the messages fare best.
    fn best<T>(&self, contenders: impl Iterator<Item = (Paths, T)>) -> (Paths, T)
    where
        T: Default,
    {
        let jobs = LOADS.map(|load| self.traffic.jobs(load));
        let scored = contenders.map(|it| (score(&jobs, &it.0, &self.link), it));
        let least = scored.min_by(|a, b| a.0.total_cmp(&b.0));
        least.map_or_else(Default::default, |(_, it)| it)
    }

    /// The ways of the messages by bytes sent alone.
    pub(super) fn aging_paths(&self, cuts: &Thresholds) -> Paths {
        let settings = cuts.within(self.link.settings);
        Paths::of_verdicts(&self.traffic.sized(), &settings, |_| None)
    }

    /// The ways of the messages through the bands where `predictor` guesses.
    pub(super) fn paths_under(&self, cuts: &Thresholds, predictor: &impl Predictor) -> Paths {
        let guess = |row: &Row| Some(predictor.bytes_to_come(row));
        let settings = cuts.within(self.link.settings);
        Paths::of_verdicts(&self.traffic.sized(), &settings, guess)
    }

    /// The same under the cuts that aging has.
    pub(super) fn paths(&self, predictor: &impl Predictor) -> Paths {
        self.paths_under(&self.aging_cuts, predictor)
    }

    /// By real sizes, under the best of some cuts.
    fn oracle(&self, own: &Thresholds) -> Paths {
        let known = [*own, self.aging_cuts, Thresholds::default()].map(|it| it.cuts_bytes);
        let cuts = distribution_cuts(&self.traffic).into_iter().chain(known);
        let contenders = cuts.map(|cuts_bytes| {
            let thresholds = Thresholds {
                cuts_bytes,
                first_bytes: 0,
            };
            let sizes = self.traffic.messages().iter().map(|message| message.bytes);
            (Paths::of_sizes(sizes, &thresholds.cuts()), ())
        });
        self.best(contenders).0
    }

    /// Everybody at every load; `own` are the cuts of the model on trial.
    pub(super) fn gains(&self, entrants: &Entrants, own: &Thresholds) -> Gains {
        let oracle = self.oracle(own);
        let settings = own.within(self.link.settings);
        let perfect = Paths::of_verdicts(&self.traffic.sized(), &settings, |row| {
            Some(row.remaining_bytes)
        });
        let of_load = |load| {
            let jobs = self.traffic.jobs(load);
            let serve = |scheme: Scheme<'_>| Replay::of(&jobs, &replay(&jobs, scheme), &self.link);
            let banded = |paths: &Paths| Replay::of(&jobs, &self.took(&jobs, paths), &self.link);
            LoadGains {
                load,
                fifo: serve(Scheme::Fifo),
                fair: serve(Scheme::Fair),
                aging: banded(&self.aging),
                bytes_so_far: entrants.bytes_so_far.as_ref().map(banded),
                running: entrants.running.as_ref().map(banded),
                candidate: entrants.candidate.as_ref().map(banded),
                perfect: banded(&perfect),
                oracle: banded(&oracle),
            }
        };
        Gains {
            link_rate_bps: self.link.rate_bps,
            messages: self.traffic.messages().len() as u64,
            bytes: self.traffic.bytes(),
            loads: LOADS.map(of_load).to_vec(),
        }
    }

    /// How long each job takes where bands are given by `paths`.
    pub(super) fn took(&self, jobs: &[Job], paths: &Paths) -> Vec<f64> {
        banded(jobs, paths, &self.link)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            DecisionTree, Trainer as _,
            mixes::{Hangs, host},
        },
        *,
    };
    use crate::{
        model::{DataWindow, Tree},
        simulate::cdf::Cdf,
    };

    fn rows(seed: u64) -> Vec<Row> {
        let cdf = Cdf::pareto(1.2, (5_000.0, 30e6));
        host(&cdf, Hangs::Service, (800, 0.05, seed))
    }

    #[test]
    fn without_a_model_it_tells_what_there_is_to_win() {
        let gains = forecast(&rows(1), None, 1_000_000_000).unwrap();
        assert_eq!((gains.messages, gains.loads.len()), (800, LOADS.len()));
        for load in &gains.loads {
            assert_eq!(load.closed(), Closed::default());
            let slowdown = |replay: &Replay| replay.all.mean_slowdown;
            assert!(slowdown(&load.oracle) < slowdown(&load.aging), "{load:?}");
            assert!(slowdown(&load.perfect) < slowdown(&load.aging), "{load:?}");
            assert!(slowdown(&load.aging) < slowdown(&load.fifo), "{load:?}");
        }
        let empty = forecast(&[], None, 1_000_000_000).unwrap();
        assert_eq!((empty.messages, empty.bytes), (0, 0));
    }

    #[test]
    fn a_model_closes_part_of_the_gap_and_one_that_does_not_fit_is_an_error() {
        let cdf = Cdf::pareto(0.3, (5_000.0, 30e6));
        let rows = |seed| host(&cdf, Hangs::Request, (2500, 0.02, seed));
        let model = DecisionTree::default().train(&rows(1)).unwrap();
        let gains = forecast(&rows(2), Some(&model), 100_000_000).unwrap();
        let heavy = gains.loads.last().unwrap();
        assert!(heavy.closed().mean_fct > Some(0.2), "{gains}");
        let broken = Model::new("none", DataWindow::default(), vec![Tree::default()]);
        forecast(&rows(2), Some(&broken), 100_000_000).unwrap_err();
    }

    #[test]
    fn the_share_is_that_of_the_way_from_aging_to_the_oracle() {
        let slowdown = |mean_slowdown| Replay {
            all: Figures {
                mean_slowdown,
                mean_fct_ms: 1.0,
                ..Figures::default()
            },
            ..Replay::default()
        };
        let load = LoadGains {
            aging: slowdown(2.0),
            candidate: Some(slowdown(1.25)),
            oracle: slowdown(1.0),
            ..LoadGains::default()
        };
        assert_eq!(load.closed().mean_slowdown, Some(0.75));
        assert_eq!(load.closed().mean_fct, None, "there is no gap");
    }
}
