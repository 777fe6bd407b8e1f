//! What the tail has of a list of conversations, and the last ids of each with the view below it.

use std::collections::HashSet;
use std::sync::Arc;

use super::history::spans;
use crate::hub::Inner;
use crate::hub::state::GroupFacts;
use crate::hub::tail::Contact;
use crate::model::{Position, UserName};
use crate::store::{self, View};

/// What the tail has of a list.
pub(super) struct ListTail {
    /// The view has all up to here.
    pub(super) base: Position,
    pub(super) heads: Position,
    /// The user's number, if it was given in it.
    number: Option<u32>,
    contacts: Vec<Contact>,
    pub(super) groups: Vec<GroupTail>,
}

/// A group of which the user is or was a member.
pub(super) struct GroupTail {
    pub(super) group: Arc<GroupFacts>,
    pub(super) member: bool,
    pub(super) joined_ms: u64,
    /// What the user may page through.
    spans: Vec<(u64, u64)>,
    /// The last message in the tail that the user may see.
    last: Option<u64>,
}

impl Inner {
    pub(super) fn list_tail(&self, view: &View, user: &UserName) -> Result<ListTail, store::Error> {
        let (tail, intervals) = self.memberships.seen_with(&self.tail, view, user)?;
        let (base, heads) = (tail.base(), tail.heads());
        let number = tail.user(user);
        let contacts = tail.contacts(user, base.direct, heads.direct).collect();
        let mut intervals = intervals.to_vec();
        intervals.sort_by_key(|interval| (interval.group.number, interval.from));
        let groups = intervals.chunk_by(|one, other| one.group.number == other.group.number);
        let groups = groups.filter_map(|intervals| {
            let last = intervals.last()?;
            let spans = spans(intervals, heads.group);
            let number = last.group.number;
            let newest = spans.iter().rev().find_map(|(from, until)| {
                let from = base.group.max(*from);
                tail.group(number, from, *until).next_back()
            });
            Some(GroupTail {
                group: Arc::clone(&last.group),
                member: last.until.is_none(),
                joined_ms: last.joined_ms,
                last: newest.map(|message| message.id),
                spans,
            })
        });
        Ok(ListTail {
            base,
            heads,
            number,
            contacts,
            groups: groups.collect(),
        })
    }
}

impl ListTail {
    /// The last ids of a user's conversations up to one, the newest first, and at most so many. `None`: the view has
    /// been written over since.
    pub(super) fn last_direct(
        &self,
        view: &View,
        user: &UserName,
        upto: u64,
        most: usize,
    ) -> Result<Option<Vec<u64>>, store::Error> {
        let base = self.base.direct;
        let number = self
            .number
            .map_or_else(|| view.user(user), |number| Ok(Some(number)))?;
        let (sealed, peers) = number
            .map(|number| view.peers(number, base))
            .transpose()?
            .unzip();
        let begun = self.contacts.iter().filter(|contact| contact.first).count();
        let all = usize::try_from(sealed.unwrap_or(0))
            .unwrap_or(usize::MAX)
            .saturating_add(begun);
        let (mut above, mut below) = (self.contacts.iter().rev(), peers.into_iter().flatten());
        let (mut seen, mut found) = (HashSet::new(), Vec::new());
        while seen.len() < all && found.len() < most {
            let (id, peer) = if let Some(contact) = above.next() {
                (contact.id, contact.peer)
            } else {
                match below.next().transpose()? {
                    Some((id, _)) if id > base => return Ok(None),
                    Some(last) => last,
                    None => break,
                }
            };
            if seen.insert(peer) && id <= upto {
                found.push(id);
            }
        }
        Ok(Some(found))
    }
}

impl GroupTail {
    /// The last message that the user may see.
    pub(super) fn last(&self, view: &View, base: u64) -> Result<Option<u64>, store::Error> {
        if self.last.is_some() {
            return Ok(self.last);
        }
        let last = self.group.last();
        for (from, until) in self.spans.iter().rev() {
            if (from + 1..=*until).contains(&last) {
                return Ok(Some(last));
            }
            let until = base.min(*until);
            let last = view
                .group_ids(self.group.number, *from, until)
                .next_back()
                .transpose()?;
            if last.is_some() {
                return Ok(last);
            }
        }
        Ok(None)
    }
}
