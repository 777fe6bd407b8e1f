//! The commands that ask a server, against one with prepared answers.
#![expect(
    clippy::unwrap_used,
    reason = "what tests share stands outside test functions"
)]

mod program;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use program::{KEY, fail, halley, succeed, text};

/// Long enough for a busy machine; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_missing_key_or_server_is_told_in_a_way_that_helps() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().display().to_string();
    let push = &[
        "push", "--from", "alice", "--to", "bob", "1", "--data", &data,
    ];
    let said = fail(&mut halley(push), 1);
    assert!(
        said.contains("there is no admin key at") && said.contains("--data"),
        "{said}"
    );

    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let said = fail(
        halley(push)
            .env("HALLEY_ADMIN_KEY", KEY)
            .env("HALLEY_ADMIN_LISTEN", address.to_string()),
        1,
    );
    assert!(
        said.contains(&format!("cannot reach the server at http://{address}")),
        "{said}"
    );
    assert!(
        said.contains("is it running") && said.to_lowercase().contains("refused"),
        "{said}"
    );
}

/// A server that gives prepared answers, one a connection, and hands over what it was asked.
struct Scripted {
    server: String,
    asked: mpsc::Receiver<String>,
}

/// One answer: status line, further headers, body. No status: the connection is cut.
type Answer = (&'static str, &'static str, &'static str);

fn scripted(answers: Vec<Answer>) -> Scripted {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let (ask, asked) = mpsc::channel();
    thread::spawn(move || {
        for (status, headers, body) in answers {
            let (mut connection, _) = listener.accept().unwrap();
            ask.send(request(&mut connection)).unwrap();
            if !status.is_empty() {
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
                );
                connection
                    .write_all(format!("{head}{body}").as_bytes())
                    .unwrap();
            }
        }
    });
    Scripted { server, asked }
}

/// Request line, interesting headers and body as one text.
fn request(connection: &mut TcpStream) -> String {
    let mut reader = BufReader::new(connection);
    let (mut told, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        told += &line;
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    told + &text(&body)
}

fn asking(server: &str, arguments: &[&str]) -> Command {
    let mut command = halley(arguments);
    command
        .args(["--server", server])
        .env("HALLEY_ADMIN_KEY", KEY)
        .env("http_proxy", "http://127.0.0.1:1");
    command
}

const RECEIPT: &str =
    r#"{"sequence":"direct","id":7,"prev":3,"at":1763890000123,"duplicate":true,"later":1}"#;

#[test]
fn push_sends_the_body_byte_for_byte_and_prints_the_receipt() {
    let Scripted { server, asked } = scripted(vec![("200 OK", "", RECEIPT)]);

    let push = [
        "push",
        "--from",
        "alice",
        "--to",
        "b/b",
        "--key",
        "k 1",
        "{\"a\":  1.50}",
    ];
    let printed = succeed(&mut asking(&server, &push));
    assert_eq!(
        printed,
        "direct 7 (after 3) at 2025-11-23T09:26:40.123Z, was pushed before\n"
    );
    let request = asked.recv_timeout(PATIENCE).unwrap();
    assert!(
        request.starts_with("POST /v1/direct/b%2Fb/messages HTTP/1.1"),
        "{request}"
    );
    let lower = request.to_lowercase();
    assert!(
        lower.contains(&format!("authorization: bearer {KEY}")),
        "{request}"
    );
    assert!(lower.contains("idempotency-key: k 1"), "{request}");
    assert!(
        request.ends_with("{\"from\":\"alice\",\"body\":{\"a\":  1.50}}"),
        "{request}"
    );
}

#[test]
fn push_takes_a_negative_number() {
    let Scripted { server, asked } = scripted(vec![("201 Created", "", RECEIPT)]);
    succeed(&mut asking(
        &server,
        &["push", "--from", "alice", "--to", "bob", "-1.5"],
    ));
    assert!(
        asked
            .recv_timeout(PATIENCE)
            .unwrap()
            .ends_with("\"body\":-1.5}")
    );
}

#[test]
fn push_takes_text_and_standard_input() {
    let Scripted { server, asked } = scripted(vec![
        ("201 Created", "", RECEIPT),
        ("201 Created", "", RECEIPT),
    ]);
    let push = [
        "push",
        "--from",
        "alice",
        "--group",
        "team",
        "--text",
        "say \"hi\"",
        "--json",
    ];
    let printed = succeed(&mut asking(&server, &push));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&printed).unwrap()["id"],
        7
    );
    let request = asked.recv_timeout(PATIENCE).unwrap();
    assert!(
        request.starts_with("POST /v1/groups/team/messages HTTP/1.1"),
        "{request}"
    );
    assert!(
        request.ends_with("\"body\":\"say \\\"hi\\\"\"}"),
        "{request}"
    );

    let mut child = asking(&server, &["push", "--from", "alice", "--to", "bob", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"[1,\n2]\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(
        asked
            .recv_timeout(PATIENCE)
            .unwrap()
            .ends_with("\"body\":[1,\n2]}")
    );
}

