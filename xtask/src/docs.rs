//! Makes the reference of the command line, the manual pages, and the picture of the README.

use anyhow::{Result, ensure};
use clap::Args;

use crate::{child, console, machine::Machine, setup};

/// Where the reference is kept, and where the pages are built.
const REFERENCE: &str = "docs/cli.md";
/// Drawn from the table of docs/results.md.
const PICTURE: &str = "docs/demo.svg";
const PAGES: &str = "man";

/// Arguments of `cargo xtask docs`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Also run the commands of transcripts (`console` blocks) anew, for as long as they say, and write down what they print (as root).
    #[arg(long)]
    transcripts: bool,
}

pub(crate) fn run(machine: &Machine, options: &Options) -> Result<()> {
    setup::run(machine)?;
    let pages = machine.scratch().join(PAGES);
    let mut cargo = machine.cargo();
    cargo
        .args(["run", "--quiet", "--package", "treeline", "--", "manual"])
        .args(["--markdown", REFERENCE, "--man"])
        .arg(&pages);
    ensure!(child::shown(&mut cargo)?, "the manual could not be made");
    let mut picture = machine.cargo();
    picture
        .args(["test", "--quiet", "--package", "treeline-tests"])
        .args(["--test", "integration", "docs::figure"])
        .env("TREELINE_DRAW", "1");
    ensure!(
        child::shown(&mut picture)?,
        "the picture could not be drawn"
    );
    if options.transcripts {
        let mut build = machine.cargo();
        build.args(["build", "--package", "treeline"]);
        ensure!(child::shown(&mut build)?, "treeline could not be built");
        let mut transcripts = machine.cargo();
        transcripts
            .args(["test", "--quiet", "--package", "treeline-tests"])
            .args(["--test", "integration", "docs::every_command"])
            .env("TREELINE_TRANSCRIPTS", "1")
            .env("TREELINE_REQUIRE_ROOT", "1");
        ensure!(
            child::shown(&mut transcripts)?,
            "not every command of the documents works"
        );
    }
    console::say(format_args!(
        "docs: {REFERENCE} and {PICTURE} written, manual pages in {}",
        pages.display()
    ));
    Ok(())
}
