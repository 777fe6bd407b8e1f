//! Reads by id: an inbox after a cursor, pages of a conversation or group both ways.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::membership::Interval;
use super::{Failure, Hub, Inner};
use crate::error::Error;
use crate::model::{
    Bound, GroupName, HistoryPage, Message, PageLimit, Position, Sequence, UserName,
};
use crate::store::{self, View};

/// Part of an inbox.
pub(super) struct InboxPage {
    pub(super) messages: Vec<Arc<Message>>,
    pub(super) next: Position,
    pub(super) more: bool,
}

type Ids<'a> = Box<dyn Iterator<Item = Result<u64, store::Error>> + 'a>;

impl Hub {
    /// A page of the 1:1 history of two users.
    pub async fn direct_history(
        &self,
        user: UserName,
        peer: UserName,
        bound: Bound,
        limit: PageLimit,
    ) -> Result<HistoryPage, Error> {
        self.blocking(move |inner, view| {
            let head = inner.head(Sequence::Direct, bound)?;
            let (Some(user), Some(peer)) = (view.user(&user)?, view.user(&peer)?) else {
                return Ok(HistoryPage {
                    messages: Vec::new(),
                    more: false,
                });
            };
            let ids = |after, upto| view.conversation_ids((user, peer), after, upto);
            match bound {
                Bound::After(id) => forward(view, Sequence::Direct, ids(id, head), limit),
                Bound::Before(id) => backward(
                    view,
                    Sequence::Direct,
                    ids(0, head.min(id.saturating_sub(1))).rev(),
                    limit,
                ),
                Bound::Newest => backward(view, Sequence::Direct, ids(0, head).rev(), limit),
            }
        })
        .await
    }

    /// A page of a group's history, as a user may see it: what was sent during their membership, and what was
    /// before it if the group allowed that.
    pub async fn group_history(
        &self,
        user: UserName,
        group: GroupName,
        bound: Bound,
        limit: PageLimit,
    ) -> Result<HistoryPage, Error> {
        self.blocking(move |inner, view| {
            let head = inner.head(Sequence::Group, bound)?;
            let intervals = inner.memberships.in_group(&user, &group);
            let Some(number) = intervals.first().map(|interval| interval.group.number) else {
                return Err(Error::GroupNotFound.into());
            };
            let spans = spans(&intervals, head);
            let sequence = Sequence::Group;
            let (after, upto) = match bound {
                Bound::After(id) => (id, head),
                Bound::Before(id) => (0, head.min(id.saturating_sub(1))),
                Bound::Newest => (0, head),
            };
            let cut = spans.iter().filter_map(|(from, until)| {
                let (from, until) = ((*from).max(after), (*until).min(upto));
                (from < until).then_some((from, until))
            });
            let ids = |(from, until)| view.group_ids(number, from, until);
            if matches!(bound, Bound::After(_)) {
                forward(view, sequence, cut.flat_map(ids), limit)
            } else {
                backward(
                    view,
                    sequence,
                    cut.rev().flat_map(|span| ids(span).rev()),
                    limit,
                )
            }
        })
        .await
    }

    /// A message by id.
    pub async fn message(&self, sequence: Sequence, id: u64) -> Result<Message, Error> {
        self.blocking(move |inner, view| {
            if id == 0 || id > inner.visible.get().of(sequence) || id <= inner.floor.of(sequence) {
                return Err(Error::MessageNotFound.into());
            }
            Ok(view.indexed(sequence, id)?)
        })
        .await
    }
}

impl Inner {
    /// The last id that readers may see; refuses a page after an id that was not given yet.
    fn head(&self, sequence: Sequence, bound: Bound) -> Result<u64, Error> {
        let last = self.visible.get().of(sequence);
        match bound {
            Bound::After(id) if id > last => Err(Error::AfterAhead { sequence, last }),
            _ => Ok(last),
        }
    }

