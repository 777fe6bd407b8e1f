//! Part of a channel: what is for its user from the opening on, in the order in which it came, numbered by counting.
//!
//! Messages of both sequences have one order: each direct message knows the last group message before it.

use std::sync::Arc;

use super::history::indexed;
use crate::hub::Inner;
use crate::hub::channel::ChannelPage;
use crate::model::{Message, Position, Sequence, UserName};
use crate::store::{Channel, Error, View};

/// Bytes of bodies in one part of a channel.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// Who is so many pages behind or less is served from the end back; for others, the place is searched.
const PAGES_BACK: u64 = 4;

impl Inner {
    /// What a user's channel holds from a number on, at most `limit` messages and 1 MiB of bodies.
    pub(in crate::hub) fn channel_page(
        &self,
        view: &View,
        user: &UserName,
        from: u64,
        limit: usize,
    ) -> Result<ChannelPage, Error> {
        let (reader, channel) = match Reader::of(self, view, user)? {
            Ok(open) => open,
            Err(Closed { number, forgotten }) => {
                let forgotten = match (forgotten, number) {
                    (Some(forgotten), _) => forgotten,
                    (None, Some(number)) => view.forgotten(number)?.unwrap_or(0),
                    (None, None) => 0,
                };
                return Ok(ChannelPage {
                    messages: Vec::new(),
                    first: forgotten + 1,
                    next: forgotten + 1,
                });
            }
        };
        let first = channel.base + 1;
        let count = reader.count(reader.heads)?;
        let (from, next) = (from.max(first), first + count);
        let left = next.saturating_sub(from);
        let most = u64::try_from(limit).expect("a length fits 64 bits");
        let messages = if left == 0 || limit == 0 {
            Vec::new()
        } else if left <= PAGES_BACK * most {
            reader.last(left)?
        } else {
            reader.after(reader.behind(count - left)?, limit)?
        };
        let mut bytes = 0;
        let mut fits = |message: &Arc<Message>| {
            let fits = bytes < PAGE_BYTES_MAX;
            bytes += message.body.as_bytes().len();
            fits
        };
        let messages = messages.into_iter().take(limit).take_while(&mut fits);
        Ok(ChannelPage {
            messages: (from..).zip(messages).collect(),
            first,
            next,
        })
    }
}

/// The place of a message in the order of both sequences: behind a group message, a direct one.
type Order = (u64, u64);
type Placed = (Order, Arc<Message>);
type Line<'a> = Box<dyn Iterator<Item = Result<Placed, Error>> + 'a>;

/// Messages of a group while the user was a member and the channel was open: `from < id <= until`.
struct Span {
    group: u32,
    from: u64,
    until: u64,
}

/// A channel that is not open.
struct Closed {
    /// The user's, if there is one.
    number: Option<u32>,
    /// The last number that was forgotten, if the tail knows of one.
    forgotten: Option<u64>,
}

/// Reads one channel as it is at a moment.
struct Reader<'a> {
    inner: &'a Inner,
    view: &'a View,
    user: &'a UserName,
    number: u32,
    opened: Position,
    heads: Position,
    spans: Vec<Span>,
}

impl<'a> Reader<'a> {
    fn of(
        inner: &'a Inner,
        view: &'a View,
        user: &'a UserName,
    ) -> Result<Result<(Self, Channel), Closed>, Error> {
        // At one moment: an entry changes all of this together.
        let (tail, intervals) = inner.memberships.seen_with(&inner.tail, view, user)?;
        let heads = tail.heads();
        let Some((number, channel)) = inner.channels.get(user) else {
            let above = tail.user(user);
            drop(tail);
            let number = above.map_or_else(|| view.user(user), |number| Ok(Some(number)))?;
            let forgotten = number.and_then(|number| inner.tail.read().forgotten(number));
            return Ok(Err(Closed { number, forgotten }));
        };
        drop(tail);
        let opened = channel.opened;
        // A group that was silent since has nothing to count.
        let intervals = intervals
            .iter()
            .filter(|one| one.group.last() > opened.group);
        let spans = intervals.map(|interval| Span {
            group: interval.group.number,
            from: interval.from.max(opened.group),
            until: interval.until.unwrap_or(heads.group).min(heads.group),
        });
        let spans = spans.filter(|span| span.from < span.until).collect();
        let reader = Self {
            inner,
            view,
            user,
            number,
            opened,
            heads,
            spans,
        };
        Ok(Ok((reader, channel)))
    }

    /// How many messages it has up to a position.
    fn count(&self, upto: Position) -> Result<u64, Error> {
        let mut count = self.received(upto.direct)? - self.received(self.opened.direct)?;
        for span in &self.spans {
            let until = upto.group.min(span.until);
            if span.from < until {
                count += self.of_others(span.group, until)?;
                count -= self.of_others(span.group, span.from)?;
            }
        }
        Ok(count)
    }

