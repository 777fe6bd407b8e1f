//! Part of a channel: what is for its user from the opening on, in the order in which it came, numbered by counting.
//!
//! Messages of both sequences have one order: each direct message knows the last group message before it.

use std::sync::Arc;

use super::history::{indexed, ordered, taken};
use crate::hub::Inner;
use crate::hub::channel::ChannelPage;
use crate::model::{Message, Position, Sequence, UserName};
use crate::store::{Channel, Error, View};

/// Bytes of bodies in one part of a channel.
const PAGE_BYTES_MAX: usize = 1 << 20;

impl Inner {
    /// What a user's channel holds from a number on, at most `limit` messages and 1 MiB of bodies.
    pub(in crate::hub) fn channel_page(
        &self,
        view: &View,
        user: &UserName,
        from: u64,
        limit: usize,
    ) -> Result<ChannelPage, Error> {
        let Some(reader) = Reader::of(self, view, user)? else {
            let first = self.forgotten_of_channel(view, user)? + 1;
            return Ok(ChannelPage {
                messages: Vec::new(),
                first,
                next: first,
            });
        };
        let first = reader.channel.base + 1;
        let count = reader.count(reader.heads)?;
        let (from, next) = (from.max(first), first + count);
        let left = next.saturating_sub(from);
        let most = u64::try_from(limit).expect("a length fits 64 bits");
        let messages = if left == 0 || limit == 0 {
            Vec::new()
        } else if left <= most {
            // Most are, and it takes no search.
            reader.last(left)?
        } else {
            reader.after(reader.position_behind(count - left)?, limit)?
        };
        let mut bytes = 0;
        let mut fits = |message: &Arc<Message>| {
            let fits = bytes < PAGE_BYTES_MAX;
            bytes += message.body.as_bytes().len();
            fits
        };
        let messages = messages.into_iter().take_while(&mut fits);
        Ok(ChannelPage {
            messages: (from..).zip(messages).collect(),
            first,
            next,
        })
    }

    /// The last number that was forgotten of a channel that is not open; 0 without one.
    fn forgotten_of_channel(&self, view: &View, user: &UserName) -> Result<u64, Error> {
        let number = self.tail.read().user(user);
        // What was let go of since is in the view.
        let number = number.map_or_else(|| view.user(user), |number| Ok(Some(number)))?;
        let Some(number) = number else {
            return Ok(0);
        };
        let forgotten = self.tail.read().forgotten(number);
        let forgotten = forgotten.map_or_else(|| view.forgotten(number), |last| Ok(Some(last)))?;
        Ok(forgotten.unwrap_or(0))
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

/// Reads one channel as it is at a moment.
struct Reader<'a> {
    inner: &'a Inner,
    view: &'a View,
    user: &'a UserName,
    number: u32,
    channel: Channel,
    heads: Position,
    spans: Vec<Span>,
}

impl<'a> Reader<'a> {
    /// `None`: it is not open.
    fn of(inner: &'a Inner, view: &'a View, user: &'a UserName) -> Result<Option<Self>, Error> {
        // At one moment: an entry changes all of this together.
        let (tail, intervals) = inner.memberships.seen_with(&inner.tail, view, user)?;
        let heads = tail.heads();
        let Some((number, channel)) = inner.channels.get(user) else {
            return Ok(None);
        };
        drop(tail);
        let opened = channel.opened.group;
        // A group that was silent since has nothing to count.
        let intervals = intervals.iter().filter(|one| one.group.last() > opened);
        let spans = intervals.map(|interval| Span {
            group: interval.group.number,
            from: interval.from.max(opened),
            until: interval.until.unwrap_or(heads.group).min(heads.group),
        });
        let spans = spans.filter(|span| span.from < span.until).collect();
        Ok(Some(Self {
            inner,
            view,
            user,
            number,
            channel,
            heads,
            spans,
        }))
    }

    /// How many messages it has up to a position.
    fn count(&self, upto: Position) -> Result<u64, Error> {
        let mut count = self.count_of_received(upto.direct)?
            - self.count_of_received(self.channel.opened.direct)?;
        for span in &self.spans {
            let until = upto.group.min(span.until);
            if span.from < until {
                count += self.count_of_others(span.group, until)?;
                count -= self.count_of_others(span.group, span.from)?;
            }
        }
        Ok(count)
    }

