//! The document and the server agree.

use serde_json::Value;

use crate::support::TestServer;

const VERBS: [&str; 4] = ["get", "post", "put", "delete"];

pub(crate) async fn operations(server: &TestServer, admin: bool) -> Vec<(String, String, Value)> {
    let mut http = if admin {
        server.connect_admin().await
    } else {
        server.connect().await
    };
    let reply = http.request("GET", "/openapi.json", &[], "").await;
    assert_eq!(reply.status, 200);
    let document = reply.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (verb, operation) in item.as_object().unwrap() {
            found.push((verb.clone(), path.clone(), operation.clone()));
        }
    }
    found
}

fn filled(path: &str) -> String {
    let parts = path.split('/').map(|part| match part {
        "{sequence}" => "direct",
        "{id}" => "1",
        part if part.starts_with('{') => "somebody",
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_listed_operation_answers_and_every_other_method_is_refused() {
    let server = TestServer::start().await;
    for admin in [false, true] {
        let operations = operations(&server, admin).await;
        assert!(operations.len() >= 9);
        for (_, path, _) in &operations {
            for verb in VERBS {
                let mut http = if admin {
                    server.connect_admin().await
                } else {
                    server.connect().await
                };
                let reply = http
                    .request(&verb.to_uppercase(), &filled(path), &[], "")
                    .await;
                let listed = operations
                    .iter()
                    .any(|(other, at, _)| other == verb && at == path);
                assert_eq!(reply.status != 405, listed, "{verb} {path}: {reply:?}");
                assert_ne!(reply.status, 404, "{verb} {path}");
                if !listed {
                    let allow = reply.header("allow").expect("405 says what is allowed");
                    assert!(!allow.contains(&verb.to_uppercase()), "{allow}");
                }
            }
        }
    }
}

#[tokio::test]
async fn what_needs_a_bearer_says_so_and_refuses_without() {
    let server = TestServer::start().await;
    for admin in [false, true] {
        for (verb, path, operation) in operations(&server, admin).await {
            let mut http = if admin {
                server.connect_admin().await
            } else {
                server.connect().await
            };
            let reply = http
                .request(&verb.to_uppercase(), &filled(&path), &[], "")
                .await;
            let open = operation["security"].as_array().unwrap().is_empty();
            assert_eq!(reply.status == 401, !open, "{verb} {path}");
            assert_eq!(
                operation["responses"].get("401").is_some(),
                !open,
                "{verb} {path}"
            );
        }
    }
}

/// Whether a value is as a schema says, with no field that the schema does not know.
fn fits(document: &Value, schema: &Value, value: &Value) -> bool {
    if let Some(target) = schema["$ref"].as_str() {
        let target = document.pointer(target.trim_start_matches('#')).unwrap();
        return fits(document, target, value);
    }
    for any in ["oneOf", "anyOf"] {
        if let Some(all) = schema[any].as_array() {
            return all.iter().any(|one| fits(document, one, value));
        }
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let listed = schema["enum"]
        .as_array()
        .is_none_or(|all| all.contains(value));
    let same = schema.get("const").is_none_or(|only| only == value);
    let typed = schema["type"].as_str().is_none_or(|wanted| wanted == kind);
    let items = value.as_array().into_iter().flatten();
    let mut items = items.map(|item| fits(document, &schema["items"], item));
    let fields = value.as_object().into_iter().flatten();
    let mut fields = fields.map(|(name, field)| match &schema["properties"][name] {
        Value::Null if schema["type"] == "object" => {
            let others = &schema["additionalProperties"];
            others.is_object() && fits(document, others, field)
        }
        // Any JSON.
        Value::Null => true,
        known => fits(document, known, field),
    });
    let required = schema["required"].as_array().into_iter().flatten();
    let mut required = required.map(|name| value.get(name.as_str().unwrap()).is_some());
    listed
        && same
        && typed
        && items.all(|fit| fit)
        && fields.all(|fit| fit)
        && required.all(|is| is)
}

/// Verb, path as in the document, path as asked for, body.
type Operation = (&'static str, &'static str, &'static str, &'static str);

const MANY: &str = r#"[{"to":"bob","from":"ann","body":{"a":[1]}},{"to":"bob","body":1}]"#;
const BACKEND_CALLS: &[Operation] = &[
    (
        "put",
        "/v1/groups/{group}",
        "/v1/groups/team",
        r#"{"members":["bob"]}"#,
    ),
    (
        "put",
        "/v1/groups/{group}",
        "/v1/groups/quiet",
        r#"{"members":["bob"]}"#,
    ),
    ("get", "/v1/groups/{group}", "/v1/groups/team", ""),
    ("post", "/v1/messages", "/v1/messages", MANY),
    (
        "post",
        "/v1/groups/{group}/messages",
        "/v1/groups/team/messages",
        r#"{"from":"ann","body":1}"#,
    ),
    (
        "post",
        "/v1/direct/{to}/messages",
        "/v1/direct/../messages",
        r#"{"from":"ann","body":1}"#,
    ),
    (
        "get",
        "/v1/messages/{sequence}/{id}",
        "/v1/messages/group/1",
        "",
    ),
    (
        "get",
        "/v1/messages/{sequence}/{id}",
        "/v1/messages/group/2",
        "",
    ),
    (
        "get",
        "/v1/users/{user}/conversations",
        "/v1/users/bob/conversations?limit=1",
        "",
    ),
    ("get", "/v1/users/{user}/inbox", "/v1/users/bob/inbox", ""),
    (
        "post",
        "/v1/tokens",
        "/v1/tokens",
        r#"{"user":"bob","ttl_s":3600.0}"#,
    ),
    (
        "delete",
        "/v1/groups/{group}/members/{user}",
        "/v1/groups/team/members/bob",
        "",
    ),
    ("delete", "/v1/groups/{group}", "/v1/groups/quiet", ""),
    (
        "get",
        "/v1/users/{user}/presence",
        "/v1/users/bob/presence",
        "",
    ),
    ("get", "/v1/status", "/v1/status", ""),
    ("get", "/healthz", "/healthz", ""),
];
const USER_CALLS: &[Operation] = &[
    ("get", "/v1/inbox", "/v1/inbox", ""),
    ("get", "/v1/inbox", "/v1/inbox?after=99.99", ""),
    ("get", "/v1/inbox", "/v1/inbox?after=1.1.00000000", ""),
    ("get", "/v1/inbox", "/v1/inbox?limit=0", ""),
    ("get", "/v1/inbox/ws", "/v1/inbox/ws", ""),
    (
        "get",
        "/v1/direct/{peer}/messages",
        "/v1/direct/ann/messages",
        "",
    ),
    (
        "get",
        "/v1/direct/{peer}/messages",
        "/v1/direct/ann/messages?after=99",
        "",
    ),
    (
        "post",
        "/v1/direct/{peer}/messages",
        "/v1/direct/ann/messages",
        r#"{"body":null}"#,
    ),
    ("get", "/v1/conversations", "/v1/conversations", ""),
    (
        "get",
        "/v1/groups/{group}/messages",
        "/v1/groups/none/messages",
        "",
    ),
];

#[tokio::test]
async fn replies_are_as_the_document_says() {
    let server = TestServer::start().await;
    let mut held = server.poll_held("bob").await;
    for (is_admin, calls) in [(true, BACKEND_CALLS), (false, USER_CALLS)] {
        let ask = async |method: &str, path: &str, body: &str| {
            if is_admin {
                server.as_admin(method, path, body).await
            } else {
                server.as_user("bob", method, path, body).await
            }
        };
        let document = ask("GET", "/openapi.json", "").await.json();
        for (verb, form, path, body) in calls {
            let method = verb.to_uppercase();
            let reply = ask(&method, path, body).await;
            let responses = &document["paths"][form][verb]["responses"];
            let response = &responses[reply.status.to_string()];
            let kind = reply.header("content-type").unwrap();
            let schema = &response["content"][kind]["schema"];
            assert!(schema.is_object(), "{method} {path}: {reply:?}");
            let value = reply.json();
            assert!(fits(&document, schema, &value), "{method} {path}: {value}");
        }
    }
    assert_eq!(held.reply().await.status, 200);
}

#[tokio::test]
async fn a_body_where_a_path_has_no_get_does_not_hide_that() {
    let server = TestServer::start().await;
    for (path, status) in [
        ("/v1/messages", 405),
        ("/v1/tokens", 405),
        ("/v1/status", 400),
        ("/no", 404),
    ] {
        let reply = server.as_admin("GET", path, "{}").await;
        assert_eq!(reply.status, status, "{path}: {reply:?}");
    }
}
