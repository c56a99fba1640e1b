//! Errors on the socket: problem details (RFC 9457) that say what to do.

use std::error::Error;

use axum::{
    Json,
    extract::rejection::{BytesRejection, JsonRejection, PathRejection, QueryRejection},
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    datapath::DatapathError, explain::ExplainError, handover::HandoverError, model::LoadError,
};

/// Media type of a [`Problem`].
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// What kind of problem it is; the names stay from release to release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Kind {
    /// The request is not understood.
    #[serde(rename = "urn:treeline:problem:bad-request")]
    BadRequest,
    /// There is no such path, model, flow or interface.
    #[serde(rename = "urn:treeline:problem:not-found")]
    NotFound,
    /// The path has other methods.
    #[serde(rename = "urn:treeline:problem:method-not-allowed")]
    MethodNotAllowed,
    /// It can't be done now; the detail says what stands in the way.
    #[serde(rename = "urn:treeline:problem:conflict")]
    Conflict,
    /// The model is none that can act.
    #[serde(rename = "urn:treeline:problem:bad-model")]
    BadModel,
    /// The configuration is wrong, or could not be taken over as a whole.
    #[serde(rename = "urn:treeline:problem:bad-configuration")]
    BadConfiguration,
    /// The agent failed.
    #[serde(rename = "urn:treeline:problem:failed")]
    Failed,
}

impl Kind {
    const fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict => StatusCode::CONFLICT,
            Self::BadModel | Self::BadConfiguration => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::BadRequest => "the request is not understood",
            Self::NotFound => "there is no such thing",
            Self::MethodNotAllowed => "the path has other methods",
            Self::Conflict => "it can't be done now",
            Self::BadModel => "the model can't act",
            Self::BadConfiguration => "the configuration was not taken over",
            Self::Failed => "the agent failed",
        }
    }
}

/// Why a request was not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The same in words.
    pub title: String,
    /// The status of the response.
    pub status: u16,
    /// What is wrong in this case, and what to do about it.
    pub detail: String,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            title: kind.title().to_owned(),
            status: kind.status().as_u16(),
            detail: detail.into(),
        }
    }

    /// The same of an error and its causes.
    pub fn of(kind: Kind, error: &dyn Error) -> Self {
        let mut detail = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !detail.ends_with(&text) {
                detail.push_str(": ");
                detail.push_str(&text);
            }
            cause = error.source();
        }
        Self::new(kind, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.kind.status();
        let mut response = (status, Json(self)).into_response();
        let media_type = HeaderValue::from_static(MEDIA_TYPE);
        response.headers_mut().insert(CONTENT_TYPE, media_type);
        response
    }
}

macro_rules! rejections {
    ($($rejection:ident),+) => {
        $(impl From<$rejection> for Problem {
            fn from(rejection: $rejection) -> Self {
                Self::new(
                    Kind::BadRequest,
                    format!("{}; /v1/openapi.json describes every request", rejection.body_text()),
                )
            }
        })+
    };
}

rejections!(BytesRejection, JsonRejection, PathRejection, QueryRejection);

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        let kind = match &error {
            LoadError::NoSuch { .. } | LoadError::NoSuchName { .. } => Kind::NotFound,
            LoadError::Read { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Kind::NotFound
            }
            LoadError::Read { .. } => Kind::Failed,
            _ => Kind::BadModel,
        };
        Self::of(kind, &error)
    }
}

impl From<HandoverError> for Problem {
    fn from(error: HandoverError) -> Self {
        match error {
            HandoverError::Load(error) => error.into(),
            error @ (HandoverError::Compile { .. } | HandoverError::Deploy(_)) => {
                Self::of(Kind::BadModel, &error)
            }
            error @ (HandoverError::NothingActs
            | HandoverError::NoParent { .. }
            | HandoverError::ActsAlready { .. }) => Self::of(Kind::Conflict, &error),
            error @ (HandoverError::Save(_) | HandoverError::Datapath(_)) => {
                Self::of(Kind::Failed, &error)
            }
        }
    }
}

impl From<DatapathError> for Problem {
    fn from(error: DatapathError) -> Self {
        Self::of(Kind::Failed, &error)
    }
}

impl From<ExplainError> for Problem {
    fn from(error: ExplainError) -> Self {
        let kind = match &error {
            ExplainError::NoFlow(_) | ExplainError::NoFeature { .. } => Kind::BadRequest,
            ExplainError::NotUp { .. } | ExplainError::NotFound { .. } => Kind::NotFound,
            ExplainError::NotLoaded => Kind::Conflict,
            _ => Kind::Failed,
        };
        Self::of(kind, &error)
    }
}
