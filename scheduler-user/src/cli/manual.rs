//! Completions and manuals, made from the definitions of the command line.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, print};

/// Columns of the help in the manual, whatever terminal it is made on.
const WIDTH: usize = 100;

#[derive(Debug, Args)]
pub(super) struct ManualArgs {
    /// Write manual pages (troff) into this directory.
    #[arg(long, value_name = "DIR", required_unless_present_any = ["markdown", "completions"])]
    man: Option<PathBuf>,
    /// Write the completions of each shell into this directory, named as the shells look for them.
    #[arg(long, value_name = "DIR")]
    completions: Option<PathBuf>,
    /// Write the reference of the command line to this file.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

pub(super) fn completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "treeline", &mut script);
    print(String::from_utf8_lossy(&script).trim_end());
}

pub(super) fn write(args: &ManualArgs) -> anyhow::Result<()> {
    let failed = |path: &Path| format!("cannot write {}", path.display());
    if let Some(directory) = &args.man {
        man(directory).with_context(|| failed(directory))?;
    }
    if let Some(directory) = &args.completions {
        scripts(directory).with_context(|| failed(directory))?;
    }
    if let Some(file) = &args.markdown {
        fs::write(file, markdown()).with_context(|| failed(file))?;
    }
    Ok(())
}

/// A page for the command and each verb that is shown.
fn man(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), directory)
}

fn scripts(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "treeline", directory)?;
    }
    Ok(())
}

/// Every verb with its help.
fn markdown() -> String {
    let mut text = "# The command line\n\nMade from the program itself by `cargo xtask docs`; every verb prints its part by `--help`.\n".to_owned();
    let mut command = Cli::command()
        .term_width(WIDTH)
        .disable_help_subcommand(true);
    command.build();
    describe(&mut text, &mut command);
    text
}

fn describe(text: &mut String, command: &mut Command) {
    let name = command.get_bin_name().unwrap_or("treeline").to_owned();
    let help = command.render_long_help().to_string();
    let lines: Vec<&str> = help.trim().lines().map(str::trim_end).collect();
    text.push_str(&format!(
        "\n## {name}\n\n```text\n{}\n```\n",
        lines.join("\n")
    ));
    for verb in command.get_subcommands_mut() {
        if !verb.is_hide_set() && verb.get_name() != "help" {
            let verb: &mut Command = verb;
            let with_width = std::mem::take(verb).term_width(WIDTH);
            *verb = with_width;
            describe(text, verb);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_that_of_this_version() {
        let kept = include_str!("../../../docs/cli.md");
        assert!(
            kept == markdown(),
            "docs/cli.md is stale: run `cargo xtask docs`"
        );
    }

    #[test]
    fn every_shell_and_every_verb_has_its_part() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "treeline", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(
                script.contains("doctor") && script.contains("ingress-rate"),
                "{shell}"
            );
        }
        let directory = tempfile::tempdir().unwrap();
        man(directory.path()).unwrap();
        for page in ["treeline.1", "treeline-run.1", "treeline-model-push.1"] {
            let page = fs::read_to_string(directory.path().join(page)).unwrap();
            assert!(page.contains(".SH"), "{page}");
        }
    }
}
