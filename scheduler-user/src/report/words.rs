//! The report in sentences.

use super::{Advised, Report, worth::Worth};
use crate::{qdisc::format_rate, status::Interface};

/// Gains below this are no gains worth a word.
const LEAST_GAIN: f64 = 1.02;

/// The whole in a sentence or two, for somebody who has never seen treeline.
pub(super) fn headline(report: &Report) -> String {
    let since = report.period.begin();
    if is_empty(report) {
        return format!(
            "treeline has not worked on this host yet: since {since} there is nothing to report."
        );
    }
    format!(
        "Since {since} treeline {}. {}",
        did(report),
        worth(report.worth.as_ref())
    )
}

/// Whether nothing ever happened here.
pub(super) fn is_empty(report: &Report) -> bool {
    report.model.is_none() && report.decisions.is_empty() && interfaces(report).is_empty()
}

fn interfaces(report: &Report) -> &[Interface] {
    report.now.as_ref().map_or(&[], |now| &now.interfaces)
}

fn did(report: &Report) -> String {
    let watches = report.now.as_ref().is_some_and(|now| now.observes_only);
    let names: Vec<&str> = (interfaces(report).iter())
        .map(|interface| interface.name.as_str())
        .collect();
    let on = match names.as_slice() {
        [] => String::new(),
        names => format!(" on {}", listed(names)),
    };
    let tried = match report.steps.trained {
        0 => String::new(),
        1 => ", and learned one model from the traffic".to_owned(),
        many => format!(", and learned {many} models from the traffic"),
    };
    let what = if watches {
        "has only watched"
    } else if names.is_empty() {
        "has kept records, but schedules no interface now"
    } else {
        "has scheduled the packets"
    };
    let rules = if watches || names.is_empty() {
        String::new()
    } else {
        match report.model.as_ref().filter(|model| model.acts) {
            Some(model) => format!("; model {} is in charge", model.summary.generation),
            None if report.steps.trained > 0 => {
                "; none of them has proved itself, so the bytes that a message has sent decide"
                    .to_owned()
            }
            None => {
                "; no model is there yet, so the bytes that a message has sent decide".to_owned()
            }
        }
    };
    format!("{what}{on}{tried}{rules}")
}

fn worth(worth: Option<&Worth>) -> String {
    let Some(worth) = worth else {
        return "Too little traffic was seen to say what that is worth.".to_owned();
    };
    let [before, after] = [&worth.all.fifo, worth.scheduled()].map(|it| ms(it.all.mean_fct_ms));
    let gain = worth.gain();
    let (is, had) = if worth.acts {
        ("is", "had")
    } else {
        ("would be", "would have had")
    };
    let total = if gain < LEAST_GAIN {
        format!(
            "Replayed, a message {is} complete after {after} on average, and {before} without scheduling: no gain"
        )
    } else {
        format!(
            "Replayed, a message {is} complete after {after} on average instead of {before} without scheduling"
        )
    };
    let of_it = match worth.gain_of_learning() {
        Some(gain) if gain >= LEAST_GAIN => format!(
            "; serving by bytes sent alone {had} {}",
            ms(worth.all.aging.all.mean_fct_ms)
        ),
        Some(_) => "; learning added nothing to that beyond serving by bytes sent".to_owned(),
        None => ", without any model".to_owned(),
    };
    format!("{total}{of_it}.")
}

/// What a person may do next.
pub(super) fn next(report: &Report) -> Vec<Advised> {
    let treeline = prefix(&report.instance);
    let advised = |command: String, does| Advised {
        command: format!("{treeline}{command}"),
        does,
    };
    let interfaces = interfaces(report);
    if interfaces.is_empty() {
        return vec![
            advised("doctor".to_owned(), "look whether it can work here"),
            advised(
                "run eth0 --observe --rate 95mbit --for 1h".to_owned(),
                "watch the traffic of eth0 for an hour without touching a packet, and say what scheduling would be worth",
            ),
            advised(
                "run eth0 --rate 95mbit".to_owned(),
                "learn and schedule; the rate is a little below that of the link",
            ),
        ];
    }
    let mut next = Vec::new();
    if report.now.as_ref().is_some_and(|now| now.agent.is_none()) {
        let Interface { name, rate_bps, .. } = &interfaces[0];
        let rate = rate_bps.map_or_else(String::new, |it| format!(" --rate {}", format_rate(it)));
        next.push(advised(
            format!("run {name}{rate}"),
            "start the agent: without one nothing new is learned",
        ));
    }
    if let Some(model) = report.model.as_ref().filter(|model| model.acts) {
        next.push(advised(
            format!("model show {} --rules", model.summary.generation),
            "show everything that the model has learned",
        ));
        next.push(advised(
            "model rollback --to-aging".to_owned(),
            "take the model out: bytes sent decide",
        ));
    }
    next.push(advised(
        "down --all".to_owned(),
        "undo everything: programs and qdiscs go, and what stood before comes back",
    ));
    next
}

/// How a command of this instance begins.
pub(super) fn prefix(instance: &str) -> String {
    match instance {
        "default" => "treeline ".to_owned(),
        name => format!("treeline --instance {name} "),
    }
}

fn listed(names: &[&str]) -> String {
    match names {
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => names.concat(),
    }
}

/// Milliseconds, three digits.
pub(super) fn ms(ms: f64) -> String {
    match ms {
        _ if ms < 0.995 => format!("{ms:.2} ms"),
        _ if ms < 99.5 => format!("{ms:.1} ms"),
        _ if ms < 9995.0 => format!("{ms:.0} ms"),
        _ => format!("{:.1} s", ms / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_times_are_told_as_people_do() {
        assert_eq!(listed(&["eth0"]), "eth0");
        assert_eq!(listed(&["eth0", "eth1", "wan0"]), "eth0, eth1 and wan0");
        let told = [0.123, 5.06, 123.4, 12_345.0].map(ms);
        assert_eq!(told, ["0.12 ms", "5.1 ms", "123 ms", "12.3 s"]);
    }
}
