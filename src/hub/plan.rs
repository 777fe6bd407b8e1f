//! What an entry does: a pure function of the entry and the state before it.
//!
//! No clock, no randomness, no configuration: the same journal gives the same ids on this machine, after a
//! rebuild, and on another node.

use std::collections::HashSet;
use std::sync::Arc;

use super::membership::{Moved, Present};
use super::state::{Group, GroupFacts, Members, State, content_hash, key_hash};
use crate::error::Error;
use crate::model::{ChainEnd, Draft, GroupName, Message, Receipt, Receiver, Sequence, UserName};
use crate::store::{Addition, Change, Command, Entry, HistoryMode, KeyUse, Writes};

/// What a change of a group's members did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupReceipt {
    /// Whether the group was made, or made again after it had been deleted.
    pub made: bool,
    /// Whether those who join may page back to the beginning.
    pub history: HistoryMode,
    /// Members afterwards.
    pub members: u64,
    /// How many joined.
    pub added: u64,
    /// How many left.
    pub removed: u64,
}

/// What one command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Message(Receipt),
    Group(GroupReceipt),
    Opened,
    /// The number that the channel's next message would have had; none where it was not open.
    Closed(Option<u64>),
    Refused(Error),
}

/// What became of a user's channel.
#[derive(Debug)]
pub(super) enum ChannelChange {
    Opened(UserName),
    Closed(UserName),
}

/// A message and who may see it.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) message: Arc<Message>,
    pub(super) receivers: Receivers,
}

/// Who may see a message, at the moment of its entry.
#[derive(Debug)]
pub(super) enum Receivers {
    /// Sender and receiver.
    Pair(UserName, UserName),
    Members(Arc<GroupFacts>, Members),
}

/// What applying an entry comes to.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) writes: Writes,
    /// One for each command.
    pub(super) outcomes: Vec<Outcome>,
    pub(super) deliveries: Vec<Delivery>,
    /// Groups that were made, changed or deleted.
    pub(super) changed: Vec<Present>,
    pub(super) moved: Vec<Moved>,
    /// Channels that were opened or closed.
    pub(super) channels: Vec<ChannelChange>,
}

/// Plans an entry, and moves the state behind it.
pub(super) fn plan(state: &mut State, offset: u64, entry: &Entry) -> Plan {
    assert!(
        offset == state.applied.offset + 1,
        "entry {offset} after {}",
        state.applied.offset
    );
    assert!(
        entry.at_ms >= state.applied.at_ms,
        "time falls in entry {offset}"
    );
    let mut planner = Planner {
        state,
        offset,
        at_ms: entry.at_ms,
        keys_ms: entry.keys_ms(),
        plan: Plan::default(),
    };
    planner.plan.writes.keys_ms = entry.keys_ms();
    for command in &entry.commands {
        let outcome = planner.command(command);
        planner.plan.outcomes.push(outcome);
    }
    let plan = planner.plan;
    state.applied.offset = offset;
    state.applied.at_ms = entry.at_ms;
    plan
}

pub(super) struct Planner<'a> {
    pub(super) state: &'a mut State,
    pub(super) offset: u64,
    pub(super) at_ms: u64,
    keys_ms: u64,
    pub(super) plan: Plan,
}

