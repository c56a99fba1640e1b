//! Every command that README and docs show is run, and every exception says why.

mod blocks;
mod figure;
mod stage;
mod talk;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use self::{
    blocks::{Block, REASONS, blocks, lost_line, with_outputs},
    stage::{Stage, needs},
    talk::capture,
};
use crate::support::{
    agent::{Done, binary},
    left_out, missing, privileged,
};

/// A command of cargo's may have to build its program.
const BUILD_LIMIT: Duration = Duration::from_secs(600);

/// The tree that this test was built from; `None` where only its binary is, as in a virtual machine.
fn root() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    root.join("README.md").exists().then(|| root.to_owned())
}

macro_rules! documents {
    ($($path:literal,)+) => {
        [$(($path, include_str!(concat!("../../", $path))),)+]
    };
}

/// README and all of docs, by path; in this program, so that a virtual machine has them, too.
const DOCUMENTS: [(&str, &str); 20] = documents![
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "docs/acts.md",
    "docs/bench-apps.md",
    "docs/bench-fct.md",
    "docs/cli.md",
    "docs/control.md",
    "docs/dataset.md",
    "docs/faq.md",
    "docs/first-hour.md",
    "docs/ingress.md",
    "docs/json.md",
    "docs/kernel-support.md",
    "docs/learning.md",
    "docs/metrics.md",
    "docs/model-format.md",
    "docs/operating.md",
    "docs/results.md",
];

/// `cargo xtask …` is run by whoever develops, for minutes; here its words are checked by who reads them. Other commands of cargo
/// are the build itself.
fn cargo(root: &Path, words: &str) -> Result<(), String> {
    let words: Vec<&str> = words.split_whitespace().collect();
    let verb = match words.as_slice() {
        ["xtask", verb @ ..] => verb,
        ["build", ..] => return Ok(()),
        _ => return Err("no such command of cargo is known to this test".to_owned()),
    };
    let mut xtask = Command::new(env!("CARGO"));
    xtask
        .args(["run", "--quiet", "--package", "xtask", "--"])
        .args(verb)
        .env("XTASK_PARSE_ONLY", "1")
        .current_dir(root);
    accepts(&mut xtask)?;
    // What is passed on is read by another program.
    let (program, passed) = match verb {
        ["demo", passed @ ..] => (env!("CARGO_BIN_EXE_treeline-demo"), passed),
        ["bench", "fct", passed @ ..] => (env!("CARGO_BIN_EXE_treeline-bench-fct"), passed),
        ["bench", name, ..] => {
            return Err(format!("this test does not know the words of bench {name}"));
        }
        _ => return Ok(()),
    };
    let passed = passed.iter().filter(|word| **word != "--");
    accepts(Command::new(program).args(passed).arg("--help"))
}

/// Words are read in order, so those before `--help` have to be right.
fn accepts(command: &mut Command) -> Result<(), String> {
    let done = Done::within(command, BUILD_LIMIT);
    (done.code == Some(0)).then_some(()).ok_or(done.stderr)
}

/// What became of a document.
#[derive(Default)]
struct Ran {
    failures: Vec<String>,
    /// What commands printed, by the line of their block and their place in it.
    printed: BTreeMap<(usize, usize), String>,
}

/// Runs one document on a stage of its own.
fn run(root: &Path, (path, found): (&str, &[Block]), files: (&Path, &Path)) -> Ran {
    let mut ran = Ran::default();
    let mut stage = Stage::new(root, files);
    for block in found.iter().filter(|block| block.reason().is_none()) {
        for (place, shown) in block.commands.iter().enumerate() {
            let command = &shown.command;
            let at = format!("{path}:{}: `{command}`", block.line);
            let lacks = needs(command)
                .into_iter()
                .find(|kind| !stage.kernel_has(*kind));
            if let Some(kind) = lacks {
                missing(
                    &kind.module(),
                    format!("{at} needs {kind:?}, which this kernel has not"),
                );
                // What follows builds on it.
                stage.clear();
                break;
            }
            let is_compared = block.is_transcript && !block.is_from_elsewhere();
            let is_shown = is_compared && writes_transcripts();
            let outcome = match command.strip_prefix("cargo ") {
                Some(words) => cargo(root, words).map(|()| String::new()),
                None => stage.run(command, is_shown),
            };
            match outcome {
                Err(why) => ran.failures.push(format!("{at}: {why}")),
                // What ran for another time than it says prints other things.
                Ok(printed) if is_compared && !is_shown && !command.contains("--for ") => {
                    if let Some(lost) = lost_line(shown, &printed) {
                        ran.failures.push(format!(
                            "{at} no longer prints {lost:?}, but\n{printed}\n`cargo xtask docs --transcripts` writes it anew"
                        ));
                    }
                }
                Ok(printed) if is_shown => {
                    ran.printed.insert((block.line, place), printed);
                }
                Ok(_) => {}
            }
        }
        if let Err(why) = stage.end() {
            ran.failures.push(format!("{path}:{}: {why}", block.line));
        }
    }
    ran
}

