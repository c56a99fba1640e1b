//! The gate: may this model act, may that one go on.

use std::collections::HashSet;

use super::evaluate::{BytesSoFar, Constant, PredictorScores, Scores, evaluate};
use crate::{dataset::Row, model::Model};

/// What a model must show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct JudgeLimits {
    /// Share of the rows, by time, that trains; the later rest judges.
    pub train_share: f64,
    /// Held-out rows below which nothing is decided.
    pub min_held_out: usize,
    /// Error from which a guess is worth less than aging, log2 units: a log-normal sigma of 1.3 in
    /// natural units.
    pub max_rmse_log2: f64,
    /// Error of a candidate relative to what needs no learning, at most.
    pub of_baselines: f64,
    /// Error of a candidate relative to the running model, at most.
    pub of_running: f64,
}

impl Default for JudgeLimits {
    fn default() -> Self {
        Self {
            train_share: 0.7,
            min_held_out: 50,
            max_rmse_log2: 1.9,
            of_baselines: 0.9,
            of_running: 0.98,
        }
    }
}

/// A window cut in two by time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The earlier rows.
    pub train: Vec<Row>,
    /// The later rows, of messages that had no row before the cut.
    pub held_out: Vec<Row>,
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
    /// How it does now.
    pub running: PredictorScores,
    /// How bytes so far alone do.
    pub bytes_so_far: PredictorScores,
}

/// Cuts the rows by time, never shuffled. A message that had a row before the cut has none after it:
/// its label would be known twice.
///
/// Later messages of a kept connection do judge. That is what a model meets when it acts; a host
/// with long-lived connections alone could otherwise never show that anything is learned.
pub fn split(rows: &[Row], limits: &JudgeLimits) -> Parts {
    let mut ordered = rows.to_vec();
    ordered.sort_by_key(|row| row.time_ns);
    let place = (ordered.len() as f64 * limits.train_share) as usize;
    let Some(cut_ns) = ordered.get(place).map(|row| row.time_ns) else {
        return Parts {
            train: ordered,
            held_out: Vec::new(),
        };
    };
    let (train, later): (Vec<Row>, Vec<Row>) =
        ordered.into_iter().partition(|row| row.time_ns < cut_ns);
    let message = |row: &Row| (row.flow_hash, row.half, row.message);
    let seen: HashSet<(u64, u8, u32)> = train.iter().map(message).collect();
    let held_out = later
        .into_iter()
        .filter(|row| !seen.contains(&message(row)))
        .collect();
    Parts { train, held_out }
}

/// Judges a candidate that was trained on `parts.train`. What is judged is what is deployed.
pub fn judge(
    candidate: &Model,
    running: Option<&Model>,
    parts: &Parts,
    limits: &JudgeLimits,
) -> Verdict {
    let rows = &parts.held_out;
    let scores = Scores {
        candidate: evaluate(candidate, rows),
        constant: evaluate(&Constant::learn(&parts.train), rows),
        bytes_so_far: evaluate(&BytesSoFar::learn(&parts.train), rows),
        running: running.map(|running| evaluate(running, rows)),
    };
    let (accepted, reason) = match objection(&scores, limits) {
        Some(objection) => (false, objection),
        None => (true, praise(&scores)),
    };
    Verdict {
        accepted,
        reason,
        scores,
    }
}

/// Judges the running model on recent rows; with too few of them it stays.
pub fn retire(running: &Model, recent: &[Row], limits: &JudgeLimits) -> Retirement {
    let parts = split(recent, limits);
    let bytes_so_far = evaluate(&BytesSoFar::learn(&parts.train), &parts.held_out);
    let running = evaluate(running, &parts.held_out);
    let (error, rival) = (running.all.rmse_log2, bytes_so_far.all.rmse_log2);
    let (retire, reason) = if parts.held_out.len() < limits.min_held_out {
        (false, too_few(parts.held_out.len(), limits))
    } else if error >= limits.max_rmse_log2 {
        (true, too_rough(error, limits))
    } else if error >= rival {
        (
            true,
            format!("recent error {error:.2} is no better than {rival:.2} (bytes so far)"),
        )
    } else {
        (
            false,
            format!("recent error {error:.2} against {rival:.2} (bytes so far)"),
        )
    };
    Retirement {
        retire,
        reason,
        running,
        bytes_so_far,
    }
}

