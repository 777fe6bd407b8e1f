//! One connection in a reactor: its socket, its session, and what is under way between them.

use std::io::{self, Read};
use std::net::Shutdown;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rustix::net::sockopt::set_socket_linger;
use tokio::time::Instant;

use super::deadlines::{Calendar, Due};
use super::gate::Bell;
use super::unsent::{Sent, Unsent};
use super::{Guest, Heard, Line, Manners, Session, Step, Turn, WayBack};

/// What one system call reads.
pub(super) const READ_BYTES: usize = 16 * 1024;
/// What may be sent ahead of a reply and is kept; whoever sends so much is cut, as nobody could see it leave.
const FRONT_BYTES_MAX: usize = 4 * 1024;
/// What is read and thrown away of a peer that goes on sending after our end.
const LINGER_BYTES_MAX: usize = 256 * 1024;
/// What one connection may do until it is another's turn.
const STEPS_MAX: u32 = 32;
const SENT_BYTES_MAX: usize = 256 * 1024;

/// What all connections of a reactor use in turn.
pub(super) struct Tools {
    pub(super) manners: Manners,
    pub(super) calendar: Calendar,
    pub(super) buffer: Box<[u8]>,
    pub(super) now: Instant,
    pub(super) stopping: bool,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It waits for something.
    Stays,
    /// It goes on when others had their turn.
    Again,
    GoesBack,
    Gone,
}

/// One connection.
pub(super) struct Entry {
    stream: TcpStream,
    session: Box<dyn Session>,
    way_back: WayBack,
    bell: Arc<Bell>,
    due: Due,
    /// Most peers take all at once.
    unsent: Option<Box<Unsent>>,
    /// What the peer sent ahead.
    front: Box<[u8]>,
    /// Whether it goes on in the next turn, whatever it is called for until then.
    pub(super) again: bool,
    /// Whether there may be something to read.
    readable: bool,
    /// Whether the peer has ended its side; what it sent before may still be there to read.
    ended: bool,
}

/// What came of listening.
enum Listened {
    Nothing,
    Something,
    ForOthers,
    /// The peer has left.
    End,
}

impl Entry {
    /// Takes over a connection.
    pub(super) fn new(
        guest: Guest,
        bell: Arc<Bell>,
        (registry, token): (&Registry, Token),
    ) -> io::Result<Self> {
        let Guest {
            line,
            session,
            way_back,
        } = guest;
        let mut stream = TcpStream::from_std(line.stream);
        registry.register(
            &mut stream,
            token,
            Interest::READABLE.add(Interest::WRITABLE),
        )?;
        Ok(Self {
            stream,
            session,
            way_back,
            bell,
            due: Due::default(),
            unsent: None,
            front: (&line.front[..]).into(),
            again: false,
            readable: false,
            ended: false,
        })
    }

    /// Notes what has changed at the socket. Whether that is a reason to go on.
    pub(super) fn note(&mut self, event: &Event) -> bool {
        let reads = event.is_readable() || event.is_read_closed() || event.is_error();
        self.readable |= reads;
        self.ended |= event.is_read_closed();
        reads || (event.is_writable() && self.unsent.is_some())
    }

    pub(super) fn due(&mut self) -> &mut Due {
        &mut self.due
    }

    /// Lets the session do what it can.
    pub(super) fn go_on(&mut self, place: usize, tools: &mut Tools) -> Fate {
        let mut bytes = 0;
        if let Some(unsent) = self.unsent.take()
            && let Some(fate) = self.send(*unsent, place, tools)
        {
            return fate;
        }
        for _ in 0..STEPS_MAX {
            if bytes > SENT_BYTES_MAX {
                break;
            }
            match self.step(tools) {
                Step::Say(parts) => {
                    let unsent = Unsent::new(parts);
                    bytes += unsent.bytes();
                    if let Some(fate) = self.send(unsent, place, tools) {
                        return fate;
                    }
                }
                Step::Listen { until } => {
                    // What has come by then is heard, also if its event has not.
                    self.readable |= until <= tools.now;
                    match self.listen(&mut tools.buffer) {
                        Listened::Something => {}
                        Listened::Nothing => {
                            self.wait(place, Some(until), tools);
                            return Fate::Stays;
                        }
                        Listened::ForOthers => return Fate::GoesBack,
                        Listened::End => return Fate::Gone,
                    }
                }
                Step::Work => {
                    self.wait(place, None, tools);
                    return Fate::Stays;
                }
                Step::End => {
                    if self.stream.shutdown(Shutdown::Write).is_err() {
                        return Fate::Gone;
                    }
                    self.session = Box::new(Lingering {
                        until: tools.now + tools.manners.linger,
                        left: LINGER_BYTES_MAX,
                    });
                }
                Step::Cut => return Fate::Gone,
            }
        }
        Fate::Again
    }

