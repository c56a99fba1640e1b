//! Delays of a run, and of all rounds of a scheme.

use std::{collections::BTreeMap, fmt::Write as _, ops::Range, time::Duration};

use anyhow::Result;
use bed::machine::Disturbance;
use serde::Serialize;

use crate::{
    BedKind, Options,
    bulk::Goodput,
    flows::{Delivered, Delivery},
    kind::Kind,
    scheme::{Scheme, Stage},
};

/// Percentiles in milliseconds; not a number (`null` in JSON) where nothing came through.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Tail {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
}

impl Tail {
    fn of(mut values_ms: Vec<f64>) -> Self {
        values_ms.sort_unstable_by(f64::total_cmp);
        let at = |permille: usize| {
            let rank = (values_ms.len() * permille).div_ceil(1000).max(1);
            values_ms.get(rank - 1).copied().unwrap_or(f64::NAN)
        };
        Self {
            p50: at(500),
            p99: at(990),
            p999: at(999),
        }
    }

    const fn parts(self) -> [f64; 3] {
        [self.p50, self.p99, self.p999]
    }
}

/// One kind of flow in one run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    /// One-way delay.
    pub(crate) delay_ms: Tail,
    /// Difference of the delays of packets that follow one another.
    pub(crate) jitter_ms: Tail,
    pub(crate) packets: usize,
    pub(crate) lost: usize,
}

/// One run of a scheme.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) kinds: BTreeMap<Kind, Figures>,
    pub(crate) goodput: Goodput,
    pub(crate) drops: u64,
    /// 99th percentile of how late packets were sent.
    pub(crate) late_p99_ms: f64,
    pub(crate) disturbance: Disturbance,
    pub(crate) disturbed: bool,
}

impl Round {
    /// Judges the packets that were sent within `window`.
    pub(crate) fn of(
        delivered: &Delivered,
        window: Range<Duration>,
        goodput: Goodput,
        disturbance: Disturbance,
    ) -> Self {
        let kinds = Kind::ALL.map(|kind| {
            let of_kind = |packet: &&Delivery| packet.kind == kind && window.contains(&packet.sent);
            let packets: Vec<&Delivery> = delivered.packets.iter().filter(of_kind).collect();
            let sent = delivered
                .sent
                .iter()
                .filter(|(of, at)| *of == kind && window.contains(at))
                .count();
            (kind, figures(&packets, sent))
        });
        let late = delivered.late.iter().filter(|(at, _)| window.contains(at));
        Self {
            kinds: kinds.into(),
            goodput,
            drops: 0,
            late_p99_ms: Tail::of(late.map(|(_, late)| millis(*late)).collect()).p99,
            disturbance,
            disturbed: disturbance.is_disturbed(),
        }
    }

    /// In one line, for the person who waits.
    pub(crate) fn line(&self) -> String {
        let mut line = String::new();
        for (kind, figures) in &self.kinds {
            let [p50, p99, p999] = figures.delay_ms.parts();
            let text = format!(
                "{} {p50:.1}/{p99:.1}/{p999:.1} ms, {} lost; ",
                kind.name(),
                figures.lost
            );
            line.push_str(&text);
        }
        let Goodput {
            downloads_mbps,
            web_mbps,
        } = self.goodput;
        let rest = format!(
            "downloads {downloads_mbps:.1}, web {web_mbps:.1} Mbit/s; late {:.2} ms, steal {:.3}, busy {:.2}",
            self.late_p99_ms, self.disturbance.steal_mean, self.disturbance.busy
        );
        line + &rest
    }
}

fn figures(packets: &[&Delivery], sent: usize) -> Figures {
    let jitter = packets
        .windows(2)
        .filter(|pair| pair[0].flow == pair[1].flow)
        .map(|pair| (millis(pair[1].delay) - millis(pair[0].delay)).abs())
        .collect();
    Figures {
        delay_ms: Tail::of(packets.iter().map(|packet| millis(packet.delay)).collect()),
        jitter_ms: Tail::of(jitter),
        packets: packets.len(),
        lost: sent.saturating_sub(packets.len()),
    }
}

const fn millis(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}

/// Median of rounds, least and most.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_unstable_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(0.0);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) && middle > 0 {
            f64::midpoint(at(middle - 1), at(middle))
        } else {
            at(middle)
        };
        Self {
            median,
            least: at(0),
            most: at(values.len().saturating_sub(1)),
        }
    }
}

/// How the bench was run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Setting {
    kernel: String,
    bed: BedKind,
    rate_bps: u64,
    rounds: u32,
    lead_s: u64,
    seconds: u64,
    web_load: f64,
    scale: f64,
    gso_max_bytes: u32,
    seed: u64,
}

impl From<&Options> for Setting {
    fn from(options: &Options) -> Self {
        let release = nix::sys::utsname::uname()
            .map(|name| name.release().to_string_lossy().into_owned())
            .unwrap_or_default();
        Self {
            kernel: release,
            bed: options.bed,
            rate_bps: options.rate,
            rounds: options.rounds,
            lead_s: options.lead,
            seconds: options.seconds,
            web_load: options.web_load,
            scale: options.scale,
            gso_max_bytes: options.gso_max_bytes,
            seed: options.seed,
        }
    }
}

