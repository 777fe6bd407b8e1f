//! After a restart: everything that was acknowledged or seen is there, once, as it was sent, and all
//! ways to read agree.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::client::{Client, Message, Page};
use crate::ledger::{Ledger, Position};
use crate::load::{ANCHORS, GROUPS, everybody};
use crate::random::Random;
use crate::reader::Reader;

/// All messages, by id.
#[derive(Debug, Default)]
struct View {
    direct: BTreeMap<u64, Message>,
    group: BTreeMap<u64, Message>,
}

/// Reads by id what is new after `from`; says how far it came.
#[track_caller]
pub(crate) fn check_new(client: &mut Client, ledger: &mut Ledger, from: Position) -> Position {
    let watermark = Position::from_status(&client.status());
    let last = ledger.last();
    assert!(watermark.covers(last), "{watermark:?} after {last:?}");
    for sequence in ["direct", "group"] {
        for id in from.of(sequence) + 1..=watermark.of(sequence) {
            let message = by_id(client, sequence, id);
            assert_eq!((message.sequence.as_str(), message.id), (sequence, id));
            ledger.seen(&message);
        }
    }
    watermark
}

/// Reads everything in every way; no draft that was sent may be missing below `at_least`.
#[track_caller]
pub(crate) fn check_all(
    client: &mut Client,
    ledger: &mut Ledger,
    rng: &mut Random,
    at_least: Position,
) -> Position {
    let watermark = Position::from_status(&client.status());
    assert!(watermark.covers(at_least), "{watermark:?}, {at_least:?}");
    let view = View::read(client, rng);
    for (sequence, messages) in [("direct", &view.direct), ("group", &view.group)] {
        let ids = messages.keys().copied();
        assert!(ids.eq(1..=watermark.of(sequence)), "{sequence} has gaps");
        for message in messages.values() {
            ledger.seen(message);
        }
        for _ in 0..watermark.of(sequence).min(50) {
            let id = rng.range(1, watermark.of(sequence));
            same(&by_id(client, sequence, id), &messages[&id]);
        }
    }
    for user in everybody() {
        view.check_inbox(client, ledger, rng, user);
        view.check_conversations(client, rng, user);
    }
    for group in GROUPS {
        let mut expected = everybody();
        expected.retain(|user| ledger.is_member(group, user));
        expected.sort_unstable();
        assert_eq!(client.members(group), expected, "members of {group}");
    }
    watermark
}

impl View {
    /// Reads all conversations and groups, both ways.
    fn read(client: &mut Client, rng: &mut Random) -> Self {
        let mut view = Self::default();
        let names = everybody();
        for (index, one) in names.iter().enumerate() {
            for other in &names[index..] {
                let (one, other) = if rng.percent(50) {
                    (one, other)
                } else {
                    (other, one)
                };
                let path = format!("/v1/users/{one}/direct/{other}/messages");
                add(&mut view.direct, both_ways(client, rng, &path));
            }
        }
        for (group, anchor) in GROUPS.into_iter().zip(ANCHORS) {
            let path = format!("/v1/users/{anchor}/groups/{group}/messages");
            add(&mut view.group, both_ways(client, rng, &path));
        }
        view
    }

    /// The inbox holds the user's conversations, and the groups as far as they were a member; a group's
    /// history shows them the same.
    fn check_inbox(&self, client: &mut Client, ledger: &Ledger, rng: &mut Random, user: &str) {
        let (direct, group) = inbox(client, rng, user, "0");
        let own = |m: &&Message| m.from == user || m.to.as_deref() == Some(user);
        let expected = self.direct.values().filter(own).map(|m| m.id);
        assert!(direct.iter().map(|m| m.id).eq(expected), "inbox of {user}");
        for message in direct.iter().chain(&group) {
            let all = if message.to.is_some() {
                &self.direct
            } else {
                &self.group
            };
            same(message, &all[&message.id]);
        }
        for name in GROUPS {
            let of = |m: &&Message| m.group.as_deref() == Some(name);
            let all: Vec<u64> = self.group.values().filter(of).map(|m| m.id).collect();
            let seen: Vec<u64> = group.iter().filter(of).map(|m| m.id).collect();
            ledger.check_membership(name, user, &all, &seen);
            let path = format!("/v1/users/{user}/groups/{name}/messages");
            if seen.is_empty() && !ledger.is_member(name, user) {
                // Never a member: 404. A member only while nothing was sent: an empty history.
                let reply = client.get(&path).unwrap();
                assert!(ledger.was_member(name, user) || reply.status == 404);
                continue;
            }
            let history = both_ways(client, rng, &path);
            let history: Vec<u64> = history.iter().map(|m| m.id).collect();
            if name != "g0" {
                assert_eq!(history, seen, "{user} in {name}");
            } else if ledger.is_member(name, user) {
                assert_eq!(history, all, "{user} in {name}");
            }
        }
    }

