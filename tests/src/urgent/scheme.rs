//! What stands on the uplink: a peer, aging, or treeline.

use std::{env, fs, path::PathBuf, str::FromStr, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use bed::{
    agent::{Running, Treeline},
    beds::Bed,
    netns::UPLINK,
    peers::{Guard, Kernel, Peer, Plan, PortRule},
    wait,
};
use clap::ValueEnum as _;
use treeline::{datapath::Datapath, instance::Instance};

use crate::{Options, kind, say};

/// Who decides which packet goes next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scheme {
    /// One of the kernel's own.
    Peer(Peer),
    /// treeline's programs without a model, and without streams: bytes alone count.
    AgingPlain,
    /// treeline's programs without a model.
    Aging,
    /// With the agent, and the model that it learned from such traffic.
    Treeline,
}

impl FromStr for Scheme {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "aging-plain" => Ok(Self::AgingPlain),
            "aging" => Ok(Self::Aging),
            "treeline" => Ok(Self::Treeline),
            peer => Peer::from_str(peer, false).map(Self::Peer),
        }
    }
}

impl Scheme {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Peer(peer) => peer.name(),
            Self::AgingPlain => "aging-plain",
            Self::Aging => "aging",
            Self::Treeline => "treeline",
        }
    }

    pub(crate) const fn reads_marks(self) -> bool {
        matches!(self, Self::Peer(peer) if peer.reads_marks())
    }

    /// Those asked for, or all that this kernel has.
    pub(crate) fn chosen(asked: &[Self], kernel: Kernel) -> Result<Vec<Self>> {
        for scheme in asked {
            if let Self::Peer(peer) = scheme {
                ensure!(
                    peer.is_there(kernel),
                    "this kernel has no {}; leave it out of --schemes",
                    peer.name()
                );
            }
        }
        if !asked.is_empty() {
            return Ok(asked.to_vec());
        }
        let peers = Peer::ALL.into_iter().filter(|peer| peer.is_there(kernel));
        Ok(peers
            .map(Self::Peer)
            .chain([Self::AgingPlain, Self::Aging, Self::Treeline])
            .collect())
    }
}

/// What all runs share.
pub(crate) struct Stage<'a> {
    bed: &'a Bed,
    treeline: Treeline<'a>,
    kernel: Kernel,
    rules: Vec<PortRule>,
    log: PathBuf,
    learn: Duration,
}

/// A scheme that stands; dropping it takes it down.
pub(crate) enum Standing<'a> {
    Peer { _guard: Guard<'a> },
    Programs(&'a Treeline<'a>, Option<Running>),
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        if let Self::Programs(treeline, agent) = self {
            // The bed goes next; a failure here must not hide the first one.
            drop(agent.take());
            drop(treeline.down());
        }
    }
}

const TRAIN_EVERY: Duration = Duration::from_secs(10);
const MODEL_LIMIT: Duration = Duration::from_secs(30);

impl<'a> Stage<'a> {
    pub(crate) fn new(options: &Options, bed: &'a Bed, kernel: Kernel) -> Result<Self> {
        let binary = match &options.treeline {
            Some(path) => path.clone(),
            None => env::current_exe()?.with_file_name("treeline"),
        };
        let log = options.out.join("urgent-agent.log");
        fs::write(&log, "").with_context(|| format!("cannot write {}", log.display()))?;
        Ok(Self {
            bed,
            treeline: Treeline {
                binary,
                instance: format!("urgent-{}", std::process::id()),
                namespace: bed.shaped(),
                rate_bps: options.rate,
            },
            kernel,
            rules: kind::rules(),
            log,
            learn: Duration::from_secs(options.learn),
        })
    }

    /// Lets an agent learn from such traffic; whether it found a model worth acting on is said, and kept for later.
    pub(crate) fn learn(&self, mut play: impl FnMut() -> Result<()>) -> Result<()> {
        if self.learn.is_zero() {
            return Ok(());
        }
        let started = std::time::Instant::now();
        let mut agent = self.treeline.run(&self.log, TRAIN_EVERY)?;
        while started.elapsed() < self.learn {
            play()?;
            agent.check()?;
        }
        let model = wait::until("a model", MODEL_LIMIT, || {
            agent.check()?;
            self.treeline.model()
        });
        match model {
            Ok(model) => say(&format!("learned: generation {}", model["generation"])),
            // The gate found none worth it: then treeline is aging, and that is what is measured.
            Err(error) => say(&format!("no model acts: {error:#}")),
        }
        agent.stop()?;
        self.treeline.down()
    }

    pub(crate) fn set_up(&'a self, scheme: Scheme) -> Result<Standing<'a>> {
        match scheme {
            Scheme::Peer(peer) => {
                let guard = self.plan(peer).install(self.bed.shaped(), UPLINK)?;
                Ok(Standing::Peer { _guard: guard })
            }
            Scheme::Treeline => {
                let agent = self.treeline.run(&self.log, TRAIN_EVERY)?;
                Ok(Standing::Programs(&self.treeline, Some(agent)))
            }
            Scheme::Aging | Scheme::AgingPlain => {
                self.treeline.up_without_model()?;
                let standing = Standing::Programs(&self.treeline, None);
                if scheme == Scheme::AgingPlain {
                    self.without_streams()?;
                }
                Ok(standing)
            }
        }
    }

    fn without_streams(&self) -> Result<()> {
        let instance = Instance::new(&self.treeline.instance)?;
        let Some(datapath) = Datapath::open(&instance)? else {
            bail!("treeline's programs are not there");
        };
        let mut settings = datapath.settings()?;
        settings.stream_window_us = 0;
        Ok(datapath.set_settings(&settings)?)
    }

    fn plan(&self, peer: Peer) -> Plan<'_> {
        Plan {
            peer,
            rate_bps: self.treeline.rate_bps,
            rules: &self.rules,
            kernel: self.kernel,
        }
    }

    /// What a scheme amounts to, for the report.
    pub(crate) fn describe(&self, scheme: Scheme) -> Vec<String> {
        let rate = self.treeline.rate_bps;
        match scheme {
            Scheme::Peer(peer) => {
                let mut lines = self.plan(peer).commands(UPLINK);
                match peer {
                    Peer::Qosify => lines
                        .push("and a classifier by packets a second and mean length".to_owned()),
                    peer if peer.reads_marks() => {
                        lines.push("and senders that mark: voice EF, game CS4, terminal AF21, downloads CS1".to_owned());
                    }
                    _ => {}
                }
                lines
            }
            Scheme::AgingPlain => vec![format!(
                "treeline up {UPLINK} --rate {rate} --model none, and in its settings stream_window_us = 0"
            )],
            Scheme::Aging => vec![format!("treeline up {UPLINK} --rate {rate} --model none")],
            Scheme::Treeline => vec![format!(
                "treeline run {UPLINK} --rate {rate}, after it has learned from such traffic"
            )],
        }
    }
}
