//! A reply that is written piece by piece: its head with the first of it, and each piece a chunk.

use std::fmt::Write as _;
use std::io;

use bytes::Bytes;

use super::{NextState, ParkedConnection, Running};
use crate::http::response::head::ResponseContext;
use crate::http::response::reply::Reply;
use crate::http::socket::write;

const CHUNK_END: Bytes = Bytes::from_static(b"\r\n");
const LAST_CHUNK: Bytes = Bytes::from_static(b"0\r\n\r\n");

/// What is to be written next. Pieces that are put in together are one write.
pub(in crate::http) struct EndlessReply {
    /// The head, as long as it is not written.
    head: Option<Bytes>,
    /// Whether the client knows chunks; to others the end of the connection is the end of the reply.
    chunked: bool,
    parts: Vec<Bytes>,
}

impl EndlessReply {
    pub(in crate::http) fn new(response: &ResponseContext, reply: &Reply) -> Self {
        Self {
            head: Some(response.endless_head(reply)),
            chunked: response.knows_chunks(),
            parts: Vec::new(),
        }
    }

    /// Whether nothing was written yet.
    pub(in crate::http) fn unbegun(&self) -> bool {
        self.head.is_some()
    }

    /// Adds one chunk.
    pub(in crate::http) fn put(&mut self, mut chunk: Vec<Bytes>) {
        if self.chunked {
            let length: usize = chunk.iter().map(Bytes::len).sum();
            chunk.insert(0, format!("{length:x}\r\n").into());
            chunk.push(CHUNK_END);
        }
        if self.parts.is_empty() {
            self.parts = chunk;
        } else {
            self.parts.append(&mut chunk);
        }
    }

    /// Adds texts, each as a chunk, but all as one part: there may be many of them, and a system call takes few parts.
    pub(in crate::http) fn put_texts(&mut self, texts: impl IntoIterator<Item: AsRef<str>>) {
        let mut all = String::new();
        for text in texts {
            match text.as_ref() {
                // An empty chunk would end the reply.
                "" => {}
                text if self.chunked => {
                    write!(all, "{:x}\r\n{text}\r\n", text.len())
                        .expect("a string can be written to");
                }
                text => all.push_str(text),
            }
        }
        if !all.is_empty() {
            self.parts.push(all.into());
        }
    }

    /// Writes it at once; what the peer does not take for too long is an error.
    pub(in crate::http) async fn send(
        &mut self,
        connection: &ParkedConnection<'_>,
    ) -> io::Result<()> {
        let mut parts = std::mem::take(&mut self.parts);
        let first = match self.head.take() {
            Some(head) => head,
            None if parts.is_empty() => return Ok(()),
            None => parts.remove(0),
        };
        let patience = connection.app.timeouts.patience();
        // Boxed, as it is short and would take room in everything that is held open.
        Box::pin(write(&connection.socket.stream, first, parts, patience)).await
    }

    /// Ends the reply.
    pub(in crate::http) fn end(mut self, connection: ParkedConnection<'_>) -> Running<'_> {
        if self.chunked {
            self.parts.push(LAST_CHUNK);
        }
        self.break_off(connection)
    }

    /// Ends the connection after what is there, without the end of the reply.
    pub(in crate::http) fn break_off(mut self, connection: ParkedConnection<'_>) -> Running<'_> {
        Box::pin(async move {
            match self.send(&connection).await {
                Ok(()) => NextState::Close(connection.socket.stream),
                Err(_) => connection.cut(),
            }
        })
    }
}
