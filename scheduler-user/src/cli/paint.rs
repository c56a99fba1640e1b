//! Colours of what is printed; `print` drops them where nobody sees them.

use anstyle::{AnsiColor, Style};

/// As it should be.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
/// To be looked at.
pub(super) const DOUBTFUL: Style = AnsiColor::Yellow.on_default();
/// Wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();

/// The text in that colour.
pub(super) fn text(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
