//! `treeline train`: learning from files, without a kernel.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use scheduler_common::sample::Hook;
use serde::Serialize;

use super::{Format, print, print_json};
use crate::{
    dataset::{Row, store},
    learning::unix_now_s,
    model::{Model, Provenance, Registry},
    training::{self, JudgeLimits, Parts, Scores, TRAINERS, judge, split},
};

#[derive(Debug, Args)]
pub(super) struct TrainArgs {
    /// Datasets of `record`, `run --record` or `replay`.
    #[arg(long, value_name = "FILE.parquet", required = true, num_args = 1..)]
    from: Vec<PathBuf>,
    /// How to learn.
    #[arg(long, default_value = "tree", value_name = "NAME")]
    trainer: String,
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
    model: Option<String>,
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

pub(super) fn train(format: Format, args: &TrainArgs) -> anyhow::Result<()> {
    let trainer = training::trainer(&args.trainer).with_context(|| {
        let names: Vec<&str> = TRAINERS.iter().map(|of| of.name).collect();
        format!(
            "there is no trainer {:?}; there are: {}",
            args.trainer,
            names.join(", ")
        )
    })?;
    let limits = JudgeLimits {
        train_share: args.train_share,
        ..JudgeLimits::default()
    };
    let data = load(&args.from, &limits)?;
    if data.parts.train.is_empty() {
        bail!(
            "no row to learn from: of {} rows {} are censored and {} are of the ingress program",
            data.rows,
            data.censored_rows,
            data.ingress_rows
        );
    }
    let started = Instant::now();
    let candidate = trainer.train(&data.parts.train)?;
    let train_ms = started.elapsed().as_millis() as u64;
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
        model: file,
    };
    match format {
        Format::Json => print_json(&outcome),
        Format::Text => {
            print(&text(&outcome));
            Ok(())
        }
    }
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
    lines.extend(model.iter().map(|file| format!("model    {file}")));
    lines.join("\n")
}
