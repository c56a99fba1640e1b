//! Options of `up` and `run` for what comes in.

use clap::Args;

use super::parse_rate;
use crate::ingress::{Ingress, Limit, Steering};

#[derive(Debug, Args)]
#[command(next_help_heading = "Ingress")]
pub(super) struct IngressArgs {
    /// Shape what comes in as well, through an IFB device: a little below the downlink's rate.
    ///
    /// Then downloads queue here and not at the provider, and are served by band.
    #[arg(
        long,
        value_parser = parse_rate,
        value_name = "RATE",
        conflicts_with_all = ["steer", "metadata", "police"]
    )]
    pub(super) ingress_rate: Option<u64>,
    /// Hand incoming packets to CPUs by band: `urgent=0,bulk=1-3`, lists as in `0-1+4`.
    ///
    /// Bands 0 to 3 are urgent. A flow stays on one CPU of its group. Packets beyond a CPU's queue of 4096
    /// are lost.
    #[arg(long, value_name = "urgent=CPUS,bulk=CPUS")]
    pub(super) steer: Option<Steering>,
    /// Put the band in front of incoming packets, where TC programs read it (docs/ingress.md).
    #[arg(long)]
    pub(super) metadata: bool,
    /// Drop incoming packets of a band beyond a rate: `7=20mbit`, or `7=20mbit:100000` with a burst in bytes.
    ///
    /// Bare ACKs and handshakes are never dropped.
    #[arg(long, value_name = "BAND=RATE[:BURST]", value_delimiter = ',')]
    pub(super) police: Vec<Limit>,
}

impl IngressArgs {
    pub(super) fn wanted(&self) -> Ingress {
        let Self {
            ingress_rate,
            steer,
            metadata,
            police,
        } = self;
        Ingress {
            rate_bps: *ingress_rate,
            steer: steer.clone(),
            metadata: *metadata,
            police: police.clone(),
        }
    }
}
