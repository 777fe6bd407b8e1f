//! `/openapi.json`: the table of endpoints as an `OpenAPI` 3.1 document, for one listener.
//!
//! Only the schemas are written by hand (`schemas.json`); everything else comes from the table.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use warp::http::StatusCode;

use super::app::Face;
use super::endpoint::{Auth, Endpoint};
use super::endpoints;
use super::reply::{Code, Reply};

/// The document, made once.
pub(super) fn reply(face: Face) -> Reply {
    static CLIENT: OnceLock<Bytes> = OnceLock::new();
    static ADMIN: OnceLock<Bytes> = OnceLock::new();
    let made = match face {
        Face::Client => &CLIENT,
        Face::Admin => &ADMIN,
    };
    let text = made.get_or_init(|| document(face).to_string().into());
    Reply::parts(StatusCode::OK, vec![text.clone()])
}

fn document(face: Face) -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for endpoint in endpoints::of(face) {
        let verb = endpoint.verb.name().to_lowercase();
        paths
            .entry(endpoint.path)
            .or_default()
            .insert(verb, operation(endpoint));
    }
    let bearer = match face {
        Face::Client => "A user token (JWT) with `sub`, `exp` and optionally `send`.",
        Face::Admin => "The admin key.",
    };
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": format!("Halley, {} listener", face.name()),
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Push and instant messages over held requests. Every refusal is \
                `application/problem+json` with a stable `code`. Unknown query parameters are \
                ignored; of a repeated one the first counts.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer", "description": bearer },
                "query": { "type": "apiKey", "in": "query", "name": "token",
                    "description": "The user token, where a browser cannot set headers." },
            },
        },
    })
}

fn schemas() -> Value {
    serde_json::from_str(include_str!("schemas.json")).expect("a test reads the embedded schemas")
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut operation = Map::new();
    operation.insert("summary".into(), endpoint.summary.into());
    operation.insert("parameters".into(), parameters(endpoint).into());
    if let Some(schema) = endpoint.takes {
        let body = json!({ "required": true, "content": content("application/json", schema) });
        operation.insert("requestBody".into(), body);
    }
    operation.insert("responses".into(), responses(endpoint));
    let security = match endpoint.auth {
        Auth::Nobody => json!([]),
        Auth::User => json!([{ "bearer": [] }, { "query": [] }]),
        Auth::Key => json!([{ "bearer": [] }]),
    };
    operation.insert("security".into(), security);
    Value::Object(operation)
}

/// What is given where the reply is a WebSocket.
pub(super) const SOCKET: &str = "WebSocket";

fn media_type(schema: &str) -> &'static str {
    match schema {
        "Events" => "text/event-stream",
        "Lines" => "application/x-ndjson",
        _ => "application/json",
    }
}

