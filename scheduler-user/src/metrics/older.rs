//! Prometheus' text form from before OpenMetrics, which not every reader speaks.

use std::collections::BTreeSet;

/// OpenMetrics as Prometheus' older text form, where a counter's family is named as its samples are.
pub(super) fn in_older_form(text: &str) -> String {
    let of_kind = |kind: &str| -> BTreeSet<&str> {
        text.lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(kind))
            .map(str::trim_end)
            .collect()
    };
    let (counters, infos) = (of_kind(" counter"), of_kind(" info"));
    let mut older = String::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => {}
            (Some("#"), Some(what), Some(name), Some(rest)) => {
                let (suffix, rest) = match (counters.contains(name), infos.contains(name)) {
                    (true, _) => ("_total", rest),
                    (_, true) if what == "TYPE" => ("_info", "gauge"),
                    (_, true) => ("_info", rest),
                    _ => ("", rest),
                };
                older.push_str(&format!("# {what} {name}{suffix} {rest}\n"));
            }
            _ => older.push_str(&format!("{line}\n")),
        }
    }
    older
}
