//! With whom a user had conversations, in the order of their last messages: of all full rows of the inbox. So a list of
//! conversations reads no more of these rows than it shows, and of the inbox its last part.
//!
//! A row has so many peers, each with its last message; only the last row changes. A peer stands in an earlier one,
//! too, once there is something new: whoever reads from the end takes the first.

use super::View;
use super::key::{self, Key};
use super::list::{List, Part};
use super::rows::RowChanges;
use super::varint::{put_varint, take_varint};
use crate::model::Sequence;
use crate::store::error::Error;

/// Peers of a row that changes no more; the last one has up to twice as many.
const ROW_PEERS: usize = 64;
const VERSION: u8 = 1;

/// A peer, and the id of the last message.
type Last = (u64, u32);

/// The last row of a user, and those that were divided off it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recent {
    pub(super) user: u32,
    /// The id in each one's key, and its peers, rising by their last messages.
    rows: Vec<(u64, Vec<Last>)>,
}

impl Recent {
    /// Without any.
    pub(super) fn none(user: u32) -> Self {
        let rows = Vec::new();
        Self { user, rows }
    }

    /// Takes in a full row of the inbox, which is behind all that were.
    pub(super) fn fold(&mut self, part: &Part) {
        if let Some(first) = part.ids.first()
            && self.rows.is_empty()
        {
            self.rows.push((*first, Vec::new()));
        }
        let Some((_, last)) = self.rows.last_mut() else {
            return;
        };
        for (id, exchange) in part.ids.iter().zip(&part.exchanges) {
            last.retain(|(_, peer)| *peer != exchange.peer);
            last.push((*id, exchange.peer));
        }
        while let Some((_, last)) = self.rows.last_mut()
            && last.len() > 2 * ROW_PEERS
        {
            let rest = last.split_off(ROW_PEERS);
            if let Some((id, _)) = rest.first() {
                self.rows.push((*id, rest));
            }
        }
    }

    /// Its rows as they are now.
    pub(super) fn changes(self) -> RowChanges {
        let prefix = key::recent(self.user);
        let row = |(id, peers): (u64, Vec<Last>)| {
            let value = encode(id, &peers);
            (key::with_id(&prefix, id), Some(value))
        };
        self.rows.into_iter().map(row).collect()
    }
}

fn encode(mut before: u64, peers: &[Last]) -> Vec<u8> {
    let mut value = vec![VERSION];
    for (id, peer) in peers {
        put_varint(&mut value, id - before);
        put_varint(&mut value, (*peer).into());
        before = *id;
    }
    value
}

/// What a row holds; `None` if it is not readable.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Option<Vec<Last>> {
    let (&VERSION, mut rest) = value.split_first()? else {
        return None;
    };
    let mut id = key::last_id(key).filter(|_| key.len() == 13)?;
    let mut peers = Vec::new();
    while !rest.is_empty() {
        let delta = take_varint(&mut rest)?;
        id = id.checked_add(delta)?;
        // The first of a row may be the one that it is named after.
        if delta == 0 && !peers.is_empty() {
            return None;
        }
        peers.push((id, u32::try_from(take_varint(&mut rest)?).ok()?));
    }
    (1..=2 * ROW_PEERS).contains(&peers.len()).then_some(peers)
}

impl View {
    /// The last row of a user, to be added to.
    pub(super) fn recent(&self, user: u32) -> Result<Recent, Error> {
        let mut recent = Recent::none(user);
        if let Some(row) = self.index.scan_prefix(key::recent(user)).next_back() {
            let (key, value) = row?;
            let id = key::last_id(&key).unwrap_or(0);
            recent.rows.push((id, read(&key, &value)?));
        }
        Ok(recent)
    }

    /// How many conversations a user has up to a head.
    pub fn conversations(&self, user: u32, head: u64) -> Result<u64, Error> {
        let part = self.part_at(List::Inbox(user), head)?;
        Ok(part.map_or(0, |mut part| {
            part.truncate(head);
            part.count().conversations
        }))
    }

    /// With whom a user has conversations up to a head, by number: the newest first, each with the id of its last
    /// message. Behind its first place a peer may come again, with an earlier id. It holds if [`Self::is_written_to`]
    /// says so behind it: what is written beyond the head takes the places of others.
    pub fn peers(
        &self,
        user: u32,
        head: u64,
    ) -> Result<impl Iterator<Item = Result<Last, Error>> + use<>, Error> {
        // Before the other rows: when this one is full its peers are put into those, and read the other way round they
        // could be in neither.
        let part = self.part_at(List::Inbox(user), head)?;
        let newest = part.into_iter().flat_map(move |mut part| {
            part.truncate(head);
            let places = part.ids.into_iter().zip(part.exchanges);
            places.map(|(id, exchange)| Ok((id, exchange.peer))).rev()
        });
        let rows = self.index.scan_prefix(key::recent(user)).rev();
        let rest = rows.flat_map(|row| {
            let peers = row
                .map_err(Error::from)
                .and_then(|(key, value)| read(&key, &value));
            each(peers)
        });
        Ok(newest.chain(rest))
    }

