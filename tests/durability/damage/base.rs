//! The directory that is damaged: messages of all kinds, and everything that can be read of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::client::{Client, Page, Receipt};
use crate::image::{Image, Times, look, put, set_times};
use crate::random::Random;
use crate::support::{Launch, Process, eventually, halley, pause};

pub(super) const USERS: [&str; 8] = ["ann", "bob", "cem", "dan", "eva", "fay", "gus", "hal"];
pub(super) const GROUPS: [&str; 3] = ["open", "shut", "gone"];
/// Longer than sled needs to write its log by itself.
pub(super) const FLUSHED: Duration = Duration::from_secs(2);

/// What a start says that has rebuilt the view.
pub(super) const REBUILT: &str = "rebuilt the readable view from the journal";
/// What a server says that has found damage in it.
pub(super) const FOUND: &str = "the next start rebuilds it";

/// The replies to all reads, byte for byte.
pub(super) type Reading = BTreeMap<String, String>;

/// One data directory, and how it was at some moments.
#[derive(Debug)]
pub(super) struct Base {
    _temp: TempDir,
    pub(super) data: PathBuf,
    pub(super) launch: Launch,
    /// sled, a thousand messages before the end: after a clean stop, and after a kill.
    pub(super) older: [Image; 2],
    /// sled of another directory.
    pub(super) stranger: Image,
    /// Everything: after a clean stop, and after a kill.
    pub(super) ends: [Moment; 2],
}

/// A directory at rest, and what it must give.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) name: &'static str,
    pub(super) image: Image,
    pub(super) times: Times,
    pub(super) reading: Reading,
    pub(super) retries: Vec<Retry>,
    pub(super) cursor: String,
}

/// A push that was made, and its receipt.
#[derive(Clone, Debug)]
pub(super) struct Retry {
    key: String,
    path: String,
    body: String,
    receipt: Receipt,
}

impl Base {
    /// Fills a directory with about 2,000 messages.
    pub(super) fn new(rng: &mut Random) -> Self {
        let temp = TempDir::new().unwrap();
        let data = temp.path().join("data");
        let launch = Launch::new(&data);
        let mut retries = Vec::new();

        let mut process = launch.start();
        let mut client = process.admin();
        make_groups(&mut client);
        fill(&mut client, rng, 600, &mut retries);
        stop(&mut process);
        let older_clean = look(&data).0;

        process = launch.start();
        fill(&mut process.admin(), rng, 400, &mut retries);
        pause(FLUSHED);
        process.kill9();
        let older_killed = look(&data).0;

        process = launch.start();
        fill(&mut process.admin(), rng, 950, &mut retries);
        let (reading, cursor) = (read(&mut process.admin()), end(&mut process.admin()));
        stop(&mut process);
        let clean = Moment::take("stopped", &data, reading, &retries, cursor);

        process = launch.start();
        fill(&mut process.admin(), rng, 50, &mut retries);
        let (reading, cursor) = (read(&mut process.admin()), end(&mut process.admin()));
        pause(FLUSHED);
        process.kill9();
        let killed = Moment::take("killed", &data, reading, &retries, cursor);
        Self {
            _temp: temp,
            data,
            launch,
            older: [older_clean, older_killed],
            stranger: stranger(rng),
            ends: [clean, killed],
        }
    }

    /// Puts an image in place of the directory; the files have the times they had, or new ones.
    pub(super) fn put(&self, image: &Image, times: Option<&Times>) {
        put(image, &self.data);
        if let Some(times) = times {
            set_times(&self.data, times);
        }
    }

    /// Starts on what is there, once more if the check behind the start finds damage; everything must be as it was at the
    /// moment. Gives what the servers printed.
    #[track_caller]
    pub(super) fn assert_heals(&self, moment: &Moment, what: &str) -> String {
        let before = self.launch.log().len();
        let mut process = self.launch.start();
        if self.finds_damage(before) {
            process.kill9();
            let found = self.launch.log().len();
            process = self.launch.start();
            let said = self.launch.log().split_off(found);
            assert!(said.contains(REBUILT), "{what}: damage was found\n{said}");
        }
        moment.assert_same(&mut process.admin(), what);
        process.kill9();
        process.log().split_off(before)
    }

