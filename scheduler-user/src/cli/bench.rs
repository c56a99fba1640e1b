//! `treeline bench`: what a packet costs on this host.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;
use scheduler_common::{counter::Counter, flow::DEFAULT_ENTRIES, sample::Hook};
use serde::Serialize;

use super::{Format, parse_model, print, print_json, progress};
use crate::{
    datapath::{
        Datapath,
        cost::{Bench, Cost, Packet},
    },
    instance::Instance,
    journal,
    model::{Model, Registry, compile},
    uplink::{self, ModelChoice},
};

/// Version of the JSON.
const SCHEMA: u32 = 1;
/// Traffic is counted for as long at least.
const COUNTED_FOR: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Interfaces whose traffic is counted [default: those that are up].
    #[arg(value_name = "IFACE")]
    interfaces: Vec<String>,
    /// Model that is asked: `latest`, `none`, or a model file.
    #[arg(long, value_parser = parse_model, default_value = "latest", value_name = "MODEL")]
    model: ModelChoice,
    /// Rounds, of which the least and the median are told.
    #[arg(long, default_value_t = 15, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

#[derive(Serialize)]
struct Outcome {
    schema: u32,
    rounds: u32,
    model_generation: Option<u32>,
    flow_entries: u32,
    costs: Vec<Cost>,
    interfaces: Vec<Traffic>,
    programs: Option<Share>,
}

/// What an interface carries, and what that would cost if every packet belonged to a known flow.
#[derive(Serialize)]
struct Traffic {
    name: String,
    sent_packets_per_s: f64,
    received_packets_per_s: f64,
    share_of_a_core: f64,
}

/// What the attached programs see, decisions included.
#[derive(Serialize)]
struct Share {
    egress_packets_per_s: f64,
    ingress_packets_per_s: f64,
    decisions_per_s: f64,
    share_of_a_core: f64,
}

pub(super) fn run(instance: &Instance, format: Format, args: &BenchArgs) -> anyhow::Result<()> {
    journal::start("error", None);
    let names = interfaces(instance, args)?;
    let model = model(instance, &args.model)?;
    let datapath = Datapath::open(instance)?;
    let flow_entries = match &datapath {
        Some(datapath) => datapath.flow_entries()?,
        None => DEFAULT_ENTRIES,
    };
    let table = model.as_ref().map(compile).transpose()?;
    let mut bench = Bench::load(flow_entries, table.as_deref())?;
    let before = Seen::now(&names, datapath.as_ref())?;
    let bar = progress::bar(u64::from(args.rounds), "measuring");
    for _ in 0..args.rounds {
        bench.round()?;
        bar.inc(1);
    }
    thread::sleep(COUNTED_FOR.saturating_sub(before.at.elapsed()));
    bar.finish_and_clear();
    let after = Seen::now(&names, datapath.as_ref())?;
    let costs = bench.costs();
    let outcome = Outcome {
        schema: SCHEMA,
        rounds: args.rounds,
        model_generation: model.map(|model| model.generation),
        flow_entries,
        interfaces: traffic(&names, (&before, &after), &costs),
        programs: share((&before, &after), &costs),
        costs,
    };
    match format {
        Format::Json => print_json(&outcome),
        Format::Text => {
            print(&text(&outcome));
            Ok(())
        }
    }
}

fn interfaces(instance: &Instance, args: &BenchArgs) -> anyhow::Result<Vec<String>> {
    if args.interfaces.is_empty() {
        let records = instance.records()?;
        return Ok(records.into_iter().map(|record| record.name).collect());
    }
    for name in &args.interfaces {
        uplink::index_of(name)?;
    }
    Ok(args.interfaces.clone())
}

fn model(instance: &Instance, choice: &ModelChoice) -> anyhow::Result<Option<Model>> {
    Ok(match choice {
        ModelChoice::None => None,
        ModelChoice::File(path) => Some(Registry::load_file(path)?),
        ModelChoice::Latest => Registry::new(instance.models()).latest_valid()?.0,
    })
}

