//! Pages of a conversation or group both ways. The tail comes first, for it says up to where the view is to be read;
//! the newest pages mostly need nothing else.

use std::sync::Arc;

use crate::error::Error;
use crate::hub::membership::{Interval, Intervals, in_group};
use crate::hub::tail::Reading;
use crate::hub::{Hub, Inner};
use crate::model::{Bound, GroupName, HistoryPage, Message, PageLimit, Sequence, UserName};
use crate::store::{self, View};

pub(super) type Read = Result<Arc<Message>, store::Error>;
pub(super) type Ids<'a> = Box<dyn Iterator<Item = Result<u64, store::Error>> + 'a>;

impl Inner {
    /// A message that is known to be there.
    pub(in crate::hub) fn message(
        &self,
        view: &View,
        sequence: Sequence,
        id: u64,
    ) -> Result<Arc<Message>, store::Error> {
        let found = self.tail.read().message(sequence, id).cloned();
        found.map_or_else(|| indexed(view, sequence, Ok(id)), Ok)
    }
}

/// What a page of a history has to do with the tail.
struct Span {
    /// The page begins behind this id, and ends with the other.
    after: u64,
    upto: u64,
    /// The view has all up to here.
    base: u64,
    forward: bool,
}

impl Span {
    /// Refuses a page after an id that was not given yet.
    fn of(tail: &Reading<'_>, sequence: Sequence, bound: Bound) -> Result<Self, Error> {
        let (base, last) = (tail.base().of(sequence), tail.heads().of(sequence));
        let (after, upto, forward) = match bound {
            Bound::After(id) if id > last => return Err(Error::AfterAhead { sequence, last }),
            Bound::After(id) => (id, last, true),
            Bound::Before(id) => (0, last.min(id.saturating_sub(1)), false),
            Bound::Newest => (0, last, false),
        };
        Ok(Self {
            after,
            upto,
            base,
            forward,
        })
    }

    /// Messages of the tail in the order of the page, more than it holds, or all.
    fn first<'a>(
        &self,
        messages: impl DoubleEndedIterator<Item = &'a Arc<Message>>,
        limit: PageLimit,
    ) -> Vec<Arc<Message>> {
        let most = limit.messages.saturating_add(1);
        taken(messages.cloned(), most, self.forward)
    }

    /// Whether a page is full without the view.
    fn is_all(&self, tail: &[Arc<Message>], limit: PageLimit) -> bool {
        if self.forward {
            self.after >= self.base
        } else {
            // Before the first of all there is nothing.
            tail.len() > limit.messages || tail.last().is_some_and(|first| first.prev == 0)
        }
    }

    /// The page of what the tail has, and the view below it.
    fn page(
        &self,
        tail: Vec<Arc<Message>>,
        below: impl Iterator<Item = Read>,
        limit: PageLimit,
    ) -> Result<HistoryPage, store::Error> {
        let tail = tail.into_iter().map(Ok);
        if self.forward {
            return filled(below.chain(tail), limit);
        }
        let mut page = filled(tail.chain(below), limit)?;
        page.messages.reverse();
        Ok(page)
    }
}