    /// All that a user may see within `after < id <= upto`, until the page is full.
    pub(super) fn inbox(
        &self,
        view: &View,
        user: &UserName,
        (after, upto): (Position, Position),
        limit: PageLimit,
    ) -> Result<InboxPage, Failure> {
        let direct: Ids<'_> = match view.user(user)? {
            Some(number) if after.direct < upto.direct => {
                Box::new(view.inbox_ids(number, after.direct, upto.direct))
            }
            _ => Box::new(std::iter::empty()),
        };
        let group = Merged::new(view, &self.memberships.of(user), after.group, upto.group)?;
        let mut direct = Peeked::new(view, Sequence::Direct, direct)?;
        let mut group = Peeked::new(view, Sequence::Group, Box::new(group))?;
        let (mut messages, mut room, mut next) = (Vec::new(), limit.page(), after);
        loop {
            let first = match (&direct.next, &group.next) {
                (Some(one), Some(other)) if one.at_ms <= other.at_ms => &mut direct,
                (_, Some(_)) => &mut group,
                (Some(_), None) => &mut direct,
                (None, None) => break,
            };
            let fits = |message| room.take((limit.size_of)(message));
            if !first.next.as_ref().is_some_and(fits) {
                break;
            }
            let Some(message) = first.take(view)? else {
                break;
            };
            *next.of_mut(message.sequence()) = message.id;
            messages.push(Arc::new(message));
        }
        for (sequence, rest) in [(Sequence::Direct, &direct), (Sequence::Group, &group)] {
            if rest.next.is_none() {
                *next.of_mut(sequence) = upto.of(sequence).max(after.of(sequence));
            }
        }
        let more = direct.next.is_some() || group.next.is_some();
        Ok(InboxPage {
            messages,
            next,
            more,
        })
    }
}

/// What a user may page through: spans `from < id <= until`, oldest first, apart from each other.
pub(super) fn spans(intervals: &[Interval], head: u64) -> Vec<(u64, u64)> {
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for interval in intervals {
        let from = if interval.all { 0 } else { interval.from };
        let until = interval.until.unwrap_or(head).min(head);
        // The intervals are in order, so only one that goes back to the beginning overlaps those before it.
        while spans.last().is_some_and(|(earlier, _)| *earlier >= from) {
            spans.pop();
        }
        match spans.last_mut() {
            Some((_, end)) if *end >= from => *end = until.max(*end),
            _ if from < until => spans.push((from, until)),
            _ => {}
        }
    }
    spans
}

fn forward(
    view: &View,
    sequence: Sequence,
    ids: impl Iterator<Item = Result<u64, store::Error>>,
    limit: PageLimit,
) -> Result<HistoryPage, Failure> {
    let (messages, more) = view.messages(sequence, ids, limit)?;
    Ok(HistoryPage { messages, more })
}

fn backward(
    view: &View,
    sequence: Sequence,
    ids: impl Iterator<Item = Result<u64, store::Error>>,
    limit: PageLimit,
) -> Result<HistoryPage, Failure> {
    let mut page = forward(view, sequence, ids, limit)?;
    page.messages.reverse();
    Ok(page)
}

/// The next message of a line of ids, read ahead.
struct Peeked<'a> {
    sequence: Sequence,
    ids: Ids<'a>,
    next: Option<Message>,
}

impl<'a> Peeked<'a> {
    fn new(view: &View, sequence: Sequence, ids: Ids<'a>) -> Result<Self, store::Error> {
        let mut peeked = Self {
            sequence,
            ids,
            next: None,
        };
        peeked.take(view)?;
        Ok(peeked)
    }

    /// Takes the next message, and reads the one after it.
    fn take(&mut self, view: &View) -> Result<Option<Message>, store::Error> {
        let following = self
            .ids
            .next()
            .transpose()?
            .map(|id| view.indexed(self.sequence, id));
        Ok(std::mem::replace(&mut self.next, following.transpose()?))
    }
}

/// The ids of all groups of a user, merged.
struct Merged<'a> {
    lines: Vec<Ids<'a>>,
    heads: BinaryHeap<Reverse<(u64, usize)>>,
}

impl<'a> Merged<'a> {
    /// What was sent to the groups while the user was a member, within `after < id <= upto`.
    fn new(
        view: &'a View,
        intervals: &[Interval],
        after: u64,
        upto: u64,
    ) -> Result<Self, store::Error> {
        let mut merged = Self {
            lines: Vec::new(),
            heads: BinaryHeap::new(),
        };
        for interval in intervals {
            let from = interval.from.max(after);
            let until = interval
                .until
                .unwrap_or(upto)
                .min(upto)
                .min(interval.group.last());
            if from < until {
                merged
                    .lines
                    .push(Box::new(view.group_ids(interval.group.number, from, until)));
                merged.pull(merged.lines.len() - 1)?;
            }
        }
        Ok(merged)
    }

    fn pull(&mut self, line: usize) -> Result<(), store::Error> {
        if let Some(id) = self.lines.get_mut(line).and_then(Iterator::next) {
            self.heads.push(Reverse((id?, line)));
        }
        Ok(())
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<u64, store::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((id, line)) = self.heads.pop()?;
        Some(self.pull(line).map(|()| id))
    }
}
