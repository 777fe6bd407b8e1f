//! Proves that a data directory is whole: every checksum of the journal, ids, `prev` chains and numbers as applying
//! gives them, and the readable view against both, where it may be trusted. Changes nothing in the journal.

use std::collections::HashMap;
use std::path::Path;

use super::recover::check_view_end;
use crate::hub::plan::plan;
use crate::hub::state::State;
use crate::model::{ChainEnd, Message, Position, Receiver, UserName};
use crate::store::{Applied, Directory, Error, Follower, Trust, View, Writes};

/// Keys known before it is worth looking for those whose time is over.
const KEYS_MIN: usize = 4096;

/// What a verification found. All figures are of the journal.
#[derive(Clone, Copy, Debug)]
pub struct Verified {
    /// Entries.
    pub entries: u64,
    /// Messages of both sequences.
    pub messages: Position,
    /// What the readable view was compared with the journal.
    pub view: Compared,
}

/// Whether the readable view was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// It holds what the journal gives.
    Same,
    /// No: it was copied while in use, and is rebuilt at the next start, or checked then.
    NotStopped,
    /// No: it is of an older layout, and is rebuilt at the next start.
    Older,
    /// No: it cannot be opened where nothing may be written.
    ReadOnly,
    /// No: the directory is of this earlier format, and the next start rebuilds it.
    Earlier(u32),
}

/// Verifies a data directory that no server uses, also one that may only be read. `progress` is told the entries
/// and ids read so far, which are good.
pub fn verify(
    data: &Path,
    cache_bytes: u64,
    progress: &mut dyn FnMut(u64, Position),
) -> Result<Verified, Error> {
    let directory = Directory::open_to_read(data)?;
    // The end is only known at the end, so the view is compared in a second reading.
    let applied = check_journal(&directory, progress)?;
    directory.check_end(applied.offset)?;
    let trust = directory.trust(applied.offset)?;
    if trust == Trust::Check && !directory.read_only() {
        check_view_end(&directory, applied.offset, cache_bytes)?;
    }
    let view = match (trust, directory.earlier_format()) {
        (_, Some(format)) => Compared::Earlier(format),
        _ if directory.read_only() => Compared::ReadOnly,
        (Trust::Clean, None) => match compare(&directory, cache_bytes, applied) {
            Err(Error::OlderView) => {
                directory.close(applied.offset)?;
                Compared::Older
            }
            compared => compared.map(|()| Compared::Same)?,
        },
        (Trust::Check | Trust::Rebuild, None) => Compared::NotStopped,
    };
    Ok(Verified {
        entries: applied.offset,
        messages: applied.heads,
        view,
    })
}

fn check_journal(
    directory: &Directory,
    progress: &mut dyn FnMut(u64, Position),
) -> Result<Applied, Error> {
    let mut replay = Replay::new(directory)?;
    let mut chains = Chains::default();
    while let Some(writes) = replay.next()? {
        for message in writes.messages() {
            chains.follow(message)?;
        }
        let applied = replay.state.applied();
        progress(applied.offset, applied.heads);
    }
    Ok(*replay.state.applied())
}

/// Compares every message of the view with what the journal gives.
fn compare(directory: &Directory, cache_bytes: u64, end: Applied) -> Result<(), Error> {
    let (view, applied) = View::open(directory, cache_bytes)?;
    // What is behind its mark is still to be sealed: the next start takes it from the journal.
    let seen = view.seen()?;
    if seen > end.offset {
        return Err(Error::JournalBehind {
            journal: end.offset,
            applied: seen,
            data: directory.path().to_owned(),
        });
    }
    view.check()?;
    let mut replay = Replay::new(directory)?;
    while replay.state.applied().offset < applied.offset
        && let Some(writes) = replay.next()?
    {
        for addition in &writes.additions {
            view.check_addition(addition)?;
        }
    }
    let heads = replay.state.applied().heads;
    if heads != applied.heads {
        return Err(Error::View(format!(
            "its mark says {:?}, the journal gives {heads:?} up to there",
            applied.heads
        )));
    }
    drop(view);
    directory.close(end.offset)
}

/// Plans the journal from its beginning, without a view: what planning needs to know is in memory.
struct Replay {
    entries: Follower,
    state: State,
    /// With so many keys in memory, those whose time is over are forgotten.
    keys_max: usize,
}

impl Replay {
    fn new(directory: &Directory) -> Result<Self, Error> {
        Ok(Self {
            entries: Follower::checked(directory)?,
            state: State::new(Applied::nothing(directory.lineage().log)),
            keys_max: KEYS_MIN,
        })
    }

    /// What the next entry writes.
    fn next(&mut self) -> Result<Option<Writes>, Error> {
        let Some((offset, entry)) = self.entries.next_entry()? else {
            return Ok(None);
        };
        let keys = &mut self.state.keys;
        if keys.len() >= self.keys_max {
            keys.retain(|kept| kept.is_some_and(|kept| kept.lives_at(entry.keys_ms())));
            self.keys_max = KEYS_MIN.max(2 * keys.len());
        }
        Ok(Some(plan(&mut self.state, offset, &entry).writes))
    }
}

/// The end of each conversation and group.
#[derive(Default)]
struct Chains {
    ends: HashMap<(UserName, Receiver), ChainEnd>,
    heads: Position,
}

