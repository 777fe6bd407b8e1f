//! SIGTERM while polls are held and pushes are under way.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::checker::{check_all, check_reader};
use crate::client::Client;
use crate::ledger::lock;
use crate::load::Load;
use crate::random::Random;
use crate::support::{ADMIN_KEY, Launch, Process, eventually};

const POLLS_PER_USER: usize = 50;
const IDLE: [&str; 4] = ["idle0", "idle1", "idle2", "idle3"];
/// The server gives itself 10 s by default; the rest is for a busy machine.
const END_LIMIT: Duration = Duration::from_secs(20);
const SECOND_START_LIMIT: Duration = Duration::from_secs(10);

#[test]
fn sigterm_answers_held_polls_and_keeps_what_was_acknowledged() {
    let mut rng = Random::from_environment("shutdown");
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::new(&directory.path().join("data"));
    let mut process = launch.start();
    let mut load = Load::new(&process, &mut rng);
    let answers = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for user in IDLE {
            let token = process.admin().token(user);
            for _ in 0..POLLS_PER_USER {
                let mut client = process.user(&token);
                let answers = &answers;
                scope.spawn(move || {
                    let reply = client.poll("0", 100, 120);
                    answers.lock().unwrap().push(reply);
                });
            }
        }
        load.run(&mut process, |process, control, ledger| {
            let mut client = process.admin();
            let held = || IDLE.into_iter().all(|user| held(&mut client, user));
            assert!(eventually(Duration::from_secs(20), held), "polls not held");
            let busy = || lock(ledger).len() > 500;
            assert!(eventually(Duration::from_secs(20), busy), "no pushes");
            control.going_down();
            process.ask_to_stop();
            let status = process.wait_end(END_LIMIT);
            assert_eq!(status.code(), Some(0), "{status}");
        });
    });
    let answers = answers.into_inner().unwrap();
    assert_eq!(answers.len(), IDLE.len() * POLLS_PER_USER);
    for reply in answers {
        let reply = reply.expect("a held poll was cut instead of answered");
        match reply.status {
            503 => assert_eq!(reply.code(), "closing"),
            _ => assert!(reply.page().messages.is_empty()),
        }
    }
    let printed = launch.log().len();
    let start = Instant::now();
    process.restart();
    assert!(
        start.elapsed() < SECOND_START_LIMIT,
        "{:?}",
        start.elapsed()
    );
    let log = launch.log().split_off(printed);
    let complains = ["WARN", "ERROR", "not clean"]
        .iter()
        .any(|word| log.contains(word));
    assert!(!complains, "{log}");
    check_whole(&process, &mut load, &mut rng);
}

#[test]
fn signals_that_come_together_are_one() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::new(&directory.path().join("data"));
    let mut process = launch.start();
    for signal in [Signal::STOP, Signal::TERM, Signal::INT, Signal::CONT] {
        process.signal(signal);
    }
    let status = process.wait_end(END_LIMIT);
    assert_eq!(status.code(), Some(0), "{status}: {}", launch.log());
}

#[test]
fn a_later_second_signal_ends_the_server_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::new(&directory.path().join("data")).option("--shutdown-s", "120");
    let mut process = launch.start();
    // The stop waits for the rest of this.
    let mut request = TcpStream::connect(process.admin_address()).unwrap();
    let head = "POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n";
    write!(request, "{head}Authorization: Bearer {ADMIN_KEY}\r\n\r\n").unwrap();
    let mut client = process.admin();
    let open = || client.get("/v1/status").unwrap().json()["connections"]["admin"] == 2;
    assert!(eventually(END_LIMIT, open));
    let ended = eventually(END_LIMIT, || {
        let running = process.is_running();
        if running {
            process.ask_to_stop();
        }
        !running
    });
    assert!(ended, "{}", launch.log());
    assert_eq!(process.wait_end(END_LIMIT).code(), Some(1));
    let log = launch.log();
    assert!(
        log.contains("ended at once, as a second signal asked"),
        "{log}"
    );
}

fn held(client: &mut Client, user: &str) -> bool {
    let path = format!("/v1/users/{user}/presence");
    let presence = client.get(&path).unwrap().expect(200).json();
    presence["connections"] == POLLS_PER_USER
}

fn check_whole(process: &Process, load: &mut Load, rng: &mut Random) {
    load.settle(process);
    let ledger = load.ledger.get_mut().unwrap();
    let last = ledger.last();
    check_all(&mut process.admin(), ledger, rng, last);
    for reader in &mut load.readers {
        check_reader(&mut process.admin(), rng, reader, &load.ledger);
    }
}
