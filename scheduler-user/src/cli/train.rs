//! `treeline train`: learning from files, without a kernel.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use scheduler_common::sample::Hook;
use serde::Serialize;
use tracing::info;

use super::{Format, print, print_json, progress};
use crate::{
    config::nearest,
    control::Training,
    dataset::{Row, store},
    instance::Instance,
    learning::unix_now_s,
    model::{Model, Provenance, Registry},
    training::{
        self, Candidate, Dependence, Importance, JudgeLimits, Parts, Scores, SearchPlan,
        SearchReport, TRAINERS, Trainer, fit_cuts, judge, rank_leaves, split,
    },
};

/// For the shuffles behind the importances: the same data gives the same answer.
const SEED: u64 = 0;
/// Features named in the text.
const NAMED_FEATURES: usize = 5;

#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    /// Datasets of `record`, `run --record` or `replay`.
    #[arg(long, value_name = "FILE.parquet", required_unless_present = "now", num_args = 1..)]
    from: Vec<PathBuf>,
    /// Have the running agent learn from what it has seen so far, instead of when its next cycle is due.
    #[arg(long, conflicts_with_all = ["from", "trainer", "search", "out", "train_share"])]
    now: bool,
    /// How to learn.
    #[arg(long, default_value = "tree", value_name = "NAME")]
    trainer: String,
    /// Look for a better trainer and better parameters first, by foretelling later parts of the earlier share from what
    /// came before each; takes minutes on large datasets.
    #[arg(long, conflicts_with = "trainer")]
    search: bool,
    /// Write the model there, for `treeline run --model`.
    #[arg(long, value_name = "MODEL.json")]
    out: Option<PathBuf>,
    /// Share of each session, by time, that is learned from; the later rest judges.
    #[arg(long, value_parser = parse_share, default_value = "0.7", value_name = "SHARE")]
    train_share: f64,
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.05..=0.95).contains(&share) => Ok(share),
        _ => Err("a share from 0.05 to 0.95 is needed".to_owned()),
    }
}

/// What the verb prints as JSON.
#[derive(Serialize)]
struct Outcome<'a> {
    schema: u32,
    trainer: &'a str,
    sessions: usize,
    rows: usize,
    censored_rows: usize,
    ingress_rows: usize,
    trained_on_rows: usize,
    judged_on_rows: usize,
    train_ms: u64,
    nodes: usize,
    accepted: bool,
    reason: &'a str,
    scores: Scores,
    /// What was tried; absent without `--search`.
    search: Option<SearchReport>,
    /// What each feature is worth, on the rows that judge; absent where there are none.
    importances: Vec<Importance>,
    /// What the model says along each feature, all else as it was.
    partial_dependence: Vec<Dependence>,
    model: Option<String>,
}

/// Asks the agent for a cycle.
fn train_now(instance: &Instance, format: Format) -> anyhow::Result<()> {
    let begun: Training = super::ask_agent(instance, "/v1/train")?;
    match format {
        Format::Json => print_json(&begun),
        Format::Text => {
            print(&format!(
                "a cycle has begun on {} labelled rows; `treeline logs -f` shows what comes of it",
                begun.rows
            ));
            Ok(())
        }
    }
}

/// What the files held.
#[derive(Debug, Default)]
struct Data {
    parts: Parts,
    sessions: usize,
    rows: usize,
    censored_rows: usize,
    ingress_rows: usize,
}

