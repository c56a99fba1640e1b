//! `treeline record`: samples to a file, without learning.

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::{
    Format, UplinkArgs, parse_one_in, parse_period, print, print_json, progress, run, runtime,
};
use crate::{
    datapath::Datapath,
    dataset::JoinCounts,
    instance::Instance,
    journal,
    record::{self, Closed, DEFAULT_MAX_ROWS, Recording},
    uplink,
};

#[derive(Debug, Args)]
pub(super) struct RecordArgs {
    /// Interfaces to watch; if none is up, they are for the time being, and nothing is done to their packets.
    #[arg(value_name = "IFACE", required_unless_present = "all")]
    interfaces: Vec<String>,
    /// Watch the interfaces that are up already.
    #[arg(long, conflicts_with = "interfaces")]
    all: bool,
    /// File to write; it must not be there yet.
    #[arg(long, value_name = "FILE.parquet")]
    out: std::path::PathBuf,
    /// End by itself after this time (s, min, h).
    #[arg(long = "for", value_parser = parse_period, value_name = "TIME")]
    length: Option<std::time::Duration>,
    /// End by itself with so many rows.
    #[arg(long, default_value_t = DEFAULT_MAX_ROWS, value_name = "N")]
    max_rows: u64,
    /// Sample one flow in N; a power of two.
    #[arg(long, value_parser = parse_one_in, default_value = "1", value_name = "N")]
    sample_one_in: u32,
}

/// What the verb prints as JSON.
#[derive(Serialize)]
struct Outcome {
    schema: u32,
    file: String,
    rows: u64,
    labels: JoinCounts,
}

pub(super) fn record(instance: &Instance, format: Format, args: &RecordArgs) -> anyhow::Result<()> {
    let _agent = instance.agent_lock().context(
        "samples have one reader: start the agent with `treeline run … --record FILE` to record what it learns from",
    )?;
    journal::start("info", None);
    let clock = progress::clock("recording", args.length);
    let closed = runtime()?.block_on(serve(instance, args));
    clock.finish_and_clear();
    let closed = closed?;
    let Closed { rows, join } = closed;
    let file = args.out.display().to_string();
    match format {
        Format::Json => print_json(&Outcome {
            schema: crate::status::SCHEMA,
            file,
            rows,
            labels: join,
        }),
        Format::Text => {
            let censored = join.decisions - join.labelled;
            print(&format!(
                "{file}: {rows} rows of {} decision points; {} labelled by their message's end, {} by the flow \
                 table, {censored} censored",
                join.decisions,
                join.labelled - join.labelled_by_table,
                join.labelled_by_table,
            ));
            Ok(())
        }
    }
}

async fn serve(instance: &Instance, args: &RecordArgs) -> anyhow::Result<Closed> {
    let stop = CancellationToken::new();
    run::watch_signals(&stop)?;
    let up: Vec<String> = instance.records()?.into_iter().map(|of| of.name).collect();
    let interfaces = if args.all { &up } else { &args.interfaces };
    if interfaces.is_empty() {
        bail!("no interface is up: name those to record, or bring them up with `treeline up`");
    }
    for interface in interfaces {
        uplink::index_of(interface)?;
    }
    let added: Vec<&String> = interfaces
        .iter()
        .filter(|name| !up.contains(name))
        .collect();
    if let (Some(added), Some(first)) = (added.first(), up.first()) {
        // Bringing it up by the way would set what the others do to their packets.
        bail!(
            "{added} is not up while {first} is: bring it up with `treeline up {added}` first, or record with `--all`"
        );
    }
    let recording = Recording {
        path: args.out.clone(),
        max_rows: args.max_rows,
        session: interfaces.join(" "),
    };
    if recording.path.exists() {
        bail!(
            "{} is there already: name a new file",
            recording.path.display()
        );
    }
    let mut brought_up = Vec::new();
    let outcome = match bring_up(instance, &added, &mut brought_up).await {
        Ok(datapath) => {
            let how = (args.sample_one_in, args.length);
            record::record(&datapath, &recording, how, stop)
                .await
                .map_err(Into::into)
        }
        Err(error) => Err(error),
    };
    run::take_down(instance, &brought_up).await?;
    outcome
}

async fn bring_up<'a>(
    instance: &Instance,
    interfaces: &[&'a String],
    brought_up: &mut Vec<&'a String>,
) -> anyhow::Result<Datapath> {
    let wanted = UplinkArgs::watching().observed();
    for interface in interfaces {
        uplink::up(instance, interface, &wanted).await?;
        brought_up.push(interface);
    }
    Datapath::open(instance)?
        .context("the programs are not loaded: run `treeline down` and try again")
}
