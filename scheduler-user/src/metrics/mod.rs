//! Metrics for Prometheus over HTTP, as OpenMetrics or in its older text form.
//!
//! A scrape reads what `treeline status` reads, and what the agent has measured of itself (`meters`, `delay`). Labels are
//! interface, band and kind of event: their number does not grow with the traffic. All names stand in [`catalog`].

pub mod catalog;
mod delay;
mod host;
mod meters;
mod older;
mod text;

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::meters::Meters;
use crate::{
    instance::Instance,
    journal,
    status::{self, Status},
    uplink::UplinkError,
};

/// Who asks takes no longer.
const LONGEST_SCRAPE: Duration = Duration::from_secs(10);
/// Scrapes at once; more wait.
const MAX_SCRAPES: usize = 8;
const OPEN_METRICS: &str = "application/openmetrics-text";

/// The endpoint can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: name another ADDRESS:PORT")]
pub struct MetricsError {
    /// Where.
    address: SocketAddr,
    /// Why.
    source: io::Error,
}

/// Opens the endpoint.
///
/// # Errors
/// The address is taken or not of this host.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, MetricsError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| MetricsError { address, source })?;
    if !address.ip().is_loopback() {
        warn!(
            %address,
            what = "metrics can be read by others",
            why = "the address is not the loopback's, and nobody is asked for a password"
        );
    }
    let bound = listener.local_addr().unwrap_or(address);
    info!(address = %bound, path = "/metrics", "metrics are served");
    Ok(listener)
}

/// What is known at the moment of a scrape.
struct Scrape<'a> {
    status: &'a Status,
    meters: &'a Meters,
    costs: host::Costs,
    log_events: [(&'static str, u64); 2],
    started_unix_s: f64,
}

/// Who is asked.
#[derive(Debug)]
struct Source {
    instance: Instance,
    meters: Meters,
    started_unix_s: f64,
}

impl Source {
    /// All metrics, in OpenMetrics.
    async fn scrape(&self) -> Result<String, UplinkError> {
        Ok(text::encode(&Scrape {
            status: &status::gather(&self.instance).await?,
            meters: &self.meters,
            costs: host::costs(&self.instance),
            log_events: journal::troubles(),
            started_unix_s: self.started_unix_s,
        }))
    }
}

/// Answers until `stop`, and measures meanwhile how long packets wait.
pub async fn serve(
    listener: TcpListener,
    instance: Instance,
    meters: Meters,
    stop: CancellationToken,
) {
    let measuring = delay::watch(instance.clone(), meters.clone(), stop.clone());
    tokio::spawn(measuring);
    let source = Arc::new(Source {
        instance,
        meters,
        started_unix_s: host::now_unix_s(),
    });
    let places = Arc::new(Semaphore::new(MAX_SCRAPES));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _from)) => {
                let source = Arc::clone(&source);
                tokio::spawn(async move {
                    converse(stream, &source).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Such as no more file descriptors: the next try may have one.
                warn!(%error, "no connection for metrics");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, source: &Source) {
    let service = service_fn(|request| answer(request, source));
    let connection = http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(LONGEST_SCRAPE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a scrape broke off"),
        Err(_late) => debug!("a scrape took too long"),
    }
}

async fn answer(
    request: Request<Incoming>,
    source: &Source,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() != "/metrics" {
        return Ok(plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n"));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return Ok(response);
    }
    let body = match source.scrape().await {
        Ok(body) => body,
        Err(error) => {
            let why = format!("{error}\n");
            return Ok(plain(StatusCode::INTERNAL_SERVER_ERROR, &why));
        }
    };
    let accepts = request.headers().get(ACCEPT);
    let open =
        accepts.is_some_and(|value| value.to_str().is_ok_and(|it| it.contains(OPEN_METRICS)));
    let (kind, body) = if open {
        (
            format!("{OPEN_METRICS}; version=1.0.0; charset=utf-8"),
            body,
        )
    } else {
        let kind = "text/plain; version=0.0.4; charset=utf-8".to_owned();
        (kind, older::in_older_form(&body))
    };
    let mut response = plain(StatusCode::OK, &body);
    if let Ok(kind) = kind.parse() {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    Ok(response)
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text.to_owned()));
    *response.status_mut() = status;
    response
}
