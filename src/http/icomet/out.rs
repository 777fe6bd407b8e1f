//! What is written of an endless reply: the head with the first of it, and each object a chunk.

use std::fmt::Write as _;
use std::io;

use bytes::Bytes;

use crate::http::context::App;
use crate::http::parked::{End, cut};
use crate::http::response::head::Asked;
use crate::http::response::reply::Reply;
use crate::http::socket::Line;
use crate::http::socket::write;

/// What is to be written next.
pub(super) struct Out {
    /// The head, as long as it is not written.
    head: Option<Bytes>,
    chunked: bool,
    text: String,
}

impl Out {
    pub(super) fn new(asked: &Asked, reply: &Reply) -> Self {
        Self {
            head: Some(asked.raw_stream(reply)),
            chunked: asked.chunks(),
            text: String::new(),
        }
    }

    /// Whether nothing was written yet.
    pub(super) fn unbegun(&self) -> bool {
        self.head.is_some()
    }

    pub(super) fn put(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if self.chunked {
            write!(self.text, "{:x}\r\n{text}\r\n", text.len())
                .expect("a string can be written to");
        } else {
            self.text.push_str(text);
        }
    }

    /// Writes it at once; what the peer does not take for too long is an error.
    pub(super) async fn send(&mut self, app: &App, line: &Line) -> io::Result<()> {
        let text = Bytes::from(std::mem::take(&mut self.text));
        let (first, rest) = match self.head.take() {
            Some(head) => (head, vec![text]),
            None if text.is_empty() => return Ok(()),
            None => (text, Vec::new()),
        };
        write(&line.stream, first, rest, app.timeouts.patience()).await
    }

    /// Ends the reply.
    pub(super) async fn end(mut self, app: &App, line: Line) -> End {
        if self.chunked {
            self.text.push_str("0\r\n\r\n");
        }
        self.cut_short(app, line).await
    }

    /// Ends the connection after what is there, without the end of the reply.
    pub(super) async fn cut_short(mut self, app: &App, line: Line) -> End {
        match self.send(app, &line).await {
            Ok(()) => End::Close(line.stream),
            Err(_) => cut(&line.stream),
        }
    }
}
