//! Rates as text, in tc's grammar.

use super::QdiscError;

/// Beyond a petabit per second nothing is a link.
const MAX_BPS: f64 = 1e15;
/// Decimal prefixes that `format_rate` uses, largest first.
const UNITS: [(u64, &str); 5] = [
    (1_000_000_000_000, "tbit"),
    (1_000_000_000, "gbit"),
    (1_000_000, "mbit"),
    (1_000, "kbit"),
    (1, "bit"),
];

/// Reads a rate such as `100mbit`, `1.5gbit`, `800Kibit` or `12500kbps` into bits per second.
///
/// As in tc: case does not matter, no unit means bits per second, and `bps` is bytes.
pub fn parse_rate(text: &str) -> Result<u64, QdiscError> {
    let bad = || QdiscError::BadRate {
        text: text.to_owned(),
    };
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    // `f64` also reads "." as an error and the digits alone keep out "inf" and exponents.
    let value: f64 = number.parse().map_err(|_not_a_number| bad())?;
    let factor = unit_factor(unit.trim_start()).ok_or_else(bad)?;
    let bps = (value * factor).round();
    if !(1.0..=MAX_BPS).contains(&bps) {
        return Err(bad());
    }
    Ok(bps as u64)
}

/// Bits per second of one such unit.
fn unit_factor(unit: &str) -> Option<f64> {
    let unit = unit.to_ascii_lowercase();
    if unit.is_empty() {
        return Some(1.0);
    }
    let (prefix, bits) = match unit.strip_suffix("bit") {
        Some(prefix) => (prefix, 1.0),
        None => (unit.strip_suffix("bps")?, 8.0),
    };
    let scale: f64 = match prefix {
        "" => 1.0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        "ki" => 1024.0,
        "mi" => 1024.0 * 1024.0,
        "gi" => 1024.0 * 1024.0 * 1024.0,
        "ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some(scale * bits)
}

/// Writes a rate so that [`parse_rate`] and tc read the same value back.
pub fn format_rate(bps: u64) -> String {
    for (unit, name) in UNITS {
        // At most three decimals: else the next smaller unit is easier to read.
        let remainder = bps % unit;
        if bps < unit || (unit > 1 && !remainder.is_multiple_of(unit / 1000)) {
            continue;
        }
        let whole = bps / unit;
        if remainder == 0 {
            return format!("{whole}{name}");
        }
        let decimals = format!("{:03}", remainder / (unit / 1000));
        return format!("{whole}.{}{name}", decimals.trim_end_matches('0'));
    }
    format!("{bps}bit")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_read_as_tc_reads_them() {
        for (text, bps) in [
            ("100mbit", 100_000_000),
            ("1.5gbit", 1_500_000_000),
            ("12500kbps", 100_000_000),
            ("1gbps", 8_000_000_000),
            ("800Kibit", 819_200),
            ("1MiBit", 1_048_576),
            ("2tbit", 2_000_000_000_000),
            ("64000", 64_000),
            ("1000 bit", 1000),
            (" 10Mbit ", 10_000_000),
            ("1bps", 8),
            (".5kbit", 500),
        ] {
            assert_eq!(parse_rate(text).unwrap(), bps, "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_examples() {
        for text in [
            "",
            "fast",
            "mbit",
            "-1mbit",
            "1e6",
            "inf",
            "nan",
            "1.2.3mbit",
            "10mb",
            "10%",
            "0",
            "0.1bit",
            "9999tbit",
            "10mbit/s",
            ".",
            "10 m bit",
        ] {
            let message = parse_rate(text).unwrap_err().to_string();
            assert!(message.contains("100mbit"), "{text}: {message}");
        }
    }

    #[test]
    fn rates_are_written_in_the_largest_unit_that_stays_short() {
        for (bps, text) in [
            (100_000_000, "100mbit"),
            (1_500_000_000, "1.5gbit"),
            (1_234_567, "1234.567kbit"),
            (1_001_000, "1.001mbit"),
            (999, "999bit"),
            (0, "0bit"),
        ] {
            assert_eq!(format_rate(bps), text);
        }
    }

    proptest! {
        #[test]
        fn a_written_rate_reads_back(bps in 1_u64..=1_000_000_000_000_000) {
            prop_assert_eq!(parse_rate(&format_rate(bps)).unwrap(), bps);
        }
    }
}