    /// Whether nothing is written beyond a head of the direct sequence.
    pub fn is_written_to(&self, head: u64) -> bool {
        self.heads.of(Sequence::Direct) <= head
    }

    /// The same as [`Self::peers`], of all messages of the inbox up to a head. It takes longer, and holds whatever is
    /// written beyond.
    pub fn peers_of_all(
        &self,
        user: u32,
        head: u64,
    ) -> Result<impl Iterator<Item = Result<Last, Error>> + use<>, Error> {
        let parts = self.parts(List::Inbox(user), 0, head)?;
        Ok(parts.rev().flat_map(move |part| {
            each(part.map(|mut part| {
                part.truncate(head);
                let peers = part.exchanges.iter().map(|exchange| exchange.peer);
                part.ids.iter().copied().zip(peers).collect()
            }))
        }))
    }

    /// Whether the rows of a user are these, and no others.
    pub(super) fn has_recent(&self, recent: Recent) -> Result<bool, Error> {
        let found = self.index.scan_prefix(key::recent(recent.user));
        let found = found.map(|row| row.map(|(key, value)| (Key::from(&*key), value.to_vec())));
        let found = found.collect::<Result<Vec<_>, _>>()?;
        let expected = recent.changes().into_iter();
        Ok(found
            .into_iter()
            .eq(expected.filter_map(|(key, value)| Some((key, value?)))))
    }
}

/// Those of a row, the last first.
fn each(peers: Result<Vec<Last>, Error>) -> impl Iterator<Item = Result<Last, Error>> {
    let (peers, error) = match peers {
        Ok(peers) => (peers, None),
        Err(error) => (Vec::new(), Some(Err(error))),
    };
    error.into_iter().chain(peers.into_iter().rev().map(Ok))
}

fn read(key: &[u8], value: &[u8]) -> Result<Vec<Last>, Error> {
    decode(key, value)
        .ok_or_else(|| Error::View(format!("a row of its index is not readable: {key:02x?}")))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::store::view::list::{Count, Exchange, Place, ROW_IDS};

    /// A full row of user 1's inbox behind an id: of messages with these peers, again and again.
    fn full(behind: u64, peers: &[u32]) -> Part {
        let mut part = Part::after(Count::default());
        for (id, peer) in (behind + 1..).zip(peers.iter().cycle()).take(ROW_IDS) {
            part.push(&Place {
                list: List::Inbox(1),
                id,
                n: 0,
                exchange: Some(Exchange {
                    peer: *peer,
                    first: false,
                    received: true,
                }),
            });
        }
        part
    }

    proptest! {
        /// However often rows are written and read on the way.
        #[test]
        fn each_peer_comes_first_with_its_last_message_and_rows_stay_small(
            folds in prop::collection::vec((prop::collection::vec(1..400_u32, 1..64), any::<bool>()), 1..30),
        ) {
            let (mut recent, mut last, mut id) = (Recent::none(1), BTreeMap::new(), 0);
            let mut stored = RowChanges::new();
            for (peers, again) in folds {
                let part = full(id, &peers);
                recent.fold(&part);
                for (at, exchange) in part.ids.iter().zip(&part.exchanges) {
                    last.insert(exchange.peer, *at);
                    id = *at;
                }
                if again {
                    stored.extend(recent.changes());
                    let (key, value) = stored.last_key_value().unwrap();
                    let peers = decode(key, value.as_ref().unwrap()).unwrap();
                    recent = Recent { user: 1, rows: vec![(key::last_id(key).unwrap(), peers)] };
                }
            }
            stored.extend(recent.changes());
            let mut found = BTreeMap::new();
            let mut before = u64::MAX;
            for (number, (key, value)) in stored.iter().rev().enumerate() {
                let peers = decode(key, value.as_ref().unwrap()).unwrap();
                prop_assert!(number == 0 || peers.len() == ROW_PEERS);
                for (id, peer) in peers.into_iter().rev() {
                    prop_assert!(id < before, "from the end, ids fall");
                    before = id;
                    found.entry(peer).or_insert(id);
                }
            }
            prop_assert_eq!(found, last);
        }

        /// Whatever is read is what would be written.
        #[test]
        fn any_bytes_are_read_as_they_would_be_written_or_not_at_all(
            id in any::<u64>(),
            value in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..20),
                prop::collection::vec(prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff)], 0..20)
                    .prop_map(|rest| [&[VERSION], &rest[..]].concat()),
                prop::collection::vec(1..3_u8, 250..262).prop_map(|rest| [&[VERSION], &rest[..]].concat()),
            ],
        ) {
            let key = key::with_id(&key::recent(1), id);
            if let Some(peers) = decode(&key, &value) {
                prop_assert!(peers.len() <= 2 * ROW_PEERS && peers.is_sorted_by(|one, next| one.0 < next.0));
                prop_assert_eq!(encode(id, &peers), value);
            }
        }
    }
}
