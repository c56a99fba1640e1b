//! `treeline run`: the agent in the foreground.

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{RunArgs, runtime};
use crate::{
    agent::{self, Options},
    datapath::Origin,
    dataset::WindowLimits,
    instance::Instance,
    journal,
    record::Recording,
    uplink::{self, Came},
};

pub(super) fn run(instance: &Instance, args: &RunArgs) -> anyhow::Result<()> {
    let _agent = instance.agent_lock()?;
    Instance::ensure(&instance.state())?;
    journal::start("info", Some(&instance.journal()));
    runtime()?.block_on(serve(instance, args))
}

async fn serve(instance: &Instance, args: &RunArgs) -> anyhow::Result<()> {
    if let Some(path) = args.record.as_ref().filter(|path| path.exists()) {
        bail!("{} is there already: record to a new file", path.display());
    }
    let stop = CancellationToken::new();
    watch_signals(&stop)?;
    // All names are checked before the first interface is touched.
    for interface in &args.interfaces {
        uplink::index_of(interface)?;
    }
    let mut opened = None;
    let mut brought_up = Vec::new();
    for interface in &args.interfaces {
        match uplink::up(instance, interface, &args.how.wanted()).await {
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
        window: WindowLimits {
            network_share: args.network_share,
            newcomer_share: args.newcomer_share,
            newcomer_ns: u64::try_from(args.newcomer_for.as_nanos())
                .context("--newcomer-for is longer than 500 years")?,
            ..WindowLimits::default()
        },
        record: args.record.clone().map(|path| Recording {
            path,
            max_rows: args.record_rows,
            session: args.interfaces.join(" "),
        }),
    };
    Ok(agent::run(instance, datapath, model, options, stop).await?)
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