impl Planner<'_> {
    fn command(&mut self, command: &Command) -> Outcome {
        let done = match command {
            Command::Message(draft) => self.message(draft).map(Outcome::Message),
            Command::SetGroup {
                group,
                members,
                history,
            } => self.set_group(group, members, *history).map(Outcome::Group),
            Command::ChangeMembers { group, add, remove } => {
                self.change_members(group, add, remove).map(Outcome::Group)
            }
            Command::DeleteGroup { group } => self.delete_group(group).map(Outcome::Group),
            Command::OpenChannel { user } => {
                self.open_channel(user);
                Ok(Outcome::Opened)
            }
            Command::CloseChannel { user } => Ok(Outcome::Closed(self.close_channel(user))),
        };
        done.unwrap_or_else(Outcome::Refused)
    }

    fn message(&mut self, draft: &Draft) -> Result<Receipt, Error> {
        let hash = key_hash(draft);
        if let Some(kept) = hash.and_then(|hash| self.state.keys.get(&hash).flatten())
            && kept.lives_at(self.keys_ms)
        {
            let same = kept.content == content_hash(draft);
            let receipt = Receipt {
                duplicate: true,
                ..kept.receipt
            };
            return if same {
                Ok(receipt)
            } else {
                Err(Error::IdempotencyConflict)
            };
        }
        let receipt = match &draft.to {
            Receiver::User(to) => self.direct_message(draft, to),
            Receiver::Group(group) => self.group_message(draft, group)?,
        };
        if let Some(hash) = hash {
            let first = KeyUse {
                receipt,
                keys_ms: self.keys_ms,
                content: content_hash(draft),
            };
            self.state.keys.change(hash, Some(first), self.offset);
            self.change(Change::KeyUsed { hash, first });
        }
        Ok(receipt)
    }

    fn direct_message(&mut self, draft: &Draft, to: &UserName) -> Receipt {
        let (sender, receiver) = (self.number(&draft.from), self.number(to));
        let users = (sender.min(receiver), sender.max(receiver));
        let id = self.take(Sequence::Direct);
        let mut end = self.state.conversations.get(&users).unwrap_or_default();
        let message = new_message(draft, id, self.at_ms, &mut end);
        self.state.conversations.change(users, end, self.offset);
        self.add(Addition::DirectMessage {
            message: Arc::clone(&message),
            from: sender,
            to: receiver,
        });
        self.number_in_channel(receiver, Sequence::Direct, id);
        let receivers = Receivers::Pair(draft.from.clone(), to.clone());
        self.deliver(message, receivers)
    }

    fn group_message(&mut self, draft: &Draft, name: &GroupName) -> Result<Receipt, Error> {
        let group = live(self.state.groups.get(name))?;
        let backends = self.is_backends(name);
        if draft.by_user && !group.members.contains_key(&draft.from) {
            return Err(Error::GroupNotFound);
        }
        if draft.by_user && backends {
            return Err(Error::BackendsOnly);
        }
        let (facts, members) = (Arc::clone(&group.facts), Arc::clone(&group.members));
        let id = self.take(Sequence::Group);
        let group = self
            .state
            .groups
            .get_mut(name)
            .ok_or(Error::GroupNotFound)?;
        let message = new_message(draft, id, self.at_ms, &mut group.end);
        group.left = HashSet::new();
        self.add(Addition::GroupMessage {
            message: Arc::clone(&message),
            group: facts.number,
        });
        self.number_in_channels(&members, &draft.from, id);
        Ok(self.deliver(message, Receivers::Members(facts, members)))
    }

    fn deliver(&mut self, message: Arc<Message>, receivers: Receivers) -> Receipt {
        let receipt = Receipt {
            sequence: message.sequence(),
            id: message.id,
            prev: message.prev,
            at_ms: message.at_ms,
            duplicate: false,
        };
        self.plan.deliveries.push(Delivery { message, receivers });
        receipt
    }

    /// The user's number; assigned now if there is none.
    pub(super) fn number(&mut self, name: &UserName) -> u32 {
        if let Some(number) = self.state.users.get(name).flatten() {
            return number;
        }
        self.state.applied.users += 1;
        let number = self.state.applied.users;
        let users = &mut self.state.users;
        users.change(name.clone(), Some(number), self.offset);
        self.add(Addition::User {
            name: name.clone(),
            number,
        });
        number
    }

    /// The next id of a sequence.
    fn take(&mut self, sequence: Sequence) -> u64 {
        let head = self.state.applied.heads.of_mut(sequence);
        *head += 1;
        *head
    }

    pub(super) fn add(&mut self, addition: Addition) {
        self.plan.writes.additions.push(addition);
    }

    pub(super) fn change(&mut self, change: Change) {
        self.plan.writes.changes.push(change);
    }
}

/// The draft as the next message of its conversation or group, whose end it becomes.
fn new_message(draft: &Draft, id: u64, at_ms: u64, end: &mut ChainEnd) -> Arc<Message> {
    let prev = end.last;
    *end = end.then(id);
    Arc::new(Message {
        id,
        prev,
        n: end.n,
        at_ms,
        from: draft.from.clone(),
        to: draft.to.clone(),
        body: draft.body.clone(),
    })
}

