//! `treeline top`.

use std::time::Duration;

use clap::Args;

use super::{Format, parse_period, print_json, runtime};
use crate::{
    instance::Instance,
    top::{self, TopError},
};

#[derive(Debug, Args)]
pub(super) struct TopArgs {
    /// Time between two readings (s, min).
    #[arg(long, value_parser = parse_period, default_value = "1s", value_name = "TIME")]
    every: Duration,
    /// Print what is seen over one such time, and end; with `--format json`, which needs no terminal.
    #[arg(long)]
    once: bool,
}

pub(super) fn run(instance: &Instance, format: Format, args: &TopArgs) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let done = match (args.once, format) {
        (true, Format::Json) => {
            let view = runtime.block_on(top::once(instance, args.every));
            view.map(|view| print_json(&view))
        }
        (true, Format::Text) => {
            anyhow::bail!(
                "one reading is for programs: give `--once --format json`, or ask `treeline status`"
            )
        }
        (false, _) => runtime
            .block_on(top::run(instance, args.every))
            .map(|()| Ok(())),
    };
    // Reading a keyboard is a thread of its own that nobody waits for.
    runtime.shutdown_background();
    match done {
        Ok(printed) => printed,
        Err(TopError::Reading(error)) => {
            super::exit::require_root()?;
            Err(error.into())
        }
        Err(error) => Err(error.into()),
    }
}
