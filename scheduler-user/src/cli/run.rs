//! `treeline run`: the agent in the foreground.

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Format, RunArgs, observe, plan, runtime};
use crate::{
    agent::{self, Observe, Options},
    datapath::Origin,
    instance::Instance,
    journal,
    record::Recording,
    uplink::{self, Came},
};

pub(super) fn run(instance: &Instance, format: Format, args: &RunArgs) -> anyhow::Result<()> {
    if args.dry_run {
        let wanted = args.how.wanted();
        let all: Vec<_> = (args.interfaces.iter())
            .map(|interface| (interface.clone(), wanted.clone()))
            .collect();
        return plan::print_plan(instance, format, &all);
    }
    let _agent = instance.agent_lock()?;
    Instance::ensure(&instance.state())?;
    journal::start("info", Some(&instance.journal()));
    if args.observe {
        observe::forget(instance)?;
    }
    runtime()?.block_on(serve(instance, args))?;
    if args.observe {
        observe::tell(instance, format, &args.interfaces)?;
    }
    Ok(())
}

async fn serve(instance: &Instance, args: &RunArgs) -> anyhow::Result<()> {
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
    let wanted = if args.observe {
        args.how.observed()
    } else {
        args.how.wanted()
    };
    // All names are checked before the first interface is touched.
    for interface in &args.interfaces {
        uplink::index_of(interface)?;
    }
    let mut opened = None;
    let mut brought_up = Vec::new();
    for interface in &args.interfaces {
        match uplink::up(instance, interface, &wanted).await {
            Ok((datapath, origin, came)) => {
                info!(interface, programs = ?origin, state = ?came, "attached");
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
    let model = match uplink::choose_model(instance, &datapath, &args.how.model) {
        Ok(model) => model,
        Err(error) => {
            take_down(instance, &brought_up).await?;
            return Err(error.into());
        }
    };
    let options = Options {
        train_every: args.train_every,
        min_samples: args.min_samples,
        canary_rows: args.canary_rows,
        sample_one_in: args.sample_one_in,
        record: args.record.clone().map(|path| Recording {
            path,
            max_rows: args.record_rows,
            session: args.interfaces.join(" "),
        }),
        observe: args.observe.then_some(Observe {
            rate_bps: args.how.rate,
        }),
    };
    let ended = agent::run(instance, datapath, model, options, stop).await;
    if args.observe {
        // What only watches is of no use without an agent.
        take_down(instance, &brought_up).await?;
    }
    Ok(ended?)
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
