//! `treeline replay`: captures to a dataset.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

use super::{Format, print, print_json, progress};
use crate::{
    dataset::store::Writer,
    journal,
    record::DEFAULT_MAX_ROWS,
    replay::{Prefix, ReplayOptions, Replayed, replay},
};

#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Captures, pcap or pcapng; each is a host and a session of its own.
    #[arg(value_name = "FILE.pcap", required = true)]
    captures: Vec<PathBuf>,
    /// File to write; it must not be there yet.
    #[arg(long, value_name = "FILE.parquet")]
    out: PathBuf,
    /// Network behind the interface: what comes from it leaves, what goes to it comes in, the rest is left out.
    ///
    /// Without it every packet leaves, so that both directions of a flow are taken as a scheduler's own.
    #[arg(long, value_name = "PREFIX")]
    local: Vec<Prefix>,
    /// Take VXLAN, Geneve, GRE and IP-in-IP packets for those of the flow inside the tunnel.
    #[arg(long)]
    inner: bool,
    /// End with so many rows.
    #[arg(long, default_value_t = DEFAULT_MAX_ROWS, value_name = "N")]
    max_rows: u64,
}

/// What the verb prints as JSON.
#[derive(Serialize)]
struct Outcome {
    schema: u32,
    file: String,
    rows: u64,
    captures: Vec<OfCapture>,
}

#[derive(Serialize)]
struct OfCapture {
    capture: String,
    #[serde(flatten)]
    replayed: Replayed,
}

pub(super) fn run(format: Format, args: &ReplayArgs) -> anyhow::Result<()> {
    journal::start("warn", None);
    let options = ReplayOptions {
        local: args.local.clone(),
        inner: args.inner,
    };
    let mut writer = Writer::create(&args.out, args.max_rows)?;
    let mut captures = Vec::new();
    let bar = progress::bar(args.captures.len() as u64, "replaying");
    let replayed = args.captures.iter().try_for_each(|path| {
        let replayed = replay(path, &options, &mut writer)
            .with_context(|| format!("replay of {} broke off", path.display()))?;
        captures.push(OfCapture {
            capture: path.display().to_string(),
            replayed,
        });
        bar.inc(1);
        anyhow::Ok(())
    });
    bar.finish_and_clear();
    // A dataset of the captures before is whole all the same.
    let rows = writer.close()?;
    replayed?;
    let outcome = Outcome {
        schema: crate::status::SCHEMA,
        file: args.out.display().to_string(),
        rows,
        captures,
    };
    match format {
        Format::Json => print_json(&outcome),
        Format::Text => {
            print(&text(&outcome));
            Ok(())
        }
    }
}

fn text(outcome: &Outcome) -> String {
    let mut lines: Vec<String> = outcome.captures.iter().map(line).collect();
    lines.push(format!("{}: {} rows", outcome.file, outcome.rows));
    lines.join("\n")
}

fn line(of: &OfCapture) -> String {
    let OfCapture { capture, replayed } = of;
    let Replayed {
        packets,
        accounted,
        skipped,
        refused,
        foreign,
        flows,
        length_ns,
        rows,
        join,
    } = replayed;
    let mut line = format!(
        "{capture}: {packets} packets in {:.1} s, {accounted} in {flows} flows; {rows} rows, {} censored",
        *length_ns as f64 / 1e9,
        join.decisions - join.labelled,
    );
    for (count, what) in [
        (skipped, "passed by"),
        (refused, "refused by the kernel's test run"),
        (foreign, "between others"),
    ] {
        if *count > 0 {
            line.push_str(&format!(", {count} packets {what}"));
        }
    }
    line
}