/// Counts at a moment.
struct Seen {
    at: Instant,
    /// Sent and received packets of each interface.
    interfaces: Vec<[u64; 2]>,
    /// Packets of both programs, and decisions.
    programs: Option<[u64; 3]>,
}

impl Seen {
    fn now(names: &[String], datapath: Option<&Datapath>) -> anyhow::Result<Self> {
        let programs = match datapath {
            Some(datapath) => {
                let counters = datapath.counters()?;
                let of = |wanted| {
                    let found = counters.iter().find(|(counter, _)| *counter == wanted);
                    found.map_or(0, |(_, count)| *count)
                };
                Some([
                    of(Counter::EgressPackets),
                    of(Counter::IngressPackets),
                    of(Counter::DecisionPoints),
                ])
            }
            None => None,
        };
        Ok(Self {
            at: Instant::now(),
            interfaces: packets(names)?,
            programs,
        })
    }
}

/// Sent and received packets of each interface; unlike sysfs the table is always that of this network namespace.
fn packets(names: &[String]) -> anyhow::Result<Vec<[u64; 2]>> {
    const TABLE: &str = "/proc/self/net/dev";
    let table = fs::read_to_string(TABLE).with_context(|| format!("cannot read {TABLE}"))?;
    names
        .iter()
        .map(|name| of_table(&table, name).with_context(|| format!("{name} is not in {TABLE}")))
        .collect()
}

/// Reads lines of `name: bytes packets errs drop fifo frame compressed multicast`, the same again for what was sent.
fn of_table(table: &str, name: &str) -> Option<[u64; 2]> {
    let line = table
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    let column = |index| line.split_ascii_whitespace().nth(index)?.parse().ok();
    Some([column(9)?, column(1)?])
}

/// A second's worth of what was counted between the two.
fn per_second<const N: usize>(
    (before, after): (&Seen, &Seen),
    counts: ([u64; N], [u64; N]),
) -> [f64; N] {
    let elapsed_s = after.at.duration_since(before.at).as_secs_f64().max(1e-3);
    let (old, new) = counts;
    std::array::from_fn(|index| new[index].saturating_sub(old[index]) as f64 / elapsed_s)
}

fn median_ns(costs: &[Cost], hook: Hook, packet: Packet) -> f64 {
    let mut costs = costs.iter();
    costs
        .find(|cost| (cost.hook, cost.packet) == (hook, packet))
        .map_or(0.0, |cost| cost.median_ns)
}

fn traffic(names: &[String], seen: (&Seen, &Seen), costs: &[Cost]) -> Vec<Traffic> {
    let known = |hook| median_ns(costs, hook, Packet::KnownFlow);
    let (before, after) = seen;
    let counts = before.interfaces.iter().zip(&after.interfaces);
    names
        .iter()
        .zip(counts)
        .map(|(name, (old, new))| {
            let [sent, received] = per_second(seen, (*old, *new));
            Traffic {
                name: name.clone(),
                sent_packets_per_s: sent,
                received_packets_per_s: received,
                share_of_a_core: (sent * known(Hook::Egress) + received * known(Hook::Ingress))
                    / 1e9,
            }
        })
        .collect()
}

fn share(seen: (&Seen, &Seen), costs: &[Cost]) -> Option<Share> {
    let (before, after) = seen;
    let counts = (before.programs?, after.programs?);
    let [egress, ingress, decisions] = per_second(seen, counts);
    let cost = |hook, packet| median_ns(costs, hook, packet);
    // A decision is a packet of a known flow, and more; at egress it is the dearer one.
    let known_ns = cost(Hook::Egress, Packet::KnownFlow);
    let more_ns = (cost(Hook::Egress, Packet::Decision) - known_ns).max(0.0);
    let ns =
        egress * known_ns + ingress * cost(Hook::Ingress, Packet::KnownFlow) + decisions * more_ns;
    Some(Share {
        egress_packets_per_s: egress,
        ingress_packets_per_s: ingress,
        decisions_per_s: decisions,
        share_of_a_core: ns / 1e9,
    })
}

