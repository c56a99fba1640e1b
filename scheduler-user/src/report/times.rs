//! A period, and its ends in words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Period {
    /// Seconds since 1970.
    pub from_unix_s: u64,
    /// Likewise.
    pub to_unix_s: u64,
}

impl Period {
    /// The last `length`, up to now.
    pub fn last(length: Duration) -> Self {
        // A clock before 1970 is no reason to tell nothing.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        Self {
            from_unix_s: now.saturating_sub(length.as_secs()),
            to_unix_s: now,
        }
    }

    /// Whether that moment lies in it.
    pub const fn holds(&self, unix_s: u64) -> bool {
        self.from_unix_s <= unix_s && unix_s <= self.to_unix_s
    }

    /// The day of its end: `2026-11-28`, in UTC.
    pub fn last_day(&self) -> String {
        parts(self.to_unix_s).0
    }

    /// Where it begins, as seen from its end: `yesterday 14:00 UTC`.
    pub(super) fn begin(&self) -> String {
        let (day, time) = parts(self.from_unix_s);
        let (today, _) = parts(self.to_unix_s);
        let (yesterday, _) = parts(self.to_unix_s.saturating_sub(24 * 3600));
        if day == today {
            format!("{time} UTC")
        } else if day == yesterday {
            format!("yesterday {time} UTC")
        } else {
            format!("{day} {time} UTC")
        }
    }
}

/// `2026-11-28 14:00`, in UTC.
pub(super) fn minute(unix_s: u64) -> String {
    let (day, time) = parts(unix_s);
    format!("{day} {time}")
}

fn parts(unix_s: u64) -> (String, String) {
    let moment = UNIX_EPOCH + Duration::from_secs(unix_s);
    let text = humantime::format_rfc3339_seconds(moment).to_string();
    let (day, time) = text.split_once('T').unwrap_or((&text, ""));
    (day.to_owned(), time.chars().take(5).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_begin_is_told_as_people_do() {
        // 2026-11-28 08:05.
        let to_unix_s = 1_795_853_100;
        let begin = |hours: u64| {
            let from_unix_s = to_unix_s - hours * 3600;
            Period {
                from_unix_s,
                to_unix_s,
            }
            .begin()
        };
        assert_eq!(begin(1), "07:05 UTC");
        assert_eq!(begin(24), "yesterday 08:05 UTC");
        assert_eq!(begin(240), "2026-11-18 08:05 UTC");
        assert_eq!(minute(to_unix_s), "2026-11-28 08:05");
    }

    #[test]
    fn both_ends_belong_to_it() {
        let period = Period {
            from_unix_s: 10,
            to_unix_s: 20,
        };
        assert_eq!(
            [9, 10, 20, 21].map(|it| period.holds(it)),
            [false, true, true, false]
        );
    }
}
