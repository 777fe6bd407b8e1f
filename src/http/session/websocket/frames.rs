//! Frames over a socket that never blocks: tungstenite reads, and answers pings and closes; what it wants to
//! write and cannot, is written here, with a limit to the peer's patience.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::task::yield_now;
use tokio::time::timeout;
use tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tungstenite::{Error, Message, Utf8Bytes, WebSocket};

use crate::http::session::close_reason::CloseReason;
use crate::http::socket::ClientSocket;
use crate::http::socket::pace::Patience;
use crate::http::socket::write;

/// Read at once; kept by every open socket.
const READ_BYTES: usize = 512;

/// Readings of the socket in one turn; then others have theirs.
const READINGS_MAX: usize = 64;
/// What heads of frames may add to a message that comes in parts, beyond its own length.
const HEADS_BYTES_MAX: usize = 4096;
/// The head of a control frame from a client, with its mask.
const CONTROL_HEAD_BYTES: usize = 6;

/// What the client has sent.
pub(super) enum ClientFrame {
    /// A whole message.
    Text(Utf8Bytes),
    /// A ping, or the answer to one.
    Alive,
    /// It wants no more; what is to be said must be said before the next flush, which says good-bye.
    Close,
}

/// Why reading ends.
pub(super) enum ReadEnd {
    /// The client is to be told why.
    Reason(CloseReason),
    /// The client knows.
    End(SocketEnd),
}

/// Why there is nothing more to say.
#[derive(Debug)]
pub(in crate::http) enum SocketEnd {
    /// The client closes.
    Closed,
    /// The client is gone, or does not read.
    Gone,
}

impl From<io::Error> for SocketEnd {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

/// An upgraded connection.
pub(super) struct Frames {
    socket: WebSocket<Wire>,
    patience: Patience,
    /// Most bytes of a message.
    longest: usize,
}

struct Wire {
    stream: TcpStream,
    /// Nothing was left at the last reading. What tungstenite has read ahead, the kernel does not tell of.
    dry: bool,
    /// Readings that are left of this turn: tungstenite reads on until it has a whole message.
    readings: usize,
    /// Read since the last whole text, but for control frames.
    bytes: usize,
}

impl Read for Wire {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(readings) = self.readings.checked_sub(1) else {
            return Err(ErrorKind::WouldBlock.into());
        };
        self.readings = readings;
        let read = self.stream.try_read(room);
        self.dry = matches!(&read, Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.bytes += read.as_ref().copied().unwrap_or_default();
        read
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Frames {
    /// `longest` is the most bytes of a message from the client.
    pub(super) fn new(socket: ClientSocket, longest: usize, patience: Patience) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            // Frames leave at once: what is written past tungstenite must not overtake them.
            .write_buffer_size(0)
            .max_message_size(Some(longest))
            .max_frame_size(Some(longest));
        let wire = Wire {
            stream: socket.stream,
            dry: false,
            readings: READINGS_MAX,
            bytes: 0,
        };
        let read_ahead = socket.read_ahead.to_vec();
        let socket = WebSocket::from_partially_read(wire, read_ahead, Role::Server, Some(config));
        Self {
            socket,
            patience,
            longest,
        }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.socket.into_inner().stream
    }

    /// Resolves when there may be something to read.
    pub(super) async fn readable(&self) {
        if !self.socket.get_ref().dry {
            return;
        }
        // An error will be met by the reading. As a poll: a small future in a place where many wait.
        drop(poll_fn(|cx| self.stream().poll_read_ready(cx)).await);
    }

    /// Lets others run, unless all that there was has been read.
    pub(super) async fn end_turn(&mut self) {
        self.socket.get_mut().readings = READINGS_MAX;
        if !self.socket.get_ref().dry {
            yield_now().await;
        }
    }

    /// What has come; none if nothing has, or the turn is over.
    pub(super) fn next(&mut self) -> Result<Option<ClientFrame>, ReadEnd> {
        let read = self.socket.read();
        self.count(&read)?;
        match read {
            Ok(Message::Text(text)) => Ok(Some(ClientFrame::Text(text))),
            Ok(Message::Binary(_)) => Err(ReadEnd::Reason(CloseReason::NotText)),
            Ok(Message::Close(_)) => Ok(Some(ClientFrame::Close)),
            Ok(_) => Ok(Some(ClientFrame::Alive)),
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                Err(ReadEnd::End(SocketEnd::Closed))
            }
            Err(Error::Capacity(_)) => Err(ReadEnd::Reason(CloseReason::TooLarge)),
            Err(Error::Utf8(_)) => Err(ReadEnd::Reason(CloseReason::NotUtf8)),
            Err(Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => Err(ReadEnd::End(SocketEnd::Gone)),
            Err(Error::Protocol(_)) => Err(ReadEnd::Reason(CloseReason::Protocol)),
            Err(_) => Err(ReadEnd::End(SocketEnd::Gone)),
        }
    }

    /// Parts of a message may be empty, so that they never become too long.
    fn count(&mut self, read: &Result<Message, Error>) -> Result<(), ReadEnd> {
        let bytes = &mut self.socket.get_mut().bytes;
        match read {
            Ok(Message::Ping(payload) | Message::Pong(payload)) => {
                *bytes = bytes.saturating_sub(payload.len() + CONTROL_HEAD_BYTES);
            }
            Ok(_) => *bytes = 0,
            Err(_) if *bytes > 2 * self.longest + HEADS_BYTES_MAX => {
                return Err(ReadEnd::Reason(CloseReason::TooManyFrames));
            }
            Err(_) => {}
        }
        Ok(())
    }

    /// Writes what reading has left to write.
    pub(super) async fn flush(&mut self) -> Result<(), SocketEnd> {
        loop {
            match self.socket.flush() {
                Ok(()) => return Ok(()),
                Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                    return Err(SocketEnd::Closed);
                }
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {
                    let writable = Box::pin(timeout(self.patience.pause, self.stream().writable()));
                    writable.await.map_err(|_| SocketEnd::Gone)??;
                }
                Err(_) => return Err(SocketEnd::Gone),
            }
        }
    }

