//! Options that say what a band does to its packets.

use clap::Args;
use scheduler_common::{
    act::{KEEP_DSCP, MAX_DSCP, MIN_PACE_BPS, pace_of},
    class::BANDS,
};

use crate::{
    acts::{Acts, DEFAULT_DSCP},
    qdisc,
};

/// Names of DSCPs (RFC 4594, RFC 5865, RFC 8622).
const DSCP_NAMES: [(&str, u8); 25] = [
    ("cs0", 0),
    ("default", 0),
    ("le", 1),
    ("cs1", 8),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("cs2", 16),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("cs3", 24),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("cs4", 32),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("cs5", 40),
    ("va", 44),
    ("ef", 46),
    ("cs6", 48),
    ("cs7", 56),
    ("keep", KEEP_DSCP),
];

/// What a band does besides; all off by default, and for all interfaces of the instance alike.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What a band does to its packets (band 0 goes first, 7 last)")]
pub(super) struct ActArgs {
    /// Rewrite the DSCP by band: `--dscp` alone marks bands 6 and 7 as lower effort (le) and leaves the others;
    /// `--dscp=0-1=af21,7=cs1` says which. ECN bits stay.
    #[arg(long, value_parser = parse_dscp, num_args = 0..=1, require_equals = true,
          default_missing_value = "6-7=le", value_name = "BAND=CODE,...")]
    pub(super) dscp: Option<[u8; BANDS]>,
    /// Hold bands back to a rate each, by departure times, which the fq qdisc keeps: `6=50mbit,7=20mbit`.
    /// Nothing is dropped for it.
    #[arg(long, value_parser = parse_pace, value_name = "BAND=RATE,...")]
    pub(super) pace: Option<[u32; BANDS]>,
    /// Ask for a transmit queue by band, on interfaces with several: `0-3=0,4-7=1`. A socket that has sent
    /// already, or XPS, may have chosen before.
    #[arg(long, value_parser = parse_queues, value_name = "BAND=QUEUE,...")]
    pub(super) queues: Option<[u16; BANDS]>,
    /// Write these eight values into skb->priority, for a qdisc that is not known here: classes as `1:10`, or
    /// numbers; the last one given holds for all bands behind.
    #[arg(long, value_parser = parse_priorities, value_name = "CLASS,...")]
    pub(super) priorities: Option<[u32; BANDS]>,
}

impl ActArgs {
    pub(super) const fn acts(&self) -> Acts {
        Acts {
            priorities: self.priorities,
            dscp: self.dscp,
            queues: self.queues,
            pace: self.pace,
        }
    }
}