    fn wait(&mut self, place: usize, until: Option<Instant>, tools: &mut Tools) {
        tools.calendar.set(place, &mut self.due, until, tools.now);
    }

    /// Writes what is on its way. None: all of it.
    fn send(&mut self, mut unsent: Unsent, place: usize, tools: &mut Tools) -> Option<Fate> {
        match unsent.send(&mut self.stream, tools.manners.patience) {
            Ok(Sent::All) => None,
            Ok(Sent::Some(due)) if due > tools.now => {
                self.unsent = Some(Box::new(unsent));
                self.wait(place, Some(due), tools);
                Some(Fate::Stays)
            }
            Ok(Sent::Some(_)) => {
                // What the peer did not take is dropped with the socket, not kept by the kernel.
                if let Err(error) = set_socket_linger(&self.stream, Some(Duration::ZERO)) {
                    tracing::debug!(%error, "cannot cut a connection");
                }
                Some(Fate::Gone)
            }
            Err(_) => Some(Fate::Gone),
        }
    }

    fn step(&mut self, tools: &Tools) -> Step {
        // Before it looks: what comes then rings again.
        self.bell.heard();
        let waker = Waker::from(Arc::clone(&self.bell));
        let mut turn = Turn {
            now: tools.now,
            stopping: tools.stopping,
            context: Context::from_waker(&waker),
        };
        alone(|| self.session.step(&mut turn)).unwrap_or(Step::Cut)
    }

    /// Reads what the peer says, while the session takes it. What it does not take yet is kept.
    fn listen(&mut self, buffer: &mut [u8]) -> Listened {
        if !self.front.is_empty() {
            match alone(|| self.session.hear(&self.front)) {
                Some(Heard::All) => {
                    self.front = Box::default();
                    return Listened::Something;
                }
                Some(Heard::Later) => {}
                Some(Heard::Other) => return Listened::ForOthers,
                None => return Listened::End,
            }
        }
        while self.readable {
            let length = match self.stream.read(buffer) {
                Ok(0) => return Listened::End,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Listened::End,
            };
            // What comes behind a short piece comes with a new event, unless the end was told with this one.
            self.readable = length == buffer.len() || self.ended;
            let said = buffer.get(..length).unwrap_or_default();
            if self.front.is_empty() {
                let heard = alone(|| self.session.hear(said));
                if heard == Some(Heard::All) {
                    return Listened::Something;
                }
                self.front = said.into();
                match heard {
                    Some(Heard::Other) => return Listened::ForOthers,
                    Some(_) => {}
                    None => return Listened::End,
                }
            } else {
                self.front = [&self.front[..], said].concat().into();
            }
            if self.front.len() >= FRONT_BYTES_MAX {
                return Listened::End;
            }
        }
        Listened::Nothing
    }

    /// Gives the connection back to whom it came from.
    pub(super) fn go_back(mut self, registry: &Registry) {
        if let Err(error) = registry.deregister(&mut self.stream) {
            tracing::debug!(%error, "cannot give a connection back");
            return;
        }
        let line = Line {
            stream: self.stream.into(),
            front: Bytes::from(self.front),
        };
        if alone(|| (self.way_back)(line)).is_none() {
            tracing::error!("a connection is lost");
        }
    }
}

/// Does one session's work, so that a fault in it does not end the others.
fn alone<T>(work: impl FnOnce() -> T) -> Option<T> {
    let done = catch_unwind(AssertUnwindSafe(work));
    if done.is_err() {
        tracing::error!("a held connection failed");
    }
    done.ok()
}

/// What is left of a session that has ended: the peer's end is awaited a little, so that the last words are not lost to a
/// reset.
struct Lingering {
    until: Instant,
    left: usize,
}

impl Session for Lingering {
    fn step(&mut self, turn: &mut Turn<'_>) -> Step {
        if self.left == 0 || turn.now >= self.until {
            return Step::Cut;
        }
        Step::Listen { until: self.until }
    }

    fn hear(&mut self, said: &[u8]) -> Heard {
        self.left = self.left.saturating_sub(said.len());
        Heard::All
    }
}
