//! The gate: may this model act, may that one go on.

use super::{
    advantage::{Advantage, contest},
    evaluate::{BytesSoFar, Constant, InKernel, PredictorScores, Scores, evaluate},
    forecast::{Arena, Entrants},
    parts::{Parts, split},
    sway::{flattery, is_outvoted_by_one},
};
use crate::{
    dataset::Row,
    model::{Model, Thresholds, compile},
    simulate::{Bottleneck, Traffic},
};

/// What a model must show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgeLimits {
    /// Share of the rows, by time, that trains; the later rest judges.
    pub train_share: f64,
    /// Later messages below which nothing is decided.
    pub min_messages: usize,
    /// Later messages that are replayed at most, the latest: a verdict shall take no second.
    pub max_messages: usize,
    /// The link that they are replayed on.
    pub link: Bottleneck,
    /// The cuts that aging has in force, or would have if it ruled.
    pub aging: Thresholds,
    /// Gain that a candidate must have over each rival, as [`Advantage::gain`] tells it.
    pub min_gain: f64,
    /// Standard errors that a gain over the running model must exceed, and that of other cuts for aging: what serves well is
    /// not changed often.
    pub sure: f64,
    /// The same of a gain over aging: fewer, for a candidate has to win again in the shadow, on fresh messages
    /// (`docs/decisions/0011`).
    pub promising: f64,
    /// Standard errors of the running model's gain over aging, and of a candidate's over bytes so far: fewer, so that a
    /// model does not come and go.
    pub still_sure: f64,
    /// How much slower a class of size may become on average at any load, as a logarithm of a ratio.
    pub max_class_loss: f64,
    /// Decides which messages a redraw holds.
    pub seed: u64,
}

impl Default for JudgeLimits {
    fn default() -> Self {
        Self {
            train_share: 0.7,
            min_messages: 50,
            max_messages: 12_000,
            link: Bottleneck::of_rate(1_000_000_000),
            aging: Thresholds::default(),
            min_gain: 0.01,
            sure: 2.0,
            promising: 1.5,
            still_sure: 1.0,
            max_class_loss: 0.05,
            seed: 1,
        }
    }
}

impl JudgeLimits {
    /// The default limits on a link of that rate.
    pub fn of_rate(link_rate_bps: u64) -> Self {
        Self {
            link: Bottleneck::of_rate(link_rate_bps),
            ..Self::default()
        }
    }
}

/// What became of a candidate.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Whether it may act.
    pub accepted: bool,
    /// Why, in one sentence.
    pub reason: String,
    /// On what grounds.
    pub scores: Scores,
}

/// Whether the running model goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Retirement {
    /// Whether it has to go, so that aging rules.
    pub retire: bool,
    /// Why, in one sentence.
    pub reason: String,
    /// How near its guesses come now.
    pub running: PredictorScores,
    /// What it still wins over aging; absent where there was too little to replay.
    pub advantage: Option<Advantage>,
}

/// Judges a candidate that was trained on `parts.train`. What is judged is what is deployed.
///
/// It must win over what runs (the running model, else aging), over aging in any case, and over what bytes so far alone
/// foretell: a gain that needs no feature is none of the model's. Each model is replayed under its own cuts, aging under
/// those in force or those that were searched for it on the training rows, whichever serve it better here.
pub fn judge(
    candidate: &Model,
    running: Option<&Model>,
    parts: &Parts,
    limits: &JudgeLimits,
) -> Verdict {
    let rows = &parts.held_out;
    let baseline = BytesSoFar::learn(&parts.train);
    let mut scores = Scores {
        candidate: scores_of(candidate, rows),
        constant: evaluate(&Constant::learn(&parts.train), rows),
        bytes_so_far: evaluate(&baseline, rows),
        running: running.map(|running| scores_of(running, rows)),
        ..Scores::default()
    };
    let fitted = candidate.aging_thresholds;
    let choices: Vec<_> = [limits.aging].into_iter().chain(fitted).collect();
    let arena = arena(rows, limits, &choices);
    let refused = |reason: String, scores: Scores| Verdict {
        accepted: false,
        reason,
        scores,
    };
    if let Some(objection) = too_few(&arena, limits) {
        return refused(objection, scores);
    }
    let table = match compile(candidate) {
        Ok(table) => table,
        Err(error) => return refused(error.to_string(), scores),
    };
    let entrants = Entrants {
        candidate: Some(arena.paths_under(&candidate.thresholds, &InKernel(table))),
        // One that no longer fits the programs does not run either.
        running: running.and_then(|running| {
            let table = compile(running).ok()?;
            Some(arena.paths_under(&running.thresholds, &InKernel(table)))
        }),
        bytes_so_far: Some(arena.paths(&baseline)),
    };
    scores.gains = Some(arena.gains(&entrants, &candidate.thresholds));
    let over = advantages(&arena, &entrants, limits);
    let told = over.iter().map(|it| (it.key.to_owned(), it.advantage));
    scores.advantages = told.collect();
    let objection = (over.iter().find_map(|rival| rival.objection(limits)))
        .or_else(|| flattery(&arena, &entrants, parts, limits));
    let (accepted, reason) = match objection {
        Some(objection) => (false, objection),
        None => (true, praise(&over)),
    };
    Verdict {
        accepted,
        reason,
        scores,
    }
}

