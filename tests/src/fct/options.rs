//! The bench's command line.

use std::path::PathBuf;

use bed::{
    options::{Format, parse_rate},
    workload::{self, WORKLOADS, Workload},
};
use clap::{Parser, ValueEnum};
use serde::Serialize;

use crate::scheme::Scheme;

/// Compares schedulers by the completion times of the same messages over real TCP.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "treeline-bench-fct",
    after_help = "Examples:\n  treeline-bench-fct --quick\n  treeline-bench-fct --workload services,requests --load 0.8 \
                  --schemes fifo,aging,treeline,oracle --rounds 5"
)]
pub(crate) struct Options {
    /// One mix at one load on the host bed, in less than five minutes
    #[arg(long)]
    pub(crate) quick: bool,
    /// Workloads [default: all; quick: services]
    #[arg(long, value_delimiter = ',', value_name = "NAME", value_parser = parse_workload)]
    pub(crate) workload: Vec<&'static Workload>,
    /// Where the bottleneck is [default: both; quick: host]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) bed: Vec<BedKind>,
    /// Shares of the link that the replies fill [default: 0.5, 0.8, 0.9; quick: 0.8]
    #[arg(long, value_delimiter = ',', value_parser = parse_load)]
    pub(crate) load: Vec<f64>,
    /// Schemes [default: all that every kernel has; quick: fifo, aging, treeline, oracle]
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) schemes: Vec<Scheme>,
    /// Rounds of all schemes [default: 5; quick: 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: Option<u32>,
    /// Seconds in which messages arrive in a run [default: 15; quick: 10]
    #[arg(long, value_parser = clap::value_parser!(u32).range(3..))]
    pub(crate) seconds: Option<u32>,
    /// Seconds of traffic to learn from [default: 60; quick: 40]
    #[arg(long, value_parser = clap::value_parser!(u32).range(5..))]
    pub(crate) learn: Option<u32>,
    /// Seconds of the run in which a service changes, half of them before [default: 160]
    #[arg(long, default_value_t = 160, value_parser = clap::value_parser!(u32).range(40..))]
    pub(crate) change: u32,
    /// Seed of the messages
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Rate of the bottleneck, such as 200mbit
    #[arg(long, default_value = "200mbit", value_parser = parse_rate)]
    pub(crate) rate: u64,
    /// Factor on the published sizes
    #[arg(long, default_value_t = 0.1, value_parser = parse_scale)]
    pub(crate) scale: f64,
    /// Times a disturbed run is repeated before it is taken as it is
    #[arg(long, default_value_t = 2)]
    pub(crate) repeats: u32,
    /// Largest super-packet on the host bed, bytes [default: what the rate sends in a third of a millisecond]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1514..=65536))]
    pub(crate) gso_max_bytes: Option<u32>,
    /// The treeline binary [default: beside this one]
    #[arg(long, value_name = "PATH")]
    pub(crate) treeline: Option<PathBuf>,
    /// Cut points that treeline is given after its start
    #[arg(long, value_enum, default_value_t = TreelineCuts::Own)]
    pub(crate) treeline_cuts: TreelineCuts,
    /// Where fct.json, fct.html and the agents' logs go
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    pub(crate) out: PathBuf,
    /// Also fill the link for some seconds and compare goodputs
    #[arg(long)]
    pub(crate) saturate: bool,
    /// Print what is to be reached, and by how much it was met or missed
    #[arg(long)]
    pub(crate) bars: bool,
    /// What to print at the end
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// Where the bottleneck is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BedKind {
    /// The sender's own egress, with bounded super-packets.
    Host,
    /// A router between two hosts, each packet alone.
    Router,
}

impl BedKind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Router => "router",
        }
    }
}

/// Which cut points treeline runs with.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TreelineCuts {
    /// Those that it brings or finds itself.
    Own,
    /// Those that aging is given.
    Aging,
    /// Those that the oracle is given.
    Oracle,
}