/// Reads `BAND=VALUE` or `FIRST-LAST=VALUE`, several with commas between.
fn by_band<T: Copy>(
    text: &str,
    otherwise: T,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<[T; BANDS], String> {
    let mut table = [otherwise; BANDS];
    for part in text.split(',') {
        let bad = || format!("`{part}` is not BAND=VALUE or FIRST-LAST=VALUE with bands 0 to 7");
        let (bands, value) = part.split_once('=').ok_or_else(bad)?;
        let (first, last) = bands.split_once('-').unwrap_or((bands, bands));
        let [first, last] = [first, last].map(|band| band.trim().parse::<usize>());
        let (Ok(first), Ok(last)) = (first, last) else {
            return Err(bad());
        };
        let range = table.get_mut(first..=last).ok_or_else(bad)?;
        if range.is_empty() {
            return Err(bad());
        }
        range.fill(read(value.trim())?);
    }
    Ok(table)
}

pub(super) fn parse_dscp(text: &str) -> Result<[u8; BANDS], String> {
    by_band(text, KEEP_DSCP, |value| {
        let lower = value.to_ascii_lowercase();
        let named = DSCP_NAMES.iter().find(|(name, _)| *name == lower);
        let number = value.parse().ok().filter(|code| *code <= MAX_DSCP);
        named.map(|(_, code)| *code).or(number).ok_or_else(|| {
            format!(
                "`{value}` is no DSCP: write 0 to 63, or cs0 to cs7, af11 to af43, ef, va, le, keep"
            )
        })
    })
}

pub(super) fn parse_pace(text: &str) -> Result<[u32; BANDS], String> {
    by_band(text, 0, |value| {
        let rate_bps = qdisc::parse_rate(value).map_err(|error| error.to_string())?;
        if rate_bps < MIN_PACE_BPS {
            return Err(format!("{value} is too slow: a pace is at least 8kbit"));
        }
        Ok(pace_of(rate_bps))
    })
}

pub(super) fn parse_queues(text: &str) -> Result<[u16; BANDS], String> {
    /// The field has 16 bits, and two values of their own meaning.
    const MAX_QUEUE: u16 = u16::MAX - 2;
    by_band(text, 0, |value| match value.parse::<u16>() {
        Ok(queue) if queue <= MAX_QUEUE => Ok(queue + 1),
        _ => Err(format!(
            "`{value}` is no transmit queue: write 0, 1, 2 and so on"
        )),
    })
}

pub(super) fn parse_priorities(text: &str) -> Result<[u32; BANDS], String> {
    let values: Vec<u32> = text
        .split(',')
        .map(parse_priority)
        .collect::<Result<_, _>>()?;
    if values.len() > BANDS {
        return Err(format!(
            "{} values are given for {BANDS} bands",
            values.len()
        ));
    }
    let last = values.last().copied().unwrap_or_default();
    Ok(std::array::from_fn(|band| {
        values.get(band).copied().unwrap_or(last)
    }))
}

/// A number, or a class in tc's notation, where both parts are hexadecimal.
fn parse_priority(text: &str) -> Result<u32, String> {
    let text = text.trim();
    let part = |digits: &str| u16::from_str_radix(digits, 16).ok().map(u32::from);
    let value = match text.split_once(':') {
        Some((major, minor)) => part(major)
            .zip(part(minor))
            .map(|(major, minor)| major << 16 | minor),
        None => text.parse().ok(),
    };
    value.ok_or_else(|| format!("`{text}` is no priority: write a class as 1:10, or a number as 6"))
}

/// What `--dscp` alone stands for is the default that is documented.
const _: () = assert!(DEFAULT_DSCP[6] == 1 && DEFAULT_DSCP[7] == 1 && DEFAULT_DSCP[5] == KEEP_DSCP);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_by_name_and_number() {
        const K: u8 = KEEP_DSCP;
        assert_eq!(parse_dscp("6-7=le").unwrap(), DEFAULT_DSCP);
        let mixed = parse_dscp("0=EF, 1-2=18,7=cs1,2=keep").unwrap();
        assert_eq!(mixed, [46, 18, K, K, K, K, K, 8]);
        for bad in ["", "8=ef", "0=64", "0=foo", "3-1=ef", "ef", "0-9=le", "0="] {
            assert!(parse_dscp(bad).is_err(), "{bad}");
        }
        assert!(parse_dscp("0=foo").unwrap_err().contains("af11"));
    }

    #[test]
    fn names_of_marks_are_those_of_the_standards() {
        for (name, code) in DSCP_NAMES {
            if let Some(class) = name.strip_prefix("cs") {
                assert_eq!(code, class.parse::<u8>().unwrap() * 8);
            }
            if let Some(digits) = name.strip_prefix("af") {
                let (class, drop) = digits.split_at(1);
                let expected = class.parse::<u8>().unwrap() * 8 + drop.parse::<u8>().unwrap() * 2;
                assert_eq!(code, expected, "{name}");
            }
        }
    }

    #[test]
    fn paces_and_queues_are_read_by_band() {
        let paces = parse_pace("6=50mbit,7=20mbit").unwrap();
        assert_eq!(paces[..6], [0; 6]);
        assert_eq!(paces[6..], [pace_of(50_000_000), pace_of(20_000_000)]);
        assert!(parse_pace("7=1kbit").unwrap_err().contains("8kbit"));
        assert!(parse_pace("7=fast").unwrap_err().contains("100mbit"));
        assert_eq!(
            parse_queues("0-3=0,4-7=1").unwrap(),
            [1, 1, 1, 1, 2, 2, 2, 2]
        );
        assert!(parse_queues("0=65534").is_err() && parse_queues("0=-1").is_err());
    }

    #[test]
    fn priorities_are_classes_or_numbers() {
        let given = parse_priorities("1:10,1:a,6").unwrap();
        assert_eq!(given, [0x1_0010, 0x1_000a, 6, 6, 6, 6, 6, 6]);
        for bad in ["", "x", "1:", "1:10000", "1,2,3,4,5,6,7,8,9"] {
            assert!(parse_priorities(bad).is_err(), "{bad}");
        }
    }
}
