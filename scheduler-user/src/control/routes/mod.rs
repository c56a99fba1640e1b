//! What can be asked, and how each question is answered.

mod change;
mod look;

use axum::{
    Json, Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri},
};
use tokio::sync::{mpsc, oneshot};
use utoipa::{OpenApi, openapi::OpenApi as Description};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use self::change::Training;
use super::{Doors, Kind, Problem};
use crate::{instance::Instance, model::MAX_FILE_BYTES};

type Answer<T> = Result<Json<T>, Problem>;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "treeline's control socket",
        description = "What a running agent tells and takes, over the Unix socket /run/treeline/INSTANCE/control.sock. \
                       Who may open the socket may ask for everything; there are no other passwords. Errors are problem \
                       details (RFC 9457).",
        license(name = "MIT OR Apache-2.0")
    ),
    tags(
        (name = "look", description = "Nothing is changed."),
        (name = "change", description = "What acts, or how the agent goes on, is changed.")
    )
)]
struct Headline;

/// Everything that is served, with its description.
fn described() -> OpenApiRouter<Doors> {
    OpenApiRouter::with_openapi(Headline::openapi())
        .routes(routes!(look::get_description))
        .routes(routes!(look::get_status))
        .routes(routes!(look::get_services))
        .routes(routes!(look::list_models, change::push_model))
        .routes(routes!(look::show_acting_model))
        .routes(routes!(look::show_model))
        .routes(routes!(change::roll_back_model))
        .routes(routes!(look::get_decisions))
        .routes(routes!(look::get_logs))
        .routes(routes!(look::explain_flow))
        .routes(routes!(change::train_now))
        .routes(routes!(change::reload))
}

/// The server.
pub(super) fn router(doors: Doors) -> Router {
    let (router, _) = described().split_for_parts();
    router
        .fallback(unknown)
        .method_not_allowed_fallback(other_method)
        .layer(DefaultBodyLimit::max(MAX_FILE_BYTES as usize))
        .with_state(doors)
}

/// What the server describes itself by.
pub fn description() -> Description {
    let (_, mut description) = described().split_for_parts();
    let schemas = description.components.as_mut().map(|it| &mut it.schemas);
    // It is shown with more beside what its file holds, so a file's strictness is no property of it.
    if let Some(schemas) = schemas
        && let Some(utoipa::openapi::RefOr::T(utoipa::openapi::Schema::Object(model))) =
            schemas.get_mut("Model")
    {
        model.additional_properties = None;
    }
    description
}

async fn unknown(uri: Uri) -> Problem {
    Problem::new(
        Kind::NotFound,
        format!(
            "nothing is served at {}; /v1/openapi.json lists what is",
            uri.path()
        ),
    )
}

async fn other_method(method: Method, uri: Uri) -> Problem {
    Problem::new(
        Kind::MethodNotAllowed,
        format!(
            "{} has no {method}; /v1/openapi.json lists what it has",
            uri.path()
        ),
    )
}

/// Runs what reads files or waits for locks beside the agent's own thread.
async fn aside<T: Send + 'static>(
    doors: &Doors,
    work: impl FnOnce(&Instance) -> Result<T, Problem> + Send + 'static,
) -> Answer<T> {
    let instance = doors.instance.clone();
    let done = tokio::task::spawn_blocking(move || work(&instance)).await;
    match done {
        Ok(answer) => answer.map(Json),
        Err(error) => Err(Problem::of(Kind::Failed, &error)),
    }
}

/// Sends a question to a task of the agent, and waits for what it says.
async fn asked<Q, A>(
    of: &mpsc::Sender<Q>,
    question: impl FnOnce(oneshot::Sender<A>) -> Q,
) -> Result<A, Problem> {
    let ending = || {
        Problem::new(
            Kind::Conflict,
            "the agent is ending; start it again and ask then",
        )
    };
    let (sender, answer) = oneshot::channel();
    of.send(question(sender)).await.map_err(|_gone| ending())?;
    answer.await.map_err(|_gone| ending())
}