    /// How many direct messages up to an id the user got.
    fn received(&self, upto: u64) -> Result<u64, Error> {
        let (base, above) = {
            let tail = self.inner.tail.read();
            let base = tail.base().direct;
            (base, tail.received(self.user, base, upto).count())
        };
        let above = u64::try_from(above).expect("a length fits 64 bits");
        Ok(self.view.received(self.number, upto.min(base))? + above)
    }

    /// How many messages up to an id a group got, but for those of the user since the channel was opened.
    fn of_others(&self, group: u32, upto: u64) -> Result<u64, Error> {
        let (base, last, sent) = {
            let tail = self.inner.tail.read();
            let last = tail.group(group, 0, upto).next_back();
            let sent = tail.sent(group, self.number, upto);
            (tail.base().group, last.map(|message| message.n), sent)
        };
        let below = upto.min(base);
        let all = match last {
            Some(n) => n,
            None => self.view.last_of_group(group, below)?.n,
        };
        Ok(all - sent - self.view.sent(group, self.number, below)?)
    }

    /// The position behind the first so many of its messages, of which there are more.
    fn behind(&self, count: u64) -> Result<Position, Error> {
        // The last group message up to which there are no more.
        let at = |group| -> Result<Position, Error> {
            let direct = if group == self.opened.group {
                self.opened.direct
            } else {
                self.directs_before(group)?
            };
            Ok(Position { direct, group })
        };
        let (mut low, mut high) = (self.opened.group, self.heads.group);
        while low < high {
            let middle = high - (high - low) / 2;
            if self.count(at(middle)?)? <= count {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        let mut position = at(low)?;
        // The rest are direct messages behind it.
        let wanted = self.received(position.direct)? + (count - self.count(position)?);
        let (mut low, mut high) = (position.direct, self.heads.direct);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.received(middle)? >= wanted {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        position.direct = low;
        Ok(position)
    }

    /// The last direct message before one of a group.
    fn directs_before(&self, group: u64) -> Result<u64, Error> {
        let (mut low, mut high) = (self.opened.direct, self.heads.direct);
        while low < high {
            let middle = high - (high - low) / 2;
            if self.group_head(middle)? < group {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        Ok(low)
    }

    /// The last group message before a direct one.
    fn group_head(&self, id: u64) -> Result<u64, Error> {
        let above = self.inner.tail.read().group_head(id);
        above.map_or_else(|| Ok(self.view.placed(id)?.1), Ok)
    }

    /// The messages behind a position, at most so many.
    fn after(&self, position: Position, most: usize) -> Result<Vec<Arc<Message>>, Error> {
        let mut lines = vec![self.direct_after(position.direct, most)];
        for span in &self.spans {
            let from = span.from.max(position.group);
            lines.push(self.group_after(span.group, from, span.until, most));
        }
        merged(lines, most, |one, other| one < other)
    }

    /// The last messages, so many.
    fn last(&self, count: u64) -> Result<Vec<Arc<Message>>, Error> {
        let most = usize::try_from(count).expect("some pages fit");
        let mut lines = vec![self.direct_back(most)];
        for span in &self.spans {
            lines.push(self.group_back(span, most));
        }
        let mut last = merged(lines, most, |one, other| one > other)?;
        last.reverse();
        Ok(last)
    }

    fn direct_after(&self, after: u64, most: usize) -> Line<'a> {
        let tail = self.inner.tail.read();
        let base = tail.base().direct;
        let above = tail.received(self.user, after.max(base), self.heads.direct);
        let above: Vec<_> = above.take(most).map(|one| Ok(direct(one))).collect();
        drop(tail);
        let below = self.below_heads(base);
        let below = self.view.received_ids(self.number, after, below);
        Box::new(below.map(self.placed()).chain(above))
    }

    fn direct_back(&self, most: usize) -> Line<'a> {
        let tail = self.inner.tail.read();
        let (base, after) = (tail.base().direct, self.opened.direct);
        let above = tail.received(self.user, after.max(base), self.heads.direct);
        let above: Vec<_> = above.rev().take(most).map(|one| Ok(direct(one))).collect();
        drop(tail);
        let below = self.below_heads(base);
        let below = self.view.received_ids(self.number, after, below).rev();
        Box::new(above.into_iter().chain(below.map(self.placed())))
    }

    /// Up to where direct messages are read in the view: more than there was at this moment may have been sealed.
    fn below_heads(&self, base: u64) -> u64 {
        base.min(self.heads.direct)
    }

    fn placed(&self) -> impl Fn(Result<u64, Error>) -> Result<Placed, Error> + use<'a> {
        let view = self.view;
        move |id| {
            let (message, group_head) = view.placed(id?)?;
            Ok(direct((&Arc::new(message), group_head)))
        }
    }

    fn group_after(&self, group: u32, from: u64, until: u64, most: usize) -> Line<'a> {
        let tail = self.inner.tail.read();
        let base = tail.base().group;
        let above = tail.group(group, from.max(base), until);
        let above = above.filter(|message| message.from != *self.user);
        let above: Vec<_> = above
            .take(most)
            .cloned()
            .map(|one| Ok(of_group(one)))
            .collect();
        drop(tail);
        let below = self.view.group_ids(group, from, until.min(base));
        Box::new(below.filter_map(self.of_others_by_id()).chain(above))
    }

    fn group_back(&self, span: &Span, most: usize) -> Line<'a> {
        let tail = self.inner.tail.read();
        let base = tail.base().group;
        let above = tail.group(span.group, span.from.max(base), span.until);
        let above = above.filter(|message| message.from != *self.user).rev();
        let above: Vec<_> = above
            .take(most)
            .cloned()
            .map(|one| Ok(of_group(one)))
            .collect();
        drop(tail);
        let below = self
            .view
            .group_ids(span.group, span.from, span.until.min(base));
        let below = below.rev().filter_map(self.of_others_by_id());
        Box::new(above.into_iter().chain(below))
    }

