//! The figures as a table and as JSON.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::{
    measure::{Effort, Spread},
    replay::Replay,
    samples::Samples,
    section::Section,
    throughput::Throughput,
};

/// All sections, and where they were measured.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) sections: Vec<Section>,
    pub(crate) replay: Option<Replay>,
    pub(crate) samples: Option<Samples>,
    pub(crate) throughput: Option<Throughput>,
    effort: Effort,
    cpu: usize,
    machine: String,
    kernel: String,
}

impl Report {
    pub(crate) fn new(effort: Effort, cpu: usize, sections: Vec<Section>) -> Result<Self> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
        let model = cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown CPU", |(_, model)| model);
        let cpus = std::thread::available_parallelism()?;
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        Ok(Self {
            sections,
            replay: None,
            samples: None,
            throughput: None,
            effort,
            cpu,
            machine: format!("{model}, {cpus} CPUs"),
            kernel: kernel.trim().to_owned(),
        })
    }

    pub(crate) fn json(&self) -> Value {
        let mut ns = Map::new();
        let mut ratio = Map::new();
        let mut decisions = Map::new();
        for section in &self.sections {
            let flows = section.flows.name();
            for (name, spread) in &section.ns {
                nested(&mut ns, name, flows, json!(spread));
            }
            for (name, spread) in &section.ratios {
                nested(&mut ratio, name, flows, json!(spread));
            }
            for (name, share) in &section.decisions {
                nested(&mut decisions, name, flows, json!(share));
            }
        }
        let mut share = Map::new();
        if let Some(replay) = &self.replay {
            ns.extend(named(&replay.ns));
            ratio.extend(named(&replay.ratios));
            share.extend(
                replay
                    .shares
                    .iter()
                    .map(|(name, of)| ((*name).to_owned(), json!(of))),
            );
        }
        let mut throughput = Map::new();
        for reached in self.throughput.iter().flat_map(|all| &all.reached) {
            for (tail, spread) in reached.ratios {
                let name = format!("throughput_{}{tail}", reached.name);
                ratio.insert(name, json!(spread));
            }
            let mut of = Map::new();
            for (side, spread) in reached.sides {
                of.insert(side.to_owned(), json!(spread));
            }
            of.insert("unit".to_owned(), json!(reached.unit));
            of.insert("frame_bytes".to_owned(), json!(reached.frame_bytes));
            of.insert("bar".to_owned(), json!(reached.bar));
            throughput.insert(reached.name.to_owned(), Value::Object(of));
        }
        if let Some(all) = &self.throughput {
            throughput.insert("rounds".to_owned(), json!(all.effort.rounds));
            throughput.insert("slice_ms".to_owned(), json!(all.effort.slice.as_millis()));
            throughput.insert("samples_sent".to_owned(), json!(all.samples_sent));
            throughput.insert("samples_lost".to_owned(), json!(all.samples_lost));
        }
        let samples = self.samples.as_ref().map(|samples| {
            json!({
                "packets": samples.packets,
                "packets_per_second": samples.packets_per_second,
                "sent": samples.sent,
                "limited": samples.limited,
                "lost": samples.lost,
                "forced_sent": samples.forced_sent,
                "forced_lost": samples.forced_lost,
            })
        });
        json!({
            "machine": self.machine,
            "kernel": self.kernel,
            "cpu": self.cpu,
            "rounds": self.effort.rounds,
            "packets": self.effort.packets,
            "clock": self.effort.clock.name(),
            "ns": ns,
            "ratio": ratio,
            "decision_share": decisions,
            "share": share,
            "throughput": throughput,
            "samples": samples,
        })
    }

    pub(crate) fn save(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let path = directory.join("datapath.json");
        let text = serde_json::to_string_pretty(&self.json())?;
        fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }
}

fn named(spreads: &[(String, Spread)]) -> impl Iterator<Item = (String, Value)> {
    spreads
        .iter()
        .map(|(name, spread)| (name.clone(), json!(spread)))
}

