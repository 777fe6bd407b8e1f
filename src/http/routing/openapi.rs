//! `/openapi.json`: the table of endpoints as an `OpenAPI` 3.1 document, for one listener.
//!
//! Nothing of it is written twice: operations come from the table, schemas from the types, bounds from the
//! configuration.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use warp::http::StatusCode;

use crate::config::Limits;
use crate::http::context::App;
use crate::http::endpoint::{Auth, Endpoint, Param, parameter};
use crate::http::listener_kind::ListenerKind;
use crate::http::request::query::{PAGE_BYTES_MAX, PAGE_BYTES_MIN, Parameter};
use crate::http::response::problem::Code;
use crate::http::response::reply::Reply;
use crate::http::routing::schemas;
use crate::http::session::schedule::HEARTBEAT_S_MAX;

/// The greatest whole number that every JSON parser reads exactly.
const EXACT_MAX: u64 = (1 << 53) - 1;

/// Tags, each with what its operations are about, and what is in the paths of the operations that have it. The first
/// that fits counts.
const TAGS: &[(&str, &str, &str)] = &[
    (
        "Inbox",
        "/inbox",
        "What comes for a user, live, after a cursor",
    ),
    (
        "Conversations",
        "/conversations",
        "Lists of conversations and groups",
    ),
    ("Messages", "/messages", "Messages and histories"),
    ("Groups", "/groups", "Groups and their members"),
    ("Tokens", "/tokens", "Tokens for an app's clients"),
    ("Presence", "/presence", "Who is connected"),
    ("Operations", "/", "What the server is doing"),
];

/// The document, made once.
pub(in crate::http) fn reply(
    app: &App,
    kind: ListenerKind,
    endpoints: impl Iterator<Item = &'static Endpoint>,
) -> Reply {
    let made = app.document(kind);
    let text = made.get_or_init(|| document(kind, endpoints, &app.limits).to_string().into());
    Reply::parts(StatusCode::OK, vec![text.clone()])
}

fn document(
    kind: ListenerKind,
    endpoints: impl Iterator<Item = &'static Endpoint>,
    limits: &Limits,
) -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for endpoint in endpoints {
        let verb = endpoint.verb.name().to_lowercase();
        paths
            .entry(endpoint.path)
            .or_default()
            .insert(verb, operation(endpoint, limits));
    }
    let paths = json!(paths);
    let address = match kind {
        ListenerKind::Client => "http://127.0.0.1:8100",
        ListenerKind::Admin => "http://127.0.0.1:8000",
    };
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": format!("Halley, {} listener", kind.name()),
            "version": env!("CARGO_PKG_VERSION"),
            "description": env!("CARGO_PKG_DESCRIPTION").to_owned() + ". Every refusal is \
                `application/problem+json` with a stable `code`. Unknown query parameters are \
                ignored; of a repeated one the first counts.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
            "contact": { "name": "Whoever runs this server" },
        },
        "servers": [
            { "url": "/", "description": "The listener that served this document" },
            { "url": address, "description": "The default address" },
        ],
        "tags": tags(&paths),
        "components": { "schemas": used_schemas(&paths), "securitySchemes": security(kind) },
        "paths": paths,
    })
}

/// How a caller says who it is.
fn security(kind: ListenerKind) -> Value {
    let bearer = |about| json!({ "type": "http", "scheme": "bearer", "description": about });
    match kind {
        ListenerKind::Client => json!({
            "bearer": bearer("A user token (JWT) with `sub`, `exp` and optionally `send`."),
            "query": { "type": "apiKey", "in": "query", "name": "token",
                "description": "The user token, where a browser cannot set headers." },
        }),
        ListenerKind::Admin => json!({ "bearer": bearer("The admin key.") }),
    }
}

fn tag(path: &str) -> &'static str {
    let fits = |(_, part, _): &&(_, &str, _)| path.contains(part);
    TAGS.iter().find(fits).map_or("", |(name, ..)| *name)
}

/// The tags that some operation has.
fn tags(paths: &Value) -> Vec<Value> {
    let used: BTreeSet<&str> = paths
        .as_object()
        .into_iter()
        .flat_map(Map::keys)
        .map(|path| tag(path))
        .collect();
    TAGS.iter()
        .filter(|(name, ..)| used.contains(name))
        .map(|(name, _, about)| json!({ "name": name, "description": about }))
        .collect()
}

/// The schemas that the paths refer to, and what these refer to.
fn used_schemas(paths: &Value) -> Map<String, Value> {
    let mut all = schemas::all();
    let mut used = Map::new();
    let mut wanted = Vec::new();
    refs(paths, &mut wanted);
    while let Some(target) = wanted.pop() {
        let name = target.rsplit('/').next().unwrap_or_default();
        if let Some(schema) = all.remove(name) {
            refs(&schema, &mut wanted);
            used.insert(name.to_owned(), schema);
        }
    }
    used
}

/// Where the references in a value lead to.
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

fn operation(endpoint: &Endpoint, limits: &Limits) -> Value {
    let mut operation = Map::new();
    operation.insert("operationId".into(), endpoint.name.into());
    operation.insert("tags".into(), json!([tag(endpoint.path)]));
    operation.insert("summary".into(), endpoint.summary.into());
    let about = format!("{}.", endpoint.summary);
    operation.insert("description".into(), about.into());
    let parameters = parameters(endpoint, limits);
    operation.insert("parameters".into(), parameters.into());
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
pub(in crate::http) const SOCKET: &str = "WebSocket";

fn media_type(schema: &str) -> &'static str {
    match schema {
        "Events" => "text/event-stream",
        "Lines" => "application/x-ndjson",
        _ => "application/json",
    }
}