    /// Reads a group's message; none if it is the user's own.
    fn of_others_by_id(
        &self,
    ) -> impl Fn(Result<u64, Error>) -> Option<Result<Placed, Error>> + use<'a> {
        let (view, user) = (self.view, self.user);
        move |id| match indexed(view, Sequence::Group, id) {
            Ok(message) if message.from == *user => None,
            read => Some(read.map(of_group)),
        }
    }
}

fn direct((message, group_head): (&Arc<Message>, u64)) -> Placed {
    ((group_head, message.id), Arc::clone(message))
}

fn of_group(message: Arc<Message>) -> Placed {
    ((message.id, 0), message)
}

/// The messages of all lines, each time the one that comes before all others.
fn merged(
    mut lines: Vec<Line<'_>>,
    most: usize,
    before: impl Fn(Order, Order) -> bool,
) -> Result<Vec<Arc<Message>>, Error> {
    let mut ahead = Vec::new();
    for line in &mut lines {
        ahead.push(line.next().transpose()?);
    }
    let mut found = Vec::new();
    while found.len() < most {
        let mut first: Option<(Order, usize)> = None;
        for (line, placed) in ahead.iter().enumerate() {
            if let Some((order, _)) = placed
                && first.is_none_or(|(first, _)| before(*order, first))
            {
                first = Some((*order, line));
            }
        }
        let next = first.and_then(|(_, line)| Some((lines.get_mut(line)?, ahead.get_mut(line)?)));
        let Some((line, ahead)) = next else {
            break;
        };
        let placed = std::mem::replace(ahead, line.next().transpose()?);
        found.extend(placed.map(|(_, message)| message));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{GroupChange, Hub, Options};
    use crate::model::{Body, Draft, GroupName, Receiver};

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    async fn push(hub: &Hub, to: Receiver) {
        let draft = Draft {
            from: user("ann"),
            to,
            body: Body::from(b"1".to_vec()),
            key: None,
            by_user: false,
        };
        hub.push(vec![draft]).await.unwrap().remove(0).unwrap();
    }

    /// What comes and is sealed while a part is read must not take the numbers of what was there.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_part_is_of_one_moment_whatever_is_sealed_meanwhile() {
        let data = tempfile::tempdir().unwrap();
        let options = Options {
            channels_max: 9,
            ..Options::small(data.path())
        };
        let hub = Hub::open(options).unwrap();
        hub.open_channel(&user("bob")).await.unwrap();
        let group = GroupName::parse("team").unwrap();
        let change = GroupChange::Set {
            members: Some(vec![user("bob")]),
            history: None,
        };
        hub.change_group(group.clone(), change).await.unwrap();
        let some = || async {
            for to in [Receiver::User(user("bob")), Receiver::Group(group.clone())] {
                push(&hub, to.clone()).await;
                push(&hub, to).await;
            }
        };
        some().await;
        let view = hub.0.view.read().unwrap().clone().unwrap();
        let bob = user("bob");
        let Ok((reader, _)) = Reader::of(&hub.0, &view, &bob).unwrap() else {
            panic!("the channel is open");
        };
        let check = || {
            let expected = [(1, 0), (2, 0), (0, 1), (0, 2)];
            let ids = |messages: Vec<Arc<Message>>| -> Vec<_> {
                let id = |message: &Arc<Message>| match message.sequence() {
                    Sequence::Direct => (message.id, 0),
                    Sequence::Group => (0, message.id),
                };
                messages.iter().map(id).collect()
            };
            assert_eq!(reader.count(reader.heads).unwrap(), 4);
            assert_eq!(ids(reader.last(4).unwrap()), expected);
            assert_eq!(ids(reader.last(1).unwrap()), expected[3..]);
            for behind in 0..4 {
                let position = reader.behind(behind).unwrap();
                let from = usize::try_from(behind).unwrap();
                assert_eq!(ids(reader.after(position, 9).unwrap()), expected[from..]);
            }
        };
        check();
        some().await;
        check();
        hub.seal_all();
        check();
        drop(view);
        hub.close();
    }
}
