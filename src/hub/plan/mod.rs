//! What an entry does: a pure function of the entry and the state before it.
//!
//! No clock, no randomness, no configuration: the same journal gives the same ids on this machine, after a
//! rebuild, and on another node.

mod channel;
mod group;
mod message;
mod planner;

pub(super) use planner::{Delivery, Event, Outcome, Plan, Receivers};

pub use planner::GroupReceipt;

use super::state::State;
use crate::store::{Command, Entry};
use planner::Planner;

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
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::hub::channel;
    use crate::model::{
        Body, Draft, GroupName, IdempotencyKey, LogId, Receiver, Sequence, UserName,
    };
    use crate::store::{self, Applied, Directory, HistoryMode, KEYS_KEPT_MS, View, Writes};

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
        let state = State::load(&view, applied, usize::MAX).unwrap();
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
                ("b", (0, 3, 0)),
                ("new", (0, 4, 0)),
                ("x", (0, 8, 1)),
                ("y", (0, 8, 3)),
                ("z", (0, 8, 4)),
            ] {
                let found = channel_of(folder.path(), name);
                assert_eq!(found, Some(expected), "{name}");
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

    /// A user's channel: the number before its first, and the last ids before it was opened.
    fn channel_of(data: &Path, name: &str) -> Option<(u64, u64, u64)> {
        let (view, _) = open(data);
        let number = view.user(&user(name)).unwrap().unwrap();
        let mut channels = view.channels().map(Result::unwrap);
        let (_, channel) = channels.find(|(user, _)| *user == number)?;
        assert_eq!(channel.name, user(name));
        Some((channel.base, channel.opened.direct, channel.opened.group))
    }

    #[test]
    fn a_closed_channel_goes_on_behind_all_numbers_that_it_may_have_given() {
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
        let folder = assert_same(&entries);
        for (name, expected) in [
            ("b", Some((156, 156, 1))),
            ("c", Some((2, 153, 0))),
            ("e", Some((153, 155, 1))),
        ] {
            assert_eq!(channel_of(folder.path(), name), expected, "{name}");
        }
        let (view, _) = open(folder.path());
        let number = view.user(&user("b")).unwrap().unwrap();
        assert_eq!(view.forgotten(number).unwrap(), Some(156));
    }

    #[test]
    fn a_message_to_a_group_is_one_row_however_many_of_its_members_have_channels() {
        let names: Vec<_> = (0..200).map(|n| format!("user-{n}")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let mut commands: Vec<_> = names.iter().map(|name| open_channel(name)).collect();
        commands.push(set(&names, None));
        let mut state = State::new(Applied::nothing(LogId([1; 16])));
        let entry = |n, commands| Entry {
            proposer: 1,
            n,
            at_ms: n,
            keys_us: n * 1000,
            commands,
        };
        plan(&mut state, 1, &entry(1, commands));
        for (offset, command) in [(2, to_team("user-7", None)), (3, to_all())] {
            let plan = plan(&mut state, offset, &entry(offset, vec![command]));
            assert_eq!(
                (plan.writes.additions.len(), plan.writes.changes.len()),
                (1, 0)
            );
        }
    }

    /// One that forgets whatever it may before each entry, and whose entries get into the view several at a time.
    struct Forgetful {
        view: View,
        state: State,
        entries: u64,
        unsealed: Writes,
        sealed: u64,
        _folder: tempfile::TempDir,
    }

    impl Forgetful {
        fn new(entries: u64) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (view, state) = open(folder.path());
            let mut state = State::load(&view, state.applied, 0).unwrap();
            state.applied.log = LogId([1; 16]);
            Self {
                view,
                state,
                entries,
                unsealed: Writes::default(),
                sealed: 0,
                _folder: folder,
            }
        }

        fn check(&mut self, offset: u64, entry: &Entry, expected: &Plan) {
            self.state.forget(self.sealed);
            let (plan, applied) = planned(&mut self.state, &self.view, offset, entry);
            assert_eq!(plan.outcomes, expected.outcomes, "entry {offset}");
            assert_eq!(plan.writes, expected.writes, "entry {offset}");
            self.unsealed.append(plan.writes);
            if offset.is_multiple_of(self.entries) {
                write(&self.view, &std::mem::take(&mut self.unsealed), &applied);
                self.sealed = offset;
                self.view.check().unwrap();
            }
        }
    }

    /// The directory of the state that keeps nothing in memory.
    fn assert_same(entries: &[Entry]) -> tempfile::TempDir {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (kept_view, mut kept) = open(one.path());
        kept.applied.log = LogId([1; 16]);
        let mut bare = State::new(kept.applied);
        let mut forgetful = [1, 2, 5].map(Forgetful::new);
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
            for state in &mut forgetful {
                state.check(offset, entry, &plan);
            }
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
