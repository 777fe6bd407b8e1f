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