fn nested(map: &mut Map<String, Value>, name: &str, flows: &str, value: Value) {
    let of_name = map.entry(name).or_insert_with(|| json!({}));
    if let Value::Object(of_name) = of_name {
        of_name.insert(flows.to_owned(), value);
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}, Linux {}, CPU {}, {} rounds of {} packets, {}",
            self.machine,
            self.kernel,
            self.cpu,
            self.effort.rounds,
            self.effort.packets,
            self.effort.clock.name()
        )?;
        for section in &self.sections {
            let flows = section.flows.name();
            let flows = format!("{flows:>4} flows");
            table(f, (&flows, "ns/packet", 1), &section.ns)?;
            table(f, (&flows, "paired ratio", 3), &section.ratios)?;
        }
        if let Some(replay) = &self.replay {
            write_replay(f, replay)?;
        }
        if let Some(samples) = &self.samples {
            write_samples(f, samples)?;
        }
        if let Some(throughput) = &self.throughput {
            write_throughput(f, throughput)?;
        }
        Ok(())
    }
}

/// One line a name, with so many decimals.
fn table(
    f: &mut Formatter<'_>,
    (what, unit, decimals): (&str, &str, usize),
    rows: &[(String, Spread)],
) -> fmt::Result {
    writeln!(
        f,
        "\n{what:<15} {unit:>21} {:>8} {:>8} {:>8}",
        "min", "median", "max"
    )?;
    for (name, Spread { min, median, max }) in rows {
        writeln!(
            f,
            "     {name:<32} {min:8.decimals$} {median:8.decimals$} {max:8.decimals$}"
        )?;
    }
    Ok(())
}

fn write_replay(f: &mut Formatter<'_>, replay: &Replay) -> fmt::Result {
    table(f, ("replay", "ns/packet", 1), &replay.ns)?;
    table(f, ("replay", "paired ratio", 3), &replay.ratios)?;
    writeln!(
        f,
        "\nreplay of {} packets of {} captures, none of which pauses",
        replay.packets, replay.captures
    )?;
    for (name, share) in &replay.shares {
        writeln!(f, "     {name:<32} {:8.2} % of packets", share * 100.0)?;
    }
    Ok(())
}

fn write_samples(f: &mut Formatter<'_>, samples: &Samples) -> fmt::Result {
    writeln!(
        f,
        "\nsamples: of {} new flows at {:.1} million a second {} were sampled and read, {} limited, {} lost",
        samples.packets,
        samples.packets_per_second / 1e6,
        samples.sent,
        samples.limited,
        samples.lost
    )?;
    writeln!(
        f,
        "     without a reader and a limit: {} sent, {} lost",
        samples.forced_sent, samples.forced_lost
    )
}

fn write_throughput(f: &mut Formatter<'_>, throughput: &Throughput) -> fmt::Result {
    writeln!(
        f,
        "\nthroughput over veth, {} rounds of {} ms each way; {} samples, {} lost",
        throughput.effort.rounds,
        throughput.effort.slice.as_millis(),
        throughput.samples_sent,
        throughput.samples_lost
    )?;
    for reached in &throughput.reached {
        for (side, Spread { min, median, max }) in reached.sides {
            let name = format!("{} {side}", reached.name);
            let unit = reached.unit;
            writeln!(
                f,
                "     {name:<32} {:8.3} {:8.3} {:8.3} million {unit}",
                min / 1e6,
                median / 1e6,
                max / 1e6
            )?;
        }
        let words = [
            "attached/detached",
            "the same by CPU time",
            "attached/empty",
        ];
        for (words, (_, Spread { min, median, max })) in words.iter().zip(reached.ratios) {
            let name = format!("{} {words}", reached.name);
            writeln!(f, "     {name:<32} {min:8.3} {median:8.3} {max:8.3}")?;
        }
        writeln!(f, "     bar {:.2}", reached.bar)?;
        writeln!(f, "     frames of {:.0} bytes", reached.frame_bytes)?;
    }
    Ok(())
}
