//! A server in this process, and a client that writes and reads HTTP by hand.

mod http;
#[path = "../../random/mod.rs"]
mod random;
mod reader;
mod server;
mod socket;

use std::time::{Duration, Instant};

pub(crate) use http::{Http, Reply};
pub(crate) use random::{Random, rounds};
pub(crate) use reader::{End, Event, Message, Reader, Way};
pub(crate) use server::{KEY, TestServer, poll_request};
pub(crate) use socket::{Frame, Socket, frame};

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Asks again until it is so.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut asked: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !asked().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
