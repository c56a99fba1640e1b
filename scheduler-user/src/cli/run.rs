//! `treeline run`: the agent in the foreground.

use std::path::Path;

use anyhow::{Context as _, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Format, RunArgs, UplinkArgs, config::Job, observe, plan, reload, runtime, supervisor};
use crate::{
    agent::{self, Observe, Options},
    config,
    control::{self, Access, Doors, Socket},
    datapath::{Datapath, Origin},
    dataset::WindowLimits,
    instance::Instance,
    journal,
    learning::Wires,
    metrics::{self, Meters},
    record::Recording,
    uplink::{self, Came},
};

/// Questions to a task that may wait; more hold up who asks.
const WAITING_QUESTIONS: usize = 8;

/// Options of interfaces beside a file that has its own.
#[derive(Debug, thiserror::Error)]
#[error(
    "options of interfaces and of learning stand in the configuration when no interface is named: set them there, or name IFACE"
)]
pub(super) struct OptionsWithoutInterface;

pub(super) fn run(instance: &Instance, format: Format, args: &RunArgs) -> anyhow::Result<()> {
    let file = args.interfaces.is_empty().then(|| {
        args.config
            .as_deref()
            .unwrap_or_else(|| Path::new(config::PATH))
    });
    let job = match file {
        Some(file) => of_file(file, args)?,
        None => typed(args),
    };
    if args.dry_run {
        return plan::print_plan(instance, format, &job.interfaces);
    }
    let _agent = instance.agent_lock()?;
    Instance::ensure(&instance.state())?;
    journal::start("info", Some(&instance.journal()));
    if job.options.observe.is_some() {
        observe::forget(instance)?;
    }
    runtime()?.block_on(serve(instance, args, (&job, file)))?;
    if job.options.observe.is_some() {
        let names: Vec<String> = job.interfaces.into_iter().map(|(name, _)| name).collect();
        observe::tell(instance, format, &names)?;
    }
    Ok(())
}

/// How an agent learns without a word.
pub(super) fn default_options() -> Options {
    options(&RunArgs::plain())
}

fn options(args: &RunArgs) -> Options {
    Options {
        train_every: args.train_every,
        min_samples: args.min_samples,
        canary_rows: args.canary_rows,
        sample_one_in: args.sample_one_in,
        window: WindowLimits {
            network_share: args.network_share,
            newcomer_share: args.newcomer_share,
            // More than 500 years are for ever.
            newcomer_ns: u64::try_from(args.newcomer_for.as_nanos()).unwrap_or(u64::MAX),
            ..WindowLimits::default()
        },
        record: None,
        observe: None,
    }
}

/// What was typed.
fn typed(args: &RunArgs) -> Job {
    let wanted = if args.observe {
        args.how.observed()
    } else {
        args.how.wanted()
    };
    let all = args.interfaces.iter();
    Job {
        interfaces: all.map(|name| (name.clone(), wanted.clone())).collect(),
        model: args.how.model.clone(),
        options: Options {
            record: recording(args, &args.interfaces),
            observe: args.observe.then_some(Observe {
                rate_bps: args.how.rate,
            }),
            ..options(args)
        },
        metrics: args.metrics,
        socket: access(args),
    }
}

fn access(args: &RunArgs) -> Access {
    Access {
        group: args.socket_group.clone(),
        mode: args.socket_mode,
    }
}

/// What a file asks for; the line may add that it only watches or records.
fn of_file(file: &Path, args: &RunArgs) -> anyhow::Result<Job> {
    let plain = RunArgs::plain();
    let told = |how: &UplinkArgs| format!("{how:?}");
    let learning = |args: &RunArgs| {
        let Options {
            train_every,
            min_samples,
            canary_rows,
            sample_one_in,
            ..
        } = options(args);
        (train_every, min_samples, canary_rows, sample_one_in)
    };
    if told(&args.how) != told(&plain.how) || learning(args) != learning(&plain) {
        return Err(OptionsWithoutInterface.into());
    }
    let mut job = Job::load(file)?;
    // What has no key there comes from the line.
    job.options = Options {
        train_every: job.options.train_every,
        min_samples: job.options.min_samples,
        canary_rows: job.options.canary_rows,
        sample_one_in: job.options.sample_one_in,
        observe: job.options.observe,
        ..options(args)
    };
    if args.observe && job.options.observe.is_none() {
        let rates = job
            .interfaces
            .iter()
            .filter_map(|(_, wanted)| wanted.rate_bps);
        job.options.observe = Some(Observe {
            rate_bps: rates.min(),
        });
        let watched = UplinkArgs::watching().observed();
        for (_, wanted) in &mut job.interfaces {
            *wanted = watched.clone();
        }
    }
    let names: Vec<String> = job
        .interfaces
        .iter()
        .map(|(name, _)| name.clone())
        .collect();
    job.options.record = recording(args, &names);
    job.metrics = args.metrics.or(job.metrics);
    let Access { group, mode } = access(args);
    job.socket = Access {
        group: group.or(job.socket.group),
        mode: mode.or(job.socket.mode),
    };
    Ok(job)
}

