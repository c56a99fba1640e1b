//! The figures as a table and as JSON.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    path::Path,
};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use crate::{measure::Effort, section::Section};

/// All sections, and where they were measured.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) sections: Vec<Section>,
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
            writeln!(
                f,
                "\n{flows:>4} flows              ns/packet      min   median      max"
            )?;
            for (name, spread) in &section.ns {
                writeln!(
                    f,
                    "     {name:<32} {:8.1} {:8.1} {:8.1}",
                    spread.min, spread.median, spread.max
                )?;
            }
            writeln!(
                f,
                "\n{flows:>4} flows           paired ratio      min   median      max"
            )?;
            for (name, spread) in &section.ratios {
                writeln!(
                    f,
                    "     {name:<32} {:8.3} {:8.3} {:8.3}",
                    spread.min, spread.median, spread.max
                )?;
            }
        }
        Ok(())
    }
}
