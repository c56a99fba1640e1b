//! What a running agent costs: at rest, and at a rate of samples.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bed::{agent::Treeline, machine::Watch, netns::Bed};
use scheduler_common::{counter::Counter, settings::Settings};
use treeline::{datapath::Datapath, instance::Instance};

use crate::{
    packets::{Egress, datagram},
    report::{Agent, Cost},
    treeline_binary,
};

/// Each is then silent for longer than the gap that ends a message.
const FLOWS: u32 = 12_000;
/// Flow n sends messages of 1 + n % 4 packets; so many samples come of four: decisions at packets 1, 2 and 4, and an end.
const SAMPLES_OF_FOUR: f64 = 12.0;
/// `USER_HZ`: what /proc counts in on every architecture that treeline runs on, whatever the kernel's own tick.
const TICKS_PER_S: f64 = 100.0;
const SLICE: Duration = Duration::from_millis(1);
/// So that the link does not matter.
const RATE_BPS: u64 = 10_000_000_000;

/// Measures `rest` without traffic and `load` with so many samples a second.
///
/// The agent's cycle is as long as the load, so that one training falls into it.
///
/// # Errors
///
/// When the agent does not start or ends, or samples do not come.
pub(crate) fn measure(
    (rest, load): (Duration, Duration),
    samples_per_s: f64,
    out: &Path,
) -> Result<Agent> {
    let bed = Bed::host()?;
    let site = Treeline {
        binary: treeline_binary()?,
        instance: format!("agent-{}", std::process::id()),
        namespace: &bed.server,
        rate_bps: RATE_BPS,
    };
    let log = out.join("agent.log");
    drop(fs::remove_file(&log));
    let mut agent = site.run(&log, load)?;
    let pid = agent.pid();
    let at_rest = cost(pid, || {
        thread::sleep(rest);
        Ok(())
    })?;
    agent.check()?;
    let instance = Instance::new(&site.instance)?;
    let datapath = Datapath::open(&instance)?.context("the programs are not pinned")?;
    // All of the load comes from one CPU, whose budget would be 30 000 a second.
    datapath.set_settings(&Settings {
        samples_per_window: u32::MAX,
        ..datapath.settings()?
    })?;
    let egress = Egress::open(&instance)?;
    let frames: Vec<Vec<u8>> = (0..FLOWS)
        .map(|flow| datagram(flow, 100 * (1 + flow % 8) as u16))
        .collect();
    let messages_per_s = samples_per_s * 4.0 / SAMPLES_OF_FOUR;
    // Every flow's first message has none before it to end.
    let warm_up = Duration::from_secs_f64(f64::from(FLOWS) / messages_per_s);
    let next = offer(&egress, &frames, (messages_per_s, warm_up), 0)?;
    let before = counts(&datapath)?;
    let began = Instant::now();
    let mut under_load = cost(pid, || {
        offer(&egress, &frames, (messages_per_s, load), next)?;
        Ok(())
    })?;
    let elapsed_s = began.elapsed().as_secs_f64();
    let after = counts(&datapath)?;
    agent.check()?;
    under_load.samples_per_s = (after[0] - before[0]) as f64 / elapsed_s;
    under_load.samples_lost = after[1] - before[1];
    agent.stop()?;
    let told = fs::read_to_string(&log).unwrap_or_default();
    under_load.trainings = told.matches("train_ms").count();
    ensure!(under_load.samples_per_s > 0.0, "no sample came");
    Ok(Agent {
        rest: at_rest,
        load: under_load,
    })
}

/// Runs messages, each packet of one behind the other, at an even pace; answers the next flow.
fn offer(
    egress: &Egress,
    frames: &[Vec<u8>],
    (messages_per_s, length): (f64, Duration),
    first: usize,
) -> Result<usize> {
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < length {
        let due = (began.elapsed().as_secs_f64() * messages_per_s) as usize;
        while sent < due {
            let flow = (first + sent) % frames.len();
            for _ in 0..=flow % 4 {
                egress.push(&frames[flow])?;
            }
            sent += 1;
        }
        thread::sleep(SLICE);
    }
    Ok((first + sent) % frames.len())
}

/// CPU time of a process while something goes on, and its memory at the peak so far.
fn cost(pid: u32, work: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let watch = Watch::start()?;
    let (began, cpu_s) = (Instant::now(), cpu_seconds(pid)?);
    work()?;
    let elapsed_s = began.elapsed().as_secs_f64();
    let cpu_s = cpu_seconds(pid)? - cpu_s;
    Ok(Cost {
        seconds: elapsed_s,
        cpu_percent: 100.0 * cpu_s / elapsed_s,
        peak_mb: peak_mb(pid)?,
        samples_per_s: 0.0,
        samples_lost: 0,
        trainings: 0,
        machine: watch.finish()?,
    })
}

/// User and system time of all threads, also of those that have ended.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the agent is gone")?;
    // The name in parentheses may hold blanks; user and system time are the 14th and 15th field of all.
    let (_, fields) = stat.rsplit_once(')').context("not a process's stat")?;
    let ticks: Vec<f64> = (fields.split_whitespace().skip(11).take(2))
        .map_while(|field| field.parse().ok())
        .collect();
    let [user, system] = *ticks.as_slice() else {
        anyhow::bail!("not a process's stat: {stat}");
    };
    Ok((user + system) / TICKS_PER_S)
}

/// Largest resident set so far.
fn peak_mb(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the agent is gone")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("the process has no memory of its own")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}

/// Samples sent and lost so far.
fn counts(datapath: &Datapath) -> Result<[u64; 2]> {
    let counters = datapath.counters()?;
    let of = |wanted: Counter| {
        let found = counters.iter().find(|(counter, _)| *counter == wanted);
        found.map_or(0, |(_, count)| *count)
    };
    Ok([of(Counter::SamplesSent), of(Counter::SamplesLost)])
}
