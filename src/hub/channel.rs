//! Channels: for clients that count. Everything for one user, without what he sent himself, under numbers from 1
//! without a gap. Numbering begins when the channel is opened, is part of what applying gives, and never begins
//! again. What a channel costs: one row more for each message and receiver, also of groups.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use super::feed::PAGE_BYTES_MAX;
use super::{Failure, Hub};
use crate::error::Error;
use crate::model::{Body, Draft, GroupName, Message, Receipt, Receiver, UserName};
use crate::store::{self, Command, View};

/// The name of both.
pub(super) const ICOMET: &str = "icomet";

/// The user from whom messages without a sender come.
pub fn icomet_user() -> UserName {
    UserName::parse(ICOMET).expect("it is a name")
}

/// The group of all that have a channel.
pub fn icomet_group() -> GroupName {
    GroupName::parse(ICOMET).expect("it is a name")
}

/// Part of a channel.
#[derive(Clone, Debug, Default)]
pub struct ChannelPage {
    /// Messages with their numbers, which rise by one.
    pub messages: Vec<(u64, Arc<Message>)>,
    /// The number that the channel's next message will have.
    pub next: u64,
}

/// The users whose channels are known to be open; nothing where channels are not wanted.
#[derive(Debug)]
pub(super) struct Channels(Option<RwLock<HashSet<UserName>>>);

impl Channels {
    /// Reads which are open.
    pub(super) fn load(view: &View, wanted: bool) -> Result<Self, store::Error> {
        if !wanted {
            return Ok(Self(None));
        }
        let names = view
            .channels()
            .map(|channel| channel.map(|(_, _, name)| name));
        Ok(Self(Some(RwLock::new(names.collect::<Result<_, _>>()?))))
    }

    /// Takes over what an entry opened.
    pub(super) fn opened(&self, users: Vec<UserName>) {
        if let Some(open) = self.0.as_ref().filter(|_| !users.is_empty()) {
            open.write()
                .unwrap_or_else(PoisonError::into_inner)
                .extend(users);
        }
    }

    /// Commands that open the channels of users who have none. Another proposal may say the same: opening twice
    /// is opening once.
    pub(super) fn to_open<'a>(
        &self,
        users: impl IntoIterator<Item = &'a UserName>,
    ) -> Vec<Command> {
        let Some(open) = &self.0 else {
            return Vec::new();
        };
        let open = open.read().unwrap_or_else(PoisonError::into_inner);
        let mut seen = HashSet::new();
        let new = users
            .into_iter()
            .filter(|user| !open.contains(*user) && seen.insert(*user));
        new.map(|user| Command::OpenChannel { user: user.clone() })
            .collect()
    }
}

impl Hub {
    /// Opens a user's channel. Does nothing if it is open, or if channels are not wanted.
    pub async fn open_channel(&self, user: &UserName) -> Result<(), Error> {
        let commands = self.0.channels.to_open([user]);
        if commands.is_empty() {
            return Ok(());
        }
        let answer = self.0.propose(commands)?;
        answer.await.map_err(|_| Error::WritesRefused)??;
        Ok(())
    }

    /// What a user's channel holds from a number on, at most `limit` messages and 1 MiB of bodies. To wait for more,
    /// open a [`Feed`](super::Feed) before.
    pub async fn channel_page(
        &self,
        user: UserName,
        from: u64,
        limit: usize,
    ) -> Result<ChannelPage, Error> {
        self.blocking(move |inner, view| {
            // Of one moment: with one head ahead of the other, a number could be seen before the one before it.
            let heads = inner.progress.heads();
            let Some(user) = view.user(&user)? else {
                return Ok(ChannelPage {
                    messages: Vec::new(),
                    next: 1,
                });
            };
            let next = view.last_of_channel(user, heads)? + 1;
            let (mut messages, mut bytes) = (Vec::new(), 0);
            for row in view.channel_from(user, from) {
                if messages.len() >= limit || bytes >= PAGE_BYTES_MAX {
                    break;
                }
                let (number, sequence, id) = row?;
                if number >= next {
                    break;
                }
                let message = view.indexed(sequence, id)?;
                bytes += message.body.as_bytes().len();
                messages.push((number, Arc::new(message)));
            }
            Ok::<_, Failure>(ChannelPage { messages, next })
        })
        .await
    }