impl Options {
    /// The workloads asked for, in the order of the catalogue.
    pub(crate) fn workloads(&self) -> Vec<&'static Workload> {
        let asked = |workload: &&Workload| match (self.workload.is_empty(), self.quick) {
            (true, true) => workload.name == "services",
            (true, false) => true,
            (false, _) => self
                .workload
                .iter()
                .any(|wanted| wanted.name == workload.name),
        };
        WORKLOADS.iter().filter(asked).collect()
    }

    pub(crate) fn beds(&self) -> Vec<BedKind> {
        match (self.bed.as_slice(), self.quick) {
            ([], true) => vec![BedKind::Host],
            ([], false) => vec![BedKind::Host, BedKind::Router],
            (asked, _) => asked.to_vec(),
        }
    }

    pub(crate) fn loads(&self) -> Vec<f64> {
        match (self.load.as_slice(), self.quick) {
            ([], true) => vec![0.8],
            ([], false) => vec![0.5, 0.8, 0.9],
            (asked, _) => asked.to_vec(),
        }
    }

    /// The schemes asked for, in the order of tables.
    pub(crate) fn schemes(&self) -> Vec<Scheme> {
        let asked = |scheme: &Scheme| match (self.schemes.is_empty(), self.quick) {
            (true, true) => Scheme::QUICK.contains(scheme),
            (true, false) => scheme.is_everywhere(),
            (false, _) => self.schemes.contains(scheme),
        };
        Scheme::ALL.into_iter().filter(asked).collect()
    }

    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 })
    }

    pub(crate) fn run_s(&self) -> u32 {
        self.seconds.unwrap_or(if self.quick { 10 } else { 15 })
    }

    /// A packet under way holds up whatever comes, under any scheduler: by as long at every rate.
    pub(crate) fn gso_max_bytes(&self) -> u32 {
        let bytes = (self.rate / 8 / 3000).clamp(1514, 65_536);
        self.gso_max_bytes.unwrap_or(bytes as u32)
    }

    pub(crate) fn learning_s(&self) -> u32 {
        self.learn.unwrap_or(if self.quick { 40 } else { 60 })
    }
}

fn parse_workload(name: &str) -> Result<&'static Workload, String> {
    workload::find(name).ok_or_else(|| {
        let names: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
        format!("there is no such workload; there are {}", names.join(", "))
    })
}

fn parse_load(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(load) if load > 0.0 && load < 1.0 => Ok(load),
        _ => Err("a load lies between 0 and 1".to_owned()),
    }
}

fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && scale <= 10.0 => Ok(scale),
        _ => Err("a scale lies above 0 and is at most 10".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Options::command().debug_assert();
    }

    #[test]
    fn quick_is_one_cell_and_the_default_is_everything() {
        let quick = Options::parse_from(["fct", "--quick"]);
        assert_eq!(
            quick.workloads().len() * quick.beds().len() * quick.loads().len(),
            1
        );
        let all = Options::parse_from(["fct"]);
        assert_eq!(all.workloads().len(), WORKLOADS.len());
        assert_eq!(
            (all.beds().len(), all.loads().len(), all.rounds()),
            (2, 3, 5)
        );
        let everywhere: Vec<Scheme> = Scheme::ALL
            .into_iter()
            .filter(|scheme| scheme.is_everywhere())
            .collect();
        assert_eq!(all.schemes(), everywhere);
        assert_eq!(all.gso_max_bytes(), 8333);
    }

    #[test]
    fn what_is_asked_for_overrides_quick() {
        let options = Options::parse_from([
            "fct",
            "--quick",
            "--workload",
            "kept,websearch",
            "--load",
            "0.5,0.9",
            "--schemes",
            "oracle-srpt,fifo",
            "--bed",
            "router",
        ]);
        let names: Vec<&str> = options.workloads().iter().map(|w| w.name).collect();
        assert_eq!(names, ["websearch", "kept"]);
        assert_eq!(options.loads(), [0.5, 0.9]);
        assert_eq!(options.schemes(), [Scheme::Fifo, Scheme::OracleSrpt]);
        assert_eq!(options.beds(), [BedKind::Router]);
    }

    #[test]
    fn nonsense_is_refused_with_what_would_do() {
        let refused = |words: [&str; 3]| Options::try_parse_from(words).unwrap_err().to_string();
        assert!(refused(["fct", "--workload", "nosuch"]).contains("websearch, datamining"));
        assert!(refused(["fct", "--load", "1.2"]).contains("between 0 and 1"));
        assert!(refused(["fct", "--scale", "0"]).contains("above 0"));
    }
}
