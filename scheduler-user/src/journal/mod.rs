//! Logs: to people on stderr, and as JSON lines to a bounded file.

pub mod decisions;
mod told;
mod troubles;

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, IsTerminal as _},
    path::Path,
    sync::Mutex,
};

pub use self::troubles::troubles;
use file_rotate::{ContentLimit, FileRotate, compression::Compression, suffix::AppendCount};
use tracing_subscriber::{
    EnvFilter, Layer as _, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// The journal turns over at this size.
const MAX_BYTES: usize = 4 << 20;
/// Files kept beside the current one.
const KEPT: usize = 2;

/// Starts logging to stderr, and to `journal` if the process is an agent.
///
/// The environment variable `TREELINE_LOG` filters stderr (`debug`, `treeline=trace`, …).
pub fn start(default_level: &str, journal: Option<&Path>) {
    let filter = EnvFilter::try_from_env("TREELINE_LOG")
        .unwrap_or_else(|_unset| EnvFilter::new(default_level));
    let stderr = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_filter(filter);
    let file = journal.map(|path| {
        let rotate = FileRotate::new(
            path,
            AppendCount::new(KEPT),
            ContentLimit::BytesSurpassed(MAX_BYTES),
            Compression::None,
            None,
        );
        fmt::layer()
            .json()
            .with_writer(Mutex::new(rotate))
            .with_filter(EnvFilter::new("info"))
    });
    // A second start in one process would be a mistake of ours, and harmless.
    let _already = tracing_subscriber::registry()
        .with(troubles::Count)
        .with(stderr)
        .with(file)
        .try_init()
        .is_err();
}

/// The last `count` lines of a journal; none if there is no journal yet.
///
/// # Errors
/// If the file can't be read.
pub fn tail(path: &Path, count: usize) -> io::Result<Vec<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let lines = BufReader::new(file)
        .lines()
        .collect::<io::Result<Vec<_>>>()?;
    let skip = lines.len().saturating_sub(count);
    Ok(lines.into_iter().skip(skip).collect())
}

/// A journal line as text: time, level, message, fields. A line that is no record stays as it is.
pub fn as_text(line: &str) -> String {
    let Ok(record) = serde_json::from_str::<serde_json::Value>(line) else {
        return line.to_owned();
    };
    let text = |key: &str| record[key].as_str().unwrap_or_default().to_owned();
    let mut out = format!("{} {:5}", text("timestamp"), text("level"));
    if let Some(fields) = record["fields"].as_object() {
        if let Some(message) = fields.get("message").and_then(|value| value.as_str()) {
            out.push_str(&format!(" {message}"));
        }
        for (key, value) in fields.iter().filter(|(key, _)| *key != "message") {
            out.push_str(&format!(" {key}={value}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_one_line() {
        let line =
            r#"{"timestamp":"T","level":"INFO","fields":{"message":"cycle","rows":3,"why":"x"}}"#;
        assert_eq!(as_text(line), r#"T INFO  cycle rows=3 why="x""#);
        assert_eq!(as_text("half a li"), "half a li");
    }

    #[test]
    fn the_tail_is_the_end_and_a_missing_journal_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        assert!(tail(&path, 2).unwrap().is_empty());
        std::fs::write(&path, "a\nb\nc\n").unwrap();
        assert_eq!(tail(&path, 2).unwrap(), ["b", "c"]);
    }
}
