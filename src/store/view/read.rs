//! Reads of the view: one message, scans by id both ways, names, groups, keys.

use super::View;
use super::key::{self, KeyHash};
use super::record::{GroupState, KeyUse, ListedMember, Membership, decode_message};
use crate::model::{GroupName, Message, Position, Sequence, UserName};
use crate::store::error::Error;

/// A group or user number and the rest of a row of the index.
pub(crate) type Loaded<T> = (u32, T);
/// Group, the id after which the interval begins, and the rest.
pub(crate) type Interval = (u32, u64, Membership);

impl View {
    /// A message by id.
    pub fn message(&self, sequence: Sequence, id: u64) -> Result<Option<Message>, Error> {
        let row = self.tree(sequence).get(id.to_be_bytes())?;
        row.map(|bytes| decode_message(id, &bytes)).transpose()
    }

    /// A message that an index row names: it must be there.
    pub fn indexed(&self, sequence: Sequence, id: u64) -> Result<Message, Error> {
        self.message(sequence, id)?
            .ok_or_else(|| Error::View(format!("{sequence} message {id} is indexed but missing")))
    }

    /// The number of a user, if any message or group names the user.
    pub fn user(&self, name: &UserName) -> Result<Option<u32>, Error> {
        self.number(&key::user(name))
    }

    /// The number of a group.
    pub fn group(&self, name: &GroupName) -> Result<Option<u32>, Error> {
        self.number(&key::group(name))
    }

    fn number(&self, key: &[u8]) -> Result<Option<u32>, Error> {
        let row = self.index.get(key)?;
        let number = |bytes: sled::IVec| {
            let number = bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes));
            number.ok_or_else(|| Error::View("a name's number is cut".into()))
        };
        row.map(number).transpose()
    }

    /// What is kept under an idempotency key.
    pub fn key(&self, hash: KeyHash) -> Result<Option<KeyUse>, Error> {
        let row = self.index.get(key::idempotency(hash))?;
        row.map(|bytes| KeyUse::decode(&bytes)).transpose()
    }

    /// The time of the idempotency key that was kept last.
    pub fn last_key_ms(&self) -> Result<Option<u64>, Error> {
        let last = self.index.range(b"x".to_vec()..b"y".to_vec()).next_back();
        let Some((key, _)) = last.transpose()? else {
            return Ok(None);
        };
        let at_ms = key::expiry_time(&key).ok_or_else(|| Error::View("an expiry is cut".into()))?;
        Ok(Some(at_ms))
    }

    /// All groups.
    pub fn groups(&self) -> impl Iterator<Item = Result<Loaded<GroupState>, Error>> + use<> {
        self.index.scan_prefix(b"G").map(|row| {
            let (key, value) = row?;
            let number = key::first_number(&key)
                .ok_or_else(|| Error::View("a group's key is cut".into()))?;
            Ok((number, GroupState::decode(&value)?))
        })
    }

    /// All intervals of a user, in the order of groups and ids.
    pub fn memberships(&self, user: u32) -> impl Iterator<Item = Result<Interval, Error>> + use<> {
        let rows = self.index.scan_prefix(key::memberships(user));
        rows.map(interval)
    }

    /// The newest interval of a user in a group: the id after which it begins, and the rest.
    pub fn last_membership(
        &self,
        user: u32,
        group: u32,
    ) -> Result<Option<(u64, Membership)>, Error> {
        let prefix = key::memberships_in(user, group);
        let last = self.index.scan_prefix(prefix).next_back();
        let last = last.map(interval).transpose()?;
        Ok(last.map(|(_, from, membership)| (from, membership)))
    }

    /// The present members of a group, in the order of their numbers.
    pub fn members(
        &self,
        group: u32,
    ) -> impl Iterator<Item = Result<Loaded<ListedMember>, Error>> + use<> {
        self.index.scan_prefix(key::members(group)).map(|row| {
            let (key, value) = row?;
            let user = key::second_number(&key)
                .ok_or_else(|| Error::View("a member's key is cut".into()))?;
            Ok((user, ListedMember::decode(&value)?))
        })
    }

    /// Whether the index has a row with this value.
    pub(super) fn has(&self, key: &[u8], value: &[u8]) -> bool {
        self.index
            .get(key)
            .is_ok_and(|row| row.is_some_and(|found| found == value))
    }

    /// The bytes that sled takes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    /// Both heads that the trees hold, for a check against the mark.
    pub(super) fn last_ids(&self) -> Result<Position, Error> {
        let last = |sequence| -> Result<u64, Error> {
            let row = self.tree(sequence).last()?;
            Ok(row.and_then(|(key, _)| key::last_id(&key)).unwrap_or(0))
        };
        Ok(Position {
            direct: last(Sequence::Direct)?,
            group: last(Sequence::Group)?,
        })
    }
}

fn interval(row: sled::Result<(sled::IVec, sled::IVec)>) -> Result<Interval, Error> {
    let (key, value) = row?;
    let numbers = key::second_number(&key).zip(key::last_id(&key));
    let (group, from) = numbers.ok_or_else(|| Error::View("an interval's key is cut".into()))?;
    Ok((group, from, Membership::decode(&value)?))
}
