//! A held request: the socket without hyper, until there is something to say.
//!
//! The handler has checked the request and returned a [`Ticket`]; nothing of the request is kept but
//! what the reply needs. The reply is written here, past hyper, so it must have all that hyper would
//! have written. A peer that closes its side, wholly or half, is gone, and its waiter with it.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::accept::stopped;
use super::head::Asked;
use super::inbox;
use super::io::Line;
use super::reply::{Refusal, Reply};
use super::service::Listener;
use crate::hub::Feed;

/// What is kept of a request that was sent behind a held one; then reading stops.
const FRONT_BYTES_MAX: usize = 4 * 1024;
/// What one system call writes.
const SLICES_MAX: usize = 64;

/// What a held request waits for. One kind so far; streams will be others.
#[derive(Debug)]
pub(super) enum Ticket {
    /// One reply, when something comes or time is up.
    Poll(Poll),
}

/// A poll: it reads, and waits if it finds nothing.
#[derive(Debug)]
pub(super) struct Poll {
    pub(super) feed: Feed,
    pub(super) limit: usize,
    pub(super) deadline: Instant,
}

/// A ticket, and what its reply must know of the request.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) ticket: Ticket,
    pub(super) asked: Asked,
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

/// Holds the request and answers it.
pub(super) async fn wait(
    mut line: Line,
    held: Box<Held>,
    listener: &Arc<Listener>,
    shutdown: &mut watch::Receiver<bool>,
) -> End {
    let Held {
        ticket: Ticket::Poll(mut poll),
        asked,
    } = *held;
    let Some(outcome) = poll_reply(&mut poll, &mut line, shutdown).await else {
        return End::Gone;
    };
    let keep = asked.keep && !poll.feed.closing() && !*shutdown.borrow();
    // The waiter goes before the reply is written: a slow peer is not a waiter.
    drop(poll);
    let app = &listener.app;
    let reply = match outcome {
        Ok(batch) => inbox::page(app, &batch),
        Err(refusal) => Reply::refusal(&refusal, app.hub.log()),
    };
    let head = asked.raw(&reply, keep);
    if write(&line.stream, head, reply.body, app.timeouts.write)
        .await
        .is_err()
    {
        drop(line.stream.set_zero_linger());
        return End::Gone;
    }
    if keep {
        End::GoOn(line)
    } else {
        End::Close(line.stream)
    }
}

/// The reply of a poll; none when the peer left.
async fn poll_reply(
    poll: &mut Poll,
    line: &mut Line,
    shutdown: &mut watch::Receiver<bool>,
) -> Option<Result<crate::model::Batch, Refusal>> {
    let mut last = poll.deadline <= Instant::now() || poll.feed.closing();
    loop {
        // Boxed: it is short, and would take room in every held request.
        match Box::pin(poll.feed.read(poll.limit)).await {
            Ok(batch) if batch.messages.is_empty() && !batch.more && !last => {}
            batch => return Some(batch.map_err(Refusal::Hub)),
        }
        last = tokio::select! {
            biased;
            () = poll.feed.wait() => poll.feed.closing(),
            () = left(line) => return None,
            () = stopped(shutdown) => true,
            () = sleep_until(poll.deadline) => true,
        };
    }
}

/// Resolves when the peer has left. Keeps the beginning of a request that it sent ahead.
async fn left(line: &mut Line) {
    loop {
        if line.front.len() >= FRONT_BYTES_MAX {
            // The rest stays in the kernel; that the peer leaves is not seen any more.
            return std::future::pending().await;
        }
        if !matches!(line.stream.peek(&mut [0]).await, Ok(1..)) {
            return;
        }
        match read_ahead(line) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => {}
        }
    }
}

fn read_ahead(line: &mut Line) -> io::Result<usize> {
    let mut room = [0; FRONT_BYTES_MAX];
    let most = FRONT_BYTES_MAX.saturating_sub(line.front.len());
    let length = line
        .stream
        .try_read(room.get_mut(..most).unwrap_or_default())?;
    let mut front = BytesMut::with_capacity(line.front.len() + length);
    front.extend_from_slice(&line.front);
    front.extend_from_slice(room.get(..length).unwrap_or_default());
    line.front = front.freeze();
    Ok(length)
}

/// Writes head and body without joining them; gives up when the peer takes nothing for `stall`.
async fn write(
    stream: &TcpStream,
    head: Bytes,
    body: Vec<Bytes>,
    stall: Duration,
) -> io::Result<()> {
    let mut parts = Parts {
        first: head,
        rest: body.into_iter(),
    };
    loop {
        match write_some(stream, &mut parts) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Box::pin(timeout(stall, stream.writable())).await??;
            }
            Err(error) => return Err(error),
        }
    }
}

struct Parts {
    first: Bytes,
    rest: std::vec::IntoIter<Bytes>,
}

/// One system call. True when nothing is left.
fn write_some(stream: &TcpStream, parts: &mut Parts) -> io::Result<bool> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let chunks = std::iter::once(&parts.first).chain(parts.rest.as_slice());
    let mut used = 0;
    for (slice, chunk) in slices.iter_mut().zip(chunks) {
        *slice = IoSlice::new(chunk);
        used += 1;
    }
    let mut written = stream.try_write_vectored(slices.get(..used).unwrap_or_default())?;
    if written == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    loop {
        let here = written.min(parts.first.len());
        parts.first.advance(here);
        written -= here;
        if !parts.first.is_empty() {
            return Ok(false);
        }
        match parts.rest.next() {
            Some(next) => parts.first = next,
            None => return Ok(true),
        }
    }
}
