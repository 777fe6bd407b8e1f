//! A WebSocket client that shares no code with the server, as strict as can be.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_websockets::{ClientBuilder, CloseCode, Config, Message, WebSocketStream};

use crate::support::{PATIENCE, TestServer};

struct Client(WebSocketStream<TcpStream>);

impl Client {
    /// With what it sends cut into frames of so many bytes.
    async fn connect(server: &TestServer, user: &str, frame_bytes: usize) -> Self {
        let stream = TcpStream::connect(server.client).await.unwrap();
        let token = TestServer::token(user);
        let uri = format!("ws://{}/v1/inbox/ws?after=now&token={token}", server.client);
        let (socket, response) = ClientBuilder::new()
            .uri(&uri)
            .unwrap()
            .config(Config::default().frame_size(frame_bytes))
            .connect_on(stream)
            .await
            .unwrap();
        assert_eq!(response.status().as_u16(), 101);
        let mut client = Self(socket);
        assert_eq!(client.text().await["messages"], json!([]));
        client
    }

    async fn next(&mut self) -> Option<Message> {
        let next = timeout(PATIENCE, self.0.next());
        next.await.expect("in time").map(Result::unwrap)
    }

    async fn text(&mut self) -> Value {
        loop {
            let message = self.next().await.expect("it goes on");
            if let Some(text) = message.as_text() {
                return serde_json::from_str(text).unwrap();
            }
            assert!(message.is_ping() || message.is_pong(), "{message:?}");
        }
    }

    async fn send(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    /// Reads to the close frame and beyond: the code, and why.
    async fn closed(&mut self) -> (u16, String) {
        let mut why = None;
        while let Some(message) = self.next().await {
            if let Some((code, reason)) = message.as_close() {
                why = Some((code.into(), reason.to_owned()));
            }
        }
        why.expect("a close frame")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_sends_and_receives_messages_of_all_lengths_in_frames_of_all_lengths() {
    let server = TestServer::start().await;
    for frame_bytes in [1, 7, 125, 126, 1024, 65_535, 65_536, 1 << 22] {
        let mut client = Client::connect(&server, "bob", frame_bytes).await;
        let (mut receipts, mut got) = (0, Vec::new());
        let mut bodies = Vec::new();
        for length in [0, 1, 100, 125, 126, 4000, 65_400, 65_534] {
            // Bytes by byte is slow enough without the longest.
            if frame_bytes < 100 && length > 5000 {
                continue;
            }
            let body = "日x".repeat(length / 4) + &"y".repeat(length % 4);
            let text = json!({ "send": { "to": "bob", "body": body }, "ref": bodies.len() });
            bodies.push(body);
            client.send(Message::text(text.to_string())).await;
            client.send(Message::ping("between")).await;
        }
        while receipts < bodies.len() || got.len() < bodies.len() {
            let text = client.text().await;
            if let Some(messages) = text["messages"].as_array() {
                let new = messages
                    .iter()
                    .map(|m| m["body"].as_str().unwrap().to_owned());
                got.extend(new);
            } else {
                assert_eq!(text["ref"], receipts, "{text}");
                assert!(text["receipt"]["id"].is_u64(), "{text}");
                receipts += 1;
            }
        }
        assert!(got == bodies, "frames of {frame_bytes}");
        client
            .send(Message::close(Some(CloseCode::NORMAL_CLOSURE), "enough"))
            .await;
        assert_eq!(client.closed().await, (1000, "enough".to_owned()));
    }
}

#[tokio::test]
async fn its_pings_are_answered_and_its_faults_are_named() {
    let server = TestServer::start().await;
    let mut client = Client::connect(&server, "bob", 100).await;
    for payload in ["", "x", "something longer"] {
        client.send(Message::ping(payload)).await;
        let pong = client.next().await.unwrap();
        assert!(
            pong.is_pong() && pong.as_payload()[..] == *payload.as_bytes(),
            "{pong:?}"
        );
    }
    client.send(Message::binary("{}")).await;
    assert_eq!(client.closed().await, (1003, "not_text".to_owned()));
    let mut client = Client::connect(&server, "bob", 10_000).await;
    client.send(Message::text(" ".repeat(90_000))).await;
    assert_eq!(client.closed().await, (1009, "body_too_large".to_owned()));
}

#[tokio::test]
async fn it_understands_why_the_server_ends() {
    let over =
        TestServer::with(|parts| parts.timeouts.stream = std::time::Duration::from_millis(50))
            .await;
    let mut client = Client::connect(&over, "bob", 100).await;
    assert_eq!(client.closed().await, (4000, "stream_over".to_owned()));
    let mut server = TestServer::start().await;
    let mut client = Client::connect(&server, "bob", 100).await;
    server.push("alice", "bob", "1").await;
    assert_eq!(client.text().await["messages"][0]["body"], 1);
    server.signal_stop();
    assert_eq!(client.closed().await, (1001, "closing".to_owned()));
    server.ended().await;
}