fn recording(args: &RunArgs, names: &[String]) -> Option<Recording> {
    args.record.clone().map(|path| Recording {
        path,
        max_rows: args.record_rows,
        session: names.join(" "),
    })
}

async fn serve(
    instance: &Instance,
    args: &RunArgs,
    (job, file): (&Job, Option<&Path>),
) -> anyhow::Result<()> {
    if let Some(path) = args.record.as_ref().filter(|path| path.exists()) {
        bail!("{} is there already: record to a new file", path.display());
    }
    let stop = CancellationToken::new();
    watch_signals(&stop)?;
    if let Some(length) = args.length {
        let stop = stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(length).await;
            stop.cancel();
        });
    }
    let (datapath, brought_up) = bring_up(instance, job).await?;
    let started = async {
        let model = uplink::choose_model(instance, &datapath, &job.model)?;
        let endpoint = match job.metrics {
            Some(address) => Some(metrics::listen(address).await?),
            None => None,
        };
        let socket = Socket::open(instance, &job.socket)?;
        anyhow::Ok((model, endpoint, socket))
    };
    let (model, endpoint, socket) = match started.await {
        Ok(started) => started,
        Err(error) => {
            take_down(instance, &brought_up).await?;
            return Err(error);
        }
    };
    let meters = Meters::default();
    if let Some(endpoint) = endpoint {
        let (instance, meters) = (instance.clone(), meters.clone());
        tokio::spawn(metrics::serve(endpoint, instance, meters, stop.clone()));
    }
    let (changes, options) = watch::channel(job.options.clone());
    let (reload, reloads) = mpsc::channel(WAITING_QUESTIONS);
    reload::when_asked(instance, (file, job), changes, reloads)?;
    let (learner, asked) = mpsc::channel(WAITING_QUESTIONS);
    let doors = Doors {
        instance: instance.clone(),
        learner,
        reload,
    };
    // Not waited for: whoever holds a connection open does not hold up the end.
    tokio::spawn(control::serve(socket, doors, stop.clone()));
    let wires = Wires {
        changes: options,
        asked,
        meters,
    };
    supervisor::ready(&job.interfaces);
    let watched = job.options.observe.is_some().then(|| {
        let needed = job.options.min_samples;
        observe::Watched::start(args.length, needed, wires.meters.clone(), stop.clone())
    });
    let ended = agent::run(instance, datapath, model, wires, stop).await;
    drop(watched);
    supervisor::stopping();
    if job.options.observe.is_some() {
        // What only watches is of no use without an agent.
        take_down(instance, &brought_up).await?;
    }
    Ok(ended?)
}

/// Brings every interface up, or none; tells which were not so before.
async fn bring_up<'a>(
    instance: &Instance,
    job: &'a Job,
) -> anyhow::Result<(Datapath, Vec<&'a String>)> {
    // All names are checked before the first interface is touched.
    for (interface, _) in &job.interfaces {
        uplink::index_of(interface)?;
    }
    let mut opened = None;
    let mut brought_up = Vec::new();
    for (interface, wanted) in &job.interfaces {
        match uplink::up(instance, interface, wanted).await {
            Ok((datapath, origin, came)) => {
                info!(
                    interface,
                    programs = ?origin,
                    state = ?came,
                    what = if wanted.observe {
                        "its packets are watched from now on, and go as they went"
                    } else {
                        "its packets go by bands from now on"
                    },
                    why = "asked for",
                    undo = instance.command(&format!("down {interface}")),
                    "attached"
                );
                if came == Came::Up {
                    brought_up.push(interface);
                }
                opened.get_or_insert((datapath, origin));
            }
            Err(error) => {
                take_down(instance, &brought_up).await?;
                return Err(error.into());
            }
        }
    }
    let (datapath, origin) = opened.context("no interface was named")?;
    if origin == Origin::Adopted {
        info!(
            what = "programs and model go on",
            why = "pinned by an earlier start",
            "adopted"
        );
    }
    Ok((datapath, brought_up))
}

/// A failed start leaves no interface up that was not so before.
pub(super) async fn take_down(instance: &Instance, interfaces: &[&String]) -> anyhow::Result<()> {
    for interface in interfaces {
        uplink::down(instance, interface).await?;
    }
    Ok(())
}

pub(super) fn watch_signals(stop: &CancellationToken) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    Ok(())
}