pub(super) fn train(instance: &Instance, format: Format, args: &TrainArgs) -> anyhow::Result<()> {
    if args.now {
        return train_now(instance, format);
    }
    let named = named(&args.trainer)?;
    let limits = JudgeLimits {
        train_share: args.train_share,
        ..JudgeLimits::default()
    };
    let spinner = progress::spinner("reading, learning, judging");
    let data = load(&args.from, &limits)?;
    if data.parts.train.is_empty() {
        bail!(
            "no row to learn from: of {} rows {} are censored and {} are of the ingress program",
            data.rows,
            data.censored_rows,
            data.ingress_rows
        );
    }
    let search = if args.search {
        Some(search(&data.parts.train)?)
    } else {
        None
    };
    let trainer = match &search {
        Some(report) => chosen(report.winner())?,
        None => named,
    };
    let started = Instant::now();
    let candidate = rank_leaves(trainer.train(&data.parts.train)?, &data.parts.train);
    let train_ms = started.elapsed().as_millis() as u64;
    let candidate = fit_cuts(candidate.clone(), &data.parts.train, &limits).unwrap_or(candidate);
    let verdict = judge(&candidate, None, &data.parts, &limits);
    let model = candidate.stamped(Provenance {
        // A file that was never in a registry is the first of its line.
        generation: 1,
        parent_generation: None,
        created_unix_s: unix_now_s(),
        train_ms,
        scores: verdict.scores.clone(),
    });
    if let Some(path) = &args.out {
        Registry::save_file(path, &model)?;
    }
    let file = args.out.as_ref().map(|path| path.display().to_string());
    let outcome = Outcome {
        schema: crate::status::SCHEMA,
        trainer: trainer.name(),
        sessions: data.sessions,
        rows: data.rows,
        censored_rows: data.censored_rows,
        ingress_rows: data.ingress_rows,
        trained_on_rows: data.parts.train.len(),
        judged_on_rows: data.parts.held_out.len(),
        train_ms,
        nodes: nodes(&model),
        accepted: verdict.accepted,
        reason: &verdict.reason,
        scores: verdict.scores,
        search,
        importances: training::importances(&model, &data.parts.held_out, SEED),
        partial_dependence: training::partial_dependence(&model, &data.parts.held_out),
        model: file,
    };
    spinner.finish_and_clear();
    match format {
        Format::Json => print_json(&outcome),
        Format::Text => {
            print(&text(&outcome));
            Ok(())
        }
    }
}

fn named(name: &str) -> anyhow::Result<Box<dyn Trainer>> {
    training::trainer(name).with_context(|| {
        let names: Vec<&str> = TRAINERS.iter().map(|of| of.name).collect();
        let meant = nearest(name, names.iter().copied())
            .map_or_else(String::new, |meant| format!(", did you mean {meant}?"));
        format!(
            "there is no trainer {name:?}{meant}; there are: {}",
            names.join(", ")
        )
    })
}

fn search(rows: &[Row]) -> anyhow::Result<SearchReport> {
    let bar = progress::bar(0, "searching");
    let report = training::search(rows, &SearchPlan::default(), |step| {
        bar.set_length(step.of as u64);
        bar.set_position(step.done as u64);
        let Candidate {
            trainer,
            parameters,
        } = &step.latest.candidate;
        info!(
            trainer,
            splits = parameters.splits,
            min_leaf_rows = parameters.min_leaf_rows,
            error_log2 = step.latest.rmse_log2,
            "tried {} of {}",
            step.done,
            step.of
        );
    })?;
    bar.finish_and_clear();
    Ok(report)
}

/// The trainer that the search found best.
fn chosen(best: &Candidate) -> anyhow::Result<Box<dyn Trainer>> {
    let choice = training::choice(&best.trainer).context("the search tried an unknown trainer")?;
    Ok(choice.with(best.parameters))
}

fn nodes(model: &Model) -> usize {
    model.trees.iter().map(|tree| tree.nodes.len()).sum()
}

/// Reads the files, and cuts each session by time: what comes later in one says nothing of another.
fn load(files: &[PathBuf], limits: &JudgeLimits) -> anyhow::Result<Data> {
    let mut data = Data::default();
    for file in files {
        let dataset = store::read(file)?;
        data.rows += dataset.rows.len();
        for mut session in dataset.by_session() {
            data.sessions += 1;
            data.ingress_rows += drop_rows(&mut session, |row| row.hook == Hook::Ingress);
            // A lower bound is nothing to regress on.
            data.censored_rows += drop_rows(&mut session, |row| row.censored);
            let Parts { train, held_out } = split(&session, limits);
            data.parts.train.extend(train);
            data.parts.held_out.extend(held_out);
        }
    }
    Ok(data)
}

