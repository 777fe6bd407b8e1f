//! A reply that takes its time, such as one that waits for its turn.

use std::fmt;
use std::pin::Pin;

use super::{NextState, Parked, ParkedConnection, Running};
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::http::socket::peer_disconnected;

/// A reply under way. hyper would keep computing it after a disconnect; parked, it is dropped with the connection.
pub(in crate::http) struct CancellableReply(
    Pin<Box<dyn Future<Output = Result<Reply, Problem>> + Send>>,
);

impl CancellableReply {
    pub(in crate::http) fn new(
        reply: impl Future<Output = Result<Reply, Problem>> + Send + 'static,
    ) -> Self {
        Self(Box::pin(reply))
    }
}

impl Parked for CancellableReply {
    fn run(self: Box<Self>, mut connection: ParkedConnection<'_>) -> Running<'_> {
        let Self(mut reply) = *self;
        Box::pin(async move {
            let outcome = tokio::select! {
                biased;
                outcome = &mut reply => outcome,
                () = peer_disconnected(&mut connection.socket) => return NextState::Gone,
            };
            let reply = outcome.unwrap_or_else(|problem| connection.problem(&problem));
            let keep_alive = connection.may_keep_alive();
            connection.answer(reply, 0, keep_alive).await
        })
    }
}

impl fmt::Debug for CancellableReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CancellableReply")
    }
}
