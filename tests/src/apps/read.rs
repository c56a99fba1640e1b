//! Reads the figures out of what the applications print.

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::figure::{self, Figure};

/// The distribution and the rate that `wrk --latency` prints.
pub(crate) fn wrk(told: &str) -> Result<Vec<Figure>> {
    let row = |name: &str| {
        let line = told
            .lines()
            .map(str::trim)
            .find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_whitespace().nth(1));
        value.with_context(|| format!("wrk did not tell {name}: {told}"))
    };
    Ok(vec![
        Figure::low("p50_ms", milliseconds(row("50%")?)?),
        Figure::low("p99_ms", milliseconds(row("99%")?)?),
        Figure::high("rate_per_s", row("Requests/sec:")?.parse()?),
    ])
}

/// A time as wrk writes it: `250.00us`, `3.18ms`, `1.07s`, `1.00m`.
fn milliseconds(text: &str) -> Result<f64> {
    let units = [("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 60e3)];
    let found = units.iter().find_map(|(unit, factor)| {
        let value: f64 = text.strip_suffix(unit)?.parse().ok()?;
        Some(value * factor)
    });
    found.with_context(|| format!("{text} is no time"))
}

/// Times in milliseconds of the log of h2load: start, status, microseconds.
pub(crate) fn h2load_log(log: &str) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for line in log.lines() {
        let mut words = line.split_whitespace().skip(1);
        let (status, took) = (words.next(), words.next());
        ensure!(status == Some("200"), "h2load got no page: {line}");
        let micros: f64 = took.context("h2load's log ends within a line")?.parse()?;
        times.push(micros / 1e3);
    }
    Ok(times)
}

/// A number of seconds on each line, in milliseconds; other lines are left out.
pub(crate) fn seconds_a_line(told: &str) -> Vec<f64> {
    told.lines()
        .filter_map(|line| Some(line.trim().parse::<f64>().ok()? * 1e3))
        .collect()
}

/// Times of the single queries that `dnsperf -v` prints, and how many got no answer.
pub(crate) fn dnsperf(told: &str) -> Result<Vec<Figure>> {
    let answered = told.lines().filter(|line| line.starts_with("> NOERROR"));
    let seconds = answered.filter_map(|line| line.split_whitespace().last()?.parse::<f64>().ok());
    let times: Vec<f64> = seconds.map(|seconds| seconds * 1e3).collect();
    ensure!(!times.is_empty(), "dnsperf got no answer: {told}");
    let lost = told
        .lines()
        .find_map(|line| line.trim().strip_prefix("Queries lost:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .context("dnsperf did not tell what was lost")?;
    let mut figures = figure::of_times(&times);
    figures.push(Figure::low("lost", lost));
    Ok(figures)
}

/// One row of `redis-benchmark --csv` below its names.
pub(crate) fn redis_benchmark(told: &str) -> Result<Vec<Figure>> {
    let mut lines = told.lines().filter(|line| line.starts_with('"'));
    let (names, values) = (lines.next(), lines.next());
    let names = names.context("redis-benchmark printed no names")?;
    let values = values.context("redis-benchmark printed no figures")?;
    let value = |name: &str| -> Result<f64> {
        let quoted = |line: &str| -> Vec<String> {
            line.split(',')
                .map(|word| word.trim_matches('"').to_owned())
                .collect()
        };
        let at = quoted(names).iter().position(|known| known == name);
        let at = at.with_context(|| format!("redis-benchmark knows no {name}"))?;
        let word = quoted(values).get(at).cloned().unwrap_or_default();
        word.parse().with_context(|| format!("{word} is no number"))
    };
    Ok(vec![
        Figure::low("p50_ms", value("p50_latency_ms")?),
        Figure::low("p99_ms", value("p99_latency_ms")?),
        Figure::high("rate_per_s", value("rps")?),
    ])
}

/// The second column of sipp's file of response times, milliseconds.
pub(crate) fn sipp_rtt(csv: &str) -> Result<Vec<f64>> {
    let mut times = Vec::new();
    for line in csv.lines().skip(1).filter(|line| !line.is_empty()) {
        let value = line.split(';').nth(1);
        times.push(value.context("sipp's file has another form")?.parse()?);
    }
    Ok(times)
}

#[derive(Deserialize)]
struct Iperf {
    intervals: Vec<Interval>,
}

#[derive(Deserialize)]
struct Interval {
    sum: Sum,
}

#[derive(Deserialize)]
struct Sum {
    bytes: f64,
    seconds: f64,
    jitter_ms: Option<f64>,
    lost_packets: Option<f64>,
    packets: Option<f64>,
}

fn iperf_intervals(told: &str) -> Result<Vec<Sum>> {
    let report: Iperf = serde_json::from_str(told)
        .with_context(|| format!("iperf3 printed another form: {told:.300}"))?;
    ensure!(!report.intervals.is_empty(), "iperf3 measured nothing");
    Ok(report
        .intervals
        .into_iter()
        .map(|interval| interval.sum)
        .collect())
}

/// Rate of a TCP stream over all whole seconds, in Mbit/s; also of a run that was stopped.
pub(crate) fn iperf_mbit(told: &str) -> Result<f64> {
    let intervals = iperf_intervals(told)?;
    let bytes: f64 = intervals.iter().map(|sum| sum.bytes).sum();
    let seconds: f64 = intervals.iter().map(|sum| sum.seconds).sum();
    Ok(bytes * 8.0 / seconds / 1e6)
}

/// Jitter by second (RFC 3550's running mean) and losses of a UDP stream.
pub(crate) fn iperf_voice(told: &str) -> Result<Vec<Figure>> {
    let intervals = iperf_intervals(told)?;
    let jitter: Vec<f64> = intervals.iter().filter_map(|sum| sum.jitter_ms).collect();
    let of = |field: fn(&Sum) -> Option<f64>| intervals.iter().filter_map(field).sum::<f64>();
    let lost = 100.0 * of(|sum| sum.lost_packets) / of(|sum| sum.packets).max(1.0);
    let mut figures = figure::of_times(&jitter);
    for figure in &mut figures {
        figure.name = match figure.name {
            "p50_ms" => "jitter_p50_ms",
            "p99_ms" => "jitter_p99_ms",
            "max_ms" => "jitter_max_ms",
            other => other,
        };
    }
    figures.push(Figure::low("lost_percent", lost));
    Ok(figures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_tells_a_distribution_in_units_of_its_own() {
        let told = "Running 1s test @ http://10.99.0.1:8080/page\n  1 threads and 2 connections\n  \
                    Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency   186.82us  569.02us   5.40ms   93.44%\n  \
                    Latency Distribution\n     50%   24.00us\n     75%   27.00us\n     90%  347.00us\n     99%    3.18ms\n  \
                    30708 requests in 1.00s, 299.91MB read\nRequests/sec:  30614.47\nTransfer/sec:    299.00MB\n";
        let figures = wrk(told).unwrap();
        assert_eq!(figures[0], Figure::low("p50_ms", 24.0 * 1e-3));
        assert_eq!(figures[1], Figure::low("p99_ms", 3.18));
        assert_eq!(figures[2], Figure::high("rate_per_s", 30614.47));
        assert_eq!(milliseconds("1.50s").unwrap().to_bits(), 1500f64.to_bits());
        wrk("unable to connect").unwrap_err();
    }

    #[test]
    fn h2load_logs_microseconds_and_a_page_that_failed_is_an_error() {
        let log = "1795387081488433\t200\t2225\n1795387081538954\t200\t251\n";
        assert_eq!(h2load_log(log).unwrap(), [2.225, 0.251]);
        h2load_log("1795387081488433\t404\t2225\n").unwrap_err();
    }

    #[test]
    fn dnsperf_tells_each_query_and_what_was_lost() {
        let told = "[Status] Sending queries (to 10.99.0.1:5300)\n> NOERROR n1.bed.test A 0.000201\n\
                    > NOERROR n2.bed.test A 0.004\nStatistics:\n\n  Queries sent:         3\n  \
                    Queries completed:    2 (66.67%)\n  Queries lost:         1 (33.33%)\n";
        let figures = dnsperf(told).unwrap();
        assert_eq!(figures[1], Figure::low("p99_ms", 4.0));
        assert_eq!(figures[4], Figure::low("lost", 1.0));
    }

    #[test]
    fn redis_benchmark_names_its_columns() {
        let told = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                    \"GET\",\"83333.34\",\"0.030\",\"0.016\",\"0.031\",\"0.047\",\"0.063\",\"0.079\"\n";
        let figures = redis_benchmark(told).unwrap();
        assert_eq!(figures[1], Figure::low("p99_ms", 0.063));
        assert_eq!(figures[2], Figure::high("rate_per_s", 83333.34));
    }

    #[test]
    fn sipp_writes_milliseconds_in_its_second_column() {
        let csv = "Date_ms;response_time_ms;rtd_no\n104.001;0;1\n208.001;4;1\n";
        assert_eq!(sipp_rtt(csv).unwrap(), [0.0, 4.0]);
    }

    #[test]
    fn curl_s_lines_of_seconds_become_milliseconds() {
        assert_eq!(
            seconds_a_line("0.250\ncurl: (18) partial\n1.5\n"),
            [250.0, 1500.0]
        );
    }

    #[test]
    fn a_stopped_iperf3_still_tells_its_intervals() {
        let told = r#"{"start":{},"intervals":[{"streams":[],"sum":{"start":0,"end":1.0,"seconds":1.0,"bytes":262144,
            "bits_per_second":2097152.0,"omitted":false,"sender":false}}],"end":{},
            "error":"interrupt - the client has terminated"}"#;
        assert_eq!(iperf_mbit(told).unwrap().to_bits(), 2.097152f64.to_bits());
        let told = r#"{"intervals":[{"sum":{"seconds":1.0,"bytes":7840,"jitter_ms":0.006,"lost_packets":1,"packets":50}}]}"#;
        let figures = iperf_voice(told).unwrap();
        assert_eq!(figures[1], Figure::low("jitter_p99_ms", 0.006));
        assert_eq!(figures[4], Figure::low("lost_percent", 2.0));
    }
}