fn content(kind: &str, schema: &str) -> Value {
    json!({ kind: { "schema": reference(schema) } })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn parameters(endpoint: &Endpoint, limits: &Limits) -> Vec<Value> {
    let in_path = endpoint.path.split('/').filter_map(parameter).map(|name| {
        let schema = match name {
            "id" => whole(1, EXACT_MAX),
            "sequence" => reference("Sequence"),
            _ => reference("Name"),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let in_query = endpoint.query.iter().map(|param| {
        json!({ "name": param.parameter.name(), "in": "query", "description": param.about,
            "schema": query_schema(param, limits) })
    });
    let in_header =
        endpoint.refuses.contains(&Code::IdempotencyConflict) || endpoint.takes == Some("PushMany");
    let key = in_header.then(|| {
        json!({ "name": "Idempotency-Key", "in": "header",
            "description": "A retry under the same key is stored once. For an array, item `i` has the key \
                `KEY/i`.",
            "schema": reference("IdempotencyKey") })
    });
    in_path.chain(in_query).chain(key).collect()
}

/// What a query parameter may be.
fn query_schema(param: &Param, limits: &Limits) -> Value {
    let whole_max = |most: usize| whole(1, u64::try_from(most).unwrap_or(EXACT_MAX));
    match (param.parameter, param.number) {
        (Parameter::Limit, _) => whole_max(limits.page_messages_max),
        (Parameter::Wait, _) => whole(0, limits.poll_wait_max.as_secs()),
        (Parameter::Heartbeat, _) => whole(5, HEARTBEAT_S_MAX),
        (Parameter::PageBytes, _) => whole(PAGE_BYTES_MIN, PAGE_BYTES_MAX),
        (Parameter::Before | Parameter::After, true) => whole(0, u64::MAX),
        (Parameter::Before, false) => reference("Place"),
        (Parameter::After | Parameter::LastEventId, _) => reference("After"),
        (Parameter::Refusals, _) => json!({ "type": "string", "enum": ["event"] }),
        (Parameter::Token, _) => json!({ "type": "string" }),
    }
}

fn whole(least: u64, most: u64) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most })
}

fn responses(endpoint: &Endpoint) -> Value {
    let mut responses: BTreeMap<String, Value> = BTreeMap::new();
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
        responses.insert(status.to_string(), response);
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
        responses.insert(status.to_string(), response);
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
    let mut in_path = endpoint.path.split('/').filter_map(parameter);
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
    use std::time::Duration;

    use super::*;
    use crate::http::routing::table;

    fn documents() -> [Value; 2] {
        let limits = Limits {
            body_bytes_max: 1,
            request_bytes_max: 1,
            queue_bytes_max: 1,
            page_messages_max: 7,
            poll_wait_max: Duration::from_secs(8),
            waiters_per_user_max: 1,
            requests_per_user_max: 1,
            connections_per_address_max: None,
            connections_max: 1,
            icomet_channels_max: 1,
        };
        [ListenerKind::Client, ListenerKind::Admin]
            .map(|kind| document(kind, table::of(kind), &limits))
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_used() {
        let mut used = BTreeSet::new();
        for document in documents() {
            let mut found = Vec::new();
            refs(&document, &mut found);
            for target in &found {
                let pointer = target.trim_start_matches('#');
                assert!(document.pointer(pointer).is_some(), "{target}");
            }
            let schemas = document["components"]["schemas"].as_object().unwrap();
            for name in schemas.keys() {
                let target = format!("#/components/schemas/{name}");
                assert!(found.contains(&target), "{name} is unused");
            }
            used.extend(schemas.keys().cloned());
        }
        let all: BTreeSet<_> = schemas::all().keys().cloned().collect();
        assert_eq!(used, all, "each is for some endpoint");
    }

    #[test]
    fn every_endpoint_is_in_the_document_under_a_name_of_its_own() {
        for (kind, document) in [ListenerKind::Client, ListenerKind::Admin]
            .into_iter()
            .zip(documents())
        {
            let mut names = BTreeSet::new();
            let mut listed = 0;
            for endpoint in table::of(kind) {
                let verb = endpoint.verb.name().to_lowercase();
                let operation = &document["paths"][endpoint.path][&verb];
                assert!(operation.is_object(), "{verb} {}", endpoint.path);
                assert!(!endpoint.gives.is_empty(), "{}", endpoint.path);
                assert!(names.insert(endpoint.name), "{}", endpoint.name);
                assert_ne!(endpoint.name, "", "{verb} {}", endpoint.path);
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

    #[test]
    fn every_parameter_has_bounds_and_those_of_options_are_what_is_configured() {
        let [client, _] = documents();
        for (path, name, most) in [("/v1/inbox", "limit", 7), ("/v1/inbox", "wait", 8)] {
            let parameters = client["paths"][path]["get"]["parameters"].as_array();
            let named = |one: &&Value| one["name"] == name;
            let parameter = parameters.unwrap().iter().find(named).unwrap();
            assert_eq!(parameter["schema"]["maximum"], most, "{name}");
        }
        for document in documents() {
            for item in document["paths"].as_object().unwrap().values() {
                for operation in item.as_object().unwrap().values() {
                    for parameter in operation["parameters"].as_array().unwrap() {
                        let schema = parameter["schema"].as_object().unwrap();
                        let bounds = ["$ref", "maximum", "enum", "pattern"];
                        let bound = bounds.iter().any(|key| schema.contains_key(*key));
                        assert!(bound, "{parameter}");
                    }
                }
            }
        }
    }
}
