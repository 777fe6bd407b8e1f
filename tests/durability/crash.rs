//! kill -9 at random moments, under load and while the server opens.
//!
//! This proves nothing about power loss: what the process had written stays in the page cache.

use crate::checker::{check_all, check_new, check_reader};
use crate::ledger::Position;
use crate::load::Load;
use crate::random::{Random, rounds};
use crate::support::{Launch, pause};

#[test]
fn a_kill_at_any_moment_loses_nothing_and_repeats_nothing() {
    let mut rng = Random::from_environment("crash");
    let directory = tempfile::tempdir().unwrap();
    let launch = Launch::new(&directory.path().join("data"));
    let mut process = launch.start();
    let mut load = Load::new(&process, &mut rng);
    let mut checked = Position::default();
    let rounds = rounds(50);
    for round in 1..=rounds {
        load.run(&mut process, |process, control, _| {
            pause(rng.millis(400));
            control.going_down();
            if rng.percent(90) {
                process.kill9();
            } else {
                // A clean stop between the kills: its mark must not outlive it.
                assert!(process.terminate().success());
            }
        });
        // One third more kills: a quarter of all.
        while rng.percent(25) {
            let mut opening = launch.spawn();
            pause(rng.millis(60));
            if rng.percent(80) {
                opening.kill9();
            } else {
                opening.terminate();
            }
        }
        process = launch.start();
        let mut client = process.admin();
        checked = check_new(&mut client, load.ledger.get_mut().unwrap(), checked);
        load.settle(&process);
        // Reading everything takes longer the more there is.
        let every = if round <= 100 { 10 } else { 100 };
        if round % every == 0 || round == rounds {
            let ledger = load.ledger.get_mut().unwrap();
            let last = ledger.last();
            check_all(&mut client, ledger, &mut rng, last);
        }
    }
    for reader in &mut load.readers {
        check_reader(&mut process.admin(), &mut rng, reader, &load.ledger);
    }
    eprintln!("crash: {checked:?} after {rounds} rounds");
}