fn text(outcome: &Outcome) -> String {
    let Outcome {
        schema: _,
        rounds,
        model_generation,
        flow_entries,
        costs,
        interfaces,
        programs,
    } = outcome;
    let model = match model_generation {
        Some(generation) => format!("model {generation}"),
        None => "no model".to_owned(),
    };
    let mut lines = vec![
        format!("{model}, a table of {flow_entries} flows, {rounds} rounds"),
        format!("  {:<46} {:>8} {:>8}", "ns a packet", "least", "median"),
    ];
    for hook in [Hook::Egress, Hook::Ingress] {
        for cost in costs.iter().filter(|cost| cost.hook == hook) {
            let what = match cost.packet {
                Packet::PassedOver => "passed at once (not IP), with the call",
                Packet::KnownFlow => "one more of a known flow",
                Packet::Decision => "a decision point",
                Packet::FirstPacket => "first of a flow",
            };
            let hook = match hook {
                Hook::Egress => "egress",
                Hook::Ingress => "ingress",
            };
            lines.push(format!(
                "  {:<46} {:>8.0} {:>8.0}",
                format!("{hook}: {what}"),
                cost.least_ns,
                cost.median_ns
            ));
        }
    }
    for of in interfaces {
        lines.push(format!(
            "{}: {:.0} packets/s out, {:.0} in: {:.2} % of a core, as packets of known flows",
            of.name,
            of.sent_packets_per_s,
            of.received_packets_per_s,
            of.share_of_a_core * 100.0
        ));
    }
    lines.push(match programs {
        Some(share) => format!(
            "the attached programs: {:.0} packets/s out, {:.0} in, {:.0} decisions/s: {:.2} % of a core",
            share.egress_packets_per_s,
            share.ingress_packets_per_s,
            share.decisions_per_s,
            share.share_of_a_core * 100.0
        ),
        None => "no programs are attached now".to_owned(),
    });
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_found_in_the_kernels_table() {
        let table = "Inter-|   Receive      |  Transmit\n face |bytes packets\n  eth0: 10 1 0 0 0 0 0 0 20 2 0 0 0 0 0 0\n\
                     eth01:30 3 0 0 0 0 0 0 40 4 0 0 0 0 0 0\n";
        assert_eq!(of_table(table, "eth0"), Some([2, 1]));
        assert_eq!(of_table(table, "eth01"), Some([4, 3]));
        assert_eq!(of_table(table, "eth"), None);
    }

    #[test]
    fn the_share_of_a_core_is_packets_times_what_they_cost() {
        let at = Instant::now();
        let seen = |at, interface, programs| Seen {
            at,
            interfaces: vec![interface],
            programs: Some(programs),
        };
        let before = seen(at, [1000, 0], [0, 0, 0]);
        let after = seen(
            at + Duration::from_secs(2),
            [201_000, 100_000],
            [200_000, 100_000, 20_000],
        );
        let cost = |hook, packet, median_ns| Cost {
            hook,
            packet,
            least_ns: 1.0,
            median_ns,
        };
        let costs = [
            cost(Hook::Egress, Packet::KnownFlow, 100.0),
            cost(Hook::Egress, Packet::Decision, 300.0),
            cost(Hook::Ingress, Packet::KnownFlow, 50.0),
        ];
        let traffic = traffic(&["eth0".to_owned()], (&before, &after), &costs);
        let expected = (100_000.0 * 100.0 + 50_000.0 * 50.0) / 1e9;
        assert!((traffic[0].share_of_a_core - expected).abs() < 1e-9);
        let share = share((&before, &after), &costs).unwrap();
        assert!((share.share_of_a_core - expected - 10_000.0 * 200.0 / 1e9).abs() < 1e-9);
    }
}