/// A group that was made and not deleted.
pub(super) fn live(group: Option<&Group>) -> Result<&Group, Error> {
    group
        .filter(|group| !group.deleted)
        .ok_or(Error::GroupNotFound)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::hub::channel;
    use crate::model::{Body, IdempotencyKey, LogId};
    use crate::store::{self, Applied, Directory, KEYS_KEPT_MS, View};

    const CACHE: u64 = 8 << 20;
    const DAY_MS: u64 = KEYS_KEPT_MS;

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    fn team() -> GroupName {
        GroupName::parse("team").unwrap()
    }

    fn message(from: &str, to: Receiver, key: Option<&str>) -> Command {
        Command::Message(Draft {
            from: user(from),
            to,
            body: Body::from(b"true".to_vec()),
            key: key.map(|key| IdempotencyKey::parse(key).unwrap()),
            by_user: true,
        })
    }

    fn direct(from: &str, to: &str, key: Option<&str>) -> Command {
        message(from, Receiver::User(user(to)), key)
    }

    fn change(add: &[&str], remove: &[&str]) -> Command {
        let names = |names: &[&str]| names.iter().map(|name| user(name)).collect();
        Command::ChangeMembers {
            group: team(),
            add: names(add),
            remove: names(remove),
        }
    }

    fn set(members: &[&str], history: Option<HistoryMode>) -> Command {
        Command::SetGroup {
            group: team(),
            members: members.iter().map(|name| user(name)).collect(),
            history,
        }
    }

    fn open_channel(name: &str) -> Command {
        Command::OpenChannel { user: user(name) }
    }

    fn close_channel(name: &str) -> Command {
        Command::CloseChannel { user: user(name) }
    }

    fn to_all() -> Command {
        Command::Message(Draft {
            from: channel::icomet_user(),
            to: Receiver::Group(channel::icomet_group()),
            body: Body::from(b"1".to_vec()),
            key: None,
            by_user: false,
        })
    }

    fn to_team(from: &str, key: Option<&str>) -> Command {
        message(from, Receiver::Group(team()), key)
    }

    /// The same while the clock is far ahead, as entries are written whose keys have a time of their own.
    fn entries_ahead() -> Vec<Entry> {
        let mut entries = entries();
        for (order, entry) in (0..).zip(&mut entries) {
            entry.at_ms = (1 << 50) + order / 4;
        }
        entries
    }

    /// What is hard: names, members, keys and channels that are new, gone and new again, also within one entry.
    fn entries() -> Vec<Entry> {
        let delete = || Command::DeleteGroup { group: team() };
        let commands = [
            (1, vec![direct("a", "b", Some("k")), direct("b", "a", None)]),
            (2, vec![direct("a", "b", Some("k")), direct("c", "c", None)]),
            (2, vec![to_all(), open_channel("b"), direct("a", "b", None)]),
            (
                2,
                vec![open_channel("new"), open_channel("b"), open_channel("new")],
            ),
            (
                2,
                vec![direct("b", "new", None), direct("new", "new", None)],
            ),
            (3, vec![set(&["a", "n"], None), direct("a", "n", None)]),
            (
                4,
                vec![
                    change(&["b"], &[]),
                    to_team("b", Some("k")),
                    change(&[], &["b"]),
                    to_team("b", None),
                    change(&["b"], &["n"]),
                ],
            ),
            (5, vec![delete(), to_team("a", None), change(&["a"], &[])]),
            (
                DAY_MS + 2,
                vec![
                    set(&["x", "b"], Some(HistoryMode::All)),
                    direct("a", "b", Some("k")),
                    direct("a", "b", Some("k")),
                ],
            ),
            (
                DAY_MS + 3,
                vec![open_channel("x"), to_all(), to_team("b", None)],
            ),
            (
                DAY_MS + 3,
                vec![
                    open_channel("y"),
                    change(&["y", "new"], &["b"]),
                    to_team("x", None),
                    Command::DeleteGroup {
                        group: channel::icomet_group(),
                    },
                    to_all(),
                ],
            ),
            (DAY_MS + 4, vec![open_channel("z"), to_all()]),
            (DAY_MS + 5, vec![to_team("x", None), change(&[], &["x"])]),
            // A user leaves where they joined, and returns when others may not read back.
            (DAY_MS + 6, vec![change(&["x"], &[])]),
            (DAY_MS + 6, vec![change(&[], &["x"])]),
            (DAY_MS + 6, vec![set(&["x"], Some(HistoryMode::Member))]),
            (2 * DAY_MS + 9, vec![direct("a", "x", Some("k"))]),
            (2 * DAY_MS + 9, vec![direct("b", "a", None), delete()]),
        ];
        let entry = |(n, (at_ms, commands))| Entry {
            proposer: 1,
            n,
            at_ms,
            keys_us: at_ms * 1000,
            commands,
        };
        (1..).zip(commands).map(entry).collect()
    }

    fn open(path: &Path) -> (View, State) {
        let directory = Directory::open(path).unwrap();
        let (view, applied) = View::open(&directory, CACHE).unwrap();
        let state = State::load(&view, applied).unwrap();
        (view, state)
    }

    fn write(view: &View, writes: &Writes, applied: &Applied) {
        view.write(writes, applied, &mut |_| Ok(())).unwrap();
    }

    /// What an entry does, and the mark behind it; nothing is written.
    fn planned(state: &mut State, view: &View, offset: u64, entry: &Entry) -> (Plan, Applied) {
        state.prepare(view, entry).unwrap();
        let plan = plan(state, offset, entry);
        (plan, state.applied)
    }

    #[test]
    fn the_same_entries_give_the_same_whatever_is_kept_in_memory_or_half_written() {
        for entries in [entries(), entries_ahead()] {
            let folder = assert_same(&entries);
            for (name, expected) in [
                ("b", "1=d4 2=d8 3=g2"),
                ("new", "1=d5 2=d6 3=g2 4=g4 5=g6"),
                ("x", "1=g2 2=g3 3=d9"),
                ("y", "1=g4 2=g6"),
                ("z", "1=g5"),
            ] {
                assert_eq!(channel_rows(folder.path(), name), expected, "{name}");
            }
        }
    }

    #[test]
    fn a_number_is_one_more_than_that_before_it_in_the_same_conversation_or_group() {
        let commands = vec![
            direct("a", "b", None),
            direct("c", "a", None),
            direct("b", "a", Some("k")),
            direct("b", "a", Some("k")),
            direct("a", "a", None),
            set(&["a", "b"], None),
            to_team("a", None),
            to_team("c", None),
            change(&[], &["b"]),
            to_team("b", None),
            change(&["c"], &[]),
            to_team("c", None),
            direct("a", "b", None),
            direct("a", "a", None),
            Command::DeleteGroup { group: team() },
            to_team("a", None),
            set(&["d"], None),
            to_team("d", None),
        ];
        let commands = [commands, vec![direct("b", "a", None), to_team("d", None)]];
        let entry = |(n, commands)| Entry {
            proposer: 1,
            n,
            at_ms: n,
            keys_us: n * 1000,
            commands,
        };
        let entries: Vec<_> = (1..).zip(commands).map(entry).collect();
        let folder = assert_same(&entries);
        let (view, _) = open(folder.path());
        for (sequence, expected) in [
            (
                Sequence::Direct,
                &[(0, 1), (0, 1), (1, 2), (0, 1), (3, 3), (4, 2), (5, 4)][..],
            ),
            (Sequence::Group, &[(0, 1), (1, 2), (2, 3), (3, 4)]),
        ] {
            let messages = (1..).map_while(|id| view.message(sequence, id).unwrap());
            let found: Vec<_> = messages.map(|message| (message.prev, message.n)).collect();
            assert_eq!(found, expected, "{sequence}");
        }
    }

    /// The rows of a user's channel.
    fn channel_rows(data: &Path, name: &str) -> String {
        let (view, _) = open(data);
        let number = view.user(&user(name)).unwrap().unwrap();
        let row = |row: Result<_, _>| {
            let (number, sequence, id) = row.unwrap();
            let tag = match sequence {
                Sequence::Direct => 'd',
                Sequence::Group => 'g',
            };
            format!("{number}={tag}{id}")
        };
        let rows: Vec<_> = view.channel_from(number, 0).map(row).collect();
        rows.join(" ")
    }

    #[test]
    fn a_closed_channel_goes_on_behind_its_numbers_and_their_rows_go_bit_by_bit() {
        let many = || (0..150).map(|_| direct("a", "b", None));
        let hundred_and_fifty = [open_channel("b"), open_channel("e")];
        let mut commands = vec![
            vec![close_channel("b")],
            hundred_and_fifty.into_iter().chain(many()).collect(),
            vec![
                open_channel("c"),
                direct("a", "c", None),
                close_channel("c"),
                direct("a", "c", None),
                open_channel("c"),
                direct("a", "c", None),
                close_channel("c"),
                close_channel("c"),
                open_channel("c"),
            ],
            vec![
                close_channel("b"),
                close_channel("e"),
                direct("a", "b", None),
                open_channel("b"),
                direct("a", "b", None),
                to_all(),
            ],
            vec![open_channel("e"), direct("a", "b", None)],
            // Again, while rows of the first time are left.
            vec![close_channel("b"), close_channel("b"), open_channel("b")],
            vec![direct("a", "b", None), close_channel("nobody")],
        ];
        commands.extend((0..5).map(|_| vec![]));
        commands.push(vec![direct("a", "e", None), direct("a", "c", None)]);
        let entry = |(n, commands)| Entry {
            proposer: 1,
            n,
            at_ms: n,
            keys_us: n * 1000,
            commands,
        };
        let entries: Vec<_> = (1..).zip(commands).map(entry).collect();
        let left = |entries: &[Entry], name| {
            let folder = assert_same(entries);
            channel_rows(folder.path(), name).split_whitespace().count()
        };
        // Those of the entry that closes, and no more with each of the next.
        assert_eq!(left(&entries[..4], "b"), 152);
        assert!((1..153).contains(&left(&entries[..5], "b")));
        let folder = assert_same(&entries);
        for (name, expected) in [("b", "154=d157"), ("c", "3=g1 4=d159"), ("e", "1=d158")] {
            assert_eq!(channel_rows(folder.path(), name), expected, "{name}");
        }
        let (view, _) = open(folder.path());
        let number = view.user(&user("b")).unwrap().unwrap();
        assert_eq!(view.forgotten(number).unwrap(), Some(153));
    }

    /// The directory of the state that keeps nothing in memory.
    fn assert_same(entries: &[Entry]) -> tempfile::TempDir {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (kept_view, mut kept) = open(one.path());
        kept.applied.log = LogId([1; 16]);
        let mut bare = State::new(kept.applied);
        for (offset, entry) in (1..).zip(entries) {
            let (plan, applied) = planned(&mut kept, &kept_view, offset, entry);
            write(&kept_view, &plan.writes, &applied);
            // As far as a crash before the mark gets: new rows and messages.
            let (view, mut state) = open(other.path());
            state.applied.log = LogId([1; 16]);
            let (again, marked) = planned(&mut state, &view, offset, entry);
            assert_eq!((&again.writes, marked), (&plan.writes, applied));
            let crash = || Err(store::Error::View("as a crash".into()));
            let cut = view.write(&again.writes, &marked, &mut |_| crash());
            assert!(cut.is_err());
            drop((view, state));
            let (view, mut state) = open(other.path());
            state.applied.log = LogId([1; 16]);
            let (again, marked) = planned(&mut state, &view, offset, entry);
            assert_eq!(again.outcomes, plan.outcomes, "entry {offset}");
            assert_eq!((&again.writes, marked), (&plan.writes, applied));
            write(&view, &again.writes, &marked);
            view.check().unwrap();
            // Without a view, as a verification plans; only keys are not forgotten there.
            let unread = super::plan(&mut bare, offset, entry);
            assert_eq!(unread.outcomes, plan.outcomes, "entry {offset}");
            assert_eq!(unread.writes.additions, plan.writes.additions);
        }
        assert_eq!(kept.applied.heads, bare.applied.heads);
        other
    }

    #[test]
    fn a_key_is_forgotten_a_day_after_its_last_first_use() {
        let folder = tempfile::tempdir().unwrap();
        let (view, mut state) = open(folder.path());
        let used = || vec![direct("a", "b", Some("k"))];
        // Used again in the very moment in which its time is over, it is not forgotten with its first time.
        let entries = [
            (1, used(), "1"),
            (DAY_MS, used(), "1 again"),
            (DAY_MS + 1, used(), "2"),
            (DAY_MS + 2, vec![], ""),
            (DAY_MS + 3, used(), "2 again"),
            (2 * DAY_MS + 1, vec![], ""),
        ];
        for (n, (at_ms, commands, expected)) in (1..).zip(entries) {
            let entry = Entry {
                proposer: 1,
                n,
                at_ms,
                keys_us: at_ms * 1000,
                commands,
            };
            let (plan, applied) = planned(&mut state, &view, n, &entry);
            write(&view, &plan.writes, &applied);
            let said = plan.outcomes.iter().map(|outcome| match outcome {
                Outcome::Message(receipt) if receipt.duplicate => format!("{} again", receipt.id),
                Outcome::Message(receipt) => receipt.id.to_string(),
                other => panic!("{other:?}"),
            });
            assert_eq!(said.collect::<String>(), expected, "entry {n}");
            view.check().unwrap();
        }
    }
}
