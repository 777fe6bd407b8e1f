//! A connection's socket, as hyper gets it: bytes that were read already come first, and a peer that takes a reply
//! too slowly is cut.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep_until};

use super::exchange::Exchange;
use crate::http::socket::ClientSocket;
use crate::http::socket::pace::{Pace, Patience};

/// A [`ClientSocket`] that hyper reads and writes.
pub(super) struct Io {
    socket: TokioIo<TcpStream>,
    read_ahead: Bytes,
    patience: Patience,
    /// Of a reply that the peer has not taken at once.
    pace: Option<Pace>,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Tells the connection loop, which cannot reach in here, whether the last write waits.
    exchange: Arc<Exchange>,
    /// Whether hyper was given more than what had been read ahead.
    has_read: bool,
}

impl Io {
    pub(super) fn new(socket: ClientSocket, patience: Patience, exchange: Arc<Exchange>) -> Self {
        let ClientSocket { stream, read_ahead } = socket;
        Self {
            socket: TokioIo::new(stream),
            read_ahead,
            patience,
            pace: None,
            stalled: None,
            exchange,
            has_read: false,
        }
    }

    /// Whether hyper was given what had been read ahead, and nothing else.
    pub(super) fn gave_read_ahead_only(&self) -> bool {
        self.read_ahead.is_empty() && !self.has_read
    }

    /// Gives the socket back, with what hyper had read and not used.
    pub(super) fn into_socket(self, read: &Bytes) -> ClientSocket {
        // Copied, as even an empty slice keeps hyper's whole read buffer.
        let read_ahead = if self.read_ahead.is_empty() {
            Bytes::copy_from_slice(read)
        } else {
            [&read[..], &self.read_ahead[..]].concat().into()
        };
        ClientSocket {
            stream: self.socket.into_inner(),
            read_ahead,
        }
    }

    fn watch(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        self.exchange.set_blocked(written.is_pending());
        // Each reply has its own pace: how slowly the last one was taken does not count.
        if self.exchange.take_begun() {
            self.pace = None;
        }
        if let Poll::Ready(done) = &written {
            // The peer took something, so the pause starts again.
            self.stalled = None;
            if let (Some(pace), Ok(length)) = (&mut self.pace, done) {
                pace.add(*length);
            }
            return written;
        }
        let patience = self.patience;
        let due = self.pace.get_or_insert_with(|| patience.begin()).due();
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep_until(due)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read_ahead.is_empty() {
            let read = Pin::new(&mut self.socket).poll_read(cx, buf);
            self.has_read |= read.is_ready();
            return read;
        }
        let length = self.read_ahead.len().min(buf.remaining());
        buf.put_slice(&self.read_ahead.split_to(length));
        if !self.read_ahead.has_remaining() {
            // Even an empty slice would keep the memory of what was read ahead.
            self.read_ahead = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
