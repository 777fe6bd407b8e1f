//! A held poll: it reads, waits if it finds nothing, and answers once.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::accept::stopped;
use super::head::Asked;
use super::hold::{End, answer};
use super::inbox;
use super::io::Line;
use super::reply::{Refusal, Reply};
use super::service::Listener;
use super::wire::left;
use super::work::Work;
use crate::hub::Feed;
use crate::model::{Batch, PageLimit};

/// A poll: it reads, and waits if it finds nothing.
#[derive(Debug)]
pub(super) struct Poll {
    pub(super) feed: Feed,
    pub(super) limit: PageLimit,
    pub(super) deadline: Instant,
    /// Counts the request, but while it waits.
    pub(super) work: Option<Work>,
}

impl Poll {
    pub(super) async fn wait(
        mut self,
        mut line: Line,
        asked: Asked,
        listener: &Arc<Listener>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> End {
        let Some(outcome) = self.outcome(&mut line, shutdown).await else {
            return End::Gone;
        };
        let keep = asked.keep && !self.feed.closing() && !*shutdown.borrow();
        // The waiter goes before the reply is written: a slow peer is not a waiter, but a request in work.
        let mut work = self.work.take();
        work.iter_mut().for_each(Work::go_on);
        drop(self);
        let app = &listener.app;
        let (reply, count) = match outcome {
            Ok(batch) => (inbox::page(app, &batch), batch.messages.len()),
            Err(refusal) => (Reply::refusal(&refusal, app.hub.log()), 0),
        };
        // Boxed, as is the reading: short, and else a part of every held request.
        let end = Box::pin(answer(line, &asked, reply, keep, app.timeouts.patience())).await;
        if !matches!(end, End::Gone) {
            app.delivered(count);
        }
        end
    }

    /// What to answer; none when the peer left.
    async fn outcome(
        &mut self,
        line: &mut Line,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Option<Result<Batch, Refusal>> {
        let mut last = self.deadline <= Instant::now() || self.feed.closing();
        loop {
            // Boxed: it is short, and would take room in every held request.
            match Box::pin(self.feed.read(self.limit)).await {
                Ok(batch) if batch.messages.is_empty() && !batch.more && !last => {}
                batch => return Some(batch.map_err(Refusal::Hub)),
            }
            self.work.iter_mut().for_each(Work::pause);
            last = tokio::select! {
                biased;
                () = self.feed.wait() => self.feed.closing(),
                () = left(line) => return None,
                () = stopped(shutdown) => true,
                () = sleep_until(self.deadline) => true,
            };
        }
    }
}
