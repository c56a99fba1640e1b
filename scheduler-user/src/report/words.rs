//! The report in sentences.

use super::{Advised, Report};
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
    format!("treeline {}. {}", does(report, &since), worth(report))
}

/// Whether nothing ever happened here.
pub(super) fn is_empty(report: &Report) -> bool {
    report.model.is_none() && report.decisions.is_empty() && interfaces(report).is_empty()
}

fn interfaces(report: &Report) -> &[Interface] {
    report.now.as_ref().map_or(&[], |now| &now.interfaces)
}

/// Whether packets are scheduled now, as far as is known.
pub(super) fn schedules(report: &Report) -> bool {
    report.now.is_none() || !interfaces(report).is_empty()
}

/// What a model that acts is, or was.
pub(super) fn office(report: &Report) -> &'static str {
    if schedules(report) {
        "in charge"
    } else {
        "acted last"
    }
}

fn does(report: &Report, since: &str) -> String {
    let watches = report.now.as_ref().is_some_and(|now| now.observes_only);
    let names: Vec<&str> = (interfaces(report).iter())
        .map(|interface| interface.name.as_str())
        .collect();
    let on = match names.as_slice() {
        [] => String::new(),
        names => format!(" on {}", listed(names)),
    };
    // Most of what is trained is refused, and nothing was learned by that.
    let tried = match (report.steps.trained, report.steps.promoted) {
        (0, _) => "no model".to_owned(),
        (1, 0) => "one model of the traffic, which has not proved itself".to_owned(),
        (many, 0) => format!("{many} models of the traffic, none of which has proved itself"),
        (1, _) => "one model of the traffic and put it to work".to_owned(),
        (many, put) => format!("{many} models of the traffic and put {put} of them to work"),
    };
    let tried = format!("since {since} it has tried {tried}");
    if !schedules(report) {
        return format!("schedules no interface now; {tried}");
    }
    if watches {
        return format!("only watches the packets{on}; {tried}");
    }
    let rules = match report.model.as_ref().filter(|model| model.acts) {
        Some(model) => format!("model {} is in charge", model.summary.generation),
        None => "no model acts, so the bytes that a message has sent decide".to_owned(),
    };
    format!("schedules the packets{on}: {rules}; {tried}")
}

fn worth(report: &Report) -> String {
    let Some(worth) = &report.worth else {
        return "Too little traffic was seen to say what that is worth.".to_owned();
    };
    let [before, after] = [&worth.all.fifo, worth.scheduled()].map(|it| ms(it.all.mean_fct_ms));
    let gain = worth.gain();
    let is = match (worth.acts, schedules(report)) {
        (true, true) => "is",
        (true, false) => "was",
        (false, _) => "would be",
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
            "; {} by bytes sent alone",
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
    use super::{
        super::{Period, Source, Steps, Worth},
        *,
    };
    use crate::{
        advice::Comparison,
        report::render,
        simulate::{Figures, Replay},
    };

    /// A day of an instance whose kernel can't be asked.
    fn report(trained: u64, worth: Option<[f64; 3]>) -> Report {
        let replay = |mean_fct_ms| {
            let figures = Figures {
                messages: 100,
                mean_fct_ms,
                mean_slowdown: mean_fct_ms,
                p99_slowdown: 9.0,
            };
            Replay {
                all: figures,
                small: figures,
                ..Replay::default()
            }
        };
        Report {
            schema: super::super::SCHEMA,
            version: "0",
            host: "<host>".to_owned(),
            instance: "default".to_owned(),
            period: Period {
                from_unix_s: 0,
                to_unix_s: 24 * 3600,
            },
            headline: String::new(),
            next: Vec::new(),
            steps: Steps {
                trained,
                ..Steps::default()
            },
            models: Vec::new(),
            model: None,
            worth: worth.map(|[fifo, aging, learned]| Worth {
                source: Source::LatestReplay,
                unix_s: 1,
                generation: Some(1),
                acts: true,
                rate_bps: 1_000_000,
                load: 0.8,
                messages: 100,
                bytes: 1000,
                all: Comparison {
                    fifo: replay(fifo),
                    aging: replay(aging),
                    learned: Some(replay(learned)),
                },
                services: Vec::new(),
            }),
            decisions: vec![crate::journal::decisions::Decision::now(
                crate::journal::decisions::Actor::Agent,
                crate::journal::decisions::Step::Refused { rows: 3 },
                None,
                "no <gain>",
            )],
            unreadable: 0,
            now: None,
            now_unknown: Some("not root".to_owned()),
        }
    }

    #[test]
    fn what_is_no_gain_is_called_so() {
        let none = headline(&report(3, None));
        assert!(
            none.starts_with("treeline schedules the packets: ")
                && none.contains("since yesterday 00:00 UTC it has tried 3"),
            "{none}"
        );
        assert!(none.contains("none of which has proved itself"), "{none}");
        assert!(none.contains("Too little traffic"), "{none}");
        let told = |figures| headline(&report(3, Some(figures)));
        assert!(told([10.0, 9.9, 9.9]).contains("no gain"));
        let aging = told([10.0, 5.0, 5.0]);
        assert!(
            aging.contains("5.0 ms on average instead of 10.0 ms")
                && aging.contains("learning added nothing"),
            "{aging}"
        );
        let learned = told([10.0, 5.0, 4.0]);
        assert!(
            learned.ends_with("; 5.0 ms by bytes sent alone."),
            "{learned}"
        );
    }

    #[test]
    fn a_page_without_a_model_says_that_this_is_no_fault() {
        let page = render(&report(3, Some([10.0, 20.0, 20.0]))).unwrap();
        for text in [
            "That is no fault",
            "2.0× later",
            "not root",
            "no &lt;gain&gt;",
            "&lt;host&gt;",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
        assert!(!page.contains("<gain>") && !page.contains("<host>"));
    }

    #[test]
    fn names_and_times_are_told_as_people_do() {
        assert_eq!(listed(&["eth0"]), "eth0");
        assert_eq!(listed(&["eth0", "eth1", "wan0"]), "eth0, eth1 and wan0");
        let told = [0.123, 5.06, 123.4, 12_345.0].map(ms);
        assert_eq!(told, ["0.12 ms", "5.1 ms", "123 ms", "12.3 s"]);
    }
}
