//! What peers do: read slowly, leave, flood.

use std::io::{self, Read, Write};
use std::net::Shutdown;

use super::*;

#[test]
fn a_slow_reader_gets_all_and_holds_up_nobody_and_one_that_takes_nothing_is_cut() {
    const MUCH: usize = 24 << 20;
    let house = House::of(1, manners(PATIENCE, PATIENCE));
    let (mut slow, _) = house.open(1);
    slow.write_all(format!("+{MUCH}\n").as_bytes()).unwrap();
    let (mut other, word) = house.open(1);
    for n in 1..100 {
        ask(&mut other, n);
        word.tell("!");
        expect(&mut other, b"!");
    }
    expect(&mut slow, &body(MUCH));
    ask(&mut slow, 7);

    let house = House::of(1, manners(SHORT, PATIENCE));
    let (mut slow, _) = house.open(1);
    slow.write_all(format!("+{MUCH}\n").as_bytes()).unwrap();
    house.wait_open(0);
    let error = slow.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn who_leaves_is_noticed_while_it_is_held_and_answered_while_it_is_worked_for() {
    let house = House::patient();
    for leaves in [Shutdown::Write, Shutdown::Both] {
        let (peer, _) = house.open(1);
        peer.shutdown(leaves).unwrap();
        house.wait_open(0);
        let (mut peer, _) = house.open(1);
        peer.write_all(b"later\n").unwrap();
        peer.shutdown(leaves).unwrap();
        house.wait_open(0);
    }
    let (mut peer, word) = house.open(1);
    peer.write_all(b"work\n").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    until(|| word.is_awaited());
    word.tell("done");
    expect(&mut peer, b"done");
    // Who asks and ends its side in one moment is heard first.
    let (mut peer, stream) = pair();
    peer.write_all(b"+3\n").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    house.park(1, stream, b"");
    expect(&mut peer, &body(3));
    drop(peer);
    // It is worked for until it is told; then its end is seen.
    word.tell("!");
    let (mut peer, _) = house.open(1);
    peer.write_all(b"what\n").unwrap();
    peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(&house.take_back().front[..], b"what\n");
}

#[test]
fn an_end_is_said_and_then_awaited_but_not_for_long() {
    let house = House::patient();
    let (mut peer, _) = house.open(1);
    peer.write_all(b"end\n").unwrap();
    let mut read = Vec::new();
    peer.read_to_end(&mut read).unwrap();
    assert_eq!(read, b"bye");
    house.wait_open(0);
    // It may still speak without being reset.
    peer.write_all(&body(1000)).unwrap();
    drop(peer);

    let house = House::of(1, manners(PATIENCE, SHORT));
    let (mut peer, _) = house.open(1);
    peer.write_all(b"end\n").unwrap();
    expect(&mut peer, b"bye");
    // Once nobody is there, what is sent is answered by a reset.
    until(|| peer.write_all(b".").is_err());
}

#[test]
fn resets_in_the_middle_of_a_sweep_hold_up_nobody() {
    const PEERS: usize = 120;
    let house = House::of(1, manners(PATIENCE, PATIENCE));
    for round in 0..5 {
        let mut peers: Vec<_> = (0..PEERS).map(|_| house.open(1)).collect();
        until(|| peers.iter().all(|(_, word)| word.is_awaited()));
        let mut resets = Vec::new();
        for (n, (peer, word)) in peers.iter().enumerate() {
            word.tell("news");
            if n % 3 == round % 3 {
                rustix::net::sockopt::set_socket_linger(peer, Some(Duration::ZERO)).unwrap();
                resets.push(n);
            }
        }
        for n in resets.into_iter().rev() {
            drop(peers.remove(n));
        }
        for (peer, _) in &mut peers {
            expect(peer, b"news");
        }
        house.wait_open(peers.len());
        drop(peers);
        house.wait_open(0);
    }
}

#[test]
fn a_flood_holds_up_nobody() {
    let house = House::of(1, manners(PATIENCE, PATIENCE));
    let (mut flood, _) = house.open(1);
    let flooding = std::thread::spawn(move || {
        let much = vec![b'.'; 1 << 20];
        while flood.write_all(&much).is_ok() {}
    });
    let (mut other, word) = house.open(1);
    for n in 1..200 {
        ask(&mut other, n);
        word.tell("!");
        expect(&mut other, b"!");
    }
    house.reactors.end();
    house.wait_open(0);
    flooding.join().unwrap();
}