impl Hub {
    /// A page of the 1:1 history of two users.
    pub async fn direct_history(
        &self,
        user: UserName,
        peer: UserName,
        bound: Bound,
        limit: PageLimit,
    ) -> Result<HistoryPage, Error> {
        let (span, tail) = {
            let tail = self.0.tail.read();
            let span = Span::of(&tail, Sequence::Direct, bound)?;
            let after = span.after.max(span.base);
            let found = tail.conversation((&user, &peer), after, span.upto);
            let found = span.first(found, limit);
            (span, found)
        };
        if span.is_all(&tail, limit) {
            let page = span.page(tail, std::iter::empty(), limit);
            return page.map_err(|e| self.0.read_failed(&e));
        }
        self.blocking(move |_, view| {
            let users = view.user(&user)?.zip(view.user(&peer)?);
            let ids = users.map(|users| {
                let upto = span.upto.min(span.base);
                ordered(view.conversation_ids(users, span.after, upto), span.forward)
            });
            let below = ids.into_iter().flatten();
            let below = below.map(|id| indexed(view, Sequence::Direct, id));
            Ok(span.page(tail, below, limit)?)
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
        let seen = self.0.memberships.seen_by(&self.0.tail, &user);
        let seen = seen.map(|seen| GroupTail::of(seen, &group, bound, limit));
        let seen = seen.transpose()?;
        if let Some(GroupTail { span, found, .. }) = &seen
            && span.is_all(found, limit)
        {
            let page = span.page(found.clone(), std::iter::empty(), limit);
            return page.map_err(|e| self.0.read_failed(&e));
        }
        self.blocking(move |inner, view| {
            let seen = if let Some(seen) = seen {
                seen
            } else {
                let seen = inner.memberships.seen_with(&inner.tail, view, &user)?;
                GroupTail::of(seen, &group, bound, limit)?
            };
            let GroupTail {
                span,
                found,
                spans,
                number,
            } = seen;
            let below = within(&spans, span.after, span.upto.min(span.base));
            let ids = below.flat_map(|(from, until)| view.group_ids(number, from, until));
            let below = ordered(ids, span.forward).map(|id| indexed(view, Sequence::Group, id));
            Ok(span.page(found, below, limit)?)
        })
        .await
    }

    /// A message by id.
    pub async fn message(&self, sequence: Sequence, id: u64) -> Result<Arc<Message>, Error> {
        {
            let tail = self.0.tail.read();
            if let Some(message) = tail.message(sequence, id) {
                return Ok(Arc::clone(message));
            }
            let last = tail.base().of(sequence);
            if id == 0 || id > last || id <= self.0.floor.of(sequence) {
                return Err(Error::MessageNotFound);
            }
        }
        self.blocking(move |_, view| Ok(indexed(view, sequence, Ok(id))?))
            .await
    }
}

/// What the tail has of a page of a group's history.
struct GroupTail {
    span: Span,
    found: Vec<Arc<Message>>,
    /// What the user may page through.
    spans: Vec<(u64, u64)>,
    number: u32,
}

impl GroupTail {
    /// As a user may see it, whose intervals these are.
    fn of(
        (tail, intervals): (Reading<'_>, Intervals),
        group: &GroupName,
        bound: Bound,
        limit: PageLimit,
    ) -> Result<Self, Error> {
        let span = Span::of(&tail, Sequence::Group, bound)?;
        let intervals = in_group(&intervals, group);
        let number = intervals.first().ok_or(Error::GroupNotFound)?.group.number;
        let spans = spans(&intervals, tail.heads().group);
        let found = within(&spans, span.after.max(span.base), span.upto);
        let found = found.flat_map(|(from, until)| tail.group(number, from, until));
        let found = span.first(found, limit);
        Ok(Self {
            span,
            found,
            spans,
            number,
        })
    }
}

/// At most so many: the first, or from the last back.
pub(super) fn taken<T>(
    items: impl DoubleEndedIterator<Item = T>,
    most: usize,
    forward: bool,
) -> Vec<T> {
    if forward {
        items.take(most).collect()
    } else {
        items.rev().take(most).collect()
    }
}

/// Ids in the order of a page.
pub(super) fn ordered<'a>(
    ids: impl DoubleEndedIterator<Item = Result<u64, store::Error>> + 'a,
    forward: bool,
) -> Ids<'a> {
    if forward {
        Box::new(ids)
    } else {
        Box::new(ids.rev())
    }
}

/// What is within `after < id <= upto` of spans.
fn within(
    spans: &[(u64, u64)],
    after: u64,
    upto: u64,
) -> impl DoubleEndedIterator<Item = (u64, u64)> {
    spans.iter().filter_map(move |(from, until)| {
        let (from, until) = ((*from).max(after), (*until).min(upto));
        (from < until).then_some((from, until))
    })
}

/// A message that the view lists.
pub(super) fn indexed(view: &View, sequence: Sequence, id: Result<u64, store::Error>) -> Read {
    view.indexed(sequence, id?).map(Arc::new)
}

/// Takes messages until the page is full.
fn filled(
    messages: impl Iterator<Item = Read>,
    limit: PageLimit,
) -> Result<HistoryPage, store::Error> {
    let (mut found, mut room) = (Vec::new(), limit.page());
    let mut messages = messages;
    let more = loop {
        // Where only the count matters, none is read in vain: there is at least one more if there is an id.
        let Some(message) = messages.next().transpose()? else {
            break false;
        };
        if !room.take((limit.size_of)(&message)) {
            break true;
        }
        found.push(message);
    };
    let messages = found;
    Ok(HistoryPage { messages, more })
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
