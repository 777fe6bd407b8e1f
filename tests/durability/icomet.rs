//! icomet's numbers over kills, stops and rebuilds: a number that a client has seen is that message for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::random::{Random, rounds};
use crate::support::{Launch, Process, eventually, halley, pause};

const CHANNELS: [&str; 2] = ["bob", "cyd"];
/// How long a line may take to the log.
const SAID_LIMIT: Duration = Duration::from_secs(20);

/// The contents of a channel in the order of their numbers, which must be those from 1 on.
fn read(process: &Process, channel: &str) -> Vec<String> {
    let signed = process.admin().get(&format!("/sign?cname={channel}"));
    let signed = signed.unwrap().expect(200).json();
    let mut client = process.user(signed["token"].as_str().unwrap());
    let next = client.get(&format!("/sub?cname={channel}"));
    let next = next.unwrap().expect(200).json()["seq"].as_u64().unwrap();
    let mut found: Vec<String> = Vec::new();
    while found.len() + 1 < usize::try_from(next).unwrap() {
        let next = found.len() + 1;
        let reply = client.get(&format!("/sub?cname={channel}&seq={next}"));
        let Value::Array(objects) = reply.unwrap().expect(200).json() else {
            panic!("a replay is an array");
        };
        for object in objects {
            assert_eq!(object["seq"], found.len() + 1, "{channel}");
            found.push(object["content"].as_str().unwrap().to_owned());
        }
    }
    found
}

/// Pushes until the server is gone; what was acknowledged.
fn push(process: &Process, round: u64, writer: u64) -> Vec<(&'static str, String)> {
    let mut client = process.admin();
    let mut acknowledged = Vec::new();
    for n in 0_usize.. {
        let (channel, content) = (CHANNELS[n % 2], format!("{round}.{writer}.{n}"));
        let path = format!("/push?cname={channel}&content={content}");
        match client.get(&path) {
            Ok(reply) if reply.status == 200 => acknowledged.push((channel, content)),
            _ => break,
        }
    }
    acknowledged
}

#[test]
fn numbers_outlive_kills_stops_and_rebuilds() {
    let mut rng = Random::from_environment("icomet");
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let launch = Launch::new(&data).env("HALLEY_ICOMET", "true");
    let mut process = launch.start();
    let mut known: [Vec<String>; 2] = Default::default();
    for round in 0..rounds(8) {
        let acknowledged: Vec<_> = thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|writer| {
                    scope.spawn({
                        let process = &process;
                        move || push(process, round, writer)
                    })
                })
                .collect();
            pause(rng.millis(300));
            process.signal(if rng.percent(75) {
                Signal::KILL
            } else {
                Signal::TERM
            });
            writers
                .into_iter()
                .flat_map(|writer| writer.join().unwrap())
                .collect()
        });
        process.kill9();
        match rng.range(0, 3) {
            0 => fs::remove_dir_all(data.join("sled")).unwrap(),
            1 => {
                let rebuilt = halley(&[
                    OsStr::new("rebuild"),
                    OsStr::new("--data"),
                    data.as_os_str(),
                ]);
                assert!(rebuilt.status.success(), "{rebuilt:?}");
            }
            _ => {}
        }
        process = launch.start();
        for (channel, known) in CHANNELS.iter().zip(&mut known) {
            let found = read(&process, channel);
            assert!(
                found.starts_with(known),
                "{channel}: what was seen has changed"
            );
            for (_, content) in acknowledged.iter().filter(|(to, _)| to == channel) {
                let times = found.iter().filter(|found| *found == content).count();
                assert_eq!(times, 1, "{channel} {content}");
            }
            *known = found;
        }
    }
    assert!(process.terminate().success());
    let verified = halley(&[OsStr::new("verify"), OsStr::new("--data"), data.as_os_str()]);
    assert!(verified.status.success(), "{verified:?}");
}

