//! SIGHUP: the configuration is read anew, and what has changed is changed in place.

use std::path::Path;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing::{error, info, warn};

use super::{config::Job, supervisor};
use crate::{
    agent::Options,
    instance::Instance,
    uplink::{self, Came},
};

/// Reloads with every SIGHUP as long as the agent runs.
///
/// Without a file there is nothing to read: the signal is heard and passed over, so that it ends nothing.
pub(super) fn on_hangup(
    instance: &Instance,
    file: Option<&Path>,
    job: &Job,
    changes: watch::Sender<Options>,
) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (instance, file) = (instance.clone(), file.map(Path::to_owned));
    let mut job = job.clone();
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match &file {
                Some(file) => reload(&instance, file, &mut job, &changes).await,
                None => info!(
                    what = "nothing is read anew",
                    why = "interfaces and options were given on the command line",
                    "reload"
                ),
            }
        }
    });
    Ok(())
}

async fn reload(instance: &Instance, file: &Path, job: &mut Job, changes: &watch::Sender<Options>) {
    let mut new = match Job::load(file) {
        Ok(new) => new,
        Err(error) => {
            error!(what = "everything goes on as before", why = %error, "reload");
            return;
        }
    };
    if new.options.observe.is_some() != job.options.observe.is_some() {
        error!(
            what = "everything goes on as before",
            why = "whether it only watches is settled at the start: restart the agent",
            "reload"
        );
        return;
    }
    if new.metrics != job.metrics || new.model != job.model {
        warn!(
            what = "model and metrics stay",
            why = "they are read at the start only",
            "reload"
        );
    }
    if apply(instance, job, &new).await {
        let Options {
            train_every,
            min_samples,
            canary_rows,
            sample_one_in,
            ..
        } = new.options;
        new.options = Options {
            train_every,
            min_samples,
            canary_rows,
            sample_one_in,
            ..job.options.clone()
        };
        changes.send_replace(new.options.clone());
        *job = new;
        supervisor::serving(&job.interfaces);
    } else {
        // What came up all the same is known to whoever reads the file next.
        let known = |name: &String| job.interfaces.iter().any(|(other, _)| other == name);
        new.interfaces.retain(|(name, _)| !known(name));
        job.interfaces.append(&mut new.interfaces);
    }
}

/// Interfaces that come before those that go: so the programs stay loaded throughout.
async fn apply(instance: &Instance, before: &Job, new: &Job) -> bool {
    let mut whole = true;
    for (interface, wanted) in &new.interfaces {
        match uplink::up(instance, interface, wanted).await {
            Ok((_, _, Came::AlreadyUp)) => {}
            Ok((_, _, came)) => info!(
                interface,
                state = ?came,
                what = "it is as the configuration says",
                why = "the configuration was read anew",
                undo = "change the configuration back and reload",
                "reload"
            ),
            Err(error) => {
                whole = false;
                let why = &error as &dyn std::error::Error;
                error!(interface, what = "it stays as it was", why, "reload");
            }
        }
    }
    let stays = |name: &String| new.interfaces.iter().any(|(other, _)| other == name);
    for (interface, _) in before.interfaces.iter().filter(|(name, _)| !stays(name)) {
        match uplink::down(instance, interface).await {
            Ok(_) => info!(
                interface,
                state = "down",
                what = "its packets are left alone",
                why = "the configuration leaves it out",
                undo = "add it to the configuration and reload",
                "reload"
            ),
            Err(error) => {
                whole = false;
                let why = &error as &dyn std::error::Error;
                error!(
                    interface,
                    what = "it could not be taken down",
                    why,
                    "reload"
                );
            }
        }
    }
    if whole {
        info!(
            interfaces = new.interfaces.len(),
            what = "configuration taken over",
            "reload"
        );
    }
    whole
}