#[test]
fn a_refusal_shows_the_servers_own_sentence_and_code() {
    let problem = r#"{"type":"urn:halley:error:busy","status":503,"code":"busy","detail":"the queue is full"}"#;
    let Scripted {
        server,
        asked: _asked,
    } = scripted(vec![
        ("503 Service Unavailable", "", problem),
        ("200 OK", "", "<html>"),
        (
            "401 Unauthorized",
            "",
            r#"{"code":"unauthorized","title":"No"}"#,
        ),
    ]);
    let push = ["push", "--from", "alice", "--to", "bob", "1"];
    let said = fail(&mut asking(&server, &push), 1);
    assert!(
        said.contains("the server refused: the queue is full (503 busy)"),
        "{said}"
    );
    let said = fail(&mut asking(&server, &push), 1);
    assert!(said.contains("is not Halley's (200)"), "{said}");
    let said = fail(&mut asking(&server, &push), 1);
    let hint = format!("No; is {server} the admin address, and is this its key? (401");
    assert!(said.contains(&hint), "{said}");
}

#[test]
fn history_prints_a_page_and_tells_how_to_go_on() {
    let page = "{\"log\":\"00\",\"more\":true,\"messages\":[\
        {\"sequence\":\"direct\",\"id\":7,\"prev\":3,\"n\":2,\"from\":\"alice\",\"to\":\"bob\",\"at\":0,\"body\":\"a\"},\
        {\"sequence\":\"direct\",\"id\":9,\"prev\":7,\"n\":3,\"from\":\"bob\",\"to\":\"alice\",\"at\":0,\"body\":\"b\"}]}";
    let Scripted { server, asked } = scripted(vec![("200 OK", "", page), ("200 OK", "", page)]);
    let output = asking(
        &server,
        &[
            "history", "--user", "alice", "--peer", "bob", "--limit", "2",
        ],
    )
    .output()
    .unwrap();
    assert_eq!(
        text(&output.stdout),
        "1970-01-01T00:00:00.000Z direct 7 alice -> bob: \"a\"\n\
         1970-01-01T00:00:00.000Z direct 9 bob -> alice: \"b\"\n"
    );
    assert_eq!(text(&output.stderr), "halley: there are more: --before 7\n");
    let request = asked.recv_timeout(PATIENCE).unwrap();
    assert!(
        request.starts_with("GET /v1/users/alice/direct/bob/messages?limit=2 "),
        "{request}"
    );

    let mut command = asking(
        &server,
        &[
            "history", "--user", "alice", "--group", "team", "--after", "5", "--json",
        ],
    );
    let output = command.output().unwrap();
    assert_eq!(text(&output.stdout).lines().count(), 2);
    assert_eq!(text(&output.stderr), "halley: there are more: --after 9\n");
    let request = asked.recv_timeout(PATIENCE).unwrap();
    assert!(
        request.starts_with("GET /v1/users/alice/groups/team/messages?limit=100&after=5 "),
        "{request}"
    );
}

#[test]
fn tail_follows_over_a_restart_with_its_cursor() {
    let first = "{\"log\":\"00\",\"messages\":[],\"next\":\"4.0.aa\",\"more\":false}";
    let second = "{\"log\":\"00\",\"more\":false,\"next\":\"7.0.aa\",\"messages\":[\
        {\"sequence\":\"direct\",\"id\":7,\"prev\":3,\"n\":2,\"from\":\"alice\",\"to\":\"bob\",\"at\":0,\"body\":{}}]}";
    let ahead =
        "{\"status\":409,\"code\":\"cursor_ahead\",\"detail\":\"beyond\",\"restart\":\"5.0.bb\"}";
    let closing = "{\"status\":503,\"code\":\"closing\",\"detail\":\"stopping\"}";
    let Scripted { server, asked } = scripted(vec![
        ("200 OK", "", first),
        ("", "", ""),
        ("503 Service Unavailable", "retry-after: 1\r\n", closing),
        ("200 OK", "", second),
        ("409 Conflict", "", ahead),
    ]);
    let output = asking(&server, &["tail", "--user", "bob", "--json"])
        .output()
        .unwrap();
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(printed.lines().count(), 1);
    assert!(printed.contains("\"id\":7"), "{printed}");
    for part in [
        "following bob from cursor 4.0.aa on",
        "trying again, from cursor 4.0.aa on",
        "connected again, from cursor 4.0.aa on",
        "start over with --after 5.0.bb",
        "the server refused: beyond (409 cursor_ahead)",
    ] {
        assert!(said.contains(part), "{part} is not in: {said}");
    }
    let cursors: Vec<String> = asked
        .iter()
        .map(|request| request.lines().next().unwrap().to_owned())
        .collect();
    assert_eq!(
        cursors,
        [
            "GET /v1/users/bob/inbox?after=now&wait=0 HTTP/1.1",
            "GET /v1/users/bob/inbox?after=4.0.aa&wait=30 HTTP/1.1",
            "GET /v1/users/bob/inbox?after=4.0.aa&wait=30 HTTP/1.1",
            "GET /v1/users/bob/inbox?after=4.0.aa&wait=30 HTTP/1.1",
            "GET /v1/users/bob/inbox?after=7.0.aa&wait=30 HTTP/1.1",
        ]
    );
}
