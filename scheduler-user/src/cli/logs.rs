//! `treeline logs`: the agent's journal.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Seek as _, SeekFrom},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;

use super::{Format, print, runtime};
use crate::{instance::Instance, journal};

const POLL_EVERY: Duration = Duration::from_millis(250);

pub(super) fn logs(
    instance: &Instance,
    format: Format,
    lines: usize,
    follow: bool,
) -> anyhow::Result<()> {
    let path = instance.journal();
    let position = std::fs::metadata(&path).map_or(0, |file| file.len());
    let context = || format!("cannot read {}", path.display());
    let shown = journal::tail(&path, lines).with_context(context)?;
    if shown.is_empty() && !follow {
        print("no journal yet; `treeline run` writes one");
    }
    for line in shown {
        show(format, &line);
    }
    if follow {
        runtime()?
            .block_on(tail(format, &path, position))
            .with_context(context)?;
    }
    Ok(())
}

/// Prints what is appended, also after the journal has turned over.
async fn tail(format: Format, path: &Path, mut position: u64) -> std::io::Result<()> {
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(()),
            () = tokio::time::sleep(POLL_EVERY) => {}
        }
        let Ok(mut file) = File::open(path) else {
            continue;
        };
        if file.metadata()?.len() < position {
            position = 0;
        }
        file.seek(SeekFrom::Start(position))?;
        let mut reader = BufReader::new(file);
        let mut line = String::new();
        // A line without its end is still being written.
        while reader.read_line(&mut line)? > 0 && line.ends_with('\n') {
            position += line.len() as u64;
            show(format, line.trim_end());
            line.clear();
        }
    }
}

fn show(format: Format, line: &str) {
    match format {
        Format::Json => print(line),
        Format::Text => print(&journal::as_text(line)),
    }
}
