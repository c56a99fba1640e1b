//! Readings as screens, compared with those that stand beside this file.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::{Terminal, backend::TestBackend};
use serde_json::{Value, json};

use super::{
    reading::{Program, Reading},
    screen::{self, LEAST_COLUMNS, LEAST_LINES},
    state::State,
    view::View,
};
use crate::{
    dataset::services::{Foretold, Service, Services},
    model::Gain,
};

/// Counters of a band, as a multiple of its number.
fn band(band: u64, times: u64) -> Value {
    let backlog = if band > 4 { 30_000 * band } else { 0 };
    // The last one waits and is sent nothing of.
    let sent = if band == 7 { 0 } else { times };
    json!({
        "band": band,
        "packets": 1000 * sent * (8 - band),
        "bytes": 1_200_000 * sent * (8 - band),
        "drops": if band == 6 { 5 * times } else { 0 },
        "backlog_packets": backlog / 1500,
        "backlog_bytes": backlog,
    })
}

fn interface(name: &str, ifindex: u32, times: u64) -> Value {
    json!({
        "name": name, "ifindex": ifindex, "present": true, "rate_bps": 500_000_000,
        "root": "htb", "leaf": "fq_codel", "egress_hook": "tcx", "ingress_hook": "xdp",
        "bands": (0..8).map(|number| band(number, times)).collect::<Vec<_>>(),
    })
}

/// A host that has sent for so many seconds.
fn status(times: u64) -> Value {
    let mut second = interface("wan0", 7, times);
    second["downlink"] = json!({
        "device": "ifb-wan0", "rate_bps": 95_000_000,
        "bands": (0..8).map(|number| band(number, times / 2)).collect::<Vec<_>>(),
    });
    json!({
        "schema": 1, "instance": "default", "abi_version": 1, "agent": { "pid": 4711 },
        "observes_only": false,
        "model": {
            "generation": 12, "trees": 3, "nodes": 812, "depth": 9, "trained_on_samples": 9000,
            "train_ms": 120, "packets": 4000 * times,
        },
        "shadow": {
            "generation": 13, "nodes": 500, "since_unix_s": 0, "bands": vec![vec![0; 8]; 8],
        },
        "thresholds": null, "flow_table": null,
        "interfaces": [interface("eth0", 2, times), second],
        "counters": { "samples_sent": 700 * times, "samples_lost": 0, "of_a_later_version": 1 },
    })
}

fn service(port: Option<u32>, messages: u64, factor: f64) -> Service {
    Service {
        protocol: if port == Some(5060) { 17 } else { 6 },
        port,
        messages,
        bytes: messages * 40_000,
        median_bytes: 12_300,
        foretold: (factor > 0.0).then_some(Foretold {
            messages,
            predicted_median_bytes: 15_000,
            real_median_bytes: 12_300,
            median_factor: factor,
        }),
    }
}

fn reading(times: u64, at: Instant, change: impl FnOnce(&mut Value)) -> Reading {
    let mut status = status(times);
    change(&mut status);
    let program = |hook, runs: u64, ns| Program {
        hook,
        runs: runs * times,
        ran: Duration::from_nanos(runs * times * ns),
    };
    Reading {
        at,
        status: serde_json::from_value(status).unwrap(),
        services: Some(Services {
            schema: 1,
            rows: 12_345,
            needed_rows: 500,
            window_ms: 540_000,
            sample_one_in: 4,
            acting: Some(12),
            shadow: Some(13),
            services: vec![
                service(Some(443), 900, 1.8),
                service(Some(22), 2000, 1.2),
                service(Some(5060), 100, 0.0),
                service(None, 50, 3.4),
            ],
        }),
        gain: Some(Gain {
            percent: 4.26,
            error_percent: 1.1,
        }),
        programs: Some(vec![
            program("egress", 36_000, 143),
            program("ingress", 18_000, 80),
        ]),
    }
}

/// Two seconds of that host.
fn view(change: impl Fn(&mut Value)) -> View {
    let at = Instant::now();
    let before = reading(10, at, &change);
    let now = reading(12, at + Duration::from_secs(2), &change);
    View::of(Some(&before), &now)
}

fn drawn(view: &View, state: &State, (columns, lines): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
    terminal
        .draw(|frame| screen::draw(frame, view, state))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let cells = (0..columns).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..lines).map(|y| line(y) + "\n").collect()
}

