//! A socket without hyper: whether its peer is still there, writing to it, and its end.

pub(super) mod pace;

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::consume_budget;
use tokio::time::{timeout, timeout_at};

use crate::http::socket::pace::{Pace, Patience};

/// What may be sent behind a held request and is kept; whoever sends so much is cut.
const READ_AHEAD_BYTES_MAX: usize = 4 * 1024;
/// What is read and thrown away of a peer that goes on sending after our end.
const LINGER_BYTES_MAX: usize = 256 * 1024;
/// What one system call writes.
const SLICES_MAX: usize = 64;

/// A client's socket, and what was read from it but not yet used.
pub(super) struct ClientSocket {
    pub(super) stream: TcpStream,
    pub(super) read_ahead: Bytes,
}

/// Waits until the peer sends something; false if it ends or breaks instead. As a poll, because the future of
/// `peek` is ten times as large, and a part of every connection that waits.
pub(super) async fn has_byte(stream: &TcpStream) -> bool {
    poll_fn(|cx| {
        // Peeked, not read: an idle connection owns no buffer to keep the byte in.
        let mut byte = [0];
        let peeked = stream.poll_peek(cx, &mut ReadBuf::new(&mut byte));
        peeked.map(|peeked| matches!(peeked, Ok(1..)))
    })
    .await
}

/// Resolves when the peer has left, or sent so much ahead that nobody could see it leave. What it sends is read, because
/// its end can only be seen behind it, and kept: it is the beginning of its next request.
pub(super) async fn peer_disconnected(socket: &mut ClientSocket) {
    loop {
        if socket.read_ahead.len() >= READ_AHEAD_BYTES_MAX {
            return;
        }
        if !has_byte(&socket.stream).await {
            return;
        }
        match read_more(socket) {
            Ok(0) => return,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
            Ok(_) | Err(_) => {}
        }
    }
}

fn read_more(socket: &mut ClientSocket) -> io::Result<usize> {
    let mut room = [0; READ_AHEAD_BYTES_MAX];
    let most = READ_AHEAD_BYTES_MAX.saturating_sub(socket.read_ahead.len());
    let length = socket
        .stream
        .try_read(room.get_mut(..most).unwrap_or_default())?;
    let mut read_ahead = BytesMut::with_capacity(socket.read_ahead.len() + length);
    read_ahead.extend_from_slice(&socket.read_ahead);
    read_ahead.extend_from_slice(room.get(..length).unwrap_or_default());
    socket.read_ahead = read_ahead.freeze();
    Ok(length)
}

/// Writes head and body without joining them; gives up when the peer takes nothing for too long, or too
/// little.
pub(super) async fn write(
    stream: &TcpStream,
    head: Bytes,
    body: Vec<Bytes>,
    patience: Patience,
) -> io::Result<()> {
    let mut parts = Parts {
        first: head,
        rest: body.into_iter(),
    };
    // Begins when the peer first does not take all at once.
    let mut pace = None;
    loop {
        // A peer that takes all would never let others run.
        consume_budget().await;
        match write_some(stream, &mut parts) {
            Ok(_) if parts.first.is_empty() => return Ok(()),
            Ok(written) => {
                if let Some(pace) = &mut pace {
                    Pace::add(pace, written);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let due = pace.get_or_insert_with(|| patience.begin()).due();
                Box::pin(timeout_at(due, stream.writable())).await??;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Drops what a peer that does not read did not take, with the socket: else the kernel keeps it.
pub(super) fn cut(stream: &TcpStream) {
    drop(stream.set_zero_linger());
}

/// Ends our side and waits a little for the peer's, so that the last reply is not lost to a reset.
pub(super) async fn linger(mut stream: TcpStream, limit: Duration) {
    let discard = async {
        // A close with unread bytes is a reset, and a reset takes the last reply from the peer. So our side ends first,
        // and what still comes is read.
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES_MAX;
        let mut scrap = [0; 1024];
        while left > 0 {
            match stream.read(&mut scrap).await {
                Ok(length @ 1..) => left = left.saturating_sub(length),
                Ok(0) | Err(_) => return,
            }
        }
    };
    if timeout(limit, discard).await.is_err() {
        tracing::trace!("the peer did not close");
    }
}

struct Parts {
    first: Bytes,
    rest: std::vec::IntoIter<Bytes>,
}

/// One system call; how much it wrote. Nothing is left when the first part is empty.
fn write_some(stream: &TcpStream, parts: &mut Parts) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES_MAX];
    let chunks = std::iter::once(&parts.first).chain(parts.rest.as_slice());
    let mut used = 0;
    for (slice, chunk) in slices.iter_mut().zip(chunks) {
        *slice = IoSlice::new(chunk);
        used += 1;
    }
    let written = stream.try_write_vectored(slices.get(..used).unwrap_or_default())?;
    if written == 0 {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let mut left = written;
    loop {
        let here = left.min(parts.first.len());
        parts.first.advance(here);
        left -= here;
        if !parts.first.is_empty() {
            return Ok(written);
        }
        match parts.rest.next() {
            Some(next) => parts.first = next,
            None => return Ok(written),
        }
    }
}