    /// Writes one text frame. What reading has left must be written before.
    pub(super) async fn text(&self, parts: Vec<Bytes>) -> Result<(), SocketEnd> {
        let length = parts.iter().map(Bytes::len).sum();
        Box::pin(write(
            self.stream(),
            text_head(length),
            parts,
            self.patience,
        ))
        .await?;
        Ok(())
    }

    pub(super) async fn ping(&mut self) -> Result<(), SocketEnd> {
        self.put(Message::Ping(Bytes::new())).await
    }

    /// Says why it ends and waits a little for the client's own close. Not behind a fault of the client's.
    pub(super) async fn close(
        &mut self,
        reason: &CloseReason,
        limit: Duration,
    ) -> Result<(), SocketEnd> {
        let frame = CloseFrame {
            code: reason.close_code(),
            reason: Utf8Bytes::from_static(reason.code()),
        };
        self.put(Message::Close(Some(frame))).await?;
        if !reason.reconnect() {
            // Where the next frame begins is no longer known.
            return Ok(());
        }
        let farewell = async {
            loop {
                match self.next() {
                    Ok(Some(_)) | Err(ReadEnd::Reason(CloseReason::NotText)) => {}
                    Ok(None) => {
                        self.end_turn().await;
                        self.readable().await;
                    }
                    Err(_) => return,
                }
            }
        };
        if timeout(limit, farewell).await.is_err() {
            tracing::trace!("the client did not close its side");
        }
        Ok(())
    }

    async fn put(&mut self, message: Message) -> Result<(), SocketEnd> {
        match self.socket.write(message) {
            Ok(()) => {}
            Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return Err(SocketEnd::Gone),
        }
        self.flush().await
    }

    fn stream(&self) -> &TcpStream {
        &self.socket.get_ref().stream
    }
}

/// The head of a text frame from a server: never masked, never in parts.
fn text_head(length: usize) -> Bytes {
    const TEXT: u8 = 0x81;
    let mut head = vec![TEXT];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => head.push(length),
        (_, Ok(length)) => {
            head.push(126);
            head.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            head.push(127);
            let length = u64::try_from(length).unwrap_or(u64::MAX);
            head.extend_from_slice(&length.to_be_bytes());
        }
    }
    head.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_short_as_the_standard_wants() {
        for (length, head) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(text_head(length)[..], head, "{length}");
        }
    }
}