    /// The list of conversations names every peer once, with the last message.
    fn check_conversations(&self, client: &mut Client, rng: &mut Random, user: &str) {
        let mut expected = BTreeMap::new();
        for message in self.direct.values() {
            let to = message.to.as_deref().unwrap();
            if message.from == user {
                expected.insert(to.to_owned(), message.id);
            } else if to == user {
                expected.insert(message.from.clone(), message.id);
            }
        }
        let mut found = BTreeMap::new();
        let (mut before, mut more) = (String::new(), true);
        while more {
            let limit = rng.range(1, 10);
            let path = format!("/v1/users/{user}/conversations?limit={limit}{before}");
            let page = client.get(&path).unwrap().expect(200).json();
            for entry in page["conversations"].as_array().unwrap() {
                if let Some(peer) = entry["user"].as_str() {
                    let last = entry["last"]["id"].as_u64().unwrap();
                    assert_eq!(found.insert(peer.to_owned(), last), None, "{peer} twice");
                }
            }
            more = page["more"].as_bool().unwrap();
            before = format!("&before={}", page["next"].as_str().unwrap_or_default());
        }
        assert_eq!(found, expected, "conversations of {user}");
    }
}

/// All that an inbox has after a cursor: direct messages and group messages.
pub(crate) fn inbox(
    client: &mut Client,
    rng: &mut Random,
    user: &str,
    after: &str,
) -> (Vec<Message>, Vec<Message>) {
    let (mut cursor, mut more) = (after.to_owned(), true);
    let mut messages = Vec::new();
    while more {
        let limit = limit(rng);
        let page = client.inbox(user, &cursor, limit).unwrap().page();
        check_size(&page, limit);
        messages.extend(page.messages);
        (cursor, more) = (page.next, page.more);
    }
    let (direct, group): (Vec<_>, Vec<_>) = messages.into_iter().partition(|m| m.to.is_some());
    for messages in [&direct, &group] {
        assert!(messages.is_sorted_by(|a, b| a.id < b.id), "inbox of {user}");
    }
    (direct, group)
}

/// A history read from its end and from its beginning: the same, rising.
fn both_ways(client: &mut Client, rng: &mut Random, path: &str) -> Vec<Message> {
    let (mut back, mut bound, mut more) = (Vec::new(), String::new(), true);
    while more {
        let page = history(client, rng, path, &bound);
        let Some(first) = page.messages.first() else {
            break;
        };
        bound = format!("&before={}", first.id);
        more = page.more;
        back.extend(page.messages.into_iter().rev());
    }
    back.reverse();
    let (mut forth, mut bound, mut more) = (Vec::new(), "&after=0".to_owned(), true);
    while more {
        let page = history(client, rng, path, &bound);
        let Some(last) = page.messages.last() else {
            break;
        };
        bound = format!("&after={}", last.id);
        more = page.more;
        forth.extend(page.messages);
    }
    assert_eq!(back.len(), forth.len(), "{path}: before and after differ");
    back.iter().zip(&forth).for_each(|(a, b)| same(a, b));
    assert!(
        forth.is_sorted_by(|a, b| a.id < b.id),
        "{path} out of order"
    );
    forth
}

fn history(client: &mut Client, rng: &mut Random, path: &str, bound: &str) -> Page {
    let limit = limit(rng);
    let page = client.get(&format!("{path}?limit={limit}{bound}"));
    let page = page.unwrap().page();
    check_size(&page, limit);
    assert!(!page.messages.is_empty() || !page.more, "{path}: no end");
    page
}

fn check_size(page: &Page, limit: u64) {
    let count = u64::try_from(page.messages.len()).unwrap();
    assert!(count <= limit, "{count} of at most {limit}");
}

fn limit(rng: &mut Random) -> u64 {
    rng.range(1, 100)
}

/// Adds a whole conversation or group: its `prev` chain and its numbers have no break, and no id was
/// elsewhere.
fn add(all: &mut BTreeMap<u64, Message>, messages: Vec<Message>) {
    let mut prev = 0;
    for (n, message) in (1..).zip(messages) {
        assert_eq!(
            (message.prev, message.n),
            (prev, n),
            "a broken chain: {message:?}"
        );
        prev = message.id;
        let other = all.insert(message.id, message);
        assert!(other.is_none(), "{other:?} is in two places");
    }
}

fn same(one: &Message, other: &Message) {
    let parts = |m: &Message| (m.id, m.prev, m.n, m.at, m.body.get().to_owned());
    assert_eq!(parts(one), parts(other));
    let names = |m: &Message| (m.from.clone(), m.to.clone(), m.group.clone());
    assert_eq!(names(one), names(other));
}

fn by_id(client: &mut Client, sequence: &str, id: u64) -> Message {
    let path = format!("/v1/messages/{sequence}/{id}");
    client.get(&path).unwrap().message()
}

/// Checks a reader's whole life against the inbox: nothing missed, nothing twice.
pub(crate) fn check_reader(
    client: &mut Client,
    rng: &mut Random,
    reader: &mut Reader,
    ledger: &Mutex<Ledger>,
) {
    let mut more = true;
    while more {
        let reply = client.inbox(reader.user, &reader.cursor, limit(rng));
        more = reader.take(reply.unwrap(), ledger);
    }
    let (direct, group) = inbox(client, rng, reader.user, "0");
    assert!(
        direct
            .iter()
            .map(|m| m.id)
            .eq(reader.direct.iter().copied())
    );
    assert!(group.iter().map(|m| m.id).eq(reader.group.iter().copied()));
}
