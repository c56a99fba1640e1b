//! `treeline report`.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::Args;

use super::{Format, parse_period, print, print_json, runtime};
use crate::{
    instance::Instance,
    report::{Period, Report, gather, render},
};

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// Period to tell of, up to now (h, days).
    #[arg(long, value_parser = parse_period, default_value = "24h", value_name = "TIME")]
    since: Duration,
    /// File to write; `-` is standard output [default: treeline-report-INSTANCE-DATE.html; JSON goes to standard output].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(instance: &Instance, format: Format, args: &ReportArgs) -> anyhow::Result<()> {
    let report = runtime()?.block_on(gather(instance, Period::last(args.since)))?;
    match (format, &args.out) {
        (Format::Json, None) => print_json(&report),
        (Format::Json, Some(out)) => deliver(out, &serde_json::to_string_pretty(&report)?),
        (Format::Text, out) => {
            let out = out.clone().unwrap_or_else(|| default_path(&report));
            deliver(&out, &render(&report)?)?;
            if out != Path::new("-") {
                print(&format!("{}\nwrote {}", report.headline, out.display()));
            }
            Ok(())
        }
    }
}

fn deliver(out: &Path, text: &str) -> anyhow::Result<()> {
    if out == Path::new("-") {
        print(text);
        return Ok(());
    }
    fs::write(out, text).with_context(|| format!("cannot write {}", out.display()))
}

fn default_path(report: &Report) -> PathBuf {
    let day = report.period.last_day();
    format!("treeline-report-{}-{day}.html", report.instance).into()
}
