//! What the tests know: every draft ever sent, every id that was acknowledged or seen, and between
//! which ids each membership began or ended.
//!
//! The server has lied as soon as one id means two messages, one draft has two ids, or a message is
//! not what was sent; `place` and `seen` stop the test right there.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::client::{Client, Message, Receipt};
use crate::http::Reply;
use crate::load::{GROUPS, everybody};
use crate::random::Random;

/// Where a draft goes.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    /// To a user.
    Direct(String),
    /// To a group.
    Group(String),
}

/// A message before it has an id.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    /// Its number, also in its body: no two drafts have the same.
    pub(crate) n: u64,
    pub(crate) from: String,
    pub(crate) target: Target,
    pub(crate) body: String,
    pub(crate) key: Option<String>,
}

/// The last ids of both sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) direct: u64,
    pub(crate) group: u64,
}

/// A membership that began or ended somewhere after the message `low` and before the one after
/// `high`.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) group: String,
    pub(crate) user: String,
    pub(crate) joins: bool,
    pub(crate) low: u64,
    pub(crate) high: u64,
}

/// What an id stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    n: u64,
    prev: u64,
    at: u64,
}

/// All that must still be true after a restart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    sent: HashMap<u64, u64>,
    direct: BTreeMap<u64, Placed>,
    group: BTreeMap<u64, Placed>,
    ids: HashMap<u64, (bool, u64)>,
    changes: BTreeMap<(String, String), Vec<Change>>,
}

impl Draft {
    /// A new draft: spaces, fractions and letters that a server which parses bodies would change.
    pub(crate) fn new(rng: &mut Random, from: &str, target: Target) -> Self {
        let most = match rng.range(1, 100) {
            1 => 40_000,
            2..=10 => 2_000,
            _ => 200,
        };
        let size = rng.index(most);
        Self::sized(rng, from, target, size)
    }

    /// A new draft with so many bytes to fill.
    pub(crate) fn sized(rng: &mut Random, from: &str, target: Target, size: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let pad = "-".repeat(size);
        let key = rng.percent(70).then(|| format!("key-{n}"));
        Self {
            n,
            from: from.to_owned(),
            target,
            body: format!(r#"{{"n":{n},  "x" : 1.50e1, "text":"\u00fc ü {pad}"}}"#),
            key,
        }
    }

    /// Pushes it alone.
    pub(crate) fn push(&self, client: &mut Client) -> io::Result<Reply> {
        let key = self.key.as_deref();
        match &self.target {
            Target::Direct(to) => client.push_direct(&self.from, to, &self.body, key),
            Target::Group(group) => client.push_group(&self.from, group, &self.body, key),
        }
    }

    /// The name of the sequence that gives its id.
    pub(crate) fn sequence(&self) -> &'static str {
        match self.target {
            Target::Direct(_) => "direct",
            Target::Group(_) => "group",
        }
    }
}

impl Position {
    /// Of one sequence.
    pub(crate) fn of(self, sequence: &str) -> u64 {
        match sequence {
            "direct" => self.direct,
            "group" => self.group,
            other => panic!("no such sequence: {other}"),
        }
    }

    /// As `/v1/status` shows it.
    pub(crate) fn from_status(status: &Value) -> Self {
        let of = |sequence| status["watermark"][sequence].as_u64().unwrap();
        Self {
            direct: of("direct"),
            group: of("group"),
        }
    }

    /// Whether it is as far as `other` in both.
    pub(crate) fn covers(self, other: Self) -> bool {
        self.direct >= other.direct && self.group >= other.group
    }
}

impl Ledger {
    /// Notes a draft before it is sent.
    pub(crate) fn sent(&mut self, draft: &Draft) {
        let print = match &draft.target {
            Target::Direct(to) => print(&draft.from, Some(to), None, &draft.body),
            Target::Group(group) => print(&draft.from, None, Some(group), &draft.body),
        };
        self.sent.insert(draft.n, print);
    }

    /// Notes a receipt: from now on this id is this draft.
    #[track_caller]
    pub(crate) fn acknowledged(&mut self, draft: &Draft, receipt: &Receipt) {
        assert_eq!(receipt.sequence, draft.sequence());
        let placed = Placed {
            n: draft.n,
            prev: receipt.prev,
            at: receipt.at,
        };
        self.place(&receipt.sequence, receipt.id, placed);
    }

    /// Notes a message that somebody has read: it is what was sent, and from now on it must stay.
    #[track_caller]
    pub(crate) fn seen(&mut self, message: &Message) {
        let body = message.body.get();
        let json: Value = serde_json::from_str(body).unwrap();
        let n = json["n"].as_u64().unwrap();
        let (to, group) = (message.to.as_deref(), message.group.as_deref());
        let print = print(&message.from, to, group, body);
        assert_eq!(Some(&print), self.sent.get(&n), "not as sent: {message:?}");
        let placed = Placed {
            n,
            prev: message.prev,
            at: message.at,
        };
        self.place(&message.sequence, message.id, placed);
    }

