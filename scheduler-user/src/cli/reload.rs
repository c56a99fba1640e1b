//! SIGHUP: the configuration is read anew, and what has changed is changed in place.

use std::path::Path;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tracing::{error, info, warn};

use super::{config::Job, supervisor};
use crate::{
    agent::Options,
    control::{self, NotReloaded, Reload, Reloaded},
    instance::Instance,
    uplink::{self, Came},
};

/// Why there may be nothing to read.
const NO_FILE: &str = "interfaces and options were given on the command line: start the agent without IFACE, so that \
                       it reads a configuration";

/// Reloads with every SIGHUP, and when the control socket asks, as long as the agent runs.
///
/// Without a file there is nothing to read: the signal is heard and passed over, so that it ends nothing.
pub(super) fn when_asked(
    instance: &Instance,
    (file, job): (Option<&Path>, &Job),
    changes: watch::Sender<Options>,
    mut asked: mpsc::Receiver<Reload>,
) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (instance, file) = (instance.clone(), file.map(Path::to_owned));
    let mut job = job.clone();
    tokio::spawn(async move {
        loop {
            let answer = tokio::select! {
                Some(()) = hangup.recv() => None,
                Some(answer) = asked.recv() => Some(answer),
                else => return,
            };
            let done = match &file {
                Some(file) => reload(&instance, file, &mut job, &changes).await,
                None => {
                    info!(what = "nothing is read anew", why = NO_FILE, "reload");
                    Err(NotReloaded(NO_FILE.to_owned()))
                }
            };
            // Who has gone away needs no answer.
            let _gone = answer.map(|answer| answer.send(done).is_err());
        }
    });
    Ok(())
}

/// Reads the file, and takes over what has changed.
async fn reload(
    instance: &Instance,
    file: &Path,
    job: &mut Job,
    changes: &watch::Sender<Options>,
) -> Result<Reloaded, NotReloaded> {
    let mut new = match Job::load(file) {
        Ok(new) => new,
        Err(error) => {
            error!(what = "everything goes on as before", why = %error, "reload");
            return Err(NotReloaded(format!(
                "everything goes on as before: {error}"
            )));
        }
    };
    if new.options.observe.is_some() != job.options.observe.is_some() {
        let why = "whether it only watches is settled at the start: restart the agent";
        error!(what = "everything goes on as before", why, "reload");
        return Err(NotReloaded(why.to_owned()));
    }
    let mut warning = None;
    if new.metrics != job.metrics || new.model != job.model || new.socket != job.socket {
        let what = "model, metrics and control socket stay";
        let why = "they are read at the start only";
        warn!(what, why, "reload");
        warning = Some(format!("{what}: {why}"));
    }
    if let Err(error) = apply(instance, job, &new).await {
        // What came up all the same is known to whoever reads the file next.
        let known = |name: &String| job.interfaces.iter().any(|(other, _)| other == name);
        new.interfaces.retain(|(name, _)| !known(name));
        job.interfaces.append(&mut new.interfaces);
        return Err(error);
    }
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
    let interfaces = new.interfaces.iter().map(|(name, _)| name.clone());
    let reloaded = Reloaded {
        schema: control::SCHEMA,
        interfaces: interfaces.collect(),
        warning,
    };
    *job = new;
    supervisor::serving(&job.interfaces);
    Ok(reloaded)
}

/// Interfaces that come before those that go: so the programs stay loaded throughout.
async fn apply(instance: &Instance, before: &Job, new: &Job) -> Result<(), NotReloaded> {
    let mut faults = Vec::new();
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
                let why = &error as &dyn std::error::Error;
                error!(interface, what = "it stays as it was", why, "reload");
                faults.push(format!("{interface} stays as it was: {error}"));
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
                let why = &error as &dyn std::error::Error;
                error!(
                    interface,
                    what = "it could not be taken down",
                    why,
                    "reload"
                );
                faults.push(format!("{interface} could not be taken down: {error}"));
            }
        }
    }
    if !faults.is_empty() {
        return Err(NotReloaded(faults.join("; ")));
    }
    info!(
        interfaces = new.interfaces.len(),
        what = "configuration taken over",
        "reload"
    );
    Ok(())
}