/// Whether outputs in the documents are to be replaced by those of now: `cargo xtask docs --transcripts`.
fn writes_transcripts() -> bool {
    env::var_os("TREELINE_TRANSCRIPTS").is_some()
}

#[test]
fn every_command_of_the_documents_works() {
    let root = root();
    let mut found: Vec<(&str, Vec<Block>)> = (DOCUMENTS.iter())
        .map(|(path, text)| (*path, blocks(text)))
        .collect();
    let all = || {
        found
            .iter()
            .flat_map(|(path, blocks)| blocks.iter().map(move |it| (path, it)))
    };
    for (path, block) in all() {
        let reason = block.reason();
        let known = reason.is_none_or(|reason| REASONS.iter().any(|(name, _)| *name == reason));
        assert!(
            known,
            "{path}:{}: {reason:?} is no reason: {REASONS:?}",
            block.line
        );
    }
    let count: usize = all().map(|(_, block)| block.commands.len()).sum();
    assert!(
        count > 40,
        "{count} commands are few: are the fences read right?"
    );
    if !privileged() {
        return;
    }
    if root.is_none() {
        // Another kernel under emulation, minutes slower: only what this tree's own host may lack.
        let asks = |block: &Block| {
            block
                .commands
                .iter()
                .any(|it| !needs(&it.command).is_empty())
        };
        for (_, blocks) in &mut found {
            blocks.retain(asks);
        }
    }
    found.retain(|(_, blocks)| !blocks.is_empty());
    let folder = tempfile::tempdir().unwrap();
    let [captured, learned] =
        ["trace.pcap", "learned.parquet"].map(|name| folder.path().join(name));
    capture(&captured);
    let arguments = [
        "replay",
        captured.to_str().unwrap(),
        "--out",
        learned.to_str().unwrap(),
    ];
    Done::of(Command::new(binary()).args(arguments)).expect(0);
    let root = root.unwrap_or_else(|| folder.path().to_owned());
    let mut failures = Vec::new();
    for (path, blocks) in &found {
        let ran = run(&root, (path, blocks), (&captured, &learned));
        failures.extend(ran.failures);
        let shows = blocks.iter().any(|block| block.is_transcript);
        if shows && writes_transcripts() {
            let output = |line, place| ran.printed.get(&(line, place)).cloned();
            let file = root.join(path);
            let text = fs::read_to_string(&file).unwrap();
            fs::write(file, with_outputs(&text, output)).unwrap();
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_command_that_does_not_end_is_killed_and_told_of() {
    let mut endless = Command::new("sh");
    endless.args(["-c", "sleep 1000 & sleep 1000"]);
    let done = Done::within(&mut endless, Duration::from_millis(300));
    assert_eq!(done.code, None);
    assert!(done.stderr.contains("did not happen within"), "{done:?}");
    let mut ends = Command::new("sh");
    ends.args(["-c", "echo out; echo err >&2; exit 3"]);
    let done = Done::within(&mut ends, BUILD_LIMIT).expect(3);
    assert_eq!((&*done.stdout, &*done.stderr), ("out\n", "err\n"));
}

/// `[text](target)`: files that are named must be there; and every document is one that is looked at.
#[test]
fn links_between_the_documents_lead_somewhere() {
    let Some(root) = root() else {
        left_out(format_args!("the documents are not here"));
        return;
    };
    for folder in ["", "docs/"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = format!("{folder}{}", entry.unwrap().file_name().display());
            let is_known = DOCUMENTS.iter().any(|(known, _)| *known == path);
            assert!(
                is_known || !path.ends_with(".md"),
                "{path} is missing in DOCUMENTS"
            );
        }
    }
    for (path, text) in DOCUMENTS {
        let folder = Path::new(path).parent().unwrap_or_else(|| Path::new(""));
        for piece in text.split("](").skip(1) {
            let target = piece.split([')', '#', ' ']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let file = root.join(folder).join(target);
            assert!(
                file.exists(),
                "{path} links to {target}, which is not there"
            );
        }
    }
}