/// Compares with `screens/NAME.txt`; with `TREELINE_SCREENS=write` that is written anew.
#[track_caller]
fn expect(name: &str, view: &View, state: &State) {
    let drawn = drawn(view, state, (LEAST_COLUMNS, LEAST_LINES));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/top/screens/{name}.txt"));
    if std::env::var_os("TREELINE_SCREENS").is_some_and(|value| value == "write") {
        std::fs::write(&path, &drawn).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stored == drawn,
        "{name} is drawn otherwise than it stands in src/top/screens; TREELINE_SCREENS=write stores it so:\n{drawn}"
    );
}

#[test]
fn a_busy_host_with_an_agent() {
    let view = view(|_| {});
    expect("busy", &view, &State::default());
    let mut state = State::default();
    for key in [
        KeyCode::Tab,
        KeyCode::Tab,
        KeyCode::Char('s'),
        KeyCode::Char('p'),
    ] {
        state.press(KeyEvent::new(key, KeyModifiers::NONE), view.links.len());
    }
    expect("downlink-paused-by-messages", &view, &state);
    state.press(KeyEvent::new(KeyCode::Char('?'), KeyModifiers::NONE), 3);
    expect("help", &view, &state);
}

#[test]
fn without_an_agent_it_says_what_is_missing() {
    let mut now = reading(1, Instant::now(), |status| {
        status["agent"] = Value::Null;
        status["model"] = Value::Null;
        status["shadow"] = Value::Null;
        status["interfaces"][0]["bands"] = json!([]);
        status["interfaces"][0]["root"] = "keep".into();
        status["interfaces"][0]["rate_bps"] = Value::Null;
    });
    now.services = None;
    now.programs = None;
    now.gain = None;
    expect(
        "no-agent-first-reading",
        &View::of(None, &now),
        &State::default(),
    );
}

#[test]
fn nothing_up() {
    let view = view(|status| status["interfaces"] = json!([]));
    expect("nothing-up", &view, &State::default());
}

#[test]
fn a_terminal_that_is_too_small_is_told() {
    let drawn = drawn(&view(|_| {}), &State::default(), (60, 20));
    let told = drawn.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told.contains("needs 80 columns and 24 lines; this terminal has 60 and 20"),
        "{told}"
    );
    // Nor does a tiny one break it.
    super::tests::drawn(&view(|_| {}), &State::default(), (1, 1));
}

#[test]
fn a_larger_terminal_shows_more_services() {
    let mut view = view(|_| {});
    let services = view.services.as_mut().unwrap();
    services.services = (0..30)
        .map(|it| service(Some(2000 + it), 10, 1.0))
        .collect();
    let listed = |lines| {
        drawn(&view, &State::default(), (100, lines))
            .matches("TCP 20")
            .count()
    };
    assert!(listed(24) < listed(40), "{} {}", listed(24), listed(40));
}

#[test]
fn rates_are_of_the_time_between_and_a_delay_is_what_waits_over_what_went() {
    let view = view(|_| {});
    assert_eq!(view.over_ms, Some(2000));
    assert_eq!(view.samples_per_s, Some(700.0));
    assert_eq!(view.model.as_ref().unwrap().packets_per_s, Some(4000.0));
    let bands = &view.links[0].bands;
    // 8 times 1.2 MB a second.
    assert_eq!(bands[0].rate_bps, Some(76_800_000.0));
    assert_eq!(bands[0].delay_us, Some(0.0));
    // 150 kB wait for what sends 3.6 MB a second.
    let delay = bands[5].delay_us.unwrap();
    assert!((delay - 41_666.7).abs() < 1.0, "{delay}");
    assert_eq!(bands[6].drops_per_s, Some(5.0));
    assert_eq!((bands[7].backlog_bytes, bands[7].delay_us), (210_000, None));
    let egress = &view.programs.as_ref().unwrap()[0];
    assert_eq!(egress.ns_per_run, Some(143.0));
    assert!((egress.core_share.unwrap() - 0.005_148).abs() < 1e-9);
    // Counters that begin anew give no rate.
    let at = Instant::now();
    let before = reading(12, at, |_| {});
    let now = reading(1, at + Duration::from_secs(1), |_| {});
    let view = View::of(Some(&before), &now);
    assert_eq!(view.links[0].bands[0].rate_bps, None);
    assert_eq!(view.samples_per_s, None);
}

#[test]
fn names_of_links_that_went_away_do_no_harm() {
    let view = view(|_| {});
    let state = State {
        link: 9,
        ..State::default()
    };
    assert!(drawn(&view, &state, (80, 24)).contains("eth0"));
}
