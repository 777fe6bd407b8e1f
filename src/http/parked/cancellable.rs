//! A reply that takes its time, such as one that waits for its turn.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use crate::http::context::in_progress::InProgress;
use crate::http::listener::service::Listener;
use crate::http::parked::{End, answer};
use crate::http::response::head::Asked;
use crate::http::response::reply::{Refusal, Reply};
use crate::http::socket::Line;
use crate::http::socket::left;

/// A reply under way. hyper would keep computing it after a disconnect; parked, it is dropped with the connection.
pub(in crate::http) struct Later {
    reply: Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send>>,
    /// Counts the request until its reply is written.
    pub(in crate::http) work: Option<InProgress>,
}

impl Later {
    pub(in crate::http) fn new(
        reply: impl Future<Output = Result<Reply, Refusal>> + Send + 'static,
    ) -> Self {
        Self {
            reply: Box::pin(reply),
            work: None,
        }
    }

    pub(in crate::http) async fn wait(
        self,
        mut line: Line,
        asked: Asked,
        listener: &Arc<Listener>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> End {
        let Self { reply, work } = self;
        let outcome = tokio::select! {
            biased;
            outcome = reply => outcome,
            () = left(&mut line) => return End::Gone,
        };
        let app = &listener.app;
        let reply = outcome.unwrap_or_else(|refusal| Reply::refusal(&refusal, app.hub.log()));
        let keep = asked.keep && !*shutdown.borrow();
        let end = answer(line, &asked, reply, keep, app.timeouts.patience()).await;
        drop(work);
        end
    }
}

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Later")
    }
}
