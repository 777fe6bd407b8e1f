//! A server in this process, and a client that writes and reads HTTP by hand.

#[path = "../../http/mod.rs"]
mod http;
#[path = "../../random/mod.rs"]
mod random;
mod reader;
mod server;
mod socket;

use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use http::{Http, PATIENCE, Reply, chunk, part, request, upto};
pub(crate) use random::{Random, rounds};
pub(crate) use reader::{End, Event, Message, Reader, Way};
pub(crate) use server::{KEY, TestServer, poll_request};
pub(crate) use socket::{Frame, Socket, frame};

impl Reply {
    /// The bodies of the messages of a page.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        let page = self.json();
        let messages = page["messages"].as_array().unwrap().iter();
        messages.map(|message| message["body"].clone()).collect()
    }
}

/// Asks again until it is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut asked: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !asked().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