    /// Waits for the check behind a start, if there is one. Whether it has found damage.
    #[track_caller]
    fn finds_damage(&self, before: usize) -> bool {
        let said = || self.launch.log().split_off(before);
        if said().contains(REBUILT) || !said().contains("is checked while it is served") {
            return false;
        }
        let ends = [FOUND, "the readable view is sound"];
        let ended = eventually(Duration::from_secs(30), || {
            ends.iter().any(|end| said().contains(end))
        });
        assert!(ended, "the check does not end:\n{}", said());
        said().contains(FOUND)
    }

    /// Starts on what is there; it must end by itself with exit code 1. Gives what it printed.
    #[track_caller]
    pub(super) fn assert_refuses(&self) -> String {
        refuses(&self.launch)
    }

    /// Runs a command on the directory; gives its exit code and all that it printed.
    pub(super) fn command(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut all: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        all.extend([OsStr::new("--data"), self.data.as_os_str()]);
        let output = halley(&all);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }
}

/// Starts a server that must end by itself with exit code 1. Gives what it printed.
#[track_caller]
pub(super) fn refuses(launch: &Launch) -> String {
    let before = launch.log().len();
    let mut process = launch.spawn();
    let status = process.wait_end(Duration::from_secs(20));
    let text = process.log().split_off(before);
    assert_eq!(status.code(), Some(1), "{text}");
    text
}

impl Moment {
    fn take(
        name: &'static str,
        data: &std::path::Path,
        reading: Reading,
        retries: &[Retry],
        cursor: String,
    ) -> Self {
        let (image, times) = look(data);
        let retries = retries.iter().rev().step_by(9).cloned().collect();
        Self {
            name,
            image,
            times,
            reading,
            retries,
            cursor,
        }
    }

    /// Every reply is as it was, and no message is there beside them.
    #[track_caller]
    pub(super) fn assert_same(&self, client: &mut Client, what: &str) {
        assert_eq!(
            end(client),
            self.cursor,
            "{what}: another cursor at the end"
        );
        for (path, expected) in &self.reading {
            let (status, text) = get(client, path);
            assert!(
                status == 200 && text == *expected,
                "{what}: {path} gave {status}, {}",
                difference(&text, expected)
            );
        }
        self.assert_retries(client);
    }

    /// Repeated pushes get their first receipts.
    #[track_caller]
    fn assert_retries(&self, client: &mut Client) {
        for retry in &self.retries {
            let key = Some(retry.key.as_str());
            let again = client.send("POST", &retry.path, key, &retry.body).unwrap();
            let first = Receipt {
                duplicate: true,
                ..retry.receipt.clone()
            };
            assert_eq!(again.receipt(), first, "{retry:?}");
        }
    }
}

/// Another directory with the same names in it.
fn stranger(rng: &mut Random) -> Image {
    let temp = TempDir::new().unwrap();
    let data = temp.path().join("data");
    let mut process = Launch::new(&data).start();
    make_groups(&mut process.admin());
    fill(&mut process.admin(), rng, 300, &mut Vec::new());
    stop(&mut process);
    look(&data).0
}

fn stop(process: &mut Process) {
    let status = process.terminate();
    assert!(status.success(), "{status}:\n{}", process.log());
}

fn make_groups(client: &mut Client) {
    for (index, group) in GROUPS.into_iter().enumerate() {
        let members: Vec<String> = USERS[index..index + 5]
            .iter()
            .map(|u| (*u).to_owned())
            .collect();
        let history = if index == 0 { "all" } else { "member" };
        client
            .put_group(group, &members, history)
            .unwrap()
            .expect(201);
    }
}

/// Pushes arrays, single messages at last; now and then somebody joins or leaves.
fn fill(client: &mut Client, rng: &mut Random, count: usize, retries: &mut Vec<Retry>) {
    let mut left = count;
    while left > 0 {
        let many = left.min(rng.index(40) + 1);
        let drafts: Vec<_> = (0..many)
            .map(|_| {
                let (target, name) = random_target(rng);
                json!({target: name, "from": random_user(rng), "body": random_text(rng)})
            })
            .collect();
        let body = serde_json::to_string(&drafts).unwrap();
        client
            .send("POST", "/v1/messages", None, &body)
            .unwrap()
            .expect(200);
        left -= many;
        let (group, user) = (GROUPS[rng.index(GROUPS.len())], random_user(rng));
        let method = if rng.percent(50) { "PUT" } else { "DELETE" };
        let path = format!("/v1/groups/{group}/members/{user}");
        client.send(method, &path, None, "").unwrap().expect(200);
        for _ in 0..2 {
            retries.push(push_with_key(client, rng, retries.len()));
        }
    }
}