    /// How many direct messages up to an id the user got.
    fn count_of_received(&self, upto: u64) -> Result<u64, Error> {
        let (base, above) = {
            let tail = self.inner.tail.read();
            let base = tail.base().direct;
            (base, tail.received(self.user, base, upto).count())
        };
        let above = u64::try_from(above).expect("a length fits 64 bits");
        Ok(self.view.received(self.number, upto.min(base))? + above)
    }

    /// How many messages up to an id a group got, but for those of the user since the channel was opened.
    fn count_of_others(&self, group: u32, upto: u64) -> Result<u64, Error> {
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
    fn position_behind(&self, count: u64) -> Result<Position, Error> {
        // The last group message up to which there are no more.
        let at = |group| -> Result<Position, Error> {
            let direct = if group == self.channel.opened.group {
                self.channel.opened.direct
            } else {
                self.directs_before(group)?
            };
            Ok(Position { direct, group })
        };
        let (mut low, mut high) = (self.channel.opened.group, self.heads.group);
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
        let wanted = self.count_of_received(position.direct)? + (count - self.count(position)?);
        let (mut low, mut high) = (position.direct, self.heads.direct);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.count_of_received(middle)? >= wanted {
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
        let (mut low, mut high) = (self.channel.opened.direct, self.heads.direct);
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
        let mut lines = vec![self.directs(position.direct, most, true)];
        for span in &self.spans {
            let from = span.from.max(position.group);
            lines.push(self.of_group((from, span), most, true));
        }
        merged(lines, most, |one, other| one < other)
    }

    /// The last messages, so many.
    fn last(&self, count: u64) -> Result<Vec<Arc<Message>>, Error> {
        let most = usize::try_from(count).expect("a page fits");
        let mut lines = vec![self.directs(self.channel.opened.direct, most, false)];
        for span in &self.spans {
            lines.push(self.of_group((span.from, span), most, false));
        }
        let mut last = merged(lines, most, |one, other| one > other)?;
        last.reverse();
        Ok(last)
    }

    /// Direct messages behind an id, rising or falling; of the tail at most so many.
    fn directs(&self, after: u64, most: usize, forward: bool) -> Line<'a> {
        let tail = self.inner.tail.read();
        let base = tail.base().direct;
        let above = tail.received(self.user, after.max(base), self.heads.direct);
        let above = taken(above, most, forward).into_iter().map(direct);
        let above: Vec<_> = above.map(Ok).collect();
        drop(tail);
        // More than there was at this moment may have been sealed.
        let upto = base.min(self.heads.direct);
        let ids = ordered(self.view.received_ids(self.number, after, upto), forward);
        let view = self.view;
        let below = ids.map(move |id| {
            let (message, group_head) = view.placed(id?)?;
            Ok(direct((&Arc::new(message), group_head)))
        });
        line(above, below, forward)
    }

    /// Messages of others to a group behind an id, in the same way.
    fn of_group(&self, (from, span): (u64, &Span), most: usize, forward: bool) -> Line<'a> {
        let tail = self.inner.tail.read();
        let base = tail.base().group;
        let above = tail.group(span.group, from.max(base), span.until);
        let above = above.filter(|message| message.from != *self.user);
        let above = taken(above, most, forward).into_iter().cloned();
        let above: Vec<_> = above.map(|message| Ok(of_group(message))).collect();
        drop(tail);
        let ids = self.view.group_ids(span.group, from, span.until.min(base));
        let below = ordered(ids, forward).filter_map(self.others_by_id());
        line(above, below, forward)
    }

    /// Reads a group's message; none if it is the user's own.
    fn others_by_id(
        &self,
    ) -> impl Fn(Result<u64, Error>) -> Option<Result<Placed, Error>> + use<'a> {
        let (view, user) = (self.view, self.user);
        move |id| match indexed(view, Sequence::Group, id) {
            Ok(message) if message.from == *user => None,
            read => Some(read.map(of_group)),
        }
    }
}

/// What the tail has, and what is below it.
fn line<'a>(
    above: Vec<Result<Placed, Error>>,
    below: impl Iterator<Item = Result<Placed, Error>> + 'a,
    forward: bool,
) -> Line<'a> {
    if forward {
        Box::new(below.chain(above))
    } else {
        Box::new(above.into_iter().chain(below))
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
        let reader = Reader::of(&hub.0, &view, &bob).unwrap().unwrap();
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
                let position = reader.position_behind(behind).unwrap();
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