impl Chains {
    fn follow(&mut self, message: &Message) -> Result<(), Error> {
        let sequence = message.sequence();
        let head = self.heads.of_mut(sequence);
        let chain = match &message.to {
            Receiver::User(to) if *to < message.from => {
                (to.clone(), Receiver::User(message.from.clone()))
            }
            Receiver::User(_) => (message.from.clone(), message.to.clone()),
            Receiver::Group(group) => {
                let any = UserName::parse("-").expect("it is a name");
                (any, Receiver::Group(group.clone()))
            }
        };
        let before = self.ends.insert(chain, message.chain_end());
        let ChainEnd { last, n } = before.unwrap_or_default();
        if message.id != *head + 1 || message.prev != last || message.n != n + 1 {
            return Err(Error::View(format!(
                "{sequence} message {} follows {head}, names {} where {last} was before it, and has number {} after {n}",
                message.id, message.prev, message.n
            )));
        }
        *head = message.id;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Hub, Options};
    use crate::model::{Body, Draft, IdempotencyKey};
    use crate::store::{Command, Entry, Journal, KEYS_KEPT_MS};

    const KEYS: usize = 3000;

    fn keyed(key: usize) -> Command {
        Command::Message(Draft {
            from: UserName::parse("alice").unwrap(),
            to: Receiver::User(UserName::parse("bob").unwrap()),
            body: Body::from(b"1".to_vec()),
            key: Some(IdempotencyKey::parse(&key.to_string()).unwrap()),
            by_user: false,
        })
    }

    #[test]
    fn a_number_that_is_skipped_or_repeated_breaks_the_chain() {
        let message = |id, prev, n| Message {
            id,
            prev,
            n,
            at_ms: 1,
            from: UserName::parse("alice").unwrap(),
            to: Receiver::User(UserName::parse("bob").unwrap()),
            body: Body::from(b"1".to_vec()),
        };
        for (second, good) in [
            (message(2, 1, 2), true),
            (message(2, 1, 1), false),
            (message(2, 1, 3), false),
            (message(2, 0, 1), false),
        ] {
            let mut chains = Chains::default();
            chains.follow(&message(1, 0, 1)).unwrap();
            assert_eq!(chains.follow(&second).is_ok(), good, "{second:?}");
        }
        assert!(Chains::default().follow(&message(1, 0, 2)).is_err());
    }

    #[test]
    fn keys_are_forgotten_after_a_day_and_not_before() {
        let data = tempfile::tempdir().unwrap();
        let directory = Directory::open(data.path()).unwrap();
        let mut journal = Journal::open(&directory, false).unwrap();
        // The second day repeats keys of the first, once too late.
        let days = [
            (1, 0..KEYS),
            (KEYS_KEPT_MS, 1..2 * KEYS),
            (KEYS_KEPT_MS + 1, 0..2),
            (3 * KEYS_KEPT_MS, 0..1),
        ];
        for (n, (at_ms, keys)) in (1..).zip(days) {
            let entry = Entry {
                proposer: 1,
                n,
                at_ms,
                keys_us: at_ms * 1000,
                commands: keys.map(keyed).collect(),
            };
            journal.append(entry, |_| unreachable!()).unwrap();
        }
        let mut replay = Replay::new(&directory).unwrap();
        let mut found = Vec::new();
        while let Some(writes) = replay.next().unwrap() {
            found.push((writes.messages().count(), replay.state.keys.len()));
        }
        let expected = [(KEYS, KEYS), (KEYS, 2 * KEYS), (2, KEYS + 2), (1, KEYS + 2)];
        assert_eq!(found, expected, "the last are too few to be looked at");
    }

    #[tokio::test]
    async fn a_key_that_was_forgotten_before_a_restart_may_be_used_again() {
        let data = tempfile::tempdir().unwrap();
        let directory = Directory::open(data.path()).unwrap();
        let mut journal = Journal::open(&directory, false).unwrap();
        let Command::Message(draft) = keyed(1) else {
            unreachable!()
        };
        let unkeyed = Draft {
            key: None,
            ..draft.clone()
        };
        for (keys_ms, draft) in [(1, draft.clone()), (KEYS_KEPT_MS + 2, unkeyed)] {
            let entry = Entry {
                proposer: 1,
                n: keys_ms,
                at_ms: 1,
                keys_us: keys_ms * 1000,
                commands: vec![Command::Message(draft)],
            };
            journal.append(entry, |_| unreachable!()).unwrap();
        }
        drop((journal, directory));
        let hub = Hub::open(Options::small(data.path())).unwrap();
        let again = hub.push(vec![draft]).await.unwrap().remove(0).unwrap();
        assert_eq!((again.id, again.duplicate), (3, false));
        hub.close();
        let verified = verify(data.path(), 8 << 20, &mut |_, _| ()).unwrap();
        assert_eq!(verified.messages.direct, 3);
        assert_eq!(verified.view, Compared::Same);
    }

    #[tokio::test]
    async fn a_view_of_an_older_layout_is_no_damage_and_is_rebuilt() {
        let data = tempfile::tempdir().unwrap();
        let push = async |hub: &Hub, key| {
            let Command::Message(draft) = keyed(key) else {
                unreachable!()
            };
            hub.push(vec![draft]).await.unwrap().remove(0).unwrap()
        };
        let hub = Hub::open(Options::small(data.path())).unwrap();
        let first = push(&hub, 1).await;
        hub.seal_all();
        hub.close();
        View::make_older(&Directory::open(data.path()).unwrap());
        let compared = |data| verify(data, 8 << 20, &mut |_, _| ()).unwrap().view;
        for _ in 0..2 {
            assert_eq!(compared(data.path()), Compared::Older);
        }
        let hub = Hub::open(Options::small(data.path())).unwrap();
        let again = push(&hub, 1).await;
        assert_eq!(
            (again.id, again.at_ms, again.duplicate),
            (1, first.at_ms, true)
        );
        assert_eq!(push(&hub, 2).await.id, 2);
        hub.close();
        assert_eq!(compared(data.path()), Compared::Same);
    }
}
