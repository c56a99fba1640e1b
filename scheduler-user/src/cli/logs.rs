//! `treeline logs`: the agent's journal.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::Args;

use super::{Format, print, runtime};
use crate::{
    instance::Instance,
    journal::records::{self, Filter, Level, Record},
};

const POLL_EVERY: Duration = Duration::from_millis(250);

/// Which records, and how long.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Records to show at first.
    #[arg(short = 'n', long, default_value_t = 50)]
    lines: usize,
    /// Go on with new records until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Only records that matter at least so much.
    #[arg(long, value_enum, value_name = "LEVEL")]
    level: Option<Level>,
    /// Only records whose message or `what` holds this text, whatever the case: `deployed`, `drift`, `fall back`.
    #[arg(long, value_name = "TEXT")]
    what: Option<String>,
    /// Only records from then on: how long ago (90s, 10min, 2h, 1day), or a time (2026-01-31T08:00:00Z, 2026-01-31 08:00:00).
    #[arg(long, value_parser = records::parse_since, value_name = "TIME")]
    since: Option<SystemTime>,
}

pub(super) fn logs(instance: &Instance, format: Format, args: &LogsArgs) -> anyhow::Result<()> {
    let LogsArgs {
        lines,
        follow,
        level,
        what,
        since,
    } = args;
    let filter = Filter {
        level: *level,
        what: what.clone(),
        since: *since,
    };
    let path = instance.journal();
    let place = std::fs::metadata(&path).map_or((0, 0), |file| (file.ino(), file.len()));
    let context = || format!("cannot read {}", path.display());
    let shown = records::tail(&path, &filter, *lines).with_context(context)?;
    if shown.is_empty() && !follow && format == Format::Text {
        print(match path.exists() {
            true => "no such records",
            false => "no journal yet; `treeline run` writes one",
        });
    }
    for record in shown {
        show(format, &record)?;
    }
    if *follow {
        runtime()?
            .block_on(tail(format, &path, &filter, place))
            .with_context(context)?;
    }
    Ok(())
}

/// Prints what is appended, also after the journal has turned over.
async fn tail(
    format: Format,
    path: &Path,
    filter: &Filter,
    (mut inode, mut position): (u64, u64),
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(POLL_EVERY) => {}
        }
        let Ok(mut file) = File::open(path) else {
            continue;
        };
        let now = file.metadata()?;
        if now.ino() != inode || now.len() < position {
            (inode, position) = (now.ino(), 0);
        }
        file.seek(SeekFrom::Start(position))?;
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        // A line without its end is still being written.
        while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
            position += line.len() as u64;
            if let Some(record) = Record::parse(line.trim_end()).filter(|it| filter.wants(it)) {
                show(format, &record)?;
            }
            line.clear();
        }
    }
}

fn show(format: Format, record: &Record) -> anyhow::Result<()> {
    match format {
        Format::Json => print(&serde_json::to_string(record)?),
        Format::Text => print(&record.text()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_an_age_or_a_moment() {
        let age = records::parse_since("10min").unwrap().elapsed().unwrap();
        assert!((600..660).contains(&age.as_secs()), "{age:?}");
        let moment = records::parse_since("2026-01-31T08:00:00Z").unwrap();
        assert_eq!(records::parse_since("2026-01-31 08:00:00"), Ok(moment));
        assert!(
            records::parse_since("yesterday")
                .unwrap_err()
                .contains("10min")
        );
    }
}
