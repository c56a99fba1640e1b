//! `treeline model`: what was learned, and which of it acts.

mod change;
mod difference;
mod list;
mod log;
mod show;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{Format, exit, print, print_json, runtime};
use crate::{datapath::Datapath, instance::Instance};

#[derive(Debug, Subcommand)]
pub(super) enum ModelVerb {
    /// List the models of the registry, the newest last.
    #[command(after_help = "Example:\n  treeline model list")]
    List,
    /// Show a model: scores and tree; by default the one that acts, else the newest.
    #[command(
        after_help = "Examples:\n  treeline model show 3                   tree of generation 3 as text\n  \
                      treeline model show --rules             a line for each leaf, and what matters\n  \
                      treeline model show --svg tree.svg      a picture of it"
    )]
    Show(ShowArgs),
    /// Say what two models have in common and what not.
    #[command(
        after_help = "Examples:\n  treeline model diff 3 4\n  treeline model diff 4 other.json --format json"
    )]
    Diff {
        /// Generation, or path of a model file.
        a: String,
        /// Generation, or path of a model file.
        b: String,
    },
    /// Put the model of a file to work, under a new number.
    ///
    /// The flip is atomic: a packet meets the old model or the new one. An agent that runs takes it for the running
    /// model, which its next candidate has to beat.
    #[command(after_help = "Example:\n  treeline model push model.json")]
    Push {
        /// A file that `treeline model export` has written.
        file: PathBuf,
    },
    /// Put an earlier model to work again: by default the one that the acting one replaced.
    ///
    /// An agent that runs goes on learning: it may replace the model by one that beats it.
    #[command(
        after_help = "Examples:\n  treeline model rollback               what acted before\n  \
                      treeline model rollback 3             generation 3\n  \
                      treeline model rollback --to-aging    none: bytes sent decide"
    )]
    Rollback {
        /// Generation that is to act.
        generation: Option<u32>,
        /// No model: bytes already sent decide.
        #[arg(long, conflicts_with = "generation")]
        to_aging: bool,
    },
    /// Write a model to a file: by default the one that acts, else the newest.
    #[command(after_help = "Example:\n  treeline model export 3 --out model.json")]
    Export {
        /// Generation, or path of a model file.
        model: Option<String>,
        /// File to write; `-` is standard output.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Overwrite the file.
        #[arg(long)]
        force: bool,
    },
    /// Add the model of a file to the registry, under a new number, without putting it to work.
    #[command(after_help = "Example:\n  treeline model import model.json")]
    Import {
        /// A file that `treeline model export` has written.
        file: PathBuf,
    },
    /// Show what was decided about models: what, why, and how to undo it.
    #[command(after_help = "Example:\n  treeline model log -n 20")]
    Log {
        /// Records to show.
        #[arg(short = 'n', long, default_value_t = 30)]
        lines: usize,
    },
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Generation, or path of a model file.
    model: Option<String>,
    /// Draw the tree to this file; several trees to a file each, with the tree's number in its name.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Tree to draw, from 1.
    #[arg(long, value_name = "N", requires = "svg", value_parser = clap::value_parser!(u32).range(1..))]
    tree: Option<u32>,
    /// A line for each leaf instead of the tree, and what the features weigh.
    #[arg(long)]
    rules: bool,
}

pub(super) fn run(instance: &Instance, format: Format, verb: &ModelVerb) -> anyhow::Result<()> {
    match verb {
        ModelVerb::List => list::list(instance, format),
        ModelVerb::Show(args) => show::show(instance, format, args),
        ModelVerb::Diff { a, b } => difference::difference(instance, format, [a, b]),
        ModelVerb::Push { file } => change::push(instance, format, file),
        ModelVerb::Rollback {
            generation,
            to_aging,
        } => change::roll_back(instance, format, (*generation, *to_aging)),
        ModelVerb::Export { model, out, force } => {
            change::export(instance, format, model.as_deref(), (out, *force))
        }
        ModelVerb::Import { file } => change::import(instance, format, file),
        ModelVerb::Log { lines } => log::log(instance, format, *lines),
    }
}

/// The programs, which must be loaded.
fn loaded(instance: &Instance) -> anyhow::Result<Datapath> {
    exit::require_root()?;
    Datapath::open(instance)?.with_context(|| {
        format!(
            "no programs are loaded for instance {:?}: bring an interface up first (`treeline up IFACE`)",
            instance.name()
        )
    })
}
