//! The description and the server, without a kernel: what is described answers, and nothing else does.

use std::collections::BTreeSet;

use axum::{
    body::Body,
    http::{Request, header::CONTENT_TYPE},
};
use bed::openapi::{Answer, Description, METHODS, Operation};
use tokio::sync::mpsc;
use tower::ServiceExt as _;

use super::{Doors, NotReloaded, Reload, description, routes};
use crate::{
    dataset::services::{self, Services},
    instance::Instance,
    learning::{Ask, Began},
};

/// A server whose agent has seen nothing, with tasks that answer.
fn doors() -> Doors {
    let (learner, mut asked) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(ask) = asked.recv().await {
            match ask {
                Ask::Train(answer) => answer.send(Began::Now { rows: 7 }).unwrap(),
                Ask::Services(answer) => answer
                    .send(Services {
                        schema: services::SCHEMA,
                        rows: 0,
                        needed_rows: 500,
                        window_ms: 0,
                        sample_one_in: 1,
                        acting: None,
                        shadow: None,
                        services: Vec::new(),
                    })
                    .unwrap(),
            }
        }
    });
    let (reload, mut asked) = mpsc::channel::<Reload>(1);
    tokio::spawn(async move {
        while let Some(answer) = asked.recv().await {
            answer.send(Err(NotReloaded("line 1".to_owned()))).unwrap();
        }
    });
    Doors {
        instance: Instance::new("nobody-ever-runs-this").unwrap(),
        learner,
        reload,
    }
}

async fn ask(method: &str, target: &str, body: &str) -> Answer {
    let request = Request::builder()
        .method(method.to_uppercase().as_str())
        .uri(target)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_owned()))
        .unwrap();
    let response = routes::router(doors()).oneshot(request).await.unwrap();
    let content_type = response.headers().get(CONTENT_TYPE);
    Answer {
        status: response.status().as_u16(),
        content_type: content_type.map_or_else(String::new, |it| it.to_str().unwrap().to_owned()),
        body: axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .unwrap()
            .to_vec(),
    }
}

fn described() -> Description {
    Description::new(serde_json::to_value(description()).unwrap()).unwrap()
}

/// A request that fills the parameters of a path.
fn target(path: &str) -> String {
    let path = path.replace("{generation}", "1");
    match path.as_str() {
        "/v1/explain" => format!("{path}?flow=tcp%2010.0.0.1:5000%2010.0.0.2:80"),
        _ => path,
    }
}

#[tokio::test]
async fn what_is_described_answers_as_described_and_other_methods_do_not() {
    let described = described();
    let operations = described.operations();
    assert!(operations.len() > 10, "{operations:?}");
    let paths: BTreeSet<&String> = operations.iter().map(|operation| &operation.path).collect();
    for path in paths {
        for method in METHODS {
            let operation = Operation {
                path: path.clone(),
                method: method.to_owned(),
            };
            let answer = ask(method, &target(path), "{}").await;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            if operations.contains(&operation) {
                assert_ne!(answer.status, 405, "{operation:?}: {text}");
                assert!(!text.contains("nothing is served"), "{operation:?}: {text}");
                described
                    .check(&operation, &answer)
                    .unwrap_or_else(|error| panic!("{error:#}: {text}"));
            } else {
                assert_eq!(answer.status, 405, "{operation:?}: {text}");
                assert_eq!(answer.content_type, "application/problem+json");
            }
        }
    }
}

#[test]
fn every_route_goes_through_the_description() {
    let source = concat!(
        include_str!("routes/mod.rs"),
        include_str!("routes/look.rs"),
        include_str!("routes/change.rs")
    );
    assert!(!source.contains(".route("), "a route that nobody describes");
    let handlers = source.matches("#[utoipa::path(").count();
    assert_eq!(handlers, described().operations().len());
}

#[tokio::test]
async fn every_error_says_what_to_do() {
    for (method, target, body, status, told) in [
        ("get", "/", "", 404, "/v1/openapi.json"),
        ("get", "/v2/status", "", 404, "/v1/openapi.json"),
        ("delete", "/v1/status", "", 405, "DELETE"),
        ("get", "/v1/models/first", "", 400, "openapi.json"),
        ("get", "/v1/models/7", "", 404, "there are none yet"),
        (
            "get",
            "/v1/models/acting",
            "",
            404,
            "learns one from traffic",
        ),
        (
            "get",
            "/v1/models/7?rule=true",
            "",
            400,
            "unknown field `rule`",
        ),
        ("get", "/v1/logs?lines=many", "", 400, "lines"),
        ("get", "/v1/decisions?lines=10001", "", 400, "at most 10000"),
        ("get", "/v1/explain", "", 400, "flow"),
        ("get", "/v1/explain?flow=x", "", 400, "conntrack -L"),
        (
            "get",
            "/v1/explain?flow=x&features=y",
            "",
            400,
            "conntrack -L",
        ),
        ("post", "/v1/models/rollback", "{", 400, "openapi.json"),
        (
            "post",
            "/v1/models/rollback",
            r#"{"to":1}"#,
            400,
            "unknown field `to`",
        ),
        (
            "post",
            "/v1/models/rollback",
            r#"{"generation":1,"to_aging":true}"#,
            400,
            "contradict",
        ),
        ("post", "/v1/models/rollback", "{}", 409, "treeline run"),
        ("post", "/v1/models", "{}", 409, "treeline run"),
        ("post", "/v1/reload", "", 422, "line 1"),
    ] {
        let answer = ask(method, target, body).await;
        let problem = answer.json().unwrap();
        assert_eq!(answer.status, status, "{method} {target}: {problem}");
        assert_eq!(answer.content_type, "application/problem+json");
        assert_eq!(problem["status"], status);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(told), "{method} {target}: {detail}");
        let kind = problem["type"].as_str().unwrap();
        assert!(kind.starts_with("urn:treeline:problem:"), "{kind}");
    }
}

#[tokio::test]
async fn a_task_that_has_ended_is_no_hanging_question() {
    let (learner, _) = mpsc::channel(1);
    let (reload, _) = mpsc::channel(1);
    let doors = Doors {
        learner,
        reload,
        ..doors()
    };
    let request = Request::post("/v1/train").body(Body::empty()).unwrap();
    let response = routes::router(doors).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 409);
}
