//! How often this process has warned.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

static WARNINGS: AtomicU64 = AtomicU64::new(0);
static ERRORS: AtomicU64 = AtomicU64::new(0);

/// Warnings and errors that were logged so far, whether or not they were shown.
pub fn troubles() -> [(&'static str, u64); 2] {
    [
        ("warn", WARNINGS.load(Relaxed)),
        ("error", ERRORS.load(Relaxed)),
    ]
}

/// Counts them.
pub(super) struct Count;

impl<S: Subscriber> Layer<S> for Count {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        match *event.metadata().level() {
            Level::WARN => WARNINGS.fetch_add(1, Relaxed),
            Level::ERROR => ERRORS.fetch_add(1, Relaxed),
            _ => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn warnings_and_errors_count_and_news_do_not() {
        let before = troubles();
        let registry = tracing_subscriber::registry().with(Count);
        tracing::subscriber::with_default(registry, || {
            tracing::info!("news");
            tracing::warn!("once");
            tracing::error!("once");
        });
        let grown: Vec<u64> = troubles()
            .iter()
            .zip(before)
            .map(|((_, after), (_, before))| after - before)
            .collect();
        assert_eq!(grown, [1, 1]);
    }
}
