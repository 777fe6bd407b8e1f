//! What sessions may rely on: they are stepped, heard, handed over and told of the end.

use std::fs;
use std::io::{Read, Write};

use super::*;

#[test]
fn a_session_answers_is_woken_and_keeps_what_comes_too_early() {
    let house = House::patient();
    let (mut peer, word) = house.open(1);
    ask(&mut peer, 3);
    until(|| word.is_awaited());
    word.tell("news");
    expect(&mut peer, b"news");
    peer.write_all(b"later\n").unwrap();
    word.tell("more");
    expect(&mut peer, b"more");
    // Both pieces are behind one another then, and nothing that it knows.
    peer.write_all(b"+3\n").unwrap();
    until(|| {
        word.tell("?");
        house.came_back.try_recv().is_ok_and(|line| {
            assert_eq!(&line.front[..], b"later\n+3\n");
            true
        })
    });
}

#[test]
fn what_a_session_does_not_know_goes_back_with_all_its_bytes() {
    let house = House::patient();
    for said in ["x", "+3", "+3\n+4\n", "hello\nthere"] {
        let (mut peer, _) = house.open(1);
        ask(&mut peer, 5);
        peer.write_all(said.as_bytes()).unwrap();
        let line = house.take_back();
        assert_eq!(&line.front[..], said.as_bytes());
        assert!(format!("{line:?}").ends_with(", .. }"), "{line:?}");
        house.wait_open(0);
        // The rest is there to be read, and the socket is as it was.
        peer.write_all(b"rest").unwrap();
        line.stream.set_nonblocking(false).unwrap();
        let mut stream = line.stream;
        expect(&mut stream, b"rest");
        stream.set_nonblocking(true).unwrap();
        // And it may come again, with what was read.
        house.park(1, stream, b"+4\n");
        expect(&mut peer, &body(4));
        ask(&mut peer, 6);
        drop(peer);
        house.wait_open(0);
    }
}

#[test]
fn a_fault_ends_one_session_only() {
    let house = House::of(1, manners(PATIENCE, PATIENCE));
    let (mut other, _) = house.open(1);
    let (mut peer, _) = house.open(1);
    peer.write_all(b"panic\n").unwrap();
    assert_eq!(peer.read_to_end(&mut Vec::new()).unwrap(), 0);
    ask(&mut other, 9);
    house.wait_open(1);
}