/// All rounds of a scheme.
#[derive(Clone, Debug, Serialize)]
struct Row {
    scheme: &'static str,
    commands: Vec<String>,
    /// By kind: 99th percentile of the delay over the rounds.
    p99_ms: BTreeMap<Kind, Spread>,
    rounds: Vec<Round>,
}

/// What the bench found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    setting: Setting,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(
        setting: Setting,
        schemes: &[Scheme],
        rounds: &[(Scheme, Round)],
        stage: &Stage<'_>,
    ) -> Result<Self> {
        let rows = schemes.iter().map(|scheme| {
            let rounds: Vec<Round> = rounds
                .iter()
                .filter(|(of, _)| of == scheme)
                .map(|(_, round)| round.clone())
                .collect();
            let p99 = |kind: Kind| {
                let each = rounds.iter().filter_map(|round| round.kinds.get(&kind));
                Spread::of(each.map(|figures| figures.delay_ms.p99))
            };
            Row {
                scheme: scheme.name(),
                commands: stage.describe(*scheme),
                p99_ms: Kind::ALL.map(|kind| (kind, p99(kind))).into(),
                rounds,
            }
        });
        Ok(Self {
            setting,
            rows: rows.collect(),
        })
    }

    pub(crate) fn to_text(&self) -> String {
        let mut text = format!(
            "kernel {}, {} Mbit/s, medians of {} rounds; delay and jitter in ms: p50 p99 p99.9\n",
            self.setting.kernel,
            self.setting.rate_bps / 1_000_000,
            self.setting.rounds
        );
        for kind in Kind::ALL {
            let head = format!(
                "\n{:<16} {:>8} {:>8} {:>8}  {:>15}  {:>8} {:>8} {:>8}  {:>6}  {:>9} {:>5}\n",
                kind.name(),
                "delay",
                "p99",
                "p99.9",
                "p99 of rounds",
                "jitter",
                "p99",
                "p99.9",
                "lost %",
                "downloads",
                "web"
            );
            text.push_str(&head);
            for row in &self.rows {
                text.push_str(&row.line(kind));
            }
        }
        for row in &self.rows {
            // Writing to a String can't fail.
            let _ok = writeln!(text, "\n{}", row.scheme);
            for command in &row.commands {
                let _ok = writeln!(text, "    {command}");
            }
        }
        text
    }
}

impl Row {
    fn line(&self, kind: Kind) -> String {
        let each = |value: fn(&Figures) -> f64| {
            let figures = self
                .rounds
                .iter()
                .filter_map(|round| round.kinds.get(&kind));
            Spread::of(figures.map(value)).median
        };
        let p99 = self.p99_ms.get(&kind);
        let range = p99.map_or_else(String::new, |p99| {
            format!("[{:.1}..{:.1}]", p99.least, p99.most)
        });
        let goodput = |value: fn(&Goodput) -> f64| {
            Spread::of(self.rounds.iter().map(|round| value(&round.goodput))).median
        };
        let disturbed = self.rounds.iter().filter(|round| round.disturbed).count();
        let note = if disturbed > 0 {
            format!("  {disturbed} disturbed")
        } else {
            String::new()
        };
        format!(
            "{:<16} {:>8.2} {:>8.2} {:>8.2}  {range:>15}  {:>8.2} {:>8.2} {:>8.2}  {:>6.2}  {:>9.1} {:>5.1}{note}\n",
            self.scheme,
            each(|figures| figures.delay_ms.p50),
            each(|figures| figures.delay_ms.p99),
            each(|figures| figures.delay_ms.p999),
            each(|figures| figures.jitter_ms.p50),
            each(|figures| figures.jitter_ms.p99),
            each(|figures| figures.jitter_ms.p999),
            each(|figures| {
                100.0 * figures.lost as f64 / (figures.packets + figures.lost).max(1) as f64
            }),
            goodput(|goodput| goodput.downloads_mbps),
            goodput(|goodput| goodput.web_mbps),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_rank() {
        let tail = Tail::of((1..=1000).map(f64::from).collect());
        assert_eq!(tail.parts(), [500.0, 990.0, 999.0]);
        assert!(Tail::of(Vec::new()).p50.is_nan());
    }

    #[test]
    fn jitter_is_within_a_flow_and_what_did_not_come_is_lost() {
        let packet = |flow, delay_ms| Delivery {
            kind: Kind::Voice,
            flow,
            sent: Duration::from_secs(5),
            delay: Duration::from_millis(delay_ms),
        };
        let packets = [packet(0, 1), packet(0, 4), packet(1, 100), packet(1, 100)];
        let found = figures(&packets.iter().collect::<Vec<_>>(), 6);
        assert_eq!((found.packets, found.lost), (4, 2));
        assert_eq!(found.jitter_ms.parts(), [0.0, 3.0, 3.0]);
    }

    #[test]
    fn the_median_of_rounds_comes_with_their_spread() {
        let spread = Spread::of([3.0, 1.0, 2.0, 10.0]);
        assert_eq!((spread.median, spread.least, spread.most), (2.5, 1.0, 10.0));
    }
}