/// Drops the rows of which it holds; returns how many.
fn drop_rows(rows: &mut Vec<Row>, which: impl Fn(&Row) -> bool) -> usize {
    let before = rows.len();
    rows.retain(|row| !which(row));
    before - rows.len()
}

fn text(outcome: &Outcome<'_>) -> String {
    let Outcome {
        trainer,
        sessions,
        rows,
        censored_rows,
        ingress_rows,
        trained_on_rows,
        judged_on_rows,
        train_ms,
        nodes,
        accepted,
        reason,
        scores,
        search,
        importances,
        model,
        ..
    } = outcome;
    let mut lines = vec![
        format!(
            "read     {rows} rows of {sessions} sessions, {censored_rows} censored and {ingress_rows} of the \
             ingress program left out"
        ),
        format!("trained  {trainer} on {trained_on_rows} rows in {train_ms} ms: {nodes} nodes"),
        format!("judged   on {judged_on_rows} later rows"),
        format!("         {scores}"),
        format!(
            "verdict  {}: {reason}",
            if *accepted {
                "would be deployed"
            } else {
                "would be refused"
            }
        ),
    ];
    if let Some(search) = search {
        let Candidate {
            trainer,
            parameters,
        } = search.winner();
        lines.insert(
            1,
            format!(
                "searched {} candidates on {} parts: {trainer} with {} splits and leaves of {} rows",
                search.scores.len(),
                search.folds.len(),
                parameters.splits,
                parameters.min_leaf_rows
            ),
        );
    }
    let worth = importances.iter().take(NAMED_FEATURES);
    lines.extend(worth.map(|importance| format!("feature  {importance}")));
    lines.extend(model.iter().map(|file| format!("model    {file}")));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::samples;

    fn recorded(path: &std::path::Path, flows: u64) {
        let rows: Vec<Row> = (0..600)
            .map(|time| {
                let port = if time % 3 == 0 { 80 } else { 443 };
                Row {
                    remaining_bytes: if port == 80 { 1_000_000 } else { 2_000 } + time % 7,
                    ..samples::row(time % flows, time, port)
                }
            })
            .collect();
        let mut writer = store::Writer::create(path, 10_000).unwrap();
        writer.begin("eth0");
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }

    fn args(from: PathBuf, out: PathBuf) -> TrainArgs {
        TrainArgs {
            from: vec![from],
            now: false,
            trainer: "tree".to_owned(),
            search: true,
            out: Some(out),
            train_share: 0.7,
        }
    }

    #[test]
    fn a_search_hands_the_simplest_of_the_best_to_training() {
        let directory = tempfile::tempdir().unwrap();
        let (from, out) = (
            directory.path().join("rows.parquet"),
            directory.path().join("model.json"),
        );
        recorded(&from, 600);
        train(&Instance::default(), Format::Json, &args(from, out.clone())).unwrap();
        let model = Registry::load_file(&out).unwrap();
        // Two ports tell all, so nothing is better than the first of the plan.
        assert_eq!(model.trainer, "tree");
        let first = &SearchPlan::default().candidates[0];
        assert!(model.summary().depth <= u32::from(first.parameters.splits));
    }

    #[test]
    fn a_trainer_that_is_nearly_one_says_which_was_meant() {
        let told = |name| named(name).err().map(|error| error.to_string());
        assert!(told("tere").unwrap().contains("did you mean tree?"));
        assert!(told("boost").unwrap().contains("did you mean boosted?"));
        assert!(!told("xyz").unwrap().contains("mean"));
        assert_eq!(told("forest"), None);
    }

    #[test]
    fn a_search_that_only_meets_known_flows_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let (from, out) = (
            directory.path().join("rows.parquet"),
            directory.path().join("model.json"),
        );
        recorded(&from, 3);
        let error =
            train(&Instance::default(), Format::Json, &args(from, out.clone())).unwrap_err();
        assert!(error.to_string().contains("seen before"), "{error}");
        assert!(!out.exists());
    }
}
