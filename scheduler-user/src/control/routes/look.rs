//! What is read and not changed.

use axum::{
    Json,
    extract::{
        Path as InPath, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
};
use serde::{Deserialize, Serialize};
use utoipa::{ToSchema, openapi::OpenApi as Description};

use super::{
    super::{Doors, Kind, Problem, SCHEMA},
    Answer, aside, asked, description,
};
use crate::{
    dataset::services::Services,
    explain::{self, Explanation, FlowSpec, Question},
    instance::Instance,
    journal::{
        decisions::Decisions,
        records::{self, Filter, Level, Record},
    },
    learning::Ask,
    shown::{self, Decided, Described, Listing},
    status::{self, Status},
};

/// This description.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "look",
    responses((status = 200, body = serde_json::Value, description = "OpenAPI 3.1"))
)]
pub(super) async fn get_description() -> Json<Description> {
    Json(description())
}

/// Interfaces, bands, model, agent and counters, as `treeline status` shows them.
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "look",
    responses(
        (status = 200, body = Status),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get_status(State(doors): State<Doors>) -> Answer<Status> {
    let gathered = status::gather(&doors.instance).await;
    gathered
        .map(Json)
        .map_err(|error| Problem::of(Kind::Failed, &error))
}

/// Services of the learner's window, with predicted and real sizes of their messages.
#[utoipa::path(
    get,
    path = "/v1/services",
    tag = "look",
    responses(
        (status = 200, body = Services),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get_services(State(doors): State<Doors>) -> Answer<Services> {
    asked(&doors.learner, Ask::Services).await.map(Json)
}

/// The models of the registry, as `treeline model list` shows them.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "look",
    responses(
        (status = 200, body = Listing),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list_models(State(doors): State<Doors>) -> Answer<Listing> {
    aside(&doors, |instance| Ok(Listing::of(instance)?)).await
}

/// How to show a model.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Showing {
    /// With a rule for each leaf.
    #[serde(default)]
    #[param(default = false)]
    rules: bool,
}

/// The model that acts, else the newest, as `treeline model show` has it.
#[utoipa::path(
    get,
    path = "/v1/models/acting",
    tag = "look",
    params(Showing),
    responses(
        (status = 200, body = Described),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show_acting_model(
    State(doors): State<Doors>,
    showing: Result<Query<Showing>, QueryRejection>,
) -> Answer<Described> {
    let Query(showing) = showing?;
    aside(&doors, move |instance| show(instance, None, &showing)).await
}

/// A model by its generation, as `treeline model show` has it.
#[utoipa::path(
    get,
    path = "/v1/models/{generation}",
    tag = "look",
    params(("generation" = u32, Path, description = "Number of the model"), Showing),
    responses(
        (status = 200, body = Described),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn show_model(
    State(doors): State<Doors>,
    generation: Result<InPath<u32>, PathRejection>,
    showing: Result<Query<Showing>, QueryRejection>,
) -> Answer<Described> {
    let (InPath(generation), Query(showing)) = (generation?, showing?);
    aside(&doors, move |instance| {
        show(instance, Some(&generation.to_string()), &showing)
    })
    .await
}

fn show(instance: &Instance, which: Option<&str>, showing: &Showing) -> Result<Described, Problem> {
    let model = shown::named(instance, which)?.ok_or_else(|| {
        Problem::new(
            Kind::NotFound,
            "there is no model yet; the agent learns one from traffic",
        )
    })?;
    Ok(Described::of(&model, showing.rules, Vec::new()))
}

/// How much of a journal.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Lines {
    /// Records, counted from the end.
    #[serde(default = "usual_lines")]
    #[param(default = 50, maximum = 10000)]
    lines: usize,
}

const fn usual_lines() -> usize {
    50
}

const MOST_LINES: usize = 10_000;

impl Lines {
    fn checked(self) -> Result<usize, Problem> {
        if self.lines > MOST_LINES {
            let told = format!(
                "{} lines are too many: ask for at most {MOST_LINES}",
                self.lines
            );
            return Err(Problem::new(Kind::BadRequest, told));
        }
        Ok(self.lines)
    }
}

/// What was decided about models, why, and how to undo it, as `treeline model log` shows it.
#[utoipa::path(
    get,
    path = "/v1/decisions",
    tag = "look",
    params(Lines),
    responses(
        (status = 200, body = Decided),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get_decisions(
    State(doors): State<Doors>,
    lines: Result<Query<Lines>, QueryRejection>,
) -> Answer<Decided> {
    let lines = lines?.0.checked()?;
    aside(&doors, move |instance| {
        let tail = Decisions::new(instance.decisions()).tail(lines);
        tail.map(Decided::from)
            .map_err(|error| Problem::of(Kind::Failed, &error))
    })
    .await
}

/// Which records of the agent's journal.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Records, counted from the end.
    #[serde(default = "usual_lines")]
    #[param(default = 50, maximum = 10000)]
    lines: usize,
    /// Only those that matter at least so much.
    #[param(inline)]
    level: Option<Level>,
    /// Only those whose message or `what` holds this text, whatever the case.
    what: Option<String>,
    /// Only those from then on: how long ago (`2h`), or a time (`2026-01-31T08:00:00Z`).
    since: Option<String>,
}

/// The end of the agent's journal.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Logged {
    /// Version of this form.
    schema: u32,
    /// Records as `treeline logs --format json` prints them, the newest last.
    records: Vec<Record>,
}

/// What the agent did and why, as `treeline logs` shows it.
#[utoipa::path(
    get,
    path = "/v1/logs",
    tag = "look",
    params(Wanted),
    responses(
        (status = 200, body = Logged),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn get_logs(
    State(doors): State<Doors>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Answer<Logged> {
    let Wanted {
        lines,
        level,
        what,
        since,
    } = wanted?.0;
    let lines = Lines { lines }.checked()?;
    let since = since
        .map(|text| records::parse_since(&text))
        .transpose()
        .map_err(|why| Problem::new(Kind::BadRequest, format!("since: {why}")))?;
    let filter = Filter { level, what, since };
    aside(&doors, move |instance| {
        let records = records::tail(&instance.journal(), &filter, lines)
            .map_err(|error| Problem::of(Kind::Failed, &error))?;
        Ok(Logged {
            schema: SCHEMA,
            records,
        })
    })
    .await
}

/// Which flow.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Flow {
    /// Protocol and both ends, as `tcp 10.0.0.1:5000 10.0.0.2:80`, or a line of `ss -tn` or `conntrack -L`.
    flow: String,
    /// Interface to look on; all that are up without it.
    dev: Option<String>,
    /// Features at the decision that are known better: `packet_bytes=1448,segments=1`.
    features: Option<String>,
}

/// By which path a live flow got its band, as `treeline explain` tells it.
#[utoipa::path(
    get,
    path = "/v1/explain",
    tag = "look",
    params(Flow),
    responses(
        (status = 200, body = Explanation),
        (status = "default", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn explain_flow(
    State(doors): State<Doors>,
    flow: Result<Query<Flow>, QueryRejection>,
) -> Answer<Explanation> {
    let Query(flow) = flow?;
    let given = flow.features.iter().flat_map(|text| text.split(','));
    let question = Question {
        flow: FlowSpec::parse(&flow.flow)?,
        interface: flow.dev,
        given: given.map(explain::given).collect::<Result<_, _>>()?,
    };
    aside(&doors, move |instance| {
        Ok(explain::explain(instance, &question)?)
    })
    .await
}
