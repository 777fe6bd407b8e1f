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
    /// The last ids of a user's conversations up to one, the newest first, and at most so many.
    pub(super) fn last_direct(
        &self,
        view: &View,
        user: &UserName,
        upto: u64,
        most: usize,
    ) -> Result<Vec<u64>, store::Error> {
        let base = self.base.direct;
        let number = self
            .number
            .map_or_else(|| view.user(user), |number| Ok(Some(number)))?;
        let Some(number) = number else {
            return Ok(Vec::new());
        };
        let begun = self.contacts.iter().filter(|contact| contact.first).count();
        let below = usize::try_from(view.conversations(number, base)?).unwrap_or(usize::MAX);
        let all = below.saturating_add(begun);
        let found = self.first_of_each(view.peers(number, base)?, all, (upto, most))?;
        // Behind the reading: a window that is being written, or was since, may have changed what was read.
        if view.is_written_to(base) {
            return Ok(found);
        }
        self.first_of_each(view.peers_of_all(number, base)?, all, (upto, most))
    }

    /// Of the tail and what is below it, the last ids up to one: of each peer the first that comes.
    fn first_of_each(
        &self,
        mut below: impl Iterator<Item = Result<(u64, u32), store::Error>>,
        all: usize,
        (upto, most): (u64, usize),
    ) -> Result<Vec<u64>, store::Error> {
        let mut above = self.contacts.iter().rev();
        let (mut seen, mut found) = (HashSet::new(), Vec::new());
        while seen.len() < all && found.len() < most {
            let last = match above.next() {
                Some(contact) => Some((contact.id, contact.peer)),
                None => below.next().transpose()?,
            };
            let Some((id, peer)) = last else {
                break;
            };
            if seen.insert(peer) && id <= upto {
                found.push(id);
            }
        }
        Ok(found)
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