#[test]
fn all_are_told_of_the_stop_and_cut_at_the_end() {
    let house = House::patient();
    let mut peers: Vec<_> = (0..20).map(|key| house.open(key)).collect();
    let (mut busy, _) = house.open(1);
    busy.write_all(b"work\n").unwrap();
    for (peer, _) in &mut peers {
        ask(peer, 2);
    }
    house.reactors.stop();
    for (peer, _) in &mut peers {
        assert_eq!(peer.read_to_end(&mut Vec::new()).unwrap(), 0);
    }
    // Also those who come later.
    let (mut late, _) = house.open(1);
    assert_eq!(late.read_to_end(&mut Vec::new()).unwrap(), 0);
    house.wait_open(1);
    house.reactors.end();
    house.wait_open(0);
    let (mut late, _) = house.open(1);
    house.wait_open(0);
    assert_eq!(late.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn no_word_is_lost_however_many_tell_at_once() {
    const TELLERS: usize = 4;
    const WORDS: usize = 3000;
    let house = House::patient();
    let (mut peers, words): (Vec<_>, Vec<_>) = (0..8).map(|key| house.open(key)).unzip();
    std::thread::scope(|scope| {
        for _ in 0..TELLERS {
            scope.spawn(|| {
                for n in 0..WORDS {
                    for word in &words {
                        word.tell("x");
                    }
                    if n % 64 == 0 {
                        std::thread::yield_now();
                    }
                }
            });
        }
        for peer in &mut peers {
            expect(peer, &[b'x'; TELLERS * WORDS]);
        }
    });
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn connections_go_to_and_fro_without_one_or_its_words_being_lost() {
    const CONNECTIONS: usize = 50;
    let rounds =
        std::env::var("HALLEY_TEST_HANDOVERS").map_or(10_000, |text| text.parse().unwrap());
    let house = House::patient();
    let before = descriptors();
    let mut peers: Vec<_> = (0..CONNECTIONS).map(|_| pair()).collect();
    for (n, (peer, stream)) in peers.iter_mut().enumerate() {
        peer.write_all(format!("number {n}\n").as_bytes()).unwrap();
        house.park(n.try_into().unwrap(), stream.try_clone().unwrap(), b"");
    }
    let mut peers: Vec<_> = peers.into_iter().map(|(peer, _)| peer).collect();
    for round in 0..rounds {
        let line = house.take_back();
        let text = String::from_utf8(line.front.to_vec()).unwrap();
        let number = text.trim().strip_prefix("number ").unwrap();
        let number: usize = number.parse().unwrap();
        let peer = &mut peers[number];
        // Some ask for what the session knows, and all for something that it does not.
        let key = u32::try_from(round % 7).unwrap();
        if round % 3 == 0 {
            house.park(key, line.stream, b"+5\n");
            expect(peer, &body(5));
        } else {
            house.park(key, line.stream, b"");
        }
        peer.write_all(text.as_bytes()).unwrap();
    }
    for _ in 0..CONNECTIONS {
        drop(house.take_back());
    }
    drop(peers);
    house.wait_open(0);
    assert_eq!(descriptors(), before);
}

/// Ends when it is told to and nothing was said before.
struct LastWords {
    busy: Receiver<()>,
    last: bool,
    heard: Option<Bytes>,
}

impl Session for LastWords {
    fn step(&mut self, turn: &mut Turn<'_>) -> Step {
        if let Some(heard) = self.heard.take() {
            return Step::Say(vec![heard]);
        }
        if self.last {
            return Step::End;
        }
        self.last = turn.stopping;
        // Nothing that comes meanwhile has an event in this turn.
        assert!(self.busy.recv().is_err());
        let until = if self.last {
            turn.now
        } else {
            turn.now + PATIENCE
        };
        Step::Listen { until }
    }

    fn hear(&mut self, said: &[u8]) -> Heard {
        self.heard = Some(Bytes::copy_from_slice(said));
        Heard::All
    }
}

#[test]
fn what_has_come_when_the_time_is_up_is_heard() {
    let house = House::of(1, manners(PATIENCE, PATIENCE));
    let (mut peer, stream) = pair();
    let (busy, free) = channel();
    house.reactors.stop();
    let (last, heard) = (false, None);
    let session = LastWords {
        busy: free,
        last,
        heard,
    };
    house.park_session(stream, Box::new(session));
    peer.write_all(b"what").unwrap();
    drop(busy);
    expect(&mut peer, b"what");
    assert_eq!(peer.read_to_end(&mut Vec::new()).unwrap(), 0);
}

/// Always has something to do, and is woken for it besides.
struct Restless;

impl Session for Restless {
    fn step(&mut self, turn: &mut Turn<'_>) -> Step {
        turn.context.waker().wake_by_ref();
        Step::Say(Vec::new())
    }

    fn hear(&mut self, _: &[u8]) -> Heard {
        Heard::All
    }
}

#[test]
fn who_is_woken_often_has_no_more_turns_than_others() {
    let house = House::of(1, manners(PATIENCE, PATIENCE));
    let (_peer, stream) = pair();
    house.park_session(stream, Box::new(Restless));
    let (mut other, word) = house.open(1);
    for n in 1..100 {
        ask(&mut other, n);
        word.tell("!");
        expect(&mut other, b"!");
    }
}

/// Takes its reactor with it.
struct Fatal;

impl Session for Fatal {
    fn step(&mut self, _: &mut Turn<'_>) -> Step {
        Step::Cut
    }

    fn hear(&mut self, _: &[u8]) -> Heard {
        Heard::All
    }
}

impl Drop for Fatal {
    fn drop(&mut self) {
        panic!("as asked for");
    }
}

#[test]
fn nobody_waits_for_a_reactor_that_has_failed() {
    let house = House::of(1, manners(PATIENCE, PATIENCE));
    let (mut before, _) = house.open(1);
    let (mut peer, stream) = pair();
    house.park_session(stream, Box::new(Fatal));
    assert_eq!(peer.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert_eq!(before.read_to_end(&mut Vec::new()).unwrap(), 0);
    let (mut late, _) = house.open(1);
    assert_eq!(late.read_to_end(&mut Vec::new()).unwrap(), 0);
    house.wait_open(0);
}
