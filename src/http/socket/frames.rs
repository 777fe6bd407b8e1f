//! Frames over a socket that never blocks: tungstenite reads, and answers pings and closes; what it wants to
//! write and cannot, is written here, with a limit to the peer's patience.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, Utf8Bytes, WebSocket};

use super::{Over, text_head};
use crate::http::ending::Ending;
use crate::http::io::Line;
use crate::http::wire::write;

/// Read at once; kept by every open socket.
const READ_BYTES: usize = 512;

/// What the client has sent.
pub(super) enum Heard {
    /// A whole message.
    Text(Utf8Bytes),
    /// A ping, or the answer to one.
    Life,
    /// It wants no more; what is to be said must be said before the next flush, which says good-bye.
    Close,
}

/// Why reading ends.
pub(super) enum Fault {
    /// The client is to be told why.
    Ending(Ending),
    /// The client knows.
    Over(Over),
}

/// An upgraded connection.
pub(super) struct Frames {
    socket: WebSocket<Wire>,
    stall: Duration,
    /// Nothing was left at the last reading. What tungstenite has read ahead, the kernel does not tell of.
    dry: bool,
}

struct Wire(TcpStream);

impl Read for Wire {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(room)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Frames {
    /// `longest` is the most bytes of a message from the client.
    pub(super) fn new(line: Line, longest: usize, stall: Duration) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(longest))
            .max_frame_size(Some(longest));
        let wire = Wire(line.stream);
        let front = line.front.to_vec();
        let socket = WebSocket::from_partially_read(wire, front, Role::Server, Some(config));
        Self {
            socket,
            stall,
            dry: false,
        }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.socket.into_inner().0
    }

    /// Resolves when there may be something to read.
    pub(super) async fn readable(&self) {
        if !self.dry {
            return;
        }
        // An error will be met by the reading. As a poll: a small future in a place where many wait.
        drop(poll_fn(|cx| self.stream().poll_read_ready(cx)).await);
    }

    /// What has come; none if nothing has.
    pub(super) fn next(&mut self) -> Result<Option<Heard>, Fault> {
        let read = self.socket.read();
        self.dry = matches!(&read, Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock);
        match read {
            Ok(Message::Text(text)) => Ok(Some(Heard::Text(text))),
            Ok(Message::Binary(_)) => Err(Fault::Ending(Ending::NotText)),
            Ok(Message::Close(_)) => Ok(Some(Heard::Close)),
            Ok(_) => Ok(Some(Heard::Life)),
            Err(_) if self.dry => Ok(None),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => Err(Fault::Over(Over::Closed)),
            Err(Error::Capacity(_)) => Err(Fault::Ending(Ending::TooLarge)),
            Err(Error::Utf8(_)) => Err(Fault::Ending(Ending::NotUtf8)),
            Err(Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => Err(Fault::Over(Over::Gone)),
            Err(Error::Protocol(_)) => Err(Fault::Ending(Ending::Protocol)),
            Err(_) => Err(Fault::Over(Over::Gone)),
        }
    }

    /// Writes what reading has left to write.
    pub(super) async fn flush(&mut self) -> Result<(), Over> {
        loop {
            match self.socket.flush() {
                Ok(()) => return Ok(()),
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => return Err(Over::Closed),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    let writable = Box::pin(timeout(self.stall, self.stream().writable()));
                    writable.await.map_err(|_| Over::Gone)??;
                }
                Err(_) => return Err(Over::Gone),
            }
        }
    }

    /// Writes one text frame. What reading has left must be written before.
    pub(super) async fn text(&self, parts: Vec<Bytes>) -> Result<(), Over> {
        let length = parts.iter().map(Bytes::len).sum();
        Box::pin(write(self.stream(), text_head(length), parts, self.stall)).await?;
        Ok(())
    }

    pub(super) async fn ping(&mut self) -> Result<(), Over> {
        self.put(Message::Ping(Bytes::new())).await
    }

    /// Says why it ends and waits a little for the client's own close. Not behind a fault of the client's.
    pub(super) async fn close(&mut self, ending: &Ending, limit: Duration) -> Result<(), Over> {
        let frame = CloseFrame {
            code: ending.close_code(),
            reason: Utf8Bytes::from_static(ending.code()),
        };
        self.put(Message::Close(Some(frame))).await?;
        if !ending.reconnect() {
            // Where the next frame begins is not known any more.
            return Ok(());
        }
        let farewell = async {
            loop {
                match self.next() {
                    Ok(Some(_)) | Err(Fault::Ending(Ending::NotText)) => {}
                    Ok(None) => self.readable().await,
                    Err(_) => return,
                }
            }
        };
        if timeout(limit, farewell).await.is_err() {
            tracing::trace!("the client did not close its side");
        }
        Ok(())
    }

    async fn put(&mut self, message: Message) -> Result<(), Over> {
        match self.socket.write(message) {
            Ok(()) => {}
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Err(Over::Gone),
        }
        self.flush().await
    }

    fn stream(&self) -> &TcpStream {
        &self.socket.get_ref().0
    }
}