fn push_with_key(client: &mut Client, rng: &mut Random, number: usize) -> Retry {
    let key = format!("key-{number}");
    let user = random_user(rng);
    let path = format!("/v1/direct/{user}/messages");
    let body = json!({"from": random_user(rng), "body": random_text(rng)}).to_string();
    let receipt = client
        .send("POST", &path, Some(&key), &body)
        .unwrap()
        .receipt();
    Retry {
        key,
        path,
        body,
        receipt,
    }
}

fn random_user(rng: &mut Random) -> &'static str {
    USERS[rng.index(USERS.len())]
}

fn random_target(rng: &mut Random) -> (&'static str, &'static str) {
    if rng.percent(60) {
        ("to", random_user(rng))
    } else {
        ("group", GROUPS[rng.index(GROUPS.len())])
    }
}

/// Text that no other message has, so that a stale byte is seen.
fn random_text(rng: &mut Random) -> String {
    let length = if rng.percent(3) { 4_000 } else { 40 };
    let words = (0..=rng.index(length)).map(|_| rng.range(0, 999_999).to_string());
    words.collect::<Vec<_>>().join(" ")
}

/// Everything that can be read, in every way.
pub(super) fn read(client: &mut Client) -> Reading {
    let mut reading = Reading::new();
    for path in paths(client) {
        // A user who never was a member may not read a group.
        if let (200, text) = get(client, &path) {
            reading.insert(path, text);
        }
    }
    for user in USERS {
        let (mut after, mut more) = ("0".to_owned(), true);
        while more {
            let path = format!("/v1/users/{user}/inbox?after={after}&limit=1000&wait=0");
            let (_, text) = get(client, &path);
            let page: Page = serde_json::from_str(&text).unwrap();
            (after, more) = (page.next, page.more);
            reading.insert(path, text);
        }
    }
    reading
}

/// Every read but the inboxes, whose pages depend on each other.
pub(super) fn paths(client: &mut Client) -> Vec<String> {
    let status = client.status();
    let mut paths = Vec::new();
    for sequence in ["direct", "group"] {
        let last = status["watermark"][sequence].as_u64().unwrap();
        paths.extend((1..=last).map(|id| format!("/v1/messages/{sequence}/{id}")));
    }
    for user in USERS {
        paths.push(format!("/v1/users/{user}/conversations?limit=1000"));
        for bound in ["", "&after=0", "&before=700", "&after=300"] {
            let page = |kind: &str, name: &str| {
                format!("/v1/users/{user}/{kind}/{name}/messages?limit=1000{bound}")
            };
            paths.extend(USERS.map(|peer| page("direct", peer)));
            paths.extend(GROUPS.map(|group| page("groups", group)));
        }
    }
    paths.extend(GROUPS.map(|group| format!("/v1/groups/{group}")));
    paths
}

/// A cursor at the end of everything.
pub(super) fn end(client: &mut Client) -> String {
    client.inbox(USERS[0], "now", 1).unwrap().page().next
}

/// Status and text of a reply.
pub(super) fn get(client: &mut Client, path: &str) -> (u16, String) {
    let reply = client.get(path).unwrap();
    (reply.status, String::from_utf8(reply.body).unwrap())
}

/// Where two texts part, not all that they are.
pub(super) fn difference(found: &str, expected: &str) -> String {
    let same = |(a, b): &(char, char)| a == b;
    let at = found.chars().zip(expected.chars()).take_while(same).count();
    let near =
        |text: &str| -> String { text.chars().skip(at.saturating_sub(60)).take(200).collect() };
    format!(
        "at character {at}:\n{}\nnot\n{}",
        near(found),
        near(expected)
    )
}
