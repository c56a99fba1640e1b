//! Runs an external command and turns failure into a readable error.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Runs `program` with `arguments` split at blanks; the answer is its standard output.
///
/// # Errors
///
/// When the program is missing or ends with a status other than zero; the message holds the
/// whole command line and what the program wrote to standard error.
pub fn run(program: &str, arguments: &str) -> Result<String> {
    output(Command::new(program).args(arguments.split_whitespace()))
}

/// Runs a prepared command; the answer is its standard output.
///
/// # Errors
///
/// As for [`run`].
pub fn output(command: &mut Command) -> Result<String> {
    let shown = format!("{command:?}").replace('"', "");
    let done = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{shown}`; is it installed?"))?;
    if !done.status.success() {
        let complaint = String::from_utf8_lossy(&done.stderr);
        bail!("`{shown}` failed ({}): {}", done.status, complaint.trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
