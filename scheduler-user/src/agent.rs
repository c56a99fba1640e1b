//! The agent's loop: which tasks there are and how they stop.
//!
//! | task | owner | does |
//! |---|---|---|
//! | sampling | [`crate::sampling`] | ring buffer → batches of samples |
//! | kernel log | here | log records of the programs → tracing |
//! | learning | [`crate::learning`] | samples → window → model → deploy, once a cycle |
//!
//! All of them end with one token. The programs stay attached when the agent ends.

use std::{io, time::Duration};

use aya_log::EbpfLogger;
use scheduler_common::settings::{SAMPLES_PER_WINDOW, Settings};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    datapath::{Datapath, DatapathError},
    dataset::WindowLimits,
    handover::HandoverError,
    instance::Instance,
    journal::kernel::KernelLog,
    learning::{Learner, LearningError, Wires},
    model::Model,
    record::Recording,
    sampling::pollable,
};

/// Batches that may wait for the learner before sampling does.
const WAITING_BATCHES: usize = 64;

/// How the agent samples and learns.
#[derive(Clone, Debug)]
pub struct Options {
    /// Time between training cycles.
    pub train_every: Duration,
    /// Labelled rows below which nothing is trained.
    pub min_samples: usize,
    /// Fresh labelled rows on which a candidate is watched before it may act.
    pub canary_rows: usize,
    /// One flow in so many is sampled; a power of two.
    pub sample_one_in: u32,
    /// What of the traffic is kept to learn from, and who may have which share of it.
    pub window: WindowLimits,
    /// A file that the labelled rows also go to.
    pub record: Option<Recording>,
    /// Where nothing is to act: work out what it would be worth.
    pub observe: Option<Observe>,
}

/// How to watch without acting.
#[derive(Clone, Debug)]
pub struct Observe {
    /// Rate that the link would be shaped to, bits per second.
    pub rate_bps: Option<u64>,
}

/// Why the agent ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The kernel programs can't be reached.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// The ring buffer can't be polled.
    #[error("cannot read samples from the kernel")]
    Sampling(#[source] io::Error),
    /// Learning failed for good.
    #[error(transparent)]
    Learning(#[from] LearningError),
    /// A task panicked.
    #[error("a task of the agent broke off")]
    Broken(#[from] JoinError),
}

impl AgentError {
    /// Whether it is for the programs alone: their maps can't be reached.
    const fn is_of_programs(&self) -> bool {
        matches!(
            self,
            Self::Datapath(_)
                | Self::Learning(
                    LearningError::Datapath(_)
                        | LearningError::Handover(HandoverError::Datapath(_))
                )
        )
    }
}

/// Samples, learns and deploys until `stop`, or until the programs are taken down; goes by what comes over `wires`.
///
/// # Errors
/// What ended it; packets are scheduled on by the last good model all the same.
pub async fn run(
    instance: &Instance,
    datapath: Datapath,
    running: Option<Model>,
    wires: Wires,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let options = wires.changes.borrow().clone();
    set_sampling(&datapath, options.sample_one_in, SAMPLES_PER_WINDOW)?;
    let (sender, batches) = mpsc::channel(WAITING_BATCHES);
    let ring = datapath.samples()?;
    let mut tasks: JoinSet<Result<(), AgentError>> = JoinSet::new();
    let token = stop.clone();
    tasks.spawn(async move {
        crate::sampling::read(ring, sender, token)
            .await
            .map_err(AgentError::Sampling)
    });
    match datapath.log(KernelLog) {
        Ok(logger) => {
            tasks.spawn(forward_kernel_log(logger, stop.clone()));
        }
        Err(error) => warn!(%error, "no log of the kernel programs"),
    }
    let learner = Learner::new(instance, options.clone(), running, wires.meters.clone());
    let reopened = Datapath::open(instance)?;
    let token = stop.clone();
    tasks.spawn(async move {
        match reopened {
            Some(datapath) => Ok(learner.run(datapath, batches, wires, token).await?),
            None => Ok(()),
        }
    });

    let mut outcome = Ok(());
    while let Some(ended) = tasks.join_next().await {
        // The first task to end ends the others.
        stop.cancel();
        if let Err(error) = ended.map_err(AgentError::from).and_then(|result| result) {
            outcome = outcome.and(Err(error));
        }
    }
    if datapath.is_pinned() {
        let quiet = set_sampling(&datapath, options.sample_one_in, 0).map_err(AgentError::from);
        outcome = outcome.and(quiet);
    }
    // The pins may have gone since.
    if datapath.is_pinned() {
        if options.observe.is_none() {
            info!(
                what = "the programs stay attached",
                undo = "treeline down",
                "agent ends"
            );
        }
    } else {
        info!(why = "the interfaces were taken down", "agent ends");
        outcome = outcome.or_else(forgive_lost_programs);
    }
    outcome
}

/// Whoever was at a map when the programs were taken down could not go on, which is what was asked for.
fn forgive_lost_programs(error: AgentError) -> Result<(), AgentError> {
    if error.is_of_programs() {
        debug!(%error, "the programs went while they were read");
        Ok(())
    } else {
        Err(error)
    }
}

/// Lets the programs emit samples, or no longer.
pub(crate) fn set_sampling(
    datapath: &Datapath,
    one_in: u32,
    samples_per_window: u32,
) -> Result<(), DatapathError> {
    let settings = datapath.settings()?;
    let sample_mask = one_in.next_power_of_two() - 1;
    datapath.set_settings(&Settings {
        sample_mask,
        samples_per_window,
        ..settings
    })
}

async fn forward_kernel_log(
    logger: EbpfLogger<KernelLog>,
    stop: CancellationToken,
) -> Result<(), AgentError> {
    let mut logger = pollable(logger).map_err(AgentError::Sampling)?;
    loop {
        let mut ready = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            ready = logger.readable_mut() => ready.map_err(AgentError::Sampling)?,
        };
        ready.get_inner_mut().flush();
        ready.clear_ready();
    }
}

#[cfg(test)]
mod tests {
    use aya::maps::MapError;

    use super::*;

    #[test]
    fn an_agent_that_was_taken_down_forgives_what_the_programs_took_along_and_nothing_else() {
        let lost = || DatapathError::Map {
            name: "MODEL",
            source: MapError::KeyNotFound,
        };
        for error in [
            lost().into(),
            LearningError::from(lost()).into(),
            LearningError::from(HandoverError::Datapath(lost())).into(),
        ] {
            forgive_lost_programs(error).unwrap();
        }
        let broken = LearningError::Broken(io::Error::other("a thread"));
        forgive_lost_programs(broken.into()).unwrap_err();
        let unread = AgentError::Sampling(io::Error::other("a ring"));
        forgive_lost_programs(unread).unwrap_err();
    }
}
