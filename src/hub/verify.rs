//! Proves that a data directory is whole: every checksum of the journal, ids and `prev` chains as applying
//! gives them, and the readable view against both, where it may be trusted. Changes nothing in the journal.

use std::collections::HashMap;
use std::path::Path;

use super::plan::plan;
use super::state::State;
use crate::model::{Message, Position, Receiver, UserName};
use crate::store::{Applied, Directory, Error, Follower, Trust, View};

/// What a verification found. All figures are of the journal.
#[derive(Clone, Copy, Debug)]
pub struct Verified {
    /// Entries.
    pub entries: u64,
    /// Messages of both sequences.
    pub messages: Position,
    /// Whether the readable view was compared; one that was copied while in use is made anew at the next
    /// start, and says nothing.
    pub view_compared: bool,
}

/// Verifies a data directory that no server uses. `progress` is told the entries and ids
/// read so far, which are good.
pub fn verify(
    data: &Path,
    cache_bytes: u64,
    progress: &mut dyn FnMut(u64, Position),
) -> Result<Verified, Error> {
    let directory = Directory::open_existing(data)?;
    let lineage = directory.lineage();
    let mut entries = Follower::read_only(&directory)?;
    let mut state = State::new(Applied::nothing(lineage.log));
    let mut chains = Chains::default();
    // The end is only known at the end, so the view is compared in a second reading.
    while let Some((offset, entry)) = entries.next_entry()? {
        for message in plan(&mut state, offset, &entry).writes.messages {
            chains.follow(&message)?;
        }
        progress(offset, state.applied.heads);
    }
    let applied = *state.applied();
    directory.check_end(applied.offset)?;
    let trust = directory.trust(applied.offset)?;
    let view_compared = trust == Trust::Clean;
    if view_compared {
        compare(&directory, cache_bytes, applied)?;
    }
    Ok(Verified {
        entries: applied.offset,
        messages: applied.heads,
        view_compared,
    })
}

/// Compares every message of the view with what the journal gives.
fn compare(directory: &Directory, cache_bytes: u64, end: Applied) -> Result<(), Error> {
    let (view, applied) = View::open(directory, cache_bytes)?;
    if applied.offset != end.offset || applied.heads != end.heads {
        return Err(Error::View(
            "its mark is not at the end of the journal".into(),
        ));
    }
    view.check(&applied)?;
    let mut entries = Follower::read_only(directory)?;
    let mut state = State::new(Applied::nothing(applied.log));
    while let Some((offset, entry)) = entries.next_entry()? {
        let planned = plan(&mut state, offset, &entry);
        for message in &planned.writes.messages {
            let (sequence, id) = (message.sequence(), message.id);
            if view.indexed(sequence, id)? != **message {
                return Err(Error::View(format!(
                    "{sequence} message {id} is not as in the journal"
                )));
            }
        }
        if let Some((key, _)) = planned
            .writes
            .rows
            .iter()
            .find(|(key, value)| !view.has(key, value))
        {
            return Err(Error::View(format!(
                "a row of its index is missing: {key:02x?}"
            )));
        }
    }
    drop(view);
    directory.close(end.offset)
}

/// The last id of each conversation and group.
#[derive(Default)]
struct Chains {
    last: HashMap<(UserName, Receiver), u64>,
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
        let last = self.last.insert(chain, message.id).unwrap_or(0);
        if message.id != *head + 1 || message.prev != last {
            return Err(Error::View(format!(
                "{sequence} message {} follows {head} and names {} where {last} was before it",
                message.id, message.prev
            )));
        }
        *head = message.id;
        Ok(())
    }
}