fn content(kind: &str, schema: &str) -> Value {
    json!({ kind: { "schema": { "$ref": format!("#/components/schemas/{schema}") } } })
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let in_path = endpoint
        .path
        .split('/')
        .filter_map(endpoints::parameter)
        .map(|name| {
            let schema = match name {
                "id" => json!({ "type": "integer", "minimum": 1 }),
                "sequence" => json!({ "type": "string", "enum": ["direct", "group"] }),
                _ => json!({ "$ref": "#/components/schemas/Name" }),
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        });
    let in_query = endpoint.query.iter().map(|param| {
        let schema = json!({ "type": if param.number { "integer" } else { "string" } });
        json!({ "name": param.name, "in": "query", "description": param.about, "schema": schema })
    });
    let in_header =
        endpoint.refuses.contains(&Code::IdempotencyConflict) || endpoint.takes == Some("PushMany");
    let key = in_header.then(|| {
        json!({ "name": "Idempotency-Key", "in": "header",
            "description": "1 to 255 printable ASCII characters: a retry under the same key is \
                stored once. For an array, item `i` has the key `KEY/i`.",
            "schema": { "type": "string", "minLength": 1, "maxLength": 255 } })
    });
    in_path.chain(in_query).chain(key).collect()
}

fn responses(endpoint: &Endpoint) -> Value {
    let mut responses: BTreeMap<u16, Value> = BTreeMap::new();
    for (status, schema) in endpoint.gives {
        let about = match (status, endpoint.gives.len()) {
            (201, _) => "Made",
            (200, 2..) => "It was there already",
            _ => "Done",
        };
        let response = match *schema {
            SOCKET => {
                json!({ "description": "A WebSocket. From the server an InboxPage a frame, or an \
                answer; from the client `{\"send\":…}` or `{\"token\":…}`, with a `ref` of its own." })
            }
            schema => {
                json!({ "description": about, "content": content(media_type(schema), schema) })
            }
        };
        responses.insert(*status, response);
    }
    let mut refusals: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes(endpoint) {
        refusals
            .entry(code.status().as_u16())
            .or_default()
            .push(code);
    }
    for (status, codes) in refusals {
        let lines: Vec<String> = codes
            .iter()
            .map(|code| format!("`{}`: {}", code.text(), code.title()))
            .collect();
        let response = json!({
            "description": lines.join("; "),
            "content": content("application/problem+json", "Problem"),
            "x-codes": codes.iter().map(|code| code.text()).collect::<Vec<_>>(),
        });
        responses.insert(status, response);
    }
    json!(responses)
}

/// What an endpoint may refuse with: what its row implies, and what it names.
fn codes(endpoint: &Endpoint) -> Vec<Code> {
    let mut codes = endpoint.refuses.to_vec();
    codes.extend([Code::BadRequest, Code::Internal, Code::TooManyConnections]);
    match endpoint.auth {
        Auth::Nobody => {}
        Auth::User => codes.extend([
            Code::Unauthorized,
            Code::TokenExpired,
            Code::TooManyRequests,
        ]),
        Auth::Key => codes.push(Code::Unauthorized),
    }
    let mut in_path = endpoint.path.split('/').filter_map(endpoints::parameter);
    if in_path.any(|name| !matches!(name, "id" | "sequence")) {
        codes.push(Code::BadName);
    }
    if !endpoint.query.is_empty() {
        codes.push(Code::BadQuery);
    }
    if endpoint.takes.is_some() {
        codes.extend([
            Code::BadJson,
            Code::BodyTooLarge,
            Code::RequestTimeout,
            Code::ContentCoding,
            Code::TransferCoding,
        ]);
    }
    codes.sort_unstable();
    codes.dedup();
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refs(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value.as_str() {
                        Some(target) if name == "$ref" => found.push(target.to_owned()),
                        _ => refs(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| refs(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_used() {
        let mut used = Vec::new();
        for face in [Face::Client, Face::Admin] {
            let document = document(face);
            let mut found = Vec::new();
            refs(&document, &mut found);
            for target in &found {
                let pointer = target.trim_start_matches('#');
                assert!(document.pointer(pointer).is_some(), "{target}");
            }
            used.extend(found);
        }
        for name in schemas().as_object().unwrap().keys() {
            assert!(
                used.contains(&format!("#/components/schemas/{name}")),
                "{name} is unused"
            );
        }
    }

    #[test]
    fn every_endpoint_is_in_the_document_and_says_what_it_gives() {
        for face in [Face::Client, Face::Admin] {
            let document = document(face);
            let mut listed = 0;
            for endpoint in endpoints::of(face) {
                let operation =
                    &document["paths"][endpoint.path][endpoint.verb.name().to_lowercase()];
                assert!(
                    operation.is_object(),
                    "{} {}",
                    endpoint.verb.name(),
                    endpoint.path
                );
                assert!(!endpoint.gives.is_empty(), "{}", endpoint.path);
                listed += 1;
            }
            let paths = document["paths"].as_object().unwrap();
            let written: usize = paths
                .values()
                .map(|path| path.as_object().unwrap().len())
                .sum();
            assert_eq!(listed, written, "no method of a path is listed twice");
        }
    }
}
