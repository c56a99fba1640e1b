//! Metrics under a real Prometheus; the alert rules and the dashboard that come with treeline.

mod contrib;
mod delay;
mod prometheus;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bed::{
    netns::{Bed, Namespace},
    wait,
};
use treeline::metrics::catalog::{self, Kind};

use self::prometheus::{Prometheus, program};
use crate::{
    learning::play,
    support::{
        agent::{Agent, Site},
        privileged,
    },
};

/// Where the agent answers, in a namespace of the test's own.
pub(crate) const AGENT_PORT: u16 = 9464;
/// Until a model acts and its predictions have met the ends of their messages.
const LEARN_LIMIT: Duration = Duration::from_secs(180);
const DATA_LIMIT: Duration = Duration::from_secs(60);

/// What may have no data in a run as short as this.
const MAY_BE_EMPTY: [&str; 3] = [
    // Needs messages enough that came after the model.
    "treeline_model_gain_",
    // Only while the kernel keeps account.
    "treeline_program_runs_total",
    // An annotation: that nothing changed is its usual answer.
    "changes(",
];

/// What an HTTP server inside answers, without its head.
pub(crate) fn get(namespace: &Namespace, port: u16, path: &str) -> anyhow::Result<String> {
    namespace.enter(|| {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        // In this version no answer comes in pieces.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        Ok(body.to_owned())
    })
}

/// Waits until the agent answers scrapes.
pub(crate) fn await_endpoint(agent: &Agent) {
    wait::until("the endpoint", Duration::from_secs(30), || {
        Ok(agent.log().contains("metrics are served").then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
}

/// Offers traffic until Prometheus has seen a model act and its predictions come true or not.
fn learn(bed: &Bed, prometheus: &Prometheus<'_>, agent: &Agent) {
    let deadline = Instant::now() + LEARN_LIMIT;
    for seed in 0.. {
        play(bed, seed);
        let accepted = prometheus.has("treeline_model_accepted_gain_ratio");
        if accepted && prometheus.has("treeline_prediction_ratio_count > 0") {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "no model was learned\n{}",
            agent.log()
        );
    }
}

#[test]
fn prometheus_scrapes_a_running_agent_and_the_dashboard_has_data() {
    let Some(server) = program("prometheus") else {
        return;
    };
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let endpoint = format!("127.0.0.1:{AGENT_PORT}");
    let agent = site.run(&[
        "--metrics",
        &endpoint,
        "--train-every",
        "2s",
        "--min-samples",
        "200",
    ]);
    await_endpoint(&agent);
    let prometheus = Prometheus::start(&server, &bed.server, &endpoint);
    prometheus.await_data("up == 1", DATA_LIMIT);
    prometheus.await_data("treeline_interface_up == 1", DATA_LIMIT);
    learn(&bed, &prometheus, &agent);

    // Cleared by Prometheus itself: nothing of the format was misread.
    prometheus.await_data(
        "treeline_interface_rate_bytes_per_second == 12500000",
        DATA_LIMIT,
    );
    prometheus.await_data("sum(treeline_band_delay_seconds_count) > 0", DATA_LIMIT);
    prometheus.await_data(
        "histogram_quantile(0.5, treeline_prediction_ratio_bucket) > 0",
        DATA_LIMIT,
    );
    let is_optional = |expression: &str| MAY_BE_EMPTY.iter().any(|part| expression.contains(part));
    for metric in catalog::ALL {
        let name = match metric.kind {
            Kind::Histogram => format!("{}_bucket", metric.name()),
            _ => metric.name(),
        };
        if !is_optional(&name) {
            prometheus.await_data(&name, DATA_LIMIT);
        }
    }
    for expression in contrib::dashboard_queries() {
        if is_optional(&expression) {
            prometheus.query(&expression).unwrap();
        } else {
            prometheus.await_data(&expression, DATA_LIMIT);
        }
    }
    prometheus.assert_rules_are_healthy();
    let series = prometheus.query("count({job=\"treeline\"})").unwrap();
    let series: f64 = series[0]["value"][1].as_str().unwrap().parse().unwrap();
    // Eight bands with a histogram each, and all events and steps.
    assert!(series < 450.0, "{series} series");
    eprintln!("{series} series of one interface");
}

#[test]
fn a_scrape_is_clean_for_promtool() {
    let Some(promtool) = program("promtool") else {
        return;
    };
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let agent = site.run(&["--metrics", &format!("127.0.0.1:{AGENT_PORT}")]);
    await_endpoint(&agent);
    play(&bed, 1);
    // A band in use is looked at about once a second.
    let text = wait::until("a delay", DATA_LIMIT, || {
        let text = get(&bed.server, AGENT_PORT, "/metrics")?;
        Ok(text
            .contains("treeline_band_delay_seconds_count{")
            .then_some(text))
    })
    .unwrap();
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = check.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let done = check.wait_with_output().unwrap();
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(done.status.success() && said.is_empty(), "{said}");
}
