//! An inbox after a cursor: what the tail has of it, and the view below.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::history::{Ids, Read, indexed};
use crate::hub::Inner;
use crate::hub::membership::{Interval, Intervals, beyond};
use crate::hub::tail::Reading;
use crate::model::{Message, PageLimit, Position, Sequence, UserName};
use crate::store::{self, View};

/// Part of an inbox.
pub(super) struct InboxPage {
    pub(super) messages: Vec<Arc<Message>>,
    pub(super) next: Position,
    pub(super) more: bool,
    pub(super) moment: Moment,
}

/// When a page was read.
#[derive(Debug)]
pub(super) struct Moment {
    /// All intervals of the user then.
    pub(super) intervals: Intervals,
    /// The last id of the group sequence.
    pub(super) group: u64,
}

/// What the tail has of an inbox, and what must be read below it.
#[derive(Debug)]
pub(super) struct InboxTail {
    after: Position,
    /// The view has all up to here.
    base: Position,
    heads: Position,
    /// Of each sequence more than a page holds, or all.
    direct: Vec<Arc<Message>>,
    group: Vec<Arc<Message>>,
    /// Memberships of groups with messages beyond `after`.
    intervals: Vec<Interval>,
    moment: Moment,
}

impl InboxTail {
    /// Whether nothing of it can be below the tail.
    fn is_all(&self) -> bool {
        let sealed = |interval: &Interval| interval.from.max(self.after.group) < self.base.group;
        self.after.direct >= self.base.direct && !self.intervals.iter().any(sealed)
    }

    /// The page, if the view need not be read for it.
    pub(super) fn page(self, limit: PageLimit) -> Result<InboxPage, Box<Self>> {
        if !self.is_all() {
            return Err(Box::new(self));
        }
        let Self {
            after,
            heads,
            direct,
            group,
            moment,
            ..
        } = self;
        let (mut direct, mut group) = (direct.into_iter().map(Ok), group.into_iter().map(Ok));
        let page = merged(&mut direct, &mut group, (after, heads), limit);
        let page = page.expect("nothing of it is read from the view");
        Ok(page.at(moment))
    }

    /// The page, with what the view has below the tail.
    pub(super) fn page_with(
        self,
        view: &View,
        user: &UserName,
        limit: PageLimit,
    ) -> Result<InboxPage, store::Error> {
        let (after, base) = (self.after, self.base);
        let direct: Ids<'_> = match view.user(user)? {
            Some(number) if after.direct < base.direct => {
                Box::new(view.inbox_ids(number, after.direct, base.direct))
            }
            _ => Box::new(std::iter::empty()),
        };
        let group = Merged::new(view, &self.intervals, after.group, base.group)?;
        let below = |sequence| move |id: Result<u64, store::Error>| indexed(view, sequence, id);
        let direct = direct.map(below(Sequence::Direct));
        let group = group.map(below(Sequence::Group));
        let page = merged(
            &mut direct.chain(self.direct.into_iter().map(Ok)),
            &mut group.chain(self.group.into_iter().map(Ok)),
            (after, self.heads),
            limit,
        )?;
        Ok(page.at(self.moment))
    }
}

/// What fits into a page, the position behind it, and whether there is more.
struct Merge {
    messages: Vec<Arc<Message>>,
    next: Position,
    more: bool,
}

impl Merge {
    fn at(self, moment: Moment) -> InboxPage {
        let Self {
            messages,
            next,
            more,
        } = self;
        InboxPage {
            messages,
            next,
            more,
            moment,
        }
    }
}

impl Inner {
    /// What the tail has of what a user may see after a position. `None`: the view must be read to know who that is.
    pub(super) fn inbox(
        &self,
        user: &UserName,
        after: Position,
        limit: PageLimit,
    ) -> Option<InboxTail> {
        let seen = self.memberships.seen_by(&self.tail, user)?;
        Some(InboxTail::of(seen, user, after, limit))
    }

    /// The same, with the view.
    pub(super) fn inbox_with(
        &self,
        view: &View,
        user: &UserName,
        after: Position,
        limit: PageLimit,
    ) -> Result<InboxTail, store::Error> {
        let seen = self.memberships.seen_with(&self.tail, view, user)?;
        Ok(InboxTail::of(seen, user, after, limit))
    }
}

impl InboxTail {
    fn of(
        (tail, all): (Reading<'_>, Intervals),
        user: &UserName,
        after: Position,
        limit: PageLimit,
    ) -> Self {
        let most = limit.messages.saturating_add(1);
        let (base, heads) = (tail.base(), tail.heads());
        let intervals = beyond(&all, after.group);
        let direct = tail.inbox(user, after.direct.max(base.direct), heads.direct);
        let direct = direct.take(most).cloned().collect();
        let mut group: Vec<Arc<Message>> = Vec::new();
        for interval in &intervals {
            let from = interval.from.max(after.group).max(base.group);
            let until = interval.until.unwrap_or(heads.group).min(heads.group);
            let messages = tail.group(interval.group.number, from, until);
            group.extend(messages.take(most).cloned());
        }
        drop(tail);
        if intervals.len() > 1 {
            group.sort_unstable_by_key(|message| message.id);
            group.truncate(most);
        }
        Self {
            after,
            base,
            heads,
            direct,
            group,
            intervals,
            moment: Moment {
                intervals: all,
                group: heads.group,
            },
        }
    }
}

/// Merges both sequences of an inbox by time until the page is full.
fn merged(
    direct: &mut dyn Iterator<Item = Read>,
    group: &mut dyn Iterator<Item = Read>,
    (after, upto): (Position, Position),
    limit: PageLimit,
) -> Result<Merge, store::Error> {
    let mut ahead = [direct.next().transpose()?, group.next().transpose()?];
    let (mut messages, mut room, mut next) = (Vec::new(), limit.page(), after);
    loop {
        let [one, other] = &ahead;
        let first = match (one, other) {
            (Some(one), Some(other)) if one.at_ms <= other.at_ms => Sequence::Direct,
            (_, Some(_)) => Sequence::Group,
            (Some(_), None) => Sequence::Direct,
            (None, None) => break,
        };
        let [one, other] = &mut ahead;
        let slot = match first {
            Sequence::Direct => one,
            Sequence::Group => other,
        };
        let fits = |message: &mut Arc<Message>| room.take((limit.size_of)(message));
        let Some(message) = slot.take_if(fits) else {
            break;
        };
        *slot = match first {
            Sequence::Direct => direct.next(),
            Sequence::Group => group.next(),
        }
        .transpose()?;
        *next.of_mut(first) = message.id;
        messages.push(message);
    }
    for (sequence, rest) in Sequence::ALL.into_iter().zip(&ahead) {
        if rest.is_none() {
            *next.of_mut(sequence) = upto.of(sequence).max(after.of(sequence));
        }
    }
    let more = ahead.iter().any(Option::is_some);
    Ok(Merge {
        messages,
        next,
        more,
    })
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
