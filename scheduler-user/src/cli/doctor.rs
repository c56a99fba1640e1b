//! `treeline doctor`: what stands in the way, and what to do.

use clap::Args;

use super::{Format, paint, parse_rate, print, print_json, runtime};
use crate::{
    doctor::{self, Check, Report, Verdict},
    instance::Instance,
    journal,
};

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Interfaces to look at [default: all that are on, but the loopback].
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Rate that they are to be shaped to, by which packets are found too large.
    #[arg(long, value_parser = parse_rate)]
    rate: Option<u64>,
}

/// Something that treeline needs is not there.
#[derive(Debug, thiserror::Error)]
#[error("treeline can't work here: {0}; the remedies stand beside what failed")]
pub(super) struct NotFit(String);

pub(super) fn run(instance: &Instance, format: Format, args: &DoctorArgs) -> anyhow::Result<()> {
    journal::start("error", None);
    let examined = doctor::examine(instance, &args.interfaces, args.rate);
    let report = runtime()?.block_on(examined)?;
    match format {
        Format::Json => print_json(&report)?,
        Format::Text => print(&text(&report)),
    }
    if report.verdict == Verdict::Fail {
        let names = report.named(Verdict::Fail);
        return Err(NotFit(names.join(", ")).into());
    }
    Ok(())
}

fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    let mut about: Option<&str> = None;
    for check in &report.checks {
        if check.interface.as_deref() != about {
            about = check.interface.as_deref();
            lines.extend(about.map(str::to_owned));
        }
        lines.extend(check_lines(check));
    }
    let (style, text) = match report.verdict {
        Verdict::Ok => (
            paint::GOOD,
            "treeline runs here, with all it has".to_owned(),
        ),
        Verdict::Warn => (
            paint::DOUBTFUL,
            format!(
                "treeline runs here, and could be better off: {}",
                report.named(Verdict::Warn).join(", ")
            ),
        ),
        Verdict::Fail => (paint::BAD, "treeline can't run here yet".to_owned()),
    };
    lines.push(format!("verdict: {}", paint::text(style, &text)));
    lines.join("\n")
}

fn check_lines(check: &Check) -> Vec<String> {
    let Check {
        name,
        interface: _,
        verdict,
        found,
        remedy,
    } = check;
    let mark = match verdict {
        Verdict::Ok => paint::text(paint::GOOD, "ok  "),
        Verdict::Warn => paint::text(paint::DOUBTFUL, "warn"),
        Verdict::Fail => paint::text(paint::BAD, "FAIL"),
    };
    let mut lines = vec![format!("  {mark}  {name:<12}  {found}")];
    lines.extend(remedy.iter().map(|remedy| format!("{:22}→ {remedy}", "")));
    lines
}
