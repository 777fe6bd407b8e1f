//! A held request: the socket without hyper, until there is something to say.
//!
//! The handler has checked the request and returned a [`Ticket`]; nothing of the request is kept but
//! what the reply needs. Replies are written past hyper, so they must have all that hyper would
//! have written. A peer that closes its side, wholly or half, is gone, and its waiter with it.

pub(super) mod cancellable;

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::http::context::in_progress::InProgress;
use crate::http::icomet;
use crate::http::listener::service::Listener;
use crate::http::parked::cancellable::Later;
use crate::http::response::head::Asked;
use crate::http::response::reply::{HELD, Reply};
use crate::http::session::poll::Poll;
use crate::http::session::stream::Stream;
use crate::http::session::websocket::Socket;
use crate::http::socket::Line;
use crate::http::socket::pace::Patience;
use crate::http::socket::write;

/// What a held request waits for.
#[derive(Debug)]
pub(super) enum Ticket {
    /// One reply, when something comes or time is up.
    Poll(Poll),
    /// Messages as they come, as events or lines of one reply.
    Stream(Box<Stream>),
    /// Messages both ways, as frames of a WebSocket.
    Socket(Box<Socket>),
    /// One reply that takes its time; who leaves meanwhile gives it up.
    Later(Later),
    /// What icomet's clients and backends wait for.
    Icomet(icomet::Ticket),
}

/// A ticket, and what its reply must know of the request.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) ticket: Ticket,
    pub(super) asked: Asked,
    /// Counts the request while it is in work; none on the admin listener.
    pub(super) work: Option<InProgress>,
}

/// How a hold ended.
pub(super) enum End {
    /// Answered; the connection goes on.
    GoOn(Line),
    /// Answered; the connection is to be closed.
    Close(TcpStream),
    /// The peer left, or does not read.
    Gone,
}

/// A hold under way.
pub(super) type Holding<'a> = Pin<Box<dyn Future<Output = End> + Send + 'a>>;

/// Holds the request and answers it. Boxed, and made outside of any future: a task has room for its largest
/// future, also while it waits for the next request.
pub(super) fn wait<'a>(
    line: Line,
    held: Held,
    listener: &'a Arc<Listener>,
    shutdown: &'a mut watch::Receiver<bool>,
) -> Holding<'a> {
    let Held {
        ticket,
        asked,
        work,
    } = held;
    match ticket {
        Ticket::Poll(mut poll) => {
            poll.work = work;
            Box::pin(poll.wait(line, asked, listener, shutdown))
        }
        Ticket::Stream(stream) => Box::pin(stream.wait(line, asked, listener, shutdown)),
        Ticket::Socket(socket) => Box::pin(socket.wait(line, asked, listener, shutdown)),
        Ticket::Later(mut later) => {
            later.work = work;
            Box::pin(later.wait(line, asked, listener, shutdown))
        }
        Ticket::Icomet(ticket) => ticket.wait(line, asked, listener, shutdown),
    }
}

/// Writes the one reply of a held request.
pub(super) async fn answer(
    line: Line,
    asked: &Asked,
    mut reply: Reply,
    keep: bool,
    patience: Patience,
) -> End {
    reply.cache = HELD;
    let head = asked.raw(&reply, keep);
    if write(&line.stream, head, reply.body, patience)
        .await
        .is_err()
    {
        return cut(&line.stream);
    }
    if keep {
        End::GoOn(line)
    } else {
        End::Close(line.stream)
    }
}

/// Cuts a peer that does not read. What it did not take is dropped, not kept by the kernel.
pub(super) fn cut(stream: &TcpStream) -> End {
    drop(stream.set_zero_linger());
    End::Gone
}

/// Resolves when the server is to stop.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could say so: the server has stopped.
    drop(shutdown.wait_for(|stop| *stop).await);
}

/// A time at random between nine and eleven tenths of the given one, so that what began together does
/// not end together.
pub(super) fn jittered(time: Duration) -> Duration {
    let random = getrandom::u32().unwrap_or(u32::MAX / 2);
    time.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX))
}
