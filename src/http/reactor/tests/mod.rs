//! Reactors over real sockets of this machine.

mod peers;
mod sessions;

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Instant as StdInstant;

use super::*;

/// Only for what must not happen.
const PATIENCE: Duration = Duration::from_secs(30);
/// For what the reactor is to wait for in vain.
const SHORT: Duration = Duration::from_millis(200);

fn manners(pause: Duration, linger: Duration) -> Manners {
    let patience = Patience {
        pause,
        bytes_per_s: 1 << 30,
    };
    Manners { patience, linger }
}

/// Reactors, and what comes back from them.
struct House {
    reactors: Reactors,
    back: Sender<Line>,
    came_back: Receiver<Line>,
    open: Arc<AtomicUsize>,
    _runtime: tokio::runtime::Runtime,
}

impl House {
    fn of(count: usize, manners: Manners) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.build().unwrap();
        let _entered = runtime.enter();
        let (back, came_back) = channel();
        Self {
            reactors: Reactors::start(count, manners).unwrap(),
            back,
            came_back,
            open: Arc::default(),
            _runtime: runtime,
        }
    }

    fn patient() -> Self {
        Self::of(2, manners(PATIENCE, PATIENCE))
    }

    /// A session with a new peer.
    fn open(&self, key: u32) -> (TcpStream, Arc<Word>) {
        let (peer, stream) = pair();
        (peer, self.park(key, stream, b""))
    }

    fn park(&self, key: u32, stream: TcpStream, front: &'static [u8]) -> Arc<Word> {
        self.open.fetch_add(1, Ordering::Relaxed);
        let word = Arc::new(Word::default());
        let session = Talk {
            word: word.clone(),
            to_say: Vec::new(),
            last: None,
            open: self.open.clone(),
        };
        let front = Bytes::from_static(front);
        let line = Line { stream, front };
        let (session, back) = (Box::new(session), self.back.clone());
        let guest = Guest {
            line,
            session,
            way_back: Box::new(move |line| drop(back.send(line))),
        };
        self.reactors.park(&key, guest);
        word
    }

    /// Any session; its connection does not come back.
    fn park_session(&self, stream: TcpStream, session: Box<dyn Session>) {
        let front = Bytes::new();
        let line = Line { stream, front };
        let guest = Guest {
            line,
            session,
            way_back: Box::new(drop),
        };
        self.reactors.park(&1, guest);
    }

    fn wait_open(&self, count: usize) {
        until(|| self.open.load(Ordering::Relaxed) == count);
    }

    fn take_back(&self) -> Line {
        self.came_back.recv_timeout(PATIENCE).unwrap()
    }
}

/// Both ends of a connection.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    peer.set_nodelay(true).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    stream.set_nodelay(true).unwrap();
    (peer, stream)
}

fn until(mut true_then: impl FnMut() -> bool) {
    let begin = StdInstant::now();
    while !true_then() {
        assert!(begin.elapsed() < PATIENCE, "it does not happen");
        std::thread::yield_now();
    }
}

/// What the others tell a session.
#[derive(Default)]
struct Word(Mutex<(String, Option<Waker>)>);

impl Word {
    fn tell(&self, what: &str) {
        let mut inside = self.0.lock().unwrap();
        inside.0.push_str(what);
        let waker = inside.1.take();
        drop(inside);
        waker.into_iter().for_each(Waker::wake);
    }

    /// Whether somebody waits to be told.
    fn is_awaited(&self) -> bool {
        self.0.lock().unwrap().1.is_some()
    }
}

/// Says what it is told, and does what its peer asks for: a line a request, and each whole in one piece.
struct Talk {
    word: Arc<Word>,
    to_say: Vec<Bytes>,
    /// What comes when all is said.
    last: Option<&'static str>,
    open: Arc<AtomicUsize>,
}

impl Session for Talk {
    fn step(&mut self, turn: &mut Turn<'_>) -> Step {
        let mut word = self.word.0.lock().unwrap();
        word.1 = Some(turn.context.waker().clone());
        let told = std::mem::take(&mut word.0);
        drop(word);
        if !told.is_empty() {
            self.to_say.push(told.into());
        }
        if self.last == Some("work") && self.to_say.is_empty() {
            return Step::Work;
        }
        if !self.to_say.is_empty() {
            return Step::Say(std::mem::take(&mut self.to_say));
        }
        match self.last {
            Some("end") => Step::End,
            Some("panic") => panic!("as asked for"),
            _ if turn.stopping => Step::End,
            _ => Step::Listen {
                until: turn.now + PATIENCE,
            },
        }
    }

    fn hear(&mut self, said: &[u8]) -> Heard {
        match said {
            b"later\n" => return Heard::Later,
            b"end\n" => (self.to_say, self.last) = (vec!["bye".into()], Some("end")),
            b"work\n" => self.last = Some("work"),
            b"panic\n" => self.last = Some("panic"),
            [b'+', number @ .., b'\n'] if !number.contains(&b'\n') => {
                let number = std::str::from_utf8(number).unwrap().parse().unwrap();
                self.to_say = vec![body(number).into()];
            }
            [b'.', ..] => {}
            _ => return Heard::Other,
        }
        Heard::All
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn body(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}

#[track_caller]
fn expect(peer: &mut TcpStream, text: &[u8]) {
    let mut read = vec![0; text.len()];
    peer.read_exact(&mut read).unwrap();
    assert!(read == text, "another text");
}

#[track_caller]
fn ask(peer: &mut TcpStream, number: usize) {
    peer.write_all(format!("+{number}\n").as_bytes()).unwrap();
    expect(peer, &body(number));
}
