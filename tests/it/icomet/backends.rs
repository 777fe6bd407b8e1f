//! What backends send and get, byte by byte.

use std::time::{Duration, Instant};

use halley::config::IcometRules::{Open, Strict};

use super::{Wire, back, front, held, keyed, push, server, server_with};
use crate::support::{KEY, TestServer};

fn head(status: &str, content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\ncontent-type: {content_type}\ncache-control: no-store\nx-accel-buffering: no\n\
         x-content-type-options: nosniff\nserver: icomet 0.2.5\ncontent-length: {}",
        body.len()
    )
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Asks one after the other on one connection.
async fn told(wire: &mut Wire, replies: &[(&str, &str, &str, &str)]) {
    for (path, status, kind, body) in replies {
        let expected = (head(status, kind, body), (*body).to_owned());
        assert_eq!(wire.get(path).await, expected, "{path}");
    }
}

#[rustfmt::skip]
#[tokio::test]
async fn backends_are_answered_as_icomet_does_byte_for_byte() {
    let server = server(Open).await;
    let mut wire = Wire::connect(server.admin).await;
    let (ok, missing, latin) = ("200 OK", "404 Not Found", "text/html; charset=ISO-8859-1");
    told(&mut wire, &[
        ("/info", ok, HTML, "{\"version\": \"0.2.5\", \"channels\": 0, \"subscribers\": 0}\n"),
        ("/check?cname=a", ok, HTML, "{}\n"),
        ("/close?cname=a", missing, HTML, "channel[a] not connected\n"),
        ("/clear?cname=a%3Cb%26", missing, HTML, "channel[a&lt;b&amp;] not connected\n"),
        ("/push?cname=a&content=hi", ok, SCRIPT, "{\"type\":\"ok\"}\n"),
        ("/push?cname=a&content=hi&cb=jp", ok, SCRIPT, "jp({\"type\":\"ok\"});\n"),
        ("/pub?cname=a&content=%5Cu00e9%5Cn%5C%22&cb=", ok, SCRIPT, "{\"type\":\"ok\"}\n"),
        ("/broadcast?content=all%22q%22", ok, latin, "ok\n"),
        ("/check?cname=a", ok, HTML, "{\"a\": 1}\n"),
        ("/info?cname=a", ok, HTML, "{\"cname\": \"a\", \"subscribers\": 0}\n"),
        ("/info?cname=%3Cb%3E", ok, HTML, "{\"cname\": \"\\u003cb\\u003e\", \"subscribers\": 0}\n"),
        ("/clear?cname=a", ok, HTML, "ok 5\n"),
        ("/close?cname=a", ok, HTML, "ok 5\n"),
        ("/close?cname=a", missing, HTML, "channel[a] not connected\n"),
    ]).await;
    let mut wait = held(&server, "a", "/sub?cname=a&seq=5").await;
    told(&mut wire, &[
        ("/info", ok, HTML, "{\"version\": \"0.2.5\", \"channels\": 1, \"subscribers\": 1}\n"),
        ("/pub?cname=a&content=%5Cu00e9%5Cn%5C%22", ok, SCRIPT, "{\"type\":\"ok\"}\n"),
    ]).await;
    let text = "{\"type\":\"data\",\"cname\":\"a\",\"seq\":5,\"content\":\"\\u00e9\\n\\\"\"}\n";
    assert_eq!(wait.reply().await.1, text);
}

/// As long as a request's line can be; a form may be longer.
#[tokio::test]
async fn long_contents_are_published_by_get_too() {
    let server = server(Open).await;
    let content = "x".repeat(60_000);
    push(&server, "a", &content).await;
    let (_, body) = front(&server, "/sub?cname=a&seq=1").await;
    assert!(body.contains(&content));
    let mut wire = Wire::connect(server.admin).await;
    wire.send(&format!(
        "GET /push?cname=a&content={content}{content} HTTP/1.1\r\nHost: h\r\n\r\n"
    ))
    .await;
    assert!(wire.head().await.starts_with("HTTP/1.1 4"));
}