    /// Sends to all who have a channel. `None`: nobody has one yet.
    pub async fn broadcast(&self, body: Body) -> Result<Option<Receipt>, Error> {
        let draft = Draft {
            from: icomet_user(),
            to: Receiver::Group(icomet_group()),
            body,
            key: None,
            by_user: false,
        };
        match self.push(vec![draft]).await?.into_iter().next() {
            Some(Ok(receipt)) => Ok(Some(receipt)),
            Some(Err(Error::GroupNotFound)) => Ok(None),
            Some(Err(error)) => Err(error),
            None => Err(Error::WritesRefused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Durability, GroupChange, Options, rebuild, verify};
    use crate::model::{After, Sequence, Transport};

    fn open(data: &std::path::Path, channels: bool) -> Hub {
        Hub::open(Options {
            data: data.to_owned(),
            durability: Durability::Always,
            cache_bytes: 8 << 20,
            disk_free_min_bytes: 0,
            queue_bytes_max: 1 << 20,
            waiters_per_user_max: 10,
            channels,
        })
        .unwrap()
    }

    fn user(name: &str) -> UserName {
        UserName::parse(name).unwrap()
    }

    async fn push(hub: &Hub, from: &str, to: Receiver) {
        let draft = Draft {
            from: user(from),
            to,
            body: Body::from(b"1".to_vec()),
            key: None,
            by_user: false,
        };
        hub.push(vec![draft]).await.unwrap().remove(0).unwrap();
    }

    async fn numbers(hub: &Hub, name: &str, from: u64, limit: usize) -> (String, u64) {
        let page = hub.channel_page(user(name), from, limit).await.unwrap();
        let one = |(number, message): &(u64, Arc<Message>)| match message.sequence() {
            Sequence::Direct => format!("{number}=d{}", message.id),
            Sequence::Group => format!("{number}=g{}", message.id),
        };
        let texts: Vec<_> = page.messages.iter().map(one).collect();
        (texts.join(" "), page.next)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn numbers_begin_with_the_channel_and_outlive_every_start() {
        let data = tempfile::tempdir().unwrap();
        let bob = || Receiver::User(user("bob"));
        let hub = open(data.path(), false);
        push(&hub, "ann", bob()).await;
        hub.open_channel(&user("bob")).await.unwrap();
        assert_eq!(numbers(&hub, "bob", 0, 9).await, (String::new(), 1));
        hub.close();
        let hub = open(data.path(), true);
        assert_eq!(hub.broadcast(Body::from(b"0".to_vec())).await, Ok(None));
        push(&hub, "ann", bob()).await;
        push(&hub, "bob", Receiver::User(user("ann"))).await;
        push(&hub, "bob", bob()).await;
        let group = GroupName::parse("team").unwrap();
        let change = GroupChange::Set {
            members: vec![user("bob"), user("cyd")],
            history: None,
        };
        hub.change_group(group.clone(), change).await.unwrap();
        push(&hub, "ann", Receiver::Group(group.clone())).await;
        push(&hub, "bob", Receiver::Group(group.clone())).await;
        hub.broadcast(Body::from(b"0".to_vec())).await.unwrap();
        let expected = [
            ("ann", "1=d3 2=g3", 3),
            ("bob", "1=d2 2=d4 3=g1 4=g3", 5),
            ("cyd", "1=g1 2=g2 3=g3", 4),
            ("dan", "", 1),
        ];
        for start in 0..4 {
            let hub = match start {
                0 => hub.clone(),
                1 => open(data.path(), true),
                _ => open(data.path(), false),
            };
            for (name, all, next) in expected {
                assert_eq!(numbers(&hub, name, 0, 9).await, (all.to_owned(), next));
            }
            assert_eq!(numbers(&hub, "bob", 2, 2).await, ("2=d4 3=g1".into(), 5));
            assert_eq!(numbers(&hub, "bob", 5, 2).await, (String::new(), 5));
            hub.close();
            if start == 2 {
                rebuild(data.path(), false, 8 << 20).unwrap();
            }
            assert!(
                verify(data.path(), 8 << 20, &mut |_| ())
                    .unwrap()
                    .view_compared
            );
        }
        // Without the option an open channel goes on, and none is opened.
        let hub = open(data.path(), false);
        push(&hub, "ann", bob()).await;
        push(&hub, "ann", Receiver::User(user("dan"))).await;
        assert_eq!(numbers(&hub, "bob", 5, 2).await, ("5=d5".into(), 6));
        assert_eq!(numbers(&hub, "dan", 0, 2).await, (String::new(), 1));
        hub.close();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_wakes_a_feed_is_in_the_channel_and_nothing_is_skipped() {
        const MESSAGES: u64 = 400;
        let data = tempfile::tempdir().unwrap();
        let hub = open(data.path(), true);
        hub.open_channel(&user("bob")).await.unwrap();
        let group = GroupName::parse("team").unwrap();
        let change = GroupChange::Set {
            members: vec![user("bob")],
            history: None,
        };
        hub.change_group(group.clone(), change).await.unwrap();
        let writers = [Receiver::User(user("bob")), Receiver::Group(group)].map(|to| {
            let hub = hub.clone();
            tokio::spawn(async move {
                for _ in 0..MESSAGES / 2 {
                    push(&hub, "ann", to.clone()).await;
                }
            })
        });
        let mut feed = hub
            .feed(user("bob"), After::Now, Transport::Icomet)
            .unwrap();
        let mut next = 1;
        while next <= MESSAGES {
            while feed.read(1000).await.unwrap().more {}
            let page = hub.channel_page(user("bob"), next, 7).await.unwrap();
            if page.messages.is_empty() {
                assert_eq!(page.next, next);
                feed.wait().await;
            }
            for (number, _) in page.messages {
                assert_eq!(number, next);
                next += 1;
            }
        }
        for writer in writers {
            writer.await.unwrap();
        }
        drop(feed);
        hub.close();
    }
}
