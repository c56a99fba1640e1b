//! The control socket: what the agent tells and takes, as HTTP and JSON.
//!
//! # Theory of operation
//!
//! [`socket`] opens a Unix socket beside the instance's records; who may connect is a matter of its owner and mode alone, and who
//! may connect may ask for everything. [`routes`] answers: each reading comes from the function that the command line shows it
//! by, each change from the one that the command line makes it by, and what only the agent knows it asks of its tasks over
//! channels ([`Doors`]). The description at `/v1/openapi.json` is made of the handlers and types themselves.
//! [`client`] is how the command line asks.
//!
//! The socket is made anew with each start: the agent's lock, not the file, tells whether another one runs.

pub mod client;
mod problem;
mod routes;
mod socket;
#[cfg(test)]
mod tests;

use axum::Router;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use utoipa::ToSchema;

pub use self::{
    problem::{Kind, Problem},
    routes::{Training, description},
    socket::{Access, AccessError, ControlError, Group, Mode, Socket},
};
use crate::{instance::Instance, learning};

/// Version of the JSON of what has no other.
pub const SCHEMA: u32 = 1;

/// Where the answer to a reload goes.
pub type Reload = oneshot::Sender<Result<Reloaded, NotReloaded>>;

/// A configuration that was taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reloaded {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Interfaces that it names.
    pub interfaces: Vec<String>,
    /// What the file asks for that only a start does.
    pub warning: Option<String>,
}

/// A configuration that was not taken over, at least not as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotReloaded(pub String);

/// What the answers are made from.
#[derive(Clone, Debug)]
pub struct Doors {
    /// Where everything is kept.
    pub instance: Instance,
    /// To the learner.
    pub learner: mpsc::Sender<learning::Ask>,
    /// To who reads the configuration.
    pub reload: mpsc::Sender<Reload>,
}

/// Answers on the socket until `stop`.
pub async fn serve(socket: Socket, doors: Doors, stop: CancellationToken) {
    info!(socket = %socket.path().display(), "the control socket is open");
    let (listener, _unlinked_at_the_end) = socket.split();
    let router: Router = routes::router(doors);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        error!(%error, "the control socket is closed");
    }
}
