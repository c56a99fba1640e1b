//! Makes the reference of the command line and the manual pages.

use anyhow::{Result, ensure};

use crate::{child, console, machine::Machine, setup};

/// Where the reference is kept, and where the pages are built.
const REFERENCE: &str = "docs/cli.md";
const PAGES: &str = "man";

pub(crate) fn run(machine: &Machine) -> Result<()> {
    setup::run(machine)?;
    let pages = machine.scratch().join(PAGES);
    let mut cargo = machine.cargo();
    cargo
        .args(["run", "--quiet", "--package", "treeline", "--", "manual"])
        .args(["--markdown", REFERENCE, "--man"])
        .arg(&pages);
    ensure!(child::shown(&mut cargo)?, "the manual could not be made");
    console::say(format_args!(
        "docs: {REFERENCE} written, manual pages in {}",
        pages.display()
    ));
    Ok(())
}
