//! How values are written, on the command line and in the configuration alike.

use std::time::Duration;

use scheduler_common::class::BANDS;

use super::acts;
use crate::qdisc;

pub(crate) fn rate(text: &str) -> Result<u64, String> {
    qdisc::parse_rate(text).map_err(|error| error.to_string())
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
