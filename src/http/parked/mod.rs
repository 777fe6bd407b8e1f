//! A parked request: the socket without hyper, until there is something to say.
//!
//! A handler has checked the request and returned what waits in its place, as a [`Parked`]; nothing of the request is
//! kept but what the reply needs. The trait is defined below all that implement it, so that neither the connection
//! loop nor the routes know what there is to wait for. Replies are written past hyper, so they must have all that hyper
//! would have written. A peer that closes its side, wholly or half, is gone, and its waiter with it.

pub(super) mod cancellable;
pub(super) mod endless;

use std::fmt;
use std::pin::Pin;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use super::context::App;
use super::context::in_progress::InProgress;
use super::reactor::Session;
use super::response::head::ResponseContext;
use super::response::problem::Problem;
use super::response::reply::{HELD, Reply};
use super::shutdown::Shutdown;
use super::socket::{ClientSocket, cut, peer_disconnected, write};
use crate::model::UserName;

/// What waits in place of a request: a poll, a stream, a socket, or whatever else takes its time.
pub(super) trait Parked: fmt::Debug + Send {
    /// Waits, replies, and says what is to become of the connection.
    ///
    /// Implementations move `self` and `connection` into one `async` block and borrow from there: what an `async fn`
    /// takes by value and binds again has room in its future twice, for as long as the request is parked.
    fn run(self: Box<Self>, connection: ParkedConnection<'_>) -> Running<'_>;
}

/// A parked request under way.
pub(super) type Running<'a> = Pin<Box<dyn Future<Output = NextState> + Send + 'a>>;

/// What becomes of the connection when a parked request has ended.
pub(super) enum NextState {
    /// Answered; the next request may come.
    KeepAlive(ClientSocket),
    /// A reactor is to hold it, with what else it holds for this user.
    Reactor(ClientSocket, UserName, Box<dyn Session>),
    /// Answered; the connection is to be closed.
    Close(TcpStream),
    /// The peer left, or does not read.
    Gone,
}

/// What a handler made of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// An answer.
    Reply(Reply),
    /// Nothing to say yet: the connection waits outside of hyper.
    Park(Box<dyn Parked>),
}

impl Outcome {
    pub(super) fn park(parked: impl Parked + 'static) -> Self {
        Self::Park(Box::new(parked))
    }
}

/// A request on its way out of hyper, with what its reply must know of it.
pub(super) struct ParkedRequest {
    pub(super) parked: Box<dyn Parked>,
    pub(super) response: ResponseContext,
    /// Counts the request while it is in progress; none on the admin listener.
    pub(super) in_progress: Option<InProgress>,
    /// Its head, if that came whole and alone.
    pub(super) head: Option<Bytes>,
}

impl ParkedRequest {
    /// Runs it. The future is made here, outside of any other: a task has room for its largest future, also while it
    /// waits for the next request.
    pub(super) fn run<'a>(
        self,
        socket: ClientSocket,
        app: &'a App,
        shutdown: &'a mut Shutdown,
    ) -> Running<'a> {
        self.parked.run(ParkedConnection {
            socket,
            response: self.response,
            in_progress: self.in_progress,
            head: self.head,
            app,
            shutdown,
        })
    }
}

impl fmt::Debug for ParkedRequest {
    /// Without its head: a token is in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParkedRequest")
            .field("parked", &self.parked)
            .finish_non_exhaustive()
    }
}

/// The connection of a parked request, and all that one needs for it.
pub(super) struct ParkedConnection<'a> {
    pub(super) socket: ClientSocket,
    pub(super) response: ResponseContext,
    /// Counts the request while it is in progress. What is held open is not in progress, and lets go of it; what is
    /// answered once pauses it while it waits.
    pub(super) in_progress: Option<InProgress>,
    /// The head of the request, if that came whole and alone.
    pub(super) head: Option<Bytes>,
    pub(super) app: &'a App,
    pub(super) shutdown: &'a mut Shutdown,
}

/// What ended a wait.
pub(super) enum Wake<T> {
    Event(T),
    /// The peer is gone.
    Disconnected,
    /// The server is to stop.
    Shutdown,
    /// The time is up.
    Time,
}

impl<'a> ParkedConnection<'a> {
    /// Waits for an event, but no longer than the peer, the server and the given time allow. Of several at once the
    /// event counts: what is there for a client is written before it is told to go. The caller pins the event: moved in here,
    /// it would have room in the future twice.
    pub(super) async fn wait<T>(
        &mut self,
        event: impl Future<Output = T> + Unpin,
        until: Instant,
    ) -> Wake<T> {
        tokio::select! {
            biased;
            event = event => Wake::Event(event),
            () = peer_disconnected(&mut self.socket) => Wake::Disconnected,
            () = self.shutdown.begun() => Wake::Shutdown,
            () = sleep_until(until) => Wake::Time,
        }
    }

    /// From here on the request only waits.
    pub(super) fn pause(&mut self) {
        self.in_progress.iter_mut().for_each(InProgress::pause);
    }

    /// From here on the request is answered.
    pub(super) fn resume(&mut self) {
        self.in_progress.iter_mut().for_each(InProgress::resume);
    }

    /// Whether another request may come by this connection.
    pub(super) fn may_keep_alive(&self) -> bool {
        self.response.keep_alive && !self.shutdown.has_begun()
    }

    pub(super) fn problem(&self, problem: &Problem) -> Reply {
        Reply::problem(problem, self.app.hub.log())
    }

    /// Writes the one reply of the request, which carries this many messages. Boxed: it is short, and would take room
    /// in everything that waits.
    pub(super) fn answer(self, mut reply: Reply, messages: usize, keep_alive: bool) -> Running<'a> {
        Box::pin(async move {
            // No proxy may buffer what the client has been waiting for, problems included.
            reply.cache = HELD;
            let head = self.response.head(&reply, keep_alive);
            let patience = self.app.timeouts.patience();
            let written = write(&self.socket.stream, head, reply.body, patience).await;
            if written.is_err() {
                return self.cut();
            }
            self.app.delivered(messages);
            if keep_alive {
                NextState::KeepAlive(self.socket)
            } else {
                NextState::Close(self.socket.stream)
            }
        })
    }

    /// Cuts a peer that does not read, or has left an endless reply.
    pub(super) fn cut(self) -> NextState {
        cut(&self.socket.stream);
        NextState::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::cancellable::CancellableReply;
    use super::*;

    #[test]
    fn what_is_printed_has_no_token() {
        let request = ParkedRequest {
            parked: Box::new(CancellableReply::new(std::future::pending())),
            response: ResponseContext::unknown(),
            in_progress: None,
            head: Some(Bytes::from_static(b"secret")),
        };
        let text = format!("{request:?}");
        assert_eq!(text, "ParkedRequest { parked: CancellableReply, .. }");
    }
}
