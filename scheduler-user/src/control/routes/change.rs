//! What changes what acts, or how the agent goes on.

use std::path::Path;

use axum::{
    Json,
    body::Bytes,
    extract::{
        Query, State,
        rejection::{BytesRejection, JsonRejection, QueryRejection},
    },
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{Doors, Kind, Problem, Reloaded, SCHEMA},
    Answer, aside, asked,
};
use crate::{
    datapath::Datapath,
    handover::{Back, Handover},
    instance::Instance,
    learning::{Ask, Began},
    model::Model,
    shown::Changed,
};

/// Where a model comes from.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Origin {
    /// Name for the journal; nothing of that name is opened.
    from: Option<String>,
}

/// Puts a model to work under a new number, as `treeline model push` does; the body is the model's file.
#[utoipa::path(
    post,
    path = "/v1/models",
    tag = "change",
    params(Origin),
    request_body(
        content = PushedFile,
        content_type = "application/json",
        description = "A file that `treeline model export` has written"
    ),
    responses(
        (status = 200, body = Changed),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn push_model(
    State(doors): State<Doors>,
    origin: Result<Query<Origin>, QueryRejection>,
    text: Result<Bytes, BytesRejection>,
) -> Answer<Changed> {
    let (Query(origin), text) = (origin?, text?);
    aside(&doors, move |instance| {
        let from = origin
            .from
            .unwrap_or_else(|| "(the control socket)".to_owned());
        let datapath = loaded(instance)?;
        let handover = Handover::new(instance);
        let (model, change) = handover.push_text(&datapath, &text, Path::new(&from))?;
        Ok(Changed::pushed(&model, &change))
    })
    .await
}

/// A model's file.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PushedFile {
    /// SHA-256 of the model, in hexadecimal.
    sha256: String,
    /// The model.
    model: Model,
}

/// Where to roll back to: without a word to the model that the acting one replaced.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Target {
    /// To this model.
    generation: Option<u32>,
    /// To no model: bytes already sent decide.
    to_aging: bool,
}

/// Puts an earlier model to work again, or none, as `treeline model rollback` does.
#[utoipa::path(
    post,
    path = "/v1/models/rollback",
    tag = "change",
    request_body = Target,
    responses(
        (status = 200, body = Changed),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn roll_back_model(
    State(doors): State<Doors>,
    target: Result<Json<Target>, JsonRejection>,
) -> Answer<Changed> {
    let Json(target) = target?;
    let back = match target {
        Target {
            generation: Some(_),
            to_aging: true,
        } => {
            let told = "`generation` and `to_aging` contradict each other: give one of them";
            return Err(Problem::new(Kind::BadRequest, told));
        }
        Target {
            generation: Some(generation),
            ..
        } => Back::Generation(generation),
        Target { to_aging: true, .. } => Back::Aging,
        Target { .. } => Back::Parent,
    };
    aside(&doors, move |instance| {
        let datapath = loaded(instance)?;
        let change = Handover::new(instance).roll_back(&datapath, back)?;
        Ok(Changed::rolled_back(instance, &change))
    })
    .await
}

/// A cycle that has begun.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Training {
    /// Version of this form.
    pub schema: u32,
    /// Labelled rows that it learns from and judges by.
    pub rows: usize,
}

/// Begins a cycle of learning now instead of when it is due; what comes of it stands in the journal.
#[utoipa::path(
    post,
    path = "/v1/train",
    tag = "change",
    responses(
        (status = 202, body = Training),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn train_now(
    State(doors): State<Doors>,
) -> Result<(StatusCode, Json<Training>), Problem> {
    match asked(&doors.learner, Ask::Train).await? {
        Began::Now { rows } => {
            let training = Training {
                schema: SCHEMA,
                rows,
            };
            Ok((StatusCode::ACCEPTED, Json(training)))
        }
        Began::Not { why } => Err(Problem::new(Kind::Conflict, why)),
    }
}

/// Reads the configuration anew, as SIGHUP does, and answers when it is taken over.
#[utoipa::path(
    post,
    path = "/v1/reload",
    tag = "change",
    responses(
        (status = 200, body = Reloaded),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn reload(State(doors): State<Doors>) -> Answer<Reloaded> {
    match asked(&doors.reload, |answer| answer).await? {
        Ok(reloaded) => Ok(Json(reloaded)),
        Err(error) => Err(Problem::of(Kind::BadConfiguration, &error)),
    }
}

fn loaded(instance: &Instance) -> Result<Datapath, Problem> {
    Datapath::open(instance)?.ok_or_else(|| {
        let told = "no programs are loaded: the interfaces have just been taken down; bring one up with `treeline run`";
        Problem::new(Kind::Conflict, told)
    })
}
