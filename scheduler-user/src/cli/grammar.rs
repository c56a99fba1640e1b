//! How values are written, on the command line and in the configuration alike.

use std::time::Duration;

use scheduler_common::class::BANDS;

use super::acts;
use crate::qdisc;

pub(crate) fn rate(text: &str) -> Result<u64, String> {
    qdisc::parse_rate(text).map_err(|error| match meant(text) {
        Some(rate) => format!("{error}; did you mean `{rate}`?"),
        None => error.to_string(),
    })
}

/// What somebody meant who wrote `100m`, `100mb`, `100Mbit/s` or `100 mbits`.
fn meant(text: &str) -> Option<String> {
    let lower = text.trim().to_ascii_lowercase();
    let number = lower.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = lower.split_at(number);
    let prefix = unit
        .trim_start()
        .chars()
        .next()
        .filter(|c| "kmgt".contains(*c))?;
    let rate = format!("{number}{prefix}bit");
    qdisc::parse_rate(&rate).ok().map(|_bps| rate)
}

pub(crate) fn period(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(period) if period >= Duration::from_millis(100) => Ok(period),
        Ok(_) => Err("a cycle takes at least 100ms".to_owned()),
        Err(error) => Err(format!("{error}; write for example 30s or 5min")),
    }
}

pub(crate) fn dscp(text: &str) -> Result<[u8; BANDS], String> {
    acts::parse_dscp(text)
}

pub(crate) fn pace(text: &str) -> Result<[u32; BANDS], String> {
    acts::parse_pace(text)
}

pub(crate) fn queues(text: &str) -> Result<[u16; BANDS], String> {
    acts::parse_queues(text)
}

pub(crate) fn priorities(text: &str) -> Result<[u32; BANDS], String> {
    acts::parse_priorities(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_is_nearly_one_says_what_was_meant() {
        for text in ["100m", "100mb", "100Mbit/s", "100 mbits", "100M"] {
            let error = rate(text).unwrap_err();
            assert!(
                error.ends_with("did you mean `100mbit`?"),
                "{text}: {error}"
            );
        }
        assert!(!rate("fast").unwrap_err().contains("mean"));
        assert!(!rate("m").unwrap_err().contains("mean"));
        assert_eq!(rate("1.5gbit"), Ok(1_500_000_000));
    }
}