#[tokio::test]
async fn forms_are_read_and_win_over_the_query() {
    let server = server(Strict).await;
    let key = KEY.replace(' ', "%20");
    let mut wire = Wire::connect(server.admin).await;
    let form = format!("cname=a&content=a%26b+c%3D%E6%97%A5&key={key}");
    let chunks = format!("{:x}\r\n{form}\r\n0\r\n\r\n", form.len());
    for (head, body) in [
        (
            format!(
                "POST /push?cname=other&content=no HTTP/1.1\r\nHost: h\r\n\
                 Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n",
                form.len()
            ),
            form.clone(),
        ),
        (
            "POST /push HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
                .to_owned(),
            chunks,
        ),
        (
            format!("GET /push?{form} HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\n\r\n"),
            String::new(),
        ),
        (
            format!(
                "POST /pub?key={key}&cname=a HTTP/1.1\r\nHost: h\r\nContent-Length: 21\r\n\r\n"
            ),
            "content=a%26b+c%3D日".to_owned(),
        ),
    ] {
        wire.send(&(head + &body)).await;
        assert_eq!(wire.reply().await.1, "{\"type\":\"ok\"}\n");
    }
    let token = TestServer::token("a");
    let (_, body) = front(&server, &format!("/sub?cname=a&seq=1&token={token}")).await;
    assert_eq!(
        body.matches("\"content\":\"a&b c=日\"").count(),
        4,
        "{body}"
    );
}

#[tokio::test]
async fn a_signed_client_subscribes_with_what_it_was_given() {
    let server = server(Strict).await;
    for n in 0..12 {
        push(&server, "a", &n.to_string()).await;
    }
    let signed = keyed(&server, "/sign?cname=a&cb=sg&expires=60").await;
    let token = signed.split('"').nth(13).unwrap();
    assert_eq!(
        signed,
        format!(
            "sg({{\"type\":\"sign\",\"cname\":\"a\",\"seq\":3,\"token\":\"{token}\",\"expires\":60,\
             \"sub_timeout\":30}});\n"
        )
    );
    let (_, body) = front(&server, &format!("/sub?cname=a&seq=3&token={token}")).await;
    assert_eq!(body.matches("\"type\":\"data\"").count(), 10);
    // It is a user token like any other, and only this user's.
    let inbox = format!("/v1/inbox?wait=0&token={token}");
    assert!(front(&server, &inbox).await.0.starts_with("HTTP/1.1 200"));
    let (_, body) = front(&server, &format!("/sub?cname=b&token={token}")).await;
    let refused = "{\"type\":\"401\",\"cname\":\"b\",\"seq\":0,\"content\":\"Token error\"}\n";
    assert_eq!(body, refused);
    let (found, body) = {
        let key = KEY.replace(' ', "+");
        back(&server, &format!("/sign?cname=new&key={key}")).await
    };
    assert_eq!(found, head("200 OK", HTML, &body));
    assert!(body.starts_with("{\"type\":\"sign\",\"cname\":\"new\",\"seq\":1,\"token\":\""));
    assert!(
        body.ends_with("\",\"expires\":30,\"sub_timeout\":30}\n"),
        "{body}"
    );
}

#[tokio::test]
async fn presence_tells_who_comes_and_goes() {
    let server = server_with(Open, |parts| {
        parts.timeouts.channel = Duration::from_secs(2);
    })
    .await;
    push(&server, "early", "x").await;
    let mut wire = Wire::connect(server.admin).await;
    wire.send("GET /psub HTTP/1.1\r\nHost: h\r\n\r\n").await;
    let head = wire.head().await;
    assert!(
        head.contains("\nserver: icomet 0.2.5\n") && head.contains("chunked"),
        "{head}"
    );
    assert_eq!(wire.chunk().await, "1 early\n");
    let waits = held(&server, "P 1", "/sub?cname=P%201&seq=1").await;
    // Others are told again and again as long as they are there, which is how a table is built.
    let mut told = Vec::new();
    while !(told.contains(&"0 early\n".to_owned())
        && told.iter().filter(|line| *line == "1 P 1\n").count() >= 3)
    {
        told.push(wire.chunk().await);
    }
    assert!(!told.contains(&"0 P 1\n".to_owned()), "{told:?}");
    // The time begins when nobody waits any more.
    let left = Instant::now();
    drop(waits);
    while wire.chunk().await != "0 P 1\n" {}
    assert!(left.elapsed() >= Duration::from_secs(2));
    push(&server, "P%201", "x").await;
    assert_eq!(wire.chunk().await, "1 P 1\n");
    // What is closed and begins again at once is told of, too.
    assert_eq!(keyed(&server, "/close?cname=P%201").await, "ok 2\n");
    push(&server, "P%201", "x").await;
    assert_eq!(wire.chunk().await, "0 P 1\n");
    assert_eq!(wire.chunk().await, "1 P 1\n");
    assert_eq!(keyed(&server, "/close?cname=P%201").await, "ok 3\n");
    assert_eq!(wire.chunk().await, "0 P 1\n");
    wire.silent().await;
}