/// Judges the running model on the later of recent rows, without those it was trained on; with too few of them it stays.
///
/// It goes when its gain, an error added, is below what a candidate must show: then it has no gain worth having, or none at
/// all. Where the error is large nothing is known, and a model that has won twice is not taken out for that. Nor is one by the
/// messages of one far network, while those of all others gain.
pub fn retire(running: &Model, recent: &[Row], limits: &JudgeLimits) -> Retirement {
    let mut fresh = split(recent, limits).held_out;
    fresh.retain(|row| row.time_ns > running.data.to_ns || row.time_ns < running.data.from_ns);
    let arena = arena(&fresh, limits, &[limits.aging]);
    let told = |reason: String, retire: bool| Retirement {
        retire,
        reason,
        running: scores_of(running, &fresh),
        advantage: None,
    };
    if let Some(reason) = too_few(&arena, limits) {
        return told(reason, false);
    }
    let table = match compile(running) {
        Ok(table) => table,
        Err(error) => return told(error.to_string(), true),
    };
    let paths = arena.paths_under(&running.thresholds, &InKernel(table));
    let tallies = contest(&arena, &[&paths, &arena.aging], limits.seed);
    let advantage = Advantage::of(&tallies[0], &tallies[1]);
    let fails = has_no_gain(&advantage, limits);
    let retire = fails && !is_outvoted_by_one(&arena, &paths, recent, limits);
    let verb = match (fails, retire) {
        (false, _) => "may still be above",
        (true, true) => "is surely below",
        (true, false) => "is above, but for one far network,",
    };
    Retirement {
        advantage: Some(advantage),
        ..told(
            format!(
                "its gain over aging on {} fresh messages {verb} {}: {}",
                arena.traffic.messages().len(),
                percent(limits.min_gain),
                with_error(&advantage)
            ),
            retire,
        )
    }
}

/// Whether the messages were too few to tell: over no rival it surely fails, over some it does not surely win.
pub(crate) fn is_undecided(verdict: &Verdict, limits: &JudgeLimits) -> bool {
    let fails = |over: &Advantage| {
        has_no_gain(over, limits) || over.slows_a_class(limits.still_sure, limits.max_class_loss)
    };
    !verdict.accepted && !verdict.scores.advantages.values().any(fails)
}

fn has_no_gain(advantage: &Advantage, limits: &JudgeLimits) -> bool {
    advantage.gain + limits.still_sure * advantage.standard_error < limits.min_gain
}

/// A rival and what the candidate wins over it.
struct Over {
    /// As it stands in scores.
    key: &'static str,
    /// As it stands in sentences.
    rival: &'static str,
    advantage: Advantage,
    /// Standard errors that the gain must exceed.
    sure: f64,
    /// Whether no class of size may lose against it.
    guards_classes: bool,
}

impl Over {
    fn objection(&self, limits: &JudgeLimits) -> Option<String> {
        let Self {
            rival, advantage, ..
        } = self;
        if !advantage.is_sure(self.sure, limits.min_gain) {
            return Some(format!(
                "its gain over {rival} is not beyond noise: {}, needed are {} and {} standard errors",
                with_error(advantage),
                percent(limits.min_gain),
                self.sure
            ));
        }
        (self.guards_classes && advantage.slows_a_class(self.sure, limits.max_class_loss)).then(
            || {
                format!(
                    "one class of size becomes {} ± {} slower than under {rival}, {} are allowed",
                    percent(advantage.worst_class),
                    percent(advantage.worst_class_error),
                    percent(limits.max_class_loss)
                )
            },
        )
    }
}