    #[track_caller]
    fn place(&mut self, sequence: &str, id: u64, placed: Placed) {
        let is_direct = sequence == "direct";
        assert!(placed.prev < id, "{sequence} {id}: {placed:?}");
        let ids = if is_direct {
            &mut self.direct
        } else {
            &mut self.group
        };
        let first = *ids.entry(id).or_insert(placed);
        assert_eq!(first, placed, "{sequence} {id} means two things");
        let first = *self.ids.entry(placed.n).or_insert((is_direct, id));
        assert_eq!(first, (is_direct, id), "draft {} has two ids", placed.n);
    }

    /// Notes a membership that has begun or ended.
    pub(crate) fn changed(&mut self, change: Change) {
        let key = (change.group.clone(), change.user.clone());
        self.changes.entry(key).or_default().push(change);
    }

    /// The highest ids ever acknowledged or seen.
    pub(crate) fn last(&self) -> Position {
        let last = |ids: &BTreeMap<u64, Placed>| ids.last_key_value().map_or(0, |(id, _)| *id);
        Position {
            direct: last(&self.direct),
            group: last(&self.group),
        }
    }

    /// How many messages were acknowledged or seen.
    pub(crate) fn len(&self) -> usize {
        self.direct.len() + self.group.len()
    }

    /// What is true in a copy that parted here.
    pub(crate) fn fork(&self, parted: Position) -> Self {
        let mut fork = self.clone();
        fork.direct.retain(|id, _| *id <= parted.direct);
        fork.group.retain(|id, _| *id <= parted.group);
        fork.ids.retain(|_, (is_direct, id)| {
            *id <= if *is_direct {
                parted.direct
            } else {
                parted.group
            }
        });
        for changes in fork.changes.values_mut() {
            changes.retain(|change| change.low <= parted.group);
            for change in changes {
                change.high = change.high.min(parted.group);
            }
        }
        fork
    }

    /// Notes who is a member in a copy that parted here; changes may have raced with the copying.
    pub(crate) fn note_members(&mut self, client: &mut Client, parted: Position) {
        for group in GROUPS {
            let members = client.members(group);
            for user in everybody() {
                self.changed(Change {
                    group: group.to_owned(),
                    user: user.to_owned(),
                    joins: members.iter().any(|member| member == user),
                    low: parted.group,
                    high: parted.group,
                });
            }
        }
    }

    /// Whether the last known change made this user a member.
    pub(crate) fn is_member(&self, group: &str, user: &str) -> bool {
        self.changes_of(group, user)
            .last()
            .is_some_and(|change| change.joins)
    }

    /// Whether this user was ever made a member.
    pub(crate) fn was_member(&self, group: &str, user: &str) -> bool {
        self.changes_of(group, user)
            .iter()
            .any(|change| change.joins)
    }

    fn changes_of(&self, group: &str, user: &str) -> &[Change] {
        let key = (group.to_owned(), user.to_owned());
        self.changes.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Checks which of a group's messages (all their ids, rising) a user sees: those sent while a
    /// member. Where a change raced with pushes there is one point before and after which all agree.
    #[track_caller]
    pub(crate) fn check_membership(&self, group: &str, user: &str, all: &[u64], seen: &[u64]) {
        let mut expected = seen.iter().peekable();
        let changes = self.changes_of(group, user);
        let mut turned = None;
        for id in all {
            let sees = expected.next_if_eq(&id).is_some();
            let before = changes.iter().rev().find(|change| change.high < *id);
            let racing = changes.iter().position(|c| c.low < *id && *id <= c.high);
            let was = before.is_some_and(|change| change.joins);
            let becomes = racing.map(|index| changes[index].joins);
            let fits = match becomes {
                None => sees == was,
                Some(_) if turned == racing => Some(sees) == becomes,
                Some(_) => sees == was || Some(sees) == becomes,
            };
            assert!(fits, "{user} sees {group} {id}: {sees}, by {changes:?}");
            if racing.is_some() && sees != was {
                turned = racing;
            }
        }
        assert_eq!(
            expected.next(),
            None,
            "{user} sees what {group} does not have"
        );
    }
}

/// Locks the ledger, also after another thread has failed: its message is the one to read.
pub(crate) fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

fn print(from: &str, to: Option<&str>, group: Option<&str>, body: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (from, to, group, body).hash(&mut hasher);
    hasher.finish()
}
