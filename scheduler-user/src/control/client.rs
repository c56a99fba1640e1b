//! How the command line asks a running agent.

use std::{io, time::Duration};

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::Problem;
use crate::instance::Instance;

/// An agent that takes longer is stuck.
const PATIENCE: Duration = Duration::from_secs(20);
/// Larger answers are none of ours.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The agent says no.
    #[error("{}", .0.detail)]
    Refused(Problem),
    /// The answer is late.
    #[error(
        "the agent did not answer within {} s: look what it does with `treeline logs`",
        PATIENCE.as_secs()
    )]
    Slow,
    /// The connection broke off.
    #[error("the agent's control socket broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is of another version.
    #[error("the agent answers in words of another version: restart it, so that both are of one")]
    Strange(#[source] serde_json::Error),
}

/// Nobody is there to ask.
#[derive(Debug, thiserror::Error)]
#[error(
    "no agent answers at {}: start one with `treeline run`, or ask as root or as a member of the group that `--socket-group` names", socket.display()
)]
pub struct NoAgent {
    socket: std::path::PathBuf,
}

impl NoAgent {
    /// For this instance.
    pub fn of(instance: &Instance) -> Self {
        Self {
            socket: instance.control_socket(),
        }
    }
}

/// A connection to the agent of an instance, for one question.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects; `None` where nobody answers, or where this user may not ask.
    pub async fn connect(instance: &Instance) -> Option<Self> {
        let connected: io::Result<UnixStream> =
            UnixStream::connect(instance.control_socket()).await;
        connected.ok().map(|stream| Self { stream })
    }

    /// Asks for what stands at `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    /// Sends `body`, which is JSON, to `path`.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<T, ClientError> {
        self.ask(Method::POST, path, body.into()).await
    }

    async fn ask<T: DeserializeOwned>(
        self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "treeline")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| ClientError::Broken(error.into()))?;
        let answered = tokio::time::timeout(PATIENCE, self.send(request)).await;
        let (is_success, text) = answered.map_err(|_late| ClientError::Slow)??;
        if is_success {
            serde_json::from_slice(&text).map_err(ClientError::Strange)
        } else {
            let problem = serde_json::from_slice(&text).map_err(ClientError::Strange)?;
            Err(ClientError::Refused(problem))
        }
    }

    async fn send(self, request: Request<Full<Bytes>>) -> Result<(bool, Bytes), ClientError> {
        let broken = |error: hyper::Error| ClientError::Broken(error.into());
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.stream))
            .await
            .map_err(broken)?;
        // It ends with the sender.
        let driven = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        let is_success = response.status().is_success();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(ClientError::Broken)?;
        driven.abort();
        Ok((is_success, body.to_bytes()))
    }
}

/// A piece of text as a value in a path's query.
pub fn in_query(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}
