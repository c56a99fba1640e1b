//! Commands as a document shows them.

/// Why a block may stand in a document without being run: the word after `no-run` in its fence.
pub(super) const REASONS: [(&str, &str); 4] = [
    (
        "installs",
        "it installs on the machine that runs the tests, which the test of the package does in a root of its own",
    ),
    ("systemd", "it needs a running systemd"),
    (
        "hardware",
        "it needs a card, a router or a cluster that a namespace is not",
    ),
    ("terminal", "it draws on a terminal"),
];

/// A fenced block of commands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Line of the fence, from 1.
    pub(super) line: usize,
    /// What the fence says after `sh` or `console`.
    pub(super) words: Vec<String>,
    /// Its commands, in order.
    pub(super) commands: Vec<Shown>,
    /// Whether it also shows what the commands print.
    pub(super) is_transcript: bool,
}

/// A command as a document shows it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Without comments; continued lines are joined.
    pub(super) command: String,
    /// What it printed when the document was made; nothing outside of transcripts.
    pub(super) output: Vec<String>,
}

impl Block {
    /// Why it is not run, if so.
    pub(super) fn reason(&self) -> Option<&str> {
        let place = self.words.iter().position(|word| word == "no-run")?;
        Some(self.words.get(place + 1).map_or("", String::as_str))
    }

    /// Whether its outputs are those of another machine, with traffic that the stage has not: its commands are run, its outputs kept.
    pub(super) fn is_from_elsewhere(&self) -> bool {
        self.words.iter().any(|word| word == "elsewhere")
    }
}

/// All blocks of a document whose fence says `sh`, which are commands, or `console`, where commands begin with `$ ` and the lines
/// below are what they printed.
pub(super) fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(fence) = line.trim_start().strip_prefix("```") else {
            continue;
        };
        let body: Vec<&str> = (lines.by_ref().map(|(_, line)| line))
            .take_while(|line| line.trim() != "```")
            .collect();
        let mut words = fence.split_whitespace().map(str::to_owned);
        let (is_transcript, commands) = match words.next().as_deref() {
            Some("sh") => (false, commands(&body)),
            Some("console") => (true, transcript(&body)),
            _ => continue,
        };
        blocks.push(Block {
            line: number + 1,
            words: words.collect(),
            commands,
            is_transcript,
        });
    }
    blocks
}

fn transcript(body: &[&str]) -> Vec<Shown> {
    let mut commands: Vec<Shown> = Vec::new();
    for line in body {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push(Shown {
                command: command.trim().to_owned(),
                output: Vec::new(),
            }),
            (None, Some(shown)) => shown.output.push((*line).to_owned()),
            (None, None) => {}
        }
    }
    commands
}

fn commands(body: &[&str]) -> Vec<Shown> {
    let mut commands = Vec::new();
    let mut begun = String::new();
    for line in body {
        let line = without_comment(line);
        match line.strip_suffix('\\') {
            Some(open) => begun.push_str(open),
            None => {
                begun.push_str(line);
                let command = begun.trim().to_owned();
                begun.clear();
                if !command.is_empty() {
                    commands.push(Shown {
                        command,
                        output: Vec::new(),
                    });
                }
            }
        }
    }
    commands
}

/// The line up to a `#` that begins a word outside of quotes.
fn without_comment(line: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (None, '#') if before == ' ' => return line[..at].trim_end(),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), _) if open == c => quote = None,
            _ => {}
        }
        before = c;
    }
    line.trim_end()
}

/// The document with the outputs that `printed` gives, by the line of a block's fence and the place of the command in it.
pub(super) fn with_outputs(
    markdown: &str,
    printed: impl Fn(usize, usize) -> Option<String>,
) -> String {
    let mut lines = Vec::new();
    let mut inside = None;
    let mut skips = false;
    for (number, line) in markdown.lines().enumerate() {
        match inside {
            None => {
                let fence = line.trim_start().strip_prefix("```console");
                inside = fence.map(|_words| (number + 1, 0));
            }
            Some(_) if line.trim() == "```" => (inside, skips) = (None, false),
            Some((fence, count)) => {
                if line.starts_with("$ ") {
                    lines.push(line.to_owned());
                    let output = printed(fence, count);
                    skips = output.is_some();
                    lines.extend(
                        output
                            .iter()
                            .flat_map(|it| it.lines())
                            .map(|it| it.trim_end().to_owned()),
                    );
                    inside = Some((fence, count + 1));
                    continue;
                }
                if skips {
                    continue;
                }
            }
        }
        lines.push(line.to_owned());
    }
    lines.join("\n") + "\n"
}

/// The first line of a transcript that holds no digit and is not in what was printed now: figures differ, words do not.
pub(super) fn lost_line<'a>(shown: &'a Shown, printed: &str) -> Option<&'a str> {
    let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let now: Vec<String> = printed.lines().map(plain).collect();
    let stable =
        |line: &&String| !line.trim().is_empty() && !line.contains(|c: char| c.is_ascii_digit());
    let mut lines = shown.output.iter().filter(stable);
    lines
        .find(|line| !now.contains(&plain(line)))
        .map(String::as_str)
}

#[test]
fn a_block_is_its_commands() {
    let text = "text\n```sh needs\n# a word\ntreeline up eth0 \\\n  --rate 95mbit   # more\necho '# no comment'\n```\n\
                ```text\ntreeline no\n```\n```sh no-run systemd\nsystemctl x\n```\n";
    let found = blocks(text);
    assert_eq!(found.len(), 2);
    let commands: Vec<&str> = found[0]
        .commands
        .iter()
        .map(|it| it.command.as_str())
        .collect();
    assert_eq!(
        commands,
        ["treeline up eth0   --rate 95mbit", "echo '# no comment'"]
    );
    assert_eq!((found[0].line, found[0].reason()), (2, None));
    assert_eq!(found[1].reason(), Some("systemd"));
    let other = blocks("```console elsewhere\n$ treeline status\n```\n");
    assert!(other[0].is_from_elsewhere() && other[0].reason().is_none());
    assert!(!found[0].is_from_elsewhere());
}

#[test]
fn a_transcript_is_commands_with_what_they_printed() {
    let text = "```console\n$ treeline status\nold 3\nlines\n$ true\n```\nrest\n```console no-run systemd\n$ x\nkept\n```\n";
    let found = blocks(text);
    assert!(found[0].is_transcript);
    assert_eq!(found[0].commands[0].output, ["old 3", "lines"]);
    assert_eq!(lost_line(&found[0].commands[0], "new 4\n  lines \n"), None);
    assert_eq!(lost_line(&found[0].commands[0], "new 4\n"), Some("lines"));
    let told = with_outputs(text, |line, place| {
        (line == 1 && place == 0).then(|| "new 4\nmore ".to_owned())
    });
    let wanted = "```console\n$ treeline status\nnew 4\nmore\n$ true\n```\nrest\n```console no-run systemd\n$ x\nkept\n```\n";
    assert_eq!(told, wanted);
}
