//! What is refused, and how: by icomet's own words where its clients know them, by Halley's elsewhere.

use halley::config::IcometRules::{Open, Strict};

use super::{Wire, back, front, held, server, server_with};
use crate::support::{KEY, TestServer};

#[tokio::test]
async fn without_the_option_nothing_of_it_is_there() {
    let server = TestServer::start().await;
    for path in [
        "/sub?cname=a",
        "/poll",
        "/stream",
        "/sse",
        "/iframe",
        "/ping",
    ] {
        let (head, body) = front(&server, path).await;
        assert!(head.starts_with("HTTP/1.1 404"), "{path}: {head}");
        assert!(body.contains("\"not_found\""), "{path}: {body}");
    }
    for path in [
        "/push?cname=a&content=x",
        "/pub",
        "/broadcast",
        "/sign",
        "/close",
        "/clear",
        "/info",
        "/check",
        "/psub",
    ] {
        let (head, _) = back(&server, path).await;
        assert!(head.starts_with("HTTP/1.1 404"), "{path}: {head}");
    }
}

#[tokio::test]
async fn each_listener_has_its_own_paths_only() {
    let server = server(Open).await;
    for path in [
        "/push?cname=a&content=x",
        "/sign?cname=a",
        "/psub",
        "/sub/",
        "/Sub",
    ] {
        assert!(
            front(&server, path).await.0.starts_with("HTTP/1.1 404"),
            "{path}"
        );
    }
    for path in ["/sub?cname=a", "/ping", "/push/"] {
        assert!(
            back(&server, path).await.0.starts_with("HTTP/1.1 404"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn other_methods_are_refused_without_a_body() {
    let server = server(Open).await;
    for (address, method, path, status, allow) in [
        (server.client, "POST", "/sub?cname=a", 405, Some("GET")),
        (server.client, "PUT", "/stream?cname=a", 405, Some("GET")),
        (server.client, "DELETE", "/sse", 405, Some("GET")),
        (server.client, "PATCH", "/iframe", 405, Some("GET")),
        (server.client, "HEAD", "/poll?cname=a", 405, Some("GET")),
        (
            server.client,
            "OPTIONS",
            "/sub",
            204,
            Some("GET, HEAD, OPTIONS"),
        ),
        (server.client, "POST", "/ping", 200, None),
        (
            server.admin,
            "PUT",
            "/push?cname=a&content=x",
            405,
            Some("GET, POST"),
        ),
        (
            server.admin,
            "HEAD",
            "/push?cname=a&content=x",
            405,
            Some("GET, POST"),
        ),
        (
            server.admin,
            "HEAD",
            "/close?cname=a",
            405,
            Some("GET, POST"),
        ),
        (
            server.admin,
            "POST",
            "/broadcast?content=x",
            405,
            Some("GET"),
        ),
    ] {
        let mut wire = Wire::connect(address).await;
        wire.send(&format!(
            "{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        ))
        .await;
        let head = wire.head().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}")),
            "{method} {path}: {head}"
        );
        let found = head.lines().find_map(|line| line.strip_prefix("allow: "));
        assert_eq!(found, allow, "{method} {path}");
        let empty = wire.rest().await.is_empty();
        assert_eq!(empty, status != 200, "{method} {path}");
    }
    // Nothing was published by a request that asks for a head only.
    let (_, body) = front(&server, "/sub?cname=a").await;
    assert!(body.contains("\"seq\":1,"), "{body}");
}

#[tokio::test]
async fn under_strict_rules_clients_show_their_own_token() {
    let server = server(Strict).await;
    let bob = TestServer::token("bob");
    let forged = format!("{}x", TestServer::token("a"));
    let wrong = |channel: &str| {
        format!(
            "{{\"type\":\"401\",\"cname\":\"{channel}\",\"seq\":0,\"content\":\"Token error\"}}"
        )
    };
    for (query, channel) in [
        ("cname=a".to_owned(), "a"),
        ("cname=a&token=".to_owned(), "a"),
        (format!("cname=a&token={bob}"), "a"),
        (format!("cname=a&token={forged}"), "a"),
        (format!("cname=a&token=x&token={bob}"), "a"),
    ] {
        for (mode, body) in [
            ("sub", wrong(channel) + "\n"),
            ("stream", wrong(channel) + "\n"),
            ("sse", format!("data: {}\n\n", wrong(channel))),
        ] {
            let (head, found) = front(&server, &format!("/{mode}?{query}")).await;
            assert!(head.starts_with("HTTP/1.1 200 OK\n"), "{query}: {head}");
            assert_eq!(found, body, "{query}");
        }
    }
    let (_, body) = front(&server, "/sub?cname=a&cb=f").await;
    assert_eq!(body, format!("f({});\n", wrong("a")));
    let (_, body) = front(&server, "/iframe?cname=a").await;
    assert!(body.ends_with(&format!(
        "<script>parent.icomet_cb({});</script>\n",
        wrong("a")
    )));
    // Nobody made a channel by asking for it.
    assert_eq!(super::keyed(&server, "/check?cname=a").await, "{}\n");
}

#[tokio::test]
async fn under_strict_rules_backends_show_the_key() {
    let server = server(Strict).await;
    let key = KEY.replace(' ', "+");
    for path in [
        "/push",
        "/pub",
        "/broadcast",
        "/sign",
        "/close",
        "/clear",
        "/info",
        "/check",
        "/psub",
    ] {
        for query in [
            "cname=a&content=x",
            "cname=a&content=x&key=",
            "cname=a&content=x&key=wrong",
        ] {
            let (head, body) = back(&server, &format!("{path}?{query}")).await;
            assert!(head.starts_with("HTTP/1.1 401"), "{path}?{query}: {head}");
            assert!(head.contains("\nserver: icomet 0.2.5\n"), "{head}");
            assert!(body.contains("\"code\":\"unauthorized\""), "{body}");
        }
    }
    // A wrong key in the head is wrong, whatever the query says.
    let mut wire = Wire::connect(server.admin).await;
    for (bearer, status) in [("wrong", 401), (KEY, 200)] {
        wire.send(&format!(
            "GET /push?cname=a&content=x&key={key} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {bearer}\r\n\r\n"
        ))
        .await;
        let (head, _) = wire.reply().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
    let (_, body) = front(
        &server,
        &format!("/sub?cname=a&token={}", TestServer::token("a")),
    )
    .await;
    assert!(body.contains("\"seq\":2,"), "only one was stored: {body}");
}

#[tokio::test]
async fn wrong_names_callbacks_and_contents_say_what_is_right() {
    let server = server(Open).await;
    let long = "x".repeat(129);
    let large = "%22".repeat(40_000);
    for (admin, path, status, code) in [
        (false, "/sub".to_owned(), 400, "bad_name"),
        (false, "/sub?cname=".to_owned(), 400, "bad_name"),
        (false, format!("/stream?cname={long}"), 400, "bad_name"),
        (false, "/sse?cname=a%00b".to_owned(), 400, "bad_name"),
        (false, "/sub?cname=%ff".to_owned(), 400, "bad_query"),
        (
            false,
            "/sub?cname=a&cb=alert(1)".to_owned(),
            400,
            "bad_query",
        ),
        (false, "/ping?cb=%3Cscript%3E".to_owned(), 400, "bad_query"),
        (true, "/push?content=x".to_owned(), 400, "bad_name"),
        (
            true,
            "/push?cname=a&content=x&cb=a;b".to_owned(),
            400,
            "bad_query",
        ),
        (
            true,
            "/pub?cname=a&content=a%22%2C%22b%22%3A%22".to_owned(),
            400,
            "bad_query",
        ),
        (
            true,
            "/pub?cname=a&content=%5C".to_owned(),
            400,
            "bad_query",
        ),
        (
            true,
            "/pub?cname=a&content=a%0Ab".to_owned(),
            400,
            "bad_query",
        ),
        (true, "/sign?cname=a&cb=1".to_owned(), 400, "bad_query"),
    ] {
        let (head, body) = if admin {
            back(&server, &path).await
        } else {
            front(&server, &path).await
        };
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}")),
            "{path}: {head}"
        );
        assert!(
            body.contains(&format!("\"code\":\"{code}\"")),
            "{path}: {body}"
        );
    }
    // Longer than a body may be when it is written as JSON, and longer than a form may be.
    for (content, code) in [(large, 413), ("x".repeat(400_000), 413)] {
        let mut wire = Wire::connect(server.admin).await;
        let form = format!("cname=a&content={content}");
        let length = form.len();
        wire.send(&format!(
            "POST /push HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
        // The server may answer before it has read all.
        drop(tokio::io::AsyncWriteExt::write_all(&mut wire.http.stream, form.as_bytes()).await);
        assert!(wire.head().await.starts_with(&format!("HTTP/1.1 {code}")));
    }
    let (_, body) = front(&server, "/sub?cname=a").await;
    assert!(body.contains("\"seq\":1,"), "nothing was stored: {body}");
}

#[tokio::test]
async fn too_many_requests_for_one_channel_are_told_so() {
    let server = TestServer::with_hub(
        |options| {
            options.channels_max = 1000;
            options.waiters_per_user_max = 2;
        },
        |parts| parts.icomet = Some(Open),
    )
    .await;
    let one = held(&server, "x", "/sub?cname=x&seq=1").await;
    let _other = held(&server, "x", "/stream?cname=x&seq=1").await;
    let (head, body) = front(&server, "/sub?cname=x&seq=1&cb=jp").await;
    assert!(head.starts_with("HTTP/1.1 200 OK"));
    let object =
        "{\"type\":\"429\",\"cname\":\"x\",\"seq\":0,\"content\":\"Too many subscribers\"}";
    assert_eq!(body, format!("jp({object});\n"));
    drop(one);
    super::waiting(&server, "x", 1).await;
    let _again = held(&server, "x", "/sub?cname=x&seq=1").await;
}

#[tokio::test]
async fn under_open_rules_a_signature_opens_nothing_of_halleys_own() {
    let server = server_with(Open, |_| {}).await;
    let (_, signed) = back(&server, "/sign?cname=a").await;
    let token = signed.split('"').nth(13).unwrap();
    assert!(token.len() == 32 && token.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let (_, again) = back(&server, "/sign?cname=a").await;
    assert_eq!(again, signed, "it is the same as long as the channel is");
    let (head, _) = front(&server, &format!("/v1/inbox?wait=0&token={token}")).await;
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    let (head, _) = back(&server, "/v1/status").await;
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
}

#[tokio::test]
async fn a_callbacks_name_and_an_array_have_their_limits() {
    let server = server(Open).await;
    for (length, status) in [(128, "200"), (129, "400")] {
        let (head, _) = front(&server, &format!("/ping?cb={}", "x".repeat(length))).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{head}");
    }
    for n in 0..101 {
        back(&server, &format!("/push?cname=a&content={n}")).await;
    }
    let (_, array) = front(&server, "/sub?cname=a&seq=1").await;
    assert_eq!(array.matches("\"type\":\"data\"").count(), 100, "{array}");
    let (_, rest) = front(&server, "/sub?cname=a&seq=101").await;
    assert_eq!(rest.matches("\"type\":\"data\"").count(), 1, "{rest}");
    // 1 MiB of bodies, and the one that goes beyond it.
    let content = "x".repeat(60_000);
    for _ in 0..20 {
        back(&server, &format!("/push?cname=b&content={content}")).await;
    }
    let (_, array) = front(&server, "/sub?cname=b&seq=1").await;
    assert_eq!(array.matches("\"type\":\"data\"").count(), 18);
}
