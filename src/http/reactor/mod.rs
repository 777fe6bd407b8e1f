//! Reactors hold what is held: one thread a core with an epoll of its own, a slab of connections, and their deadlines.
//!
//! A reactor reads, writes, counts time and knows nothing of what is said; a [`Session`] is one connection's state
//! machine, and knows nothing of sockets. A connection comes here with its socket and the bytes that were read and not
//! used, and goes back the same way as soon as its peer says what the session does not know.
//!
//! A session may be stepped without a reason, so a wake-up or a deadline that comes too late for one connection and finds
//! another in its place does no harm; and no reason is ever told, so none can be mistaken.

mod deadlines;
mod entry;
mod gate;
mod reactors;
mod turn;
mod unsent;

use std::fmt;
use std::net::TcpStream;
use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub(super) use self::reactors::Reactors;
use super::socket::pace::Patience;

/// One connection's part of the conversation.
pub(super) trait Session: Send {
    /// Goes on, and says what is to be done. Called when all that it had to say is on its way, when its waker was woken,
    /// when its time has come, when the peer was heard and when the server stops; also without any reason.
    fn step(&mut self, turn: &mut Turn<'_>) -> Step;

    /// The peer says something, while this listens.
    fn hear(&mut self, said: &[u8]) -> Heard;
}

/// Takes a connection back; dropped without it when the connection has ended.
pub(super) type WayBack = Box<dyn FnOnce(Line) + Send>;

/// A connection that is handed over, with the bytes that were read and not used.
pub(super) struct Guest {
    pub(super) line: Line,
    pub(super) session: Box<dyn Session>,
    pub(super) way_back: WayBack,
}

/// What a session may know when it goes on.
pub(super) struct Turn<'a> {
    pub(super) now: Instant,
    /// Whether the server stops: what is held must come to its end.
    pub(super) stopping: bool,
    /// Whose waker brings the next step.
    pub(super) context: Context<'a>,
}

/// What is to be done for a session.
pub(super) enum Step {
    /// This is to be written.
    Say(Vec<Bytes>),
    /// It waits for its waker, and for its peer: until then at the latest. What the peer has said by then is heard before
    /// the next step.
    Listen { until: Instant },
    /// It waits for its waker alone. A peer that has ended its side is still waiting for a reply.
    Work,
    /// The connection ends, in order.
    End,
    /// The connection ends at once.
    Cut,
}

/// What a session makes of what its peer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It took all of it.
    All,
    /// It is kept, and comes again.
    Later,
    /// It is for others: the connection goes back.
    Other,
}

/// A socket, and what was read from it but not yet used.
pub(super) struct Line {
    pub(super) stream: TcpStream,
    pub(super) front: Bytes,
}

impl fmt::Debug for Line {
    /// Without what was read: a token may be in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line")
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

/// How a reactor deals with slow peers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manners {
    /// With those who take what is said.
    pub(super) patience: Patience,
    /// How long the peer's end is awaited after ours.
    pub(super) linger: Duration,
}

#[cfg(test)]
mod tests;
