//! Holds the answers of a server to the OpenAPI description that it gives of itself.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

/// Methods that an operation may have, and that a path without it must refuse.
pub const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// An OpenAPI 3.1 description.
#[derive(Debug)]
pub struct Description(Value);

/// A method of a path.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Operation {
    /// The path, with its parameters in braces.
    pub path: String,
    /// The method, in lower case.
    pub method: String,
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The media type.
    pub content_type: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body)
            .with_context(|| format!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }
}

impl Description {
    /// Takes it from what `/v1/openapi.json` holds.
    ///
    /// # Errors
    ///
    /// When it is no description of version 3.1.
    pub fn new(value: Value) -> Result<Self> {
        let version = value["openapi"].as_str().unwrap_or_default();
        ensure!(version.starts_with("3.1"), "no OpenAPI 3.1: {value}");
        Ok(Self(value))
    }

    /// Everything that is described.
    #[must_use]
    pub fn operations(&self) -> BTreeSet<Operation> {
        let paths = self.0["paths"].as_object().into_iter().flatten();
        let of_path = |(path, item): (&String, &Value)| {
            let methods = METHODS.iter().filter(|method| item.get(**method).is_some());
            let operations = methods.map(|method| Operation {
                path: path.clone(),
                method: (*method).to_owned(),
            });
            operations.collect::<Vec<_>>()
        };
        paths.flat_map(of_path).collect()
    }

    /// Whether the answer to `operation` is what is described.
    ///
    /// # Errors
    ///
    /// When status or media type are not described, or the body is not as described.
    pub fn check(&self, operation: &Operation, answer: &Answer) -> Result<()> {
        let described = &self.0["paths"][&operation.path][&operation.method];
        let responses = &described["responses"];
        let response = match responses.get(answer.status.to_string()) {
            Some(response) => response,
            // What is not described is a problem.
            None if answer.status >= 400 => &responses["default"],
            None => bail!("{operation:?} does not describe status {}", answer.status),
        };
        let media_type = answer.content_type.split(';').next().unwrap_or_default();
        let content = &response["content"][media_type];
        ensure!(
            content.is_object(),
            "{operation:?} does not describe {} with {media_type}: {}",
            answer.status,
            String::from_utf8_lossy(&answer.body)
        );
        self.validate(&content["schema"], &answer.json()?)
            .with_context(|| format!("{operation:?}, status {}", answer.status))
    }

    /// Whether a body that is sent to `operation` is what is described.
    ///
    /// # Errors
    ///
    /// When none is described, or another one.
    pub fn check_request(&self, operation: &Operation, body: &Value) -> Result<()> {
        let described = &self.0["paths"][&operation.path][&operation.method];
        let schema = &described["requestBody"]["content"]["application/json"]["schema"];
        ensure!(schema.is_object(), "{operation:?} describes no body");
        self.validate(schema, body)
    }

    fn validate(&self, schema: &Value, value: &Value) -> Result<()> {
        // References lead to the components, so the schema stands beside them.
        let whole = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "components": self.0["components"],
            "allOf": [schema],
        });
        let validator = jsonschema::validator_for(&whole).context("the schema is none")?;
        let faults: Vec<String> = validator
            .iter_errors(value)
            .take(5)
            .map(|fault| format!("{}: {fault}", fault.instance_path()))
            .collect();
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> Description {
        let schema = json!({ "$ref": "#/components/schemas/It" });
        let ok = json!({ "content": { "application/json": { "schema": schema } } });
        Description::new(json!({
            "openapi": "3.1.0",
            "paths": { "/it": { "get": { "responses": { "200": ok } } } },
            "components": { "schemas": { "It": {
                "type": "object", "required": ["number"],
                "properties": { "number": { "type": "integer" } },
            } } },
        }))
        .unwrap()
    }

    #[test]
    fn what_is_not_described_is_found() {
        let description = description();
        let operations = description.operations();
        let [operation] = &operations.into_iter().collect::<Vec<_>>()[..] else {
            panic!("one operation");
        };
        let answer = |status, content_type: &str, body: &str| Answer {
            status,
            content_type: content_type.to_owned(),
            body: body.as_bytes().to_vec(),
        };
        let fine = answer(200, "application/json", r#"{"number": 1}"#);
        description.check(operation, &fine).unwrap();
        for wrong in [
            answer(201, "application/json", r#"{"number": 1}"#),
            answer(500, "application/json", r#"{"number": 1}"#),
            answer(200, "text/plain", r#"{"number": 1}"#),
            answer(200, "application/json", r#"{"number": "1"}"#),
            answer(200, "application/json", "{}"),
            answer(200, "application/json", "{"),
        ] {
            let told = format!("{wrong:?} is not as described");
            description.check(operation, &wrong).expect_err(&told);
        }
    }
}
