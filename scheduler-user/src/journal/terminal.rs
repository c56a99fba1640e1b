//! Standard error, which lines of the log share with signs of progress.

use std::{
    io::{self, Write},
    sync::LazyLock,
};

use indicatif::{MultiProgress, ProgressBar};
use tracing_subscriber::fmt::MakeWriter;

/// All that moves on the terminal; silent where there is none.
static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Puts a bar below what is written.
pub(crate) fn add(bar: ProgressBar) -> ProgressBar {
    BARS.add(bar)
}

/// Writes lines above the bars: they are taken away, and drawn again below.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}
