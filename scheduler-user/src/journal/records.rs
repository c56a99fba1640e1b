//! The agent's journal, read: records, which of them are wanted, and where they are kept.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    str::FromStr,
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::KEPT;

/// Version of the JSON that `logs` prints.
pub const SCHEMA: u32 = 1;

/// How much a record matters.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    clap::ValueEnum,
    ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// For who searches a fault.
    Trace,
    /// For who searches a fault.
    Debug,
    /// What was done.
    Info,
    /// What is not as it should be.
    Warn,
    /// What failed.
    Error,
}

impl FromStr for Level {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "trace" => Self::Trace,
            "debug" => Self::Debug,
            "info" => Self::Info,
            "warn" => Self::Warn,
            "error" => Self::Error,
            _ => return Err(()),
        })
    }
}

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When, as RFC 3339 in UTC.
    pub timestamp: String,
    /// How much it matters.
    pub level: Level,
    /// `agent`, or `kernel` for what the programs logged.
    pub origin: String,
    /// What it is about.
    pub message: String,
    /// The rest, among it `what`, `why` and `undo` of what was changed.
    pub fields: Map<String, Value>,
}

impl Record {
    /// Reads a line of the file; `None` if it is no record.
    pub fn parse(line: &str) -> Option<Self> {
        let Value::Object(mut record) = serde_json::from_str(line).ok()? else {
            return None;
        };
        let mut fields = match record.remove("fields") {
            Some(Value::Object(fields)) => fields,
            _ => return None,
        };
        let text = |value: Option<Value>| value?.as_str().map(str::to_owned);
        Some(Self {
            schema: SCHEMA,
            timestamp: text(record.remove("timestamp"))?,
            level: text(record.remove("level"))?.parse().ok()?,
            origin: text(fields.remove("origin")).unwrap_or_else(|| "agent".to_owned()),
            message: text(fields.remove("message")).unwrap_or_default(),
            fields,
        })
    }

    /// As one line for people: time, level, message, fields.
    pub fn text(&self) -> String {
        let level = format!("{:?}", self.level).to_uppercase();
        let mut out = format!("{} {level:5}", self.timestamp);
        if self.origin != "agent" {
            out.push_str(&format!(" [{}]", self.origin));
        }
        out.push_str(&format!(" {}", self.message));
        for (key, value) in &self.fields {
            out.push_str(&format!(" {key}={value}"));
        }
        out
    }
}

/// Which records are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// At least as much as this.
    pub level: Option<Level>,
    /// Whose message or `what` holds this, whatever the case.
    pub what: Option<String>,
    /// Not before this.
    pub since: Option<SystemTime>,
}

impl Filter {
    /// Whether this one is.
    pub fn wants(&self, record: &Record) -> bool {
        let Self { level, what, since } = self;
        let matters = level.is_none_or(|level| record.level >= level);
        let told = record.fields.get("what").and_then(Value::as_str);
        let is_about = what.as_ref().is_none_or(|what| {
            let what = what.to_lowercase();
            [Some(record.message.as_str()), told]
                .into_iter()
                .flatten()
                .any(|text| text.to_lowercase().contains(&what))
        });
        let is_late = since.is_none_or(|since| {
            // A time that can't be read hides nothing.
            humantime::parse_rfc3339(&record.timestamp).map_or(true, |at| at >= since)
        });
        matters && is_about && is_late
    }
}

/// Reads a length of time before now, or a moment in UTC.
///
/// # Errors
/// In words, if it is neither.
pub fn parse_since(text: &str) -> Result<SystemTime, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        let then = SystemTime::now().checked_sub(ago);
        return then.ok_or_else(|| "that is too long ago".to_owned());
    }
    humantime::parse_rfc3339_weak(text)
        .map_err(|_neither| "write for example 10min, 2h, or 2026-01-31T08:00:00Z".to_owned())
}

