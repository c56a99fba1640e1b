//! The parts of the bench: connections, interfaces, queues.

use std::{path::PathBuf, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow, ensure};
use bed::wait;
use serde_json::Value;

use crate::{
    Options,
    load::{self, Plan, Played, Server},
    report::{Connections, Figures, Interfaces, Queues},
    say,
    site::{Cost, Site},
    wires::Wires,
};

/// Packets that the FIFO holds: as many as all bands of treeline together.
const FIFO_PACKETS: u32 = 1000;
/// Their number is not what this part is about.
const QUEUES_CONNECTIONS: u32 = 1000;
const COUNTS: [u8; 3] = [1, 2, 4];

pub(crate) struct Bench<'a> {
    pub(crate) options: &'a Options,
    pub(crate) binary: PathBuf,
}

impl Bench<'_> {
    /// The same arrivals under FIFO, aging and treeline, in another order each round.
    pub(crate) fn connections(&self) -> Result<Vec<Connections>> {
        let schemes = ["fifo", "aging", "treeline"];
        let mut runs = Vec::new();
        for round in 0..self.options.rounds() {
            for place in 0..schemes.len() {
                let scheme = schemes[(place + round as usize) % schemes.len()];
                let run = self.many(scheme, round)?;
                say(&run.to_string());
                runs.push(run);
            }
        }
        Ok(runs)
    }

    fn many(&self, scheme: &'static str, round: u32) -> Result<Connections> {
        let rate_bps = self.options.rate;
        let wires = self.lay(1, 1)?;
        let site = self.site(&wires);
        let device = &wires.links[0].interface;
        let mut agent = None;
        match scheme {
            "fifo" => {
                for line in [
                    format!("qdisc add dev {device} root handle 7d: htb default 1"),
                    format!(
                        "class add dev {device} parent 7d: classid 7d:1 htb rate {rate_bps}bit \
                         ceil {rate_bps}bit burst 16000 cburst 16000 quantum 60000"
                    ),
                    format!("qdisc add dev {device} parent 7d:1 pfifo limit {FIFO_PACKETS}"),
                ] {
                    wires.server.tc(&line)?;
                }
            }
            "aging" => drop(site.up(&["--rate", &format!("{rate_bps}bit")])?),
            _ => agent = Some(site.run(rate_bps)?),
        }
        let before = wires.server.retransmitted_segments()?;
        let played = self.play(&wires, rate_bps, self.options.connections, round)?;
        let cost = agent.as_ref().map(|agent| agent.cost()).transpose()?;
        let status = if scheme == "fifo" {
            Value::Null
        } else {
            site.status()?
        };
        let maps_mb = if scheme == "fifo" {
            None
        } else {
            Some(site.maps_mb()?)
        };
        let retransmitted = wires
            .server
            .retransmitted_segments()?
            .saturating_sub(before);
        if let Some(agent) = agent {
            agent.stop()?;
        }
        if scheme != "fifo" {
            site.down()?;
        }
        let table = &status["flow_table"];
        let played = played.into_iter().next().context("one link, one result")?;
        Ok(Connections {
            scheme,
            round,
            figures: Figures::of(&played),
            flows_created: table["created"].as_u64(),
            flows_evicted: table["evicted"].as_u64(),
            model: status["model"]["generation"].as_u64(),
            samples_sent: status["counters"]["samples_sent"].as_u64(),
            samples_lost: status["counters"]["samples_lost"].as_u64(),
            drops: drops(&status),
            retransmitted,
            maps_mb,
            agent: cost,
        })
    }

    /// One agent; the rate and the connections are shared among the interfaces.
    pub(crate) fn interfaces(&self) -> Result<Vec<Interfaces>> {
        let mut runs = Vec::new();
        for count in COUNTS {
            let wires = self.lay(count, 1)?;
            let site = self.site(&wires);
            let share_bps = self.options.rate / u64::from(count);
            let agent = site.run(share_bps)?;
            let connections = self.options.connections / u32::from(count);
            let played = self.play(&wires, share_bps, connections, 0)?;
            let status = site.status()?;
            let run = Interfaces {
                interfaces: count,
                figures: played.iter().map(Figures::of).collect(),
                packets_per_band: bands(&status),
                agent: agent.cost()?,
            };
            agent.stop()?;
            site.down()?;
            say(&run.to_string());
            runs.push(run);
        }
        Ok(runs)
    }

    /// A rate over a device with several queues, and what treeline says of trees below `mq`.
    pub(crate) fn queues(&self) -> Result<Vec<Queues>> {
        let mut runs = Vec::new();
        for count in COUNTS {
            let wires = self.lay(1, u32::from(count))?;
            let site = self.site(&wires);
            let rate = format!("{}bit", self.options.rate);
            drop(site.up(&["--rate", &rate])?);
            let connections = self.options.connections.min(QUEUES_CONNECTIONS);
            let played = self.play(&wires, self.options.rate, connections, 0)?;
            site.down()?;
            let mut said = Vec::new();
            if count > 1 {
                for below in ["pfifo_fast", "prio", "htb"] {
                    let told = below_mq(&wires, &site, count, below, self.options.rate);
                    // A kernel may lack one of them, and then says so itself.
                    let told = told.unwrap_or_else(|error| format!("not tried: {error:#}"));
                    said.push((below, told));
                }
            }
            let run = Queues {
                queues: count,
                root: Figures::of(&played[0]),
                said_of_mq_with: said,
            };
            say(&run.to_string());
            runs.push(run);
        }
        Ok(runs)
    }

    fn lay(&self, links: u8, queues: u32) -> Result<Wires> {
        ensure!(!wait::interrupted(), "interrupted");
        Wires::lay(links, queues, self.options.gso_max_bytes)
    }

    fn site<'w>(&self, wires: &'w Wires) -> Site<'w> {
        Site {
            binary: self.binary.clone(),
            instance: format!("scale-{}", std::process::id()),
            namespace: &wires.server,
            interfaces: (wires.links.iter())
                .map(|link| link.interface.clone())
                .collect(),
            log: self.options.out.join("scale-agent.log"),
        }
    }

    /// Plays over all links at once.
    fn play(
        &self,
        wires: &Wires,
        rate_bps: u64,
        connections: u32,
        round: u32,
    ) -> Result<Vec<Played>> {
        let servers = wires
            .links
            .iter()
            .map(|link| Server::start(&wires.server, link.server))
            .collect::<Result<Vec<_>>>()?;
        let played = thread::scope(|scope| {
            let started: Vec<_> = (0..)
                .zip(&wires.links)
                .map(|(number, link)| {
                    let plan = Plan {
                        server: link.server,
                        connections: connections as usize,
                        rate_bps,
                        load: self.options.load,
                        length: Duration::from_secs(self.options.seconds()),
                        seed: self.options.seed + 1000 * u64::from(round) + number,
                    };
                    scope.spawn(move || load::play(&link.client, plan))
                })
                .collect();
            started
                .into_iter()
                .map(|link| link.join().map_err(|_panic| anyhow!("a client panicked"))?)
                .collect()
        });
        drop(servers);
        played
    }
}