fn objection(scores: &Scores, limits: &JudgeLimits) -> Option<String> {
    let Scores {
        candidate,
        constant,
        bytes_so_far,
        running,
    } = scores;
    let rows = candidate.all.rows as usize;
    if rows < limits.min_held_out {
        return Some(too_few(rows, limits));
    }
    let error = candidate.all.rmse_log2;
    if error >= limits.max_rmse_log2 {
        return Some(too_rough(error, limits));
    }
    let (constant, bytes_so_far) = (constant.all.rmse_log2, bytes_so_far.all.rmse_log2);
    // At least the margin; `>=` also refuses zero against zero.
    if error >= limits.of_baselines * constant.min(bytes_so_far) {
        return Some(format!(
            "held-out error {error:.2} is not {} below {constant:.2} (constant) and \
             {bytes_so_far:.2} (bytes so far)",
            percent_below(limits.of_baselines)
        ));
    }
    let running = running.as_ref()?.all.rmse_log2;
    (error >= limits.of_running * running).then(|| {
        format!(
            "held-out error {error:.2} is not {} below {running:.2} (running model)",
            percent_below(limits.of_running)
        )
    })
}

fn praise(scores: &Scores) -> String {
    let mut reason = format!(
        "held-out error {:.2} against {:.2} (constant) and {:.2} (bytes so far)",
        scores.candidate.all.rmse_log2,
        scores.constant.all.rmse_log2,
        scores.bytes_so_far.all.rmse_log2
    );
    if let Some(running) = &scores.running {
        reason.push_str(&format!(", {:.2} (running model)", running.all.rmse_log2));
    }
    reason
}

fn too_few(rows: usize, limits: &JudgeLimits) -> String {
    format!(
        "{rows} held-out rows of later messages are too few to judge, {} needed",
        limits.min_held_out
    )
}

fn too_rough(error: f64, limits: &JudgeLimits) -> String {
    format!(
        "error {error:.2} is not below {}: a guess this rough is worth less than aging",
        limits.max_rmse_log2
    )
}

fn percent_below(ratio: f64) -> String {
    format!("{:.0} %", (1.0 - ratio) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::{super::evaluate::Accuracy, *};
    use crate::dataset::samples;

    fn of_error(rmse_log2: f64) -> PredictorScores {
        let all = Accuracy {
            rows: 200,
            rmse_log2,
            r2: 0.0,
        };
        PredictorScores {
            all,
            first_packet: all,
        }
    }

    fn objection_to(candidate: f64, rivals: [f64; 2], running: Option<f64>) -> Option<String> {
        let scores = Scores {
            candidate: of_error(candidate),
            constant: of_error(rivals[0]),
            bytes_so_far: of_error(rivals[1]),
            running: running.map(of_error),
        };
        objection(&scores, &JudgeLimits::default())
    }

    #[test]
    fn no_message_stands_on_both_sides_of_the_cut() {
        // Three rows a message, ten messages a flow: the cut falls inside message 23.
        let rows: Vec<Row> = (0..100)
            .rev()
            .map(|t: u64| {
                let message = (t / 3) as u32;
                Row {
                    message,
                    ..samples::row(t / 30, t, 443)
                }
            })
            .collect();
        let Parts { train, held_out } = split(&rows, &JudgeLimits::default());
        assert_eq!(
            train.iter().map(|row| row.time_ns).collect::<Vec<_>>(),
            Vec::from_iter(0..70)
        );
        assert_eq!(
            held_out.iter().map(|row| row.time_ns).collect::<Vec<_>>(),
            Vec::from_iter(72..100)
        );
    }

    #[test]
    fn rows_of_one_moment_are_not_divided() {
        let rows: Vec<Row> = (0..100)
            .map(|flow| samples::row(flow, flow / 80, 443))
            .collect();
        assert_eq!(split(&rows, &JudgeLimits::default()).train.len(), 0);
        assert_eq!(split(&[], &JudgeLimits::default()), Parts::default());
    }

    #[test]
    fn a_candidate_must_beat_every_rival_by_its_margin() {
        assert_eq!(objection_to(0.9, [2.0, 1.1], None), None);
        assert_eq!(objection_to(0.9, [2.0, 1.1], Some(1.0)), None);
        let refused = |candidate, rivals, running, part: &str| {
            let reason = objection_to(candidate, rivals, running).unwrap();
            assert!(reason.contains(part), "{reason}");
        };
        refused(1.0, [2.0, 1.1], None, "not 10 % below");
        refused(1.0, [1.1, 2.0], None, "not 10 % below");
        refused(1.9, [9.0, 9.0], None, "rough");
        refused(
            0.99,
            [2.0, 2.0],
            Some(1.0),
            "not 2 % below 1.00 (running model)",
        );
        refused(0.0, [0.0, 0.0], None, "not 10 % below");
    }

    #[test]
    fn few_rows_decide_nothing() {
        let mut scores = Scores {
            candidate: of_error(0.1),
            ..Scores::default()
        };
        scores.candidate.all.rows = 49;
        assert!(
            objection(&scores, &JudgeLimits::default())
                .unwrap()
                .contains("49 held-out")
        );
    }
}
