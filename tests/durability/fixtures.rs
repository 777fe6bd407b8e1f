//! Data directories that released versions left, opened by this one: all that is in them is there, through the API.
//! Nothing here says how it is kept, so that this holds whatever the store becomes.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use halley::clock;
use halley::token::{Claims, mint};
use serde_json::Value;

use crate::client::{Message, draft};
use crate::moved::run;
use crate::support::{Launch, Process, halley};
use crate::upgrade::format;

const TOKEN_SECRET: &str = "format-1-fixture-token-secret-0123456789";

/// Its name here (sequence and id), `prev`, sender, receiver or group, time, and body.
type Row = (
    &'static str,
    u64,
    &'static str,
    &'static str,
    u64,
    &'static str,
);

#[rustfmt::skip]
const MESSAGES: [Row; 26] = [
    ("d1", 0, "ann", "bob", 1_795_820_721_723, r#""Hello, Bob""#),
    ("d2", 1, "bob", "ann", 1_795_820_721_732, "null"),
    ("d3", 2, "ann", "bob", 1_795_820_721_740, "true"),
    ("d4", 3, "ann", "bob", 1_795_820_721_821, "false"),
    ("d5", 4, "bob", "ann", 1_795_820_721_823, "-1.50e+2"),
    ("d6", 0, "cyd", "ann", 1_795_820_721_827, r#"[1, [], {"deep":[null]}]"#),
    ("d7", 6, "ann", "cyd", 1_795_820_721_828, r#"{"text":"\u00e9 é 🚀","n":12345678901234567890}"#),
    ("d8", 0, "cyd", "cyd", 1_795_820_721_829, r#""""#),
    ("d9", 0, "cyd", "dan", 1_795_820_721_952, r#""batch""#),
    ("d10", 0, "icomet", "bob", 1_795_820_721_963, r#""by icomet""#),
    ("d11", 0, "icomet", "cyd", 1_795_820_721_973, r#""last before forgotten""#),
    ("d12", 7, "ann", "cyd", 1_795_820_722_086, r#""without a number""#),
    ("d13", 0, "dan", "ann", 1_795_820_722_799, r#""after the copy""#),
    ("d14", 0, "ann", "ann", 1_795_820_722_821, r#"[true,false,null,0.0,"x"]"#),
    ("d15", 0, "icomet", "ann", 1_795_820_722_833, r#""once more""#),
    ("g1", 0, "ann", "team", 1_795_820_721_830, r#""one""#),
    ("g2", 0, "ann", "hall", 1_795_820_721_833, r#""before the others""#),
    ("g3", 1, "dan", "team", 1_795_820_721_845, r#""dan is here""#),
    ("g4", 3, "bob", "team", 1_795_820_721_854, r#""without dan""#),
    ("g5", 4, "ann", "team", 1_795_820_721_883, r#"{"all":4}"#),
    ("g6", 2, "bob", "hall", 1_795_820_721_900, r#""now three""#),
    ("g7", 0, "ann", "gone", 1_795_820_721_924, r#""soon deleted""#),
    ("g8", 6, "ann", "hall", 1_795_820_721_952, "3"),
    ("g9", 0, "icomet", "icomet", 1_795_820_721_984, r#""to all""#),
    ("g10", 5, "cyd", "team", 1_795_820_722_810, r#""cyd writes""#),
    ("g11", 10, "bob", "team", 1_795_820_722_831, r#""cyd has left""#),
];

/// What a path below `/v1` has, in the order of each sequence's ids.
#[rustfmt::skip]
const PAGES: [(&str, &str); 34] = [
    ("ann/inbox", "d1 d2 d3 d4 d5 d6 d7 d12 d13 d14 d15 g1 g2 g3 g4 g5 g6 g7 g8 g9 g10 g11"),
    ("bob/inbox", "d1 d2 d3 d4 d5 d10 g1 g3 g4 g5 g6 g8 g9 g10 g11"),
    ("cyd/inbox", "d6 d7 d8 d9 d11 d12 g5 g6 g9 g10"),
    ("dan/inbox", "d9 d13 g3 g5 g7 g9 g10 g11"),
    // Cursors of the first log, up to where the second one parted from it; of the second; and without a log.
    ("ann/inbox?after=5.3.c7e819ad", "d6 d7 d12 d13 d14 d15 g4 g5 g6 g7 g8 g9 g10 g11"),
    ("ann/inbox?after=12.9.c7e819ad", "d13 d14 d15 g10 g11"),
    ("ann/inbox?after=13.10.00bd2741", "d14 d15 g11"),
    ("ann/inbox?after=15.11.00bd2741", ""),
    ("ann/inbox?after=13.10", "d14 d15 g11"),
    ("ann/direct/bob/messages", "d1 d2 d3 d4 d5"),
    ("bob/direct/ann/messages", "d1 d2 d3 d4 d5"),
    ("bob/direct/ann/messages?before=4&limit=2", "d2 d3"),
    ("bob/direct/ann/messages?after=2&limit=2", "d3 d4"),
    ("bob/direct/cyd/messages", ""),
    ("cyd/direct/ann/messages", "d6 d7 d12"),
    ("cyd/direct/cyd/messages", "d8"),
    ("ann/direct/dan/messages", "d13"),
    ("dan/direct/cyd/messages", "d9"),
    ("bob/direct/icomet/messages", "d10"),
    ("ann/groups/team/messages", "g1 g3 g4 g5 g10 g11"),
    ("ann/groups/team/messages?before=5&limit=2", "g3 g4"),
    ("ann/groups/hall/messages", "g2 g6 g8"),
    ("ann/groups/gone/messages", "g7"),
    ("ann/groups/icomet/messages", "g9"),
    ("bob/groups/team/messages", "g1 g3 g4 g5 g10 g11"),
    // `history` is `all` there: also what was sent before they joined.
    ("bob/groups/hall/messages", "g2 g6 g8"),
    ("cyd/groups/team/messages", "g5 g10"),
    ("cyd/groups/hall/messages", "g2 g6"),
    ("cyd/groups/icomet/messages", "g9"),
    // Once a member, then not, then again.
    ("dan/groups/team/messages", "g3 g5 g10 g11"),
    ("dan/groups/team/messages?after=3&limit=1", "g5"),
    ("dan/groups/gone/messages", "g7"),
    ("dan/groups/icomet/messages", "g9"),
    ("nobody/inbox", ""),
];

/// What is refused, and as what.
const REFUSED: [(&str, u16, &str); 6] = [
    // The first log parted before, and the second has no more.
    ("users/ann/inbox?after=13.9.c7e819ad", 409, "cursor_ahead"),
    ("users/ann/inbox?after=16.11.00bd2741", 409, "cursor_ahead"),
    ("users/bob/groups/gone/messages", 404, "group_not_found"),
    ("users/dan/groups/hall/messages", 404, "group_not_found"),
    ("groups/gone", 404, "group_not_found"),
    ("groups/nowhere", 404, "group_not_found"),
];

/// Each user's conversations, newest first: the peer or group, `left` where the user is no member, the last message.
#[rustfmt::skip]
const CONVERSATIONS: [(&str, &[&str]); 4] = [
    ("ann", &["icomet d15", "team g11", "ann d14", "dan d13", "cyd d12", "icomet g9", "hall g8", "gone left g7", "bob d5"]),
    ("bob", &["team g11", "icomet g9", "icomet d10", "hall g8", "ann d5"]),
    ("cyd", &["team left g10", "ann d12", "icomet left g9", "icomet d11", "dan d9", "hall left g6", "cyd d8"]),
    ("dan", &["team g11", "ann d13", "icomet g9", "cyd d9", "gone left g7"]),
];

/// Groups, what members see of the time before, the members, and the last message.
const GROUPS: [(&str, &str, &[&str], u64); 3] = [
    ("team", "member", &["ann", "bob", "dan"], 11),
    ("hall", "all", &["ann", "bob"], 8),
    ("icomet", "member", &["ann", "bob", "dan"], 9),
];

/// icomet's channels that are open: what has the numbers 1, 2, 3 and so on.
#[rustfmt::skip]
const CHANNELS: [(&str, &[&str]); 3] = [
    ("ann", &["d2", "d5", "d6", "g3", "g4", "g6", "g9", "d13", "g10", "d14", "g11", "d15"]),
    ("bob", &["d1", "d3", "d4", "g1", "g3", "g5", "g8", "d10", "g9", "g10"]),
    ("dan", &["g5", "g7", "d9", "g9", "g10", "g11"]),
];

fn row(name: &str) -> Row {
    let mut rows = MESSAGES.into_iter();
    rows.find(|row| row.0 == name)
        .unwrap_or_else(|| panic!("no message {name}"))
}

fn name(sequence: &str, id: u64) -> String {
    let letter = if sequence == "direct" { 'd' } else { 'g' };
    format!("{letter}{id}")
}

/// How many messages there were with it in its conversation or group. The table is in the order of ids.
fn number(name: &str) -> u64 {
    let chain = |row: &Row| {
        if row.0.starts_with('d') {
            (row.2.min(row.3), row.2.max(row.3))
        } else {
            ("", row.3)
        }
    };
    let own = chain(&row(name));
    let upto = MESSAGES.iter().position(|row| row.0 == name).unwrap();
    let before = MESSAGES[..=upto].iter().filter(|row| chain(row) == own);
    u64::try_from(before.count()).unwrap()
}

/// The name of a message that is, in all of its fields, what was pushed.
#[track_caller]
fn checked(message: &Message) -> String {
    let name = name(&message.sequence, message.id);
    let (_, prev, from, receiver, at, body) = row(&name);
    let (to, group) = if message.sequence == "direct" {
        (Some(receiver), None)
    } else {
        (None, Some(receiver))
    };
    assert_eq!(
        (message.prev, &*message.from, message.at, message.body.get()),
        (prev, from, at, body),
        "{name}"
    );
    assert_eq!(message.n, number(&name), "{name}");
    assert_eq!(
        (message.to.as_deref(), message.group.as_deref()),
        (to, group),
        "{name}"
    );
    name
}

/// All that can be asked without changing anything.
fn check(process: &Process) {
    let mut client = process.admin();
    for (path, expected) in PAGES {
        let reply = client.get(&format!("/v1/users/{path}")).unwrap();
        let messages = reply.page().messages;
        let mut names: Vec<_> = messages.iter().map(checked).collect();
        // In which order the two sequences come is not promised.
        names.sort_by_key(|name| name.starts_with('g'));
        assert_eq!(names.join(" "), expected, "{path}");
    }
    for (path, status, code) in REFUSED {
        let reply = client.get(&format!("/v1/{path}")).unwrap();
        assert_eq!(reply.expect(status).code(), code, "{path}");
    }
    for (expected, ..) in MESSAGES {
        let (letter, id) = expected.split_at(1);
        let sequence = if letter == "d" { "direct" } else { "group" };
        let reply = client.get(&format!("/v1/messages/{sequence}/{id}"));
        assert_eq!(checked(&reply.unwrap().message()), expected);
    }
    for (user, expected) in CONVERSATIONS {
        let path = format!("/v1/users/{user}/conversations");
        let reply = client.get(&path).unwrap().expect(200).json();
        let items = reply["conversations"].as_array().unwrap();
        let found: Vec<_> = items.iter().map(conversation).collect();
        assert_eq!(found, expected, "{user}");
    }
    for (group, history, members, last) in GROUPS {
        let path = format!("/v1/groups/{group}");
        let reply = client.get(&path).unwrap().expect(200).json();
        assert_eq!(reply["members"], Value::from(members), "{group}");
        assert_eq!(
            (&reply["history"], &reply["last"]),
            (&history.into(), &last.into())
        );
    }
    let watermark = &client.status()["watermark"];
    assert_eq!(
        (&watermark["direct"], &watermark["group"]),
        (&15.into(), &11.into())
    );
    let idle = client.get("/info?idle=1").unwrap().expect(200).json();
    assert_eq!(
        idle["idle"],
        Value::from(CHANNELS.map(|(name, _)| name).to_vec())
    );
    for (channel, expected) in CHANNELS {
        assert_eq!(numbers(process, channel), contents(expected), "{channel}");
    }
}

fn conversation(item: &Value) -> String {
    let who = item["user"].as_str().or(item["group"].as_str()).unwrap();
    let left = if item["member"] == false { " left" } else { "" };
    let last = &item["last"];
    let last = name(
        last["sequence"].as_str().unwrap(),
        last["id"].as_u64().unwrap(),
    );
    format!("{who}{left} {last}")
}

/// What icomet's clients are told of a channel: the contents by number, and the number that comes next.
fn numbers(process: &Process, channel: &str) -> (Vec<(u64, String)>, u64) {
    let mut client = process.user(&token(channel));
    let next = client.get(&format!("/sub?cname={channel}")).unwrap();
    let all = client.get(&format!("/sub?cname={channel}&seq=1")).unwrap();
    let all = all.expect(200).json();
    // A broadcast is followed by the number that comes next.
    let told = all.as_array().unwrap().iter();
    let contents = told.filter(|object| object["type"] != "next_seq");
    let found = contents.map(|object| {
        let content = object["content"].as_str().unwrap().to_owned();
        (object["seq"].as_u64().unwrap(), content)
    });
    (
        found.collect(),
        next.expect(200).json()["seq"].as_u64().unwrap(),
    )
}

/// The same as it should be: a string as it is, anything else as its JSON.
fn contents(names: &[&str]) -> (Vec<(u64, String)>, u64) {
    let contents = names.iter().map(|name| {
        let body = row(name).5;
        serde_json::from_str(body).unwrap_or_else(|_| body.to_owned())
    });
    let numbered: Vec<_> = (1..).zip(contents).collect();
    let next = u64::try_from(numbered.len()).unwrap() + 1;
    (numbered, next)
}

/// A token that the secret in the directory signs.
fn token(user: &str) -> String {
    let claims = Claims {
        user: user.to_owned(),
        expires_at: clock::now_s() + 3600,
        send: true,
    };
    mint(TOKEN_SECRET.as_bytes(), &claims)
}

/// What is pushed now goes on where it ended, and what is pushed again is known.
fn push_on(process: &Process) {
    let mut client = process.admin();
    let pushed = [
        ("direct/bob", "ann", r#""Hello, Bob""#, Some("first"), "d1"),
        (
            "groups/team",
            "dan",
            r#""dan is here""#,
            Some("group-first"),
            "g3",
        ),
        (
            "direct/ann",
            "dan",
            r#""after the copy""#,
            Some("second-log"),
            "d13",
        ),
        ("direct/bob", "ann", "1", None, "d16 5"),
        ("groups/team", "cyd", "2", None, "g12 11"),
        ("groups/hall", "cyd", "3", Some("new"), "g13 8"),
    ];
    for (to, from, body, key, expected) in pushed {
        let path = format!("/v1/{to}/messages");
        let reply = client.send("POST", &path, key, &draft(from, body)).unwrap();
        let receipt = reply.receipt();
        let mut told = name(&receipt.sequence, receipt.id);
        if receipt.duplicate {
            let (_, prev, .., at, _) = row(&told);
            assert_eq!((receipt.prev, receipt.at), (prev, at), "{told}");
        } else {
            assert!(receipt.at >= row("d15").4, "times fell: {receipt:?}");
            told = format!("{told} {}", receipt.prev);
        }
        assert_eq!(told, expected);
    }
    let other = client
        .push_direct("ann", "bob", "1", Some("first"))
        .unwrap();
    assert_eq!(other.expect(422).code(), "idempotency_conflict");
    let gone = client.push_group("ann", "gone", "1", None).unwrap();
    assert_eq!(gone.expect(404).code(), "group_not_found");
    // The channel that was given up goes on behind all numbers that it may have given: it had six.
    let opened = client.get("/sign?cname=cyd").unwrap().expect(200).json();
    assert_eq!(opened["seq"], 21);
}

#[track_caller]
fn verified(data: &Path, direct: u64, group: u64) {
    let found = halley(&[
        "verify".as_ref(),
        "--json".as_ref(),
        "--data".as_ref(),
        data.as_os_str(),
    ]);
    assert!(found.status.success(), "{found:?}");
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(found["ok"], true);
    assert_eq!(
        (&found["messages"]["direct"], &found["messages"]["group"]),
        (&direct.into(), &group.into())
    );
}

#[test]
fn a_directory_of_format_1_is_opened_with_all_that_is_in_it() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/format-1");
    assert!(run("cp", &["-r".as_ref(), &fixture, &data]));
    for secret in ["admin.key", "token.secret"] {
        fs::set_permissions(data.join(secret), Permissions::from_mode(0o600)).unwrap();
    }
    verified(&data, 15, 11);
    assert_eq!(format(&data)["version"], 1, "to verify it changes nothing");
    // With the key in the directory, which is that of these tests.
    let launch = Launch::new(&data)
        .shell("unset HALLEY_ADMIN_KEY")
        .env("HALLEY_ICOMET", "true");
    let mut process = launch.start();
    check(&process);
    assert_eq!(format(&data)["version"], 2);
    assert!(launch.log().contains("upgraded the data directory"));
    let before = launch.log().len();
    process.restart();
    check(&process);
    let told = launch.log().split_off(before);
    assert!(
        !told.contains("upgrad") && !told.contains("rebuil"),
        "{told}"
    );
    process.kill9();
    process = launch.start();
    check(&process);
    push_on(&process);
    assert!(process.terminate().success(), "{}", launch.log());
    verified(&data, 16, 13);
    // From entries of the old version and of the new one.
    let rebuilt = halley(&["rebuild".as_ref(), "--data".as_ref(), data.as_os_str()]);
    assert!(rebuilt.status.success(), "{rebuilt:?}");
    verified(&data, 16, 13);
}
