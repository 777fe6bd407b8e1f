//! Part of a channel: its numbers in the tail, and in the view below it.

use std::sync::Arc;

use super::ChannelPage;
use crate::hub::tail::{Reading, Tail};
use crate::model::{Message, Position, Sequence, UserName};
use crate::store::{Error, Numbered, View};

/// Bytes of bodies in one part of a channel.
const PAGE_BYTES_MAX: usize = 1 << 20;
/// What a user's channel holds from a number on, at most `limit` messages and 1 MiB of bodies.
pub(in crate::hub) fn page(
    tail: &Tail,
    view: &View,
    user: &UserName,
    (from, limit): (u64, usize),
    message: impl Fn(Sequence, u64) -> Result<Arc<Message>, Error>,
) -> Result<ChannelPage, Error> {
    loop {
        let number = tail.read().user(user);
        // What was let go of since is in the view.
        let number = number.map_or_else(|| view.user(user), |number| Ok(Some(number)))?;
        let Some(number) = number else {
            return Ok(ChannelPage {
                messages: Vec::new(),
                first: 1,
                next: 1,
            });
        };
        let above = ChannelTail::of(&tail.read(), number, (from, limit));
        let page = page_from(view, (number, &above), (from, limit), &message)?;
        // Of what is forgotten meanwhile the rows go, and a part of them would look like the whole.
        if page.first == above.first(view, number)? {
            return Ok(page);
        }
    }
}

/// What the tail has of a channel.
struct ChannelTail {
    /// The view has all up to here.
    base: Position,
    /// The last number that was forgotten, if it was closed.
    forgotten: u64,
    /// The first number and the last that it has.
    given: Option<(u64, u64)>,
    /// Those from where a page begins, as many as it holds, or all.
    numbers: Vec<Numbered>,
}

impl ChannelTail {
    /// For a page from a number on with at most so many messages.
    fn of(tail: &Reading<'_>, user: u32, (from, limit): (u64, usize)) -> Self {
        let forgotten = tail.forgotten(user).unwrap_or(0);
        let mut given = tail.channel(user, 0).map(|(number, ..)| number);
        let first = given.next();
        let last = given.next_back().or(first);
        let numbers = tail.channel(user, from.max(forgotten + 1));
        Self {
            base: tail.base(),
            forgotten,
            given: first.zip(last),
            numbers: numbers.take(limit).collect(),
        }
    }

    /// The first number that is not forgotten.
    fn first(&self, view: &View, user: u32) -> Result<u64, Error> {
        Ok(self.forgotten.max(view.forgotten(user)?.unwrap_or(0)) + 1)
    }
}

fn page_from(
    view: &View,
    (user, tail): (u32, &ChannelTail),
    (from, limit): (u64, usize),
    message: &impl Fn(Sequence, u64) -> Result<Arc<Message>, Error>,
) -> Result<ChannelPage, Error> {
    let first = tail.first(view, user)?;
    // What was sealed since the tail was read is in both.
    let (sealed, last) = if let Some((first, last)) = tail.given {
        (first - 1, last)
    } else {
        let last = view.last_of_channel(user, tail.base)?;
        (last, last)
    };
    let next = last.max(first - 1) + 1;
    let from = from.max(first);
    let below = view.channel_from(user, from);
    let below = below.take_while(|row| row.as_ref().map_or(true, |row| row.0 <= sealed));
    let above = tail.numbers.iter().filter(|row| row.0 >= from);
    let (mut messages, mut bytes) = (Vec::new(), 0);
    for row in below.chain(above.copied().map(Ok)) {
        if messages.len() >= limit || bytes >= PAGE_BYTES_MAX {
            break;
        }
        let (number, sequence, id) = row?;
        let message = message(sequence, id)?;
        bytes += message.body.as_bytes().len();
        messages.push((number, message));
    }
    Ok(ChannelPage {
        messages,
        first,
        next,
    })
}