/// What `up` says without a rate where `mq` has one of these below each queue.
fn below_mq(
    wires: &Wires,
    site: &Site<'_>,
    queues: u8,
    below: &str,
    rate_bps: u64,
) -> Result<String> {
    let device = &wires.links[0].interface;
    wires
        .server
        .tc(&format!("qdisc replace dev {device} root handle 1: mq"))?;
    for queue in 1..=queues {
        let options = if below == "htb" { "default 1" } else { "" };
        // An administrator's handle for each, as LibreQoS gives them.
        wires.server.tc(&format!(
            "qdisc replace dev {device} parent 1:{queue:x} handle {:x}: {below} {options}",
            0x10 + queue
        ))?;
        if below == "htb" {
            wires.server.tc(&format!(
                "class add dev {device} parent {0:x}: classid {0:x}:1 htb rate {1}bit",
                0x10 + queue,
                rate_bps / u64::from(queues)
            ))?;
        }
    }
    let told = site.up(&[])?;
    site.down()?;
    wires.server.tc(&format!("qdisc del dev {device} root"))?;
    Ok(told)
}

fn bands(status: &Value) -> Vec<Vec<u64>> {
    let interfaces = status["interfaces"].as_array();
    let of = |interface: &Value| {
        let bands = interface["bands"].as_array();
        let packets = bands.map(|bands| bands.iter().filter_map(|band| band["packets"].as_u64()));
        packets.map(Iterator::collect).unwrap_or_default()
    };
    interfaces
        .map(|interfaces| interfaces.iter().map(of).collect())
        .unwrap_or_default()
}

fn drops(status: &Value) -> Option<u64> {
    let bands = status["interfaces"].get(0)?["bands"].as_array()?;
    Some(bands.iter().filter_map(|band| band["drops"].as_u64()).sum())
}

impl Cost {
    /// For a table.
    pub(crate) fn told(&self) -> String {
        format!("agent {:.1} s of CPU, {:.0} MB", self.cpu_s, self.peak_mb)
    }
}