/// The last `count` records that are wanted, of all files that are kept; none if there is no journal yet.
///
/// # Errors
/// If a file is there and can't be read.
pub fn tail(path: &Path, filter: &Filter, count: usize) -> io::Result<Vec<Record>> {
    let mut found = Vec::new();
    for file in files(path) {
        let file = match File::open(file) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for line in BufReader::new(file).split(b'\n') {
            let line = line?;
            let record = Record::parse(&String::from_utf8_lossy(&line));
            found.extend(record.filter(|record| filter.wants(record)));
        }
    }
    let surplus = found.len().saturating_sub(count);
    found.drain(..surplus);
    Ok(found)
}

/// The files of a journal, the oldest first.
fn files(path: &Path) -> impl Iterator<Item = PathBuf> {
    let older = |number: usize| {
        let mut name = path.to_owned().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    };
    (1..=KEPT).rev().map(older).chain([path.to_owned()])
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    fn line(at_s: u64, level: &str, message: &str, what: &str) -> String {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(at_s);
        let at = humantime::format_rfc3339_micros(at);
        format!(
            "{{\"timestamp\":\"{at}\",\"level\":\"{level}\",\"fields\":{{\"message\":\"{message}\",\"what\":\"{what}\",\"rows\":3}},\
             \"target\":\"treeline::learning\"}}\n"
        )
    }

    #[test]
    fn a_record_reads_as_one_line_and_as_json() {
        let record = Record::parse(&line(0, "INFO", "cycle", "model deployed")).unwrap();
        assert_eq!(
            record.text(),
            "1970-01-01T00:00:00.000000Z INFO  cycle rows=3 what=\"model deployed\""
        );
        assert_eq!(
            serde_json::to_value(&record).unwrap(),
            serde_json::json!({
                "schema": 1, "timestamp": "1970-01-01T00:00:00.000000Z", "level": "info", "origin": "agent",
                "message": "cycle", "fields": { "what": "model deployed", "rows": 3 },
            })
        );
        let kernel =
            r#"{"timestamp":"T","level":"INFO","fields":{"message":"m","origin":"kernel"}}"#;
        assert_eq!(Record::parse(kernel).unwrap().text(), "T INFO  [kernel] m");
        for damaged in [
            "half a li",
            "{}",
            "[1]",
            r#"{"timestamp":"T","level":"LOUD","fields":{}}"#,
        ] {
            assert_eq!(Record::parse(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn filters_ask_for_level_matter_and_time() {
        let record = Record::parse(&line(100, "WARN", "fall back", "Model taken out")).unwrap();
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let filter = |level, what: Option<&str>, since| Filter {
            level,
            what: what.map(str::to_owned),
            since,
        };
        for wanted in [
            Filter::default(),
            filter(Some(Level::Info), None, None),
            filter(Some(Level::Warn), Some("FALL"), at(100)),
            filter(None, Some("taken out"), None),
        ] {
            assert!(wanted.wants(&record), "{wanted:?}");
        }
        for unwanted in [
            filter(Some(Level::Error), None, None),
            filter(None, Some("shadow"), None),
            filter(None, None, at(101)),
        ] {
            assert!(!unwanted.wants(&record), "{unwanted:?}");
        }
    }

    #[test]
    fn the_tail_reaches_into_the_files_before_and_a_missing_journal_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("journal.jsonl");
        let all = Filter::default();
        assert!(tail(&path, &all, 2).unwrap().is_empty());
        fs::write(
            directory.path().join("journal.jsonl.2"),
            line(1, "INFO", "a", ""),
        )
        .unwrap();
        fs::write(
            directory.path().join("journal.jsonl.1"),
            line(2, "WARN", "b", ""),
        )
        .unwrap();
        fs::write(
            &path,
            line(3, "INFO", "c", "") + "half a li\n" + &line(4, "INFO", "d", ""),
        )
        .unwrap();
        let told = |filter: &Filter, count| -> Vec<String> {
            let records = tail(&path, filter, count).unwrap();
            records.into_iter().map(|record| record.message).collect()
        };
        assert_eq!(told(&all, 2), ["c", "d"]);
        assert_eq!(told(&all, 100), ["a", "b", "c", "d"]);
        let warnings = Filter {
            level: Some(Level::Warn),
            ..Filter::default()
        };
        assert_eq!(told(&warnings, 1), ["b"]);
    }
}