fn advantages(arena: &Arena, entrants: &Entrants, limits: &JudgeLimits) -> Vec<Over> {
    let rivals = [
        (
            ["running", "the running model"],
            entrants.running.as_ref(),
            limits.sure,
        ),
        (["aging", "aging"], Some(&arena.aging), limits.promising),
        (
            ["bytes_so_far", "bytes so far"],
            entrants.bytes_so_far.as_ref(),
            limits.still_sure,
        ),
    ];
    let rivals: Vec<_> = (rivals.into_iter())
        .filter_map(|(names, paths, sure)| Some((names, paths?, sure)))
        .collect();
    let contenders: Vec<_> = (entrants.candidate.iter())
        .chain(rivals.iter().map(|(_, paths, _)| *paths))
        .collect();
    let tallies = contest(arena, &contenders, limits.seed);
    let Some((own, others)) = tallies.split_first() else {
        return Vec::new();
    };
    (rivals.iter().zip(others).enumerate())
        .map(|(place, (([key, rival], _, sure), other))| Over {
            key,
            rival,
            sure: *sure,
            advantage: Advantage::of(own, other),
            // The first is what runs.
            guards_classes: place == 0,
        })
        .collect()
}

fn arena(rows: &[Row], limits: &JudgeLimits, aging: &[Thresholds]) -> Arena {
    let traffic = Traffic::of(rows).latest(limits.max_messages);
    Arena::fitted(traffic, limits.link, aging)
}

/// By the kernel's table where the model fits it.
fn scores_of(model: &Model, rows: &[Row]) -> PredictorScores {
    match compile(model) {
        Ok(table) => evaluate(&InKernel(table), rows),
        Err(_) => evaluate(model, rows),
    }
}

fn praise(over: &[Over]) -> String {
    let gains: Vec<String> = (over.iter())
        .map(|over| format!("{} over {}", with_error(&over.advantage), over.rival))
        .collect();
    format!(
        "it gains {} in replayed mean slowdown and completion time",
        gains.join(", ")
    )
}

fn too_few(arena: &Arena, limits: &JudgeLimits) -> Option<String> {
    let messages = arena.traffic.messages().len();
    (messages < limits.min_messages).then(|| {
        format!(
            "{messages} later messages are too few to judge, {} needed",
            limits.min_messages
        )
    })
}

fn with_error(advantage: &Advantage) -> String {
    format!(
        "{} ± {}",
        percent(advantage.gain),
        percent(advantage.standard_error)
    )
}

pub(super) fn percent(log_ratio: f64) -> String {
    format!("{:.1} %", log_ratio.exp_m1() * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::samples;

    fn objection(gain: f64, standard_error: f64, worst_class: f64) -> Option<String> {
        let over = Over {
            key: "aging",
            rival: "aging",
            advantage: Advantage {
                gain,
                standard_error,
                worst_class,
                worst_class_error: 0.01,
            },
            sure: 2.5,
            guards_classes: true,
        };
        over.objection(&JudgeLimits::default())
    }

    #[test]
    fn a_gain_must_be_beyond_its_error_and_worth_the_change() {
        assert_eq!(objection(0.2, 0.05, 0.0), None);
        assert!(objection(0.2, 0.09, 0.0).unwrap().contains("noise"));
        assert!(objection(0.009, 0.0, 0.0).unwrap().contains("noise"));
        assert!(objection(0.0, 0.0, 0.0).is_some() && objection(-0.2, 0.01, 0.0).is_some());
    }

    #[test]
    fn no_class_of_size_may_pay_for_the_others() {
        assert_eq!(objection(0.3, 0.01, 0.06), None, "that may be chance");
        let reason = objection(0.3, 0.01, 0.08).unwrap();
        assert!(
            reason.contains("8.3 %") && reason.contains("slower than under aging"),
            "{reason}"
        );
    }

    #[test]
    fn a_running_model_goes_by_evidence_and_not_by_noise() {
        let goes = |gain, standard_error| {
            let advantage = Advantage {
                gain,
                standard_error,
                worst_class: 0.0,
                worst_class_error: 0.0,
            };
            has_no_gain(&advantage, &JudgeLimits::default())
        };
        assert!(goes(-0.1, 0.05) && goes(-0.3, 0.2) && goes(0.0, 0.005));
        assert!(!goes(-0.043, 0.184), "nothing is known");
        assert!(!goes(0.05, 0.04) && !goes(0.2, 0.3));
    }

    #[test]
    fn few_messages_decide_nothing() {
        let rows: Vec<Row> = (0..49).map(|flow| samples::row(flow, flow, 443)).collect();
        let arena = arena(&rows, &JudgeLimits::default(), &[]);
        assert!(
            too_few(&arena, &JudgeLimits::default())
                .unwrap()
                .contains("49 later")
        );
    }
}
