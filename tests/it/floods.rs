//! Clients that send all they can, on as many connections as the server has threads, and on twice as many.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use halley::clock;
use halley::token::{Claims, mint};
use tokio::time::timeout;

use crate::crowd::process::{Process, TOKEN_SECRET};
use crate::support::{Frame, Http, PATIENCE, Socket, eventually, frame};

/// Threads of the server.
const THREADS: usize = 2;
/// Requests to each listener that must be answered within [`PATIENCE`] of a flood: 4 were, of a server that
/// looks after nobody else while bytes wait.
const PROBES: usize = 30;
/// Tokens are taken for so long after their end.
const LEEWAY_S: u64 = 5;
/// What is written at once.
const PIECE_BYTES: usize = 64 * 1024;

const TEXT: u8 = 0x81;
const TEXT_BEGINS: u8 = 0x01;
const GOES_ON: u8 = 0x00;
const GOES_ON_AND_ENDS: u8 = 0x80;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;

/// What is sent again and again, behind what is sent once.
struct Flood {
    what: &'static str,
    request: String,
    first: Vec<u8>,
    again: Vec<u8>,
}

fn token(send: bool, seconds: u64) -> String {
    let claims = Claims {
        user: "mallory".to_owned(),
        send,
        expires_at: clock::now_s() + seconds - LEEWAY_S,
    };
    mint(TOKEN_SECRET.as_bytes(), &claims)
}

fn upgrade(token: &str) -> String {
    Socket::request(token, "after=now") + &Socket::handshake()
}

fn on_socket(what: &'static str, first: &[u8], again: &[u8]) -> Flood {
    Flood {
        what,
        request: upgrade(&token(true, 3600)),
        first: first.to_vec(),
        again: again.to_vec(),
    }
}

fn pipelined(what: &'static str, path: &str) -> Flood {
    let bearer = token(true, 3600);
    let request =
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bearer}\r\n\r\n");
    Flood {
        what,
        request: request.clone(),
        first: Vec::new(),
        again: request.into_bytes(),
    }
}