/// What a channel holds, by number. With the number that comes next.
fn held(process: &Process, channel: &str) -> (BTreeMap<u64, String>, u64) {
    let signed = process.admin().get(&format!("/sign?cname={channel}"));
    let signed = signed.unwrap().expect(200).json();
    let mut client = process.user(signed["token"].as_str().unwrap());
    let next = client.get(&format!("/sub?cname={channel}"));
    let next = next.unwrap().expect(200).json()["seq"].as_u64().unwrap();
    let (mut found, mut wanted) = (BTreeMap::new(), 1);
    while signed["seq"] != next && wanted < next {
        let reply = client.get(&format!("/sub?cname={channel}&seq={wanted}"));
        for object in reply.unwrap().expect(200).json().as_array().unwrap() {
            let number = object["seq"].as_u64().unwrap();
            assert!(
                number == wanted || found.is_empty(),
                "a gap before {object}"
            );
            let content = object["content"].as_str().unwrap().to_owned();
            found.insert(number, content);
            wanted = number + 1;
        }
    }
    (found, next)
}

#[test]
fn forgotten_numbers_do_not_come_again_after_kills_stops_and_rebuilds() {
    let mut rng = Random::from_environment("icomet-forget");
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let launch = Launch::new(&data).env("HALLEY_ICOMET", "true");
    let mut process = launch.start();
    let mut known: [BTreeMap<u64, String>; 2] = Default::default();
    for round in 0..rounds(8) {
        thread::scope(|scope| {
            let server = &process;
            for writer in 0..2 {
                scope.spawn(move || push(server, round, writer));
            }
            scope.spawn(move || {
                let mut client = server.admin();
                let forget = |channel| format!("/close?cname={channel}&forget=1");
                let mut paths = CHANNELS.iter().cycle().map(forget);
                while client.get(&paths.next().unwrap()).is_ok() {
                    pause(Duration::from_millis(5));
                }
            });
            pause(rng.millis(300));
            process.signal(if rng.percent(75) {
                Signal::KILL
            } else {
                Signal::TERM
            });
        });
        process.kill9();
        if rng.percent(40) {
            fs::remove_dir_all(data.join("sled")).unwrap();
        }
        process = launch.start();
        for (channel, known) in CHANNELS.iter().zip(&mut known) {
            let (found, next) = held(&process, channel);
            let last = known.last_key_value().map_or(0, |(number, _)| *number);
            assert!(last < next, "{channel}: {last} is to come again");
            for (number, content) in found {
                let before = known.insert(number, content.clone());
                assert!(before.is_none_or(|before| before == content), "{channel}");
            }
            // What was seen is of one time, whatever was forgotten since.
            let contents: BTreeSet<_> = known.values().collect();
            assert_eq!(
                contents.len(),
                known.len(),
                "{channel}: one has two numbers"
            );
        }
    }
    assert!(process.terminate().success());
    let verified = halley(&[OsStr::new("verify"), OsStr::new("--data"), data.as_os_str()]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn no_kill_makes_room_for_more_channels_than_may_be() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let launch = Launch::new(&data)
        .env("HALLEY_ICOMET", "true")
        .option("--icomet-channels-max", "2");
    for round in 0..3 {
        let mut process = launch.start();
        let mut backend = process.admin();
        let mut status = |path: &str| backend.get(path).unwrap().status;
        for channel in CHANNELS {
            assert_eq!(status(&format!("/push?cname={channel}&content=1")), 200);
        }
        for _ in 0..2 {
            assert_eq!(status("/push?cname=dan&content=1"), 429, "round {round}");
            assert_eq!(status("/sign?cname=dan"), 429, "round {round}");
        }
        // A thread of its own writes the log, and is killed too.
        let said = || launch.log().matches("as many icomet channels").count();
        assert!(eventually(SAID_LIMIT, || said() > round), "round {round}");
        process.kill9();
        assert_eq!(said(), round + 1, "once in each run: {}", launch.log());
        if round == 0 {
            fs::remove_dir_all(data.join("sled")).unwrap();
        }
    }
}
