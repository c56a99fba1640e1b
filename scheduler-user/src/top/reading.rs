//! What stands in counters at one moment.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use aya::{
    programs::ProgramInfo,
    sys::{Stats, enable_stats},
};
use scheduler_common::names;

use crate::{
    control::client::Client,
    dataset::services::Services,
    instance::Instance,
    model::{Gain, Registry},
    status::{self, Status},
    uplink::UplinkError,
};

/// An agent that takes longer is passed over this time.
const PATIENCE: Duration = Duration::from_secs(2);

/// A look at everything.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) at: Instant,
    pub(super) status: Status,
    /// What only an agent knows.
    pub(super) services: Option<Services>,
    /// What the acting model has won over aging, by its file.
    pub(super) gain: Option<Gain>,
    /// Run times so far; absent where the kernel may not be asked to measure them.
    pub(super) programs: Option<Vec<Program>>,
}

/// A kernel program and what it has cost since it is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) hook: &'static str,
    pub(super) runs: u64,
    pub(super) ran: Duration,
}

/// Who looks; while it lives the kernel measures its BPF programs.
#[derive(Debug)]
pub(super) struct Eyes {
    instance: Instance,
    /// Closed, the kernel stops.
    measuring: Option<OwnedFd>,
}

impl Eyes {
    /// Opens them; without the right to have run times measured it goes without.
    pub(super) fn open(instance: &Instance) -> Self {
        Self {
            instance: instance.clone(),
            measuring: enable_stats(Stats::RunTime).ok(),
        }
    }

    /// Looks once.
    ///
    /// # Errors
    /// If there is no agent to ask, and this user may not look without one.
    pub(super) async fn read(&self) -> Result<Reading, UplinkError> {
        let (told, services) = tokio::join!(self.ask("/v1/status"), self.ask("/v1/services"));
        let status: Status = match told {
            Some(status) => status,
            None => status::gather(&self.instance).await?,
        };
        let acting = status.model.as_ref().map(|model| model.generation);
        let registry = Registry::new(self.instance.models());
        let model = acting.and_then(|generation| registry.load(generation).ok());
        Ok(Reading {
            at: Instant::now(),
            services,
            gain: model.and_then(|model| model.gain()),
            programs: self.measuring.as_ref().map(|_open| self.programs()),
            status,
        })
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<T> {
        let asked = async { Client::connect(&self.instance).await?.get(path).await.ok() };
        tokio::time::timeout(PATIENCE, asked).await.ok().flatten()
    }

    fn programs(&self) -> Vec<Program> {
        let pins = self.instance.pins().join("programs");
        let hooks = [("egress", names::EGRESS), ("ingress", names::INGRESS)];
        let known = hooks.into_iter().filter_map(|(hook, name)| {
            let info = ProgramInfo::from_pin(pins.join(name)).ok()?;
            Some(Program {
                hook,
                runs: info.run_count(),
                ran: info.run_time(),
            })
        });
        known.collect()
    }
}