/// Frames that the server has to read one by one, and that bring it nothing.
fn useless_frames() -> Vec<Flood> {
    let send = br#"{"send":{"to":"","body":1}}"#;
    let fresh = format!(r#"{{"token":"{}"}}"#, token(true, 3600));
    vec![
        on_socket("pings", b"", &frame(PING, b"")),
        on_socket("long pings", b"", &frame(PING, &[b'x'; 125])),
        on_socket("pongs", b"", &frame(PONG, b"")),
        on_socket("refused texts", b"", &frame(TEXT, send)),
        on_socket("empty texts", b"", &frame(TEXT, b"")),
        on_socket("long refused texts", b"", &frame(TEXT, &[b'x'; 1000])),
        on_socket("tokens", b"", &frame(TEXT, fresh.as_bytes())),
        on_socket(
            "empty parts",
            &frame(TEXT_BEGINS, b""),
            &frame(GOES_ON, b""),
        ),
    ]
}

fn floods() -> Vec<Flood> {
    let mut floods = useless_frames();
    let send = br#"{"send":{"to":"bob","body":1}}"#;
    floods.push(on_socket("messages", b"", &frame(TEXT, send)));
    floods.push(pipelined("polls", "/v1/inbox?wait=0"));
    floods.push(pipelined("lists", "/v1/conversations"));
    floods.push(pipelined("probes", "/healthz"));
    floods
}

/// Floods on several connections, each begun again when the server ends it, until it is dropped.
struct Flooding {
    stop: Arc<AtomicBool>,
    begun: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Flooding {
    fn begin(address: SocketAddr, flood: &Flood, connections: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Arc::new(AtomicUsize::new(0));
        let threads = (0..connections)
            .map(|_| {
                let (stop, begun) = (stop.clone(), begun.clone());
                let request = flood.request.clone().into_bytes();
                let first = flood.first.clone();
                let again = flood.again.repeat(PIECE_BYTES.div_ceil(flood.again.len()));
                std::thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let mut counted = false;
                        // An error is the server's end of it.
                        drop(pour(address, [&request, &first], &again, &stop, || {
                            if !counted {
                                begun.fetch_add(1, Ordering::Relaxed);
                            }
                            counted = true;
                        }));
                        if !counted {
                            // It is not there, or stops.
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        Self {
            stop,
            begun,
            threads,
        }
    }

    async fn under_way(&self) {
        let all = self.threads.len();
        eventually("the flood has begun", || async {
            self.begun.load(Ordering::Relaxed) >= all
        })
        .await;
    }
}

impl Drop for Flooding {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

/// One connection until its end or the stop. What the server writes is read.
fn pour(
    address: SocketAddr,
    first: [&[u8]; 2],
    again: &[u8],
    stop: &AtomicBool,
    mut poured: impl FnMut(),
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_write_timeout(Some(Duration::from_millis(100)))?;
    let mut reader = stream.try_clone()?;
    let drain = std::thread::spawn(move || {
        let mut scrap = vec![0; PIECE_BYTES];
        while matches!(reader.read(&mut scrap), Ok(1..)) {}
    });
    let mut pouring = || {
        stream.write_all(&first.concat())?;
        let mut left = again;
        while !stop.load(Ordering::Relaxed) {
            match stream.write(left) {
                Ok(length) => left = &left[length..],
                // The server takes nothing for now.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if left.is_empty() {
                left = again;
            }
            poured();
        }
        Ok(())
    };
    let done = pouring();
    drop(stream.shutdown(Shutdown::Both));
    drain.join().unwrap();
    done
}

async fn start() -> Process {
    Process::with(|command| {
        command.env("TOKIO_WORKER_THREADS", THREADS.to_string());
        command.args(["--shutdown-s", "4"]);
    })
    .await
}

async fn healthy(address: SocketAddr) {
    let mut http = Http::connect(address).await;
    let reply = http.request("GET", "/healthz", &[], "").await;
    assert_eq!(reply.status, 200);
}

/// Both listeners answer, again and again.
async fn serves_others(server: &Process, what: &str) {
    let probes = async {
        for _ in 0..PROBES {
            healthy(server.client).await;
            healthy(server.admin).await;
        }
    };
    let served = timeout(PATIENCE, probes).await;
    assert!(served.is_ok(), "{what}: others are not served");
}

#[tokio::test]
async fn a_flood_does_not_keep_others_from_being_served() {
    let server = start().await;
    for flood in floods() {
        for connections in [THREADS, 2 * THREADS] {
            let flooding = Flooding::begin(server.client, &flood, connections);
            flooding.under_way().await;
            let what = format!("{} on {connections} connections", flood.what);
            serves_others(&server, &what).await;
        }
    }
}

#[tokio::test]
async fn a_flood_does_not_hold_up_the_stop() {
    for flood in floods() {
        let mut server = start().await;
        let flooding = Flooding::begin(server.client, &flood, 2 * THREADS);
        flooding.under_way().await;
        server.terminate();
        let ended = server.ended_within(PATIENCE).await;
        assert!(
            ended.is_some_and(|status| status.success()),
            "{}: {ended:?}",
            flood.what
        );
    }
}

/// Nor its own token's end.
#[tokio::test]
async fn a_flood_does_not_outlive_its_token() {
    const LIFE_S: u64 = 2;
    let server = start().await;
    let mut sent = frame(TEXT, br#"{"send":{"to":"bob","body":1}}"#);
    for (what, again) in [
        ("messages", sent.clone()),
        ("messages in parts", {
            sent[0] = TEXT_BEGINS;
            [sent, frame(GOES_ON_AND_ENDS, b"")].concat()
        }),
        ("pings", frame(PING, b"")),
    ] {
        let flood = Flood {
            request: upgrade(&token(true, LIFE_S)),
            ..on_socket(what, b"", &again)
        };
        let stop = Arc::new(AtomicBool::new(false));
        let floods: Vec<_> = (0..2 * THREADS)
            .map(|_| {
                let (stop, address) = (stop.clone(), server.client);
                let again = flood.again.repeat(PIECE_BYTES / flood.again.len());
                let request = flood.request.clone().into_bytes();
                std::thread::spawn(move || pour(address, [&request, b""], &again, &stop, || ()))
            })
            .collect();
        let deadline = Instant::now() + Duration::from_secs(LIFE_S) + PATIENCE;
        while !floods.iter().all(JoinHandle::is_finished) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        stop.store(true, Ordering::Relaxed);
        for flood in floods {
            let ended = flood.join().unwrap();
            assert!(ended.is_err(), "{what}: it goes on for ever");
        }
    }
}

#[tokio::test]
async fn frames_that_bring_nothing_end_the_socket_when_they_are_many() {
    let server = start().await;
    for flood in useless_frames() {
        // As many as never come back in time, and few enough to be read before the connection ends.
        let count = if flood.first.is_empty() { 5000 } else { 40_000 };
        let (mut socket, _) = Socket::upgrade(
            Http::connect(server.client).await,
            Socket::request(&token(true, 3600), "after=now"),
        )
        .await
        .unwrap();
        let frames = [flood.first, flood.again.repeat(count)].concat();
        let (mut reader, mut writer) = socket.http.stream.into_split();
        let writing = tokio::spawn(async move {
            // It is cut off in the middle.
            drop(tokio::io::AsyncWriteExt::write_all(&mut writer, &frames).await);
            writer
        });
        let mut text = std::mem::take(&mut socket.http.unread);
        let told = timeout(PATIENCE, async {
            loop {
                while let Some((frame, length)) = Frame::parse(&text) {
                    text.drain(..length);
                    if matches!(frame, Frame::Close(..)) {
                        return Some(frame);
                    }
                }
                let read = tokio::io::AsyncReadExt::read_buf(&mut reader, &mut text).await;
                if !matches!(read, Ok(1..)) {
                    return None;
                }
            }
        });
        let told = told.await.expect("it is told in time");
        let expected = Frame::Close(1008, "too_many_frames".to_owned());
        assert_eq!(told, Some(expected), "{}", flood.what);
        drop(writing.await.unwrap());
    }
}

/// A page that was offline may say much at once.
#[tokio::test]
async fn a_client_may_err_and_ping_now_and_then() {
    let server = start().await;
    let request = Socket::request(&token(true, 3600), "after=now");
    let http = Http::connect(server.client).await;
    let (mut socket, _) = Socket::upgrade(http, request).await.unwrap();
    socket.put(&frame(PING, b"x").repeat(100)).await;
    socket.put(&frame(TEXT, b"{}").repeat(100)).await;
    for _ in 0..100 {
        assert_eq!(
            socket.answer_behind_pongs().await["error"]["code"],
            "bad_json"
        );
    }
    socket
        .put(&frame(TEXT, br#"{"send":{"to":"bob","body":1}}"#).repeat(1000))
        .await;
    for _ in 0..1000 {
        assert!(socket.answer_behind_pongs().await["receipt"].is_object());
    }
}
