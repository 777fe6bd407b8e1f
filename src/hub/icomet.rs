//! What icomet asks of channels: opens and closes them, sends to them, and reads them.

use super::Hub;
use super::channel::{ChannelPage, icomet_group, icomet_user};
use super::plan::Outcome;
use crate::error::Error;
use crate::model::{Body, Draft, Receipt, Receiver, UserName};
use crate::store::Command;

impl Hub {
    /// Whether a user's channel is open or about to be.
    pub fn has_channel(&self, user: &UserName) -> bool {
        self.0.channels.has(user)
    }

    /// Opens a user's channel, and does nothing if it is open. `false`: there are as many as may be.
    pub async fn open_channel(&self, user: &UserName) -> Result<bool, Error> {
        let opening = self.0.channels.to_open([user]);
        if opening.is_refused() {
            return Ok(false);
        }
        if !opening.is_empty() {
            self.0.propose(opening, Vec::new()).await?;
        }
        Ok(true)
    }

    /// Closes a user's channel and forgets its numbers; messages stay. The number with which it would go on, behind all
    /// that it may have given; `None`: it was not open.
    pub async fn close_channel(&self, user: UserName) -> Result<Option<u64>, Error> {
        let none = self.0.channels.to_open([]);
        let close = vec![Command::CloseChannel { user }];
        let outcomes = self.0.propose(none, close).await?;
        match outcomes.first() {
            Some(Outcome::Closed(next)) => Ok(*next),
            _ => Err(Error::WritesRefused),
        }
    }

    /// The users whose channels are open, in the order of their names, after one of them, and at most so many.
    pub fn open_channels(&self, after: Option<&UserName>, limit: usize) -> Vec<UserName> {
        self.0.channels.open(after, limit)
    }

    /// Commits a draft for a user whose channel is open or is opened with it. `None`: there are as many as may be.
    pub async fn push_to_channel(&self, draft: Draft) -> Result<Option<Receipt>, Error> {
        let to = match &draft.to {
            Receiver::User(to) => Some(to),
            Receiver::Group(_) => None,
        };
        let opening = self.0.channels.to_open(to);
        if opening.is_refused() {
            return Ok(None);
        }
        let receipts = self.0.commit(opening, vec![draft]).await?;
        let receipt = receipts.into_iter().next().ok_or(Error::WritesRefused)?;
        receipt.map(Some)
    }

    /// What a user's channel holds from a number on, at most `limit` messages and 1 MiB of bodies. To wait for more,
    /// open a [`Feed`](super::Feed) before.
    pub async fn channel_page(
        &self,
        user: UserName,
        from: u64,
        limit: usize,
    ) -> Result<ChannelPage, Error> {
        self.blocking(move |inner, view| Ok(inner.channel_page(view, &user, from, limit)?))
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
    use std::collections::{BTreeSet, HashMap, HashSet};
    use std::sync::Arc;

    use super::*;
    use crate::hub::{Compared, Durability, GroupChange, Options, WindowSize, rebuild, verify};
    use crate::model::{After, GroupName, Message, PageLimit, Sequence, Transport};

    fn open(data: &std::path::Path, channels_max: usize) -> Hub {
        Hub::open(Options {
            channels_max,
            ..Options::small(data)
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
        let hub = open(data.path(), 0);
        push(&hub, "ann", bob()).await;
        hub.open_channel(&user("bob")).await.unwrap();
        assert_eq!(numbers(&hub, "bob", 0, 9).await, (String::new(), 1));
        hub.close();
        let hub = open(data.path(), 9);
        assert_eq!(hub.broadcast(Body::from(b"0".to_vec())).await, Ok(None));
        push(&hub, "ann", bob()).await;
        push(&hub, "bob", Receiver::User(user("ann"))).await;
        push(&hub, "bob", bob()).await;
        let group = GroupName::parse("team").unwrap();
        let change = GroupChange::Set {
            members: Some(vec![user("bob"), user("cyd")]),
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
                1 => open(data.path(), 9),
                _ => open(data.path(), 0),
            };
            for (name, all, next) in expected {
                assert_eq!(numbers(&hub, name, 0, 9).await, (all.to_owned(), next));
            }
            assert_eq!(numbers(&hub, "bob", 2, 2).await, ("2=d4 3=g1".into(), 5));
            assert_eq!(numbers(&hub, "bob", 5, 2).await, (String::new(), 5));
            hub.close();
            if start == 2 {
                rebuild(&Options::small(data.path()), false).unwrap();
            }
            let verified = verify(data.path(), 8 << 20, &mut |_, _| ()).unwrap();
            assert_eq!(verified.view, Compared::Same);
        }
        // Without the option an open channel goes on, and none is opened.
        let hub = open(data.path(), 0);
        push(&hub, "ann", bob()).await;
        push(&hub, "ann", Receiver::User(user("dan"))).await;
        assert_eq!(numbers(&hub, "bob", 5, 2).await, ("5=d5".into(), 6));
        assert_eq!(numbers(&hub, "dan", 0, 2).await, (String::new(), 1));
        hub.close();
    }

    /// Channels as a plain list of what came, for a random history.
    #[derive(Default)]
    struct Plain {
        /// The number before the first, and what came since.
        open: HashMap<String, (u64, Vec<(Sequence, u64)>)>,
        /// The numbers with which closed ones go on.
        next: HashMap<String, u64>,
        groups: HashMap<String, BTreeSet<String>>,
    }

    impl Plain {
        fn opened(&mut self, user: &str) {
            if !self.open.contains_key(user) {
                let base = self.next.get(user).map_or(0, |next| next - 1);
                self.open.insert(user.to_owned(), (base, Vec::new()));
            }
            self.groups
                .entry("icomet".into())
                .or_default()
                .insert(user.to_owned());
        }

        fn came(&mut self, receipt: &Receipt, to: &str, but: &str) {
            let members = self.groups.get(to).cloned();
            let one = BTreeSet::from([to.to_owned()]);
            for user in members.unwrap_or(one) {
                let own = receipt.sequence == Sequence::Group && user == but;
                if let Some((_, came)) = self.open.get_mut(&user).filter(|_| !own) {
                    came.push((receipt.sequence, receipt.id));
                }
            }
        }

        async fn close(&mut self, hub: &Hub, name: &str) {
            let next = hub.close_channel(user(name)).await.unwrap();
            let known = self.open.remove(name);
            assert_eq!(next.is_some(), known.is_some());
            if let Some((next, (base, came))) = next.zip(known) {
                assert!(next > base + u64::try_from(came.len()).unwrap());
                self.next.insert(name.to_owned(), next);
            }
            if let Some(all) = self.groups.get_mut("icomet") {
                all.remove(name);
            }
        }

        async fn join_or_leave(&mut self, hub: &Hub, name: &str, group: &str, join: bool) {
            let names = |wanted: bool| Vec::from_iter(wanted.then(|| user(name)));
            let change = GroupChange::Members {
                add: names(join),
                remove: names(!join),
            };
            let members = self.groups.get_mut(group).unwrap();
            if join {
                members.insert(name.to_owned());
                self.opened(name);
            } else {
                members.remove(name);
            }
            let group = GroupName::parse(group).unwrap();
            hub.change_group(group, change).await.unwrap();
        }

        async fn push(&mut self, hub: &Hub, from: &str, to: &str, to_group: bool) {
            let receiver = if to_group {
                Receiver::Group(GroupName::parse(to).unwrap())
            } else {
                Receiver::User(user(to))
            };
            let draft = Draft {
                from: user(from),
                to: receiver,
                body: Body::from(b"1".to_vec()),
                key: None,
                by_user: true,
            };
            let receipt = hub.push(vec![draft]).await.unwrap().remove(0);
            assert_eq!(receipt.is_ok(), !to_group || self.groups[to].contains(from));
            if let Ok(receipt) = receipt {
                self.came(&receipt, to, from);
            }
        }

        /// Reads some pages of a channel.
        async fn check(&self, hub: &Hub, name: &str, random: &mut impl FnMut(u64) -> u64) {
            let next = self.next.get(name).copied().unwrap_or(1);
            let (base, came) = match self.open.get(name) {
                Some((base, came)) => (*base, &came[..]),
                None => (next - 1, &[][..]),
            };
            let count = u64::try_from(came.len()).unwrap();
            for _ in 0..4 {
                let limit = usize::try_from(random(8)).unwrap();
                let from = base + random(count + 3);
                let page = hub.channel_page(user(name), from, limit).await.unwrap();
                assert_eq!((page.first, page.next), (base + 1, base + 1 + count));
                let messages = page.messages.iter();
                let found: Vec<_> = messages
                    .map(|(number, one)| (*number, one.sequence(), one.id))
                    .collect();
                let numbered = (base + 1..).zip(came);
                let numbered = numbered.map(|(number, (sequence, id))| (number, *sequence, *id));
                let expected = numbered.filter(|(number, ..)| *number >= from).take(limit);
                assert_eq!(
                    found,
                    expected.collect::<Vec<_>>(),
                    "{name} from {from} by {limit}"
                );
            }
        }
    }

    /// Users with and without a channel write to each other and to groups that they join and leave, channels are opened,
    /// closed and opened again, and the server starts anew.
    #[tokio::test(flavor = "multi_thread")]
    async fn numbers_count_what_came_whatever_is_sealed() {
        const USERS: [&str; 4] = ["ann", "bob", "cyd", "dan"];
        const GROUPS: [&str; 2] = ["team", "club"];
        let data = tempfile::tempdir().unwrap();
        let options = |ids| Options {
            channels_max: 9,
            window: WindowSize::of(ids),
            durability: Durability::Interval,
            ..Options::small(data.path())
        };
        let mut hub = Hub::open(options(3)).unwrap();
        let mut plain = Plain::default();
        let mut seed = 7_u64;
        let mut random = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        for group in GROUPS {
            make(&hub, group).await;
            plain.groups.insert(group.to_owned(), BTreeSet::new());
        }
        for step in 0..1500 {
            let mut any = |names: &[&'static str]| {
                names[usize::try_from(random(u64::try_from(names.len()).unwrap())).unwrap()]
            };
            let (from, to, group) = (any(&USERS), any(&USERS), any(&GROUPS));
            match random(24) {
                0 => {
                    hub.open_channel(&user(to)).await.unwrap();
                    plain.opened(to);
                }
                1 if step % 5 == 0 => plain.close(&hub, to).await,
                2 | 3 => plain.join_or_leave(&hub, to, group, random(2) == 0).await,
                4 => {
                    let receipt = hub.broadcast(Body::from(b"0".to_vec())).await.unwrap();
                    if let Some(receipt) = receipt {
                        plain.came(&receipt, "icomet", "icomet");
                    }
                }
                5 if step % 50 == 0 => {
                    hub.close();
                    hub = Hub::open(options(1 + random(40))).unwrap();
                }
                kind if kind % 2 == 0 => plain.push(&hub, from, group, true).await,
                _ => plain.push(&hub, from, to, false).await,
            }
            if step % 10 == 0 {
                for name in USERS {
                    plain.check(&hub, name, &mut random).await;
                }
            }
        }
        hub.close();
        let verified = verify(data.path(), 8 << 20, &mut |_, _| ()).unwrap();
        assert_eq!(verified.view, Compared::Same);
    }

    async fn make(hub: &Hub, group: &str) {
        let change = GroupChange::Set {
            members: Some(Vec::new()),
            history: None,
        };
        hub.change_group(GroupName::parse(group).unwrap(), change)
            .await
            .unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_wakes_a_feed_is_in_the_channel_and_nothing_is_skipped() {
        const MESSAGES: u64 = 400;
        let data = tempfile::tempdir().unwrap();
        let hub = open(data.path(), 9);
        hub.open_channel(&user("bob")).await.unwrap();
        let group = GroupName::parse("team").unwrap();
        let change = GroupChange::Set {
            members: Some(vec![user("bob")]),
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
            while feed.read(PageLimit::count(1000)).await.unwrap().more {}
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

    /// Whether there is room for one more, which is not opened.
    fn fits(hub: &Hub, name: &str) -> bool {
        !hub.0.channels.to_open([&user(name)]).is_refused()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn there_are_never_more_channels_than_may_be_also_after_a_start_and_a_rebuild() {
        let data = tempfile::tempdir().unwrap();
        let direct = |to: &str| Draft {
            from: user("ann"),
            to: Receiver::User(user(to)),
            body: Body::from(b"1".to_vec()),
            key: None,
            by_user: false,
        };
        let hub = open(data.path(), 3);
        for name in ["a", "b", "b"] {
            assert_eq!(hub.open_channel(&user(name)).await, Ok(true));
        }
        // In one push there is room for one of two; the messages are stored all the same.
        let receipts = hub.push(vec![direct("c"), direct("d"), direct("c")]).await;
        assert!(receipts.unwrap().iter().all(Result::is_ok));
        hub.close();
        for (start, max) in [3, 2, 3, 4].into_iter().enumerate() {
            match start {
                1 => std::fs::remove_dir_all(data.path().join("sled")).unwrap(),
                2 => drop(rebuild(&Options::small(data.path()), false).unwrap()),
                _ => {}
            }
            let hub = open(data.path(), max);
            assert_eq!(fits(&hub, "e"), max > 3, "start {start}");
            if max <= 3 {
                assert_eq!(hub.open_channel(&user("d")).await, Ok(false));
                assert_eq!(hub.push_to_channel(direct("d")).await, Ok(None));
                hub.push(vec![direct("d")])
                    .await
                    .unwrap()
                    .remove(0)
                    .unwrap();
            }
            for name in ["a", "b", "c"] {
                assert_eq!(hub.open_channel(&user(name)).await, Ok(true));
                assert!(hub.push_to_channel(direct(name)).await.unwrap().is_some());
            }
            hub.close();
        }
        let hub = open(data.path(), 4);
        assert_eq!(numbers(&hub, "d", 0, 9).await, (String::new(), 1));
        assert!(hub.push_to_channel(direct("d")).await.unwrap().is_some());
        assert!(!fits(&hub, "e"));
        assert_eq!(numbers(&hub, "a", 0, 0).await.1, 5);
        assert_eq!(numbers(&hub, "c", 0, 0).await.1, 7);
        assert_eq!(numbers(&hub, "d", 0, 0).await.1, 2);
        hub.close();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_closed_channel_makes_room_and_goes_on_behind_its_numbers_also_after_a_start_and_a_rebuild()
     {
        let data = tempfile::tempdir().unwrap();
        let bob = || Receiver::User(user("bob"));
        let hub = open(data.path(), 1);
        assert_eq!(hub.close_channel(user("bob")).await, Ok(None));
        for _ in 0..200 {
            push(&hub, "ann", bob()).await;
        }
        hub.broadcast(Body::from(b"0".to_vec())).await.unwrap();
        assert!(!fits(&hub, "cyd"));
        assert_eq!(hub.open_channels(None, 9), [user("bob")]);
        assert_eq!(hub.close_channel(user("bob")).await, Ok(Some(202)));
        assert_eq!(hub.close_channel(user("bob")).await, Ok(None));
        assert!(hub.open_channels(None, 9).is_empty() && fits(&hub, "cyd"));
        assert_eq!(numbers(&hub, "bob", 1, 9).await, (String::new(), 202));
        // All of it is still there, and of what comes now nothing has a number.
        let broadcast = hub.broadcast(Body::from(b"0".to_vec()));
        assert!(broadcast.await.unwrap().is_some());
        let draft = Draft {
            from: user("bob"),
            to: Receiver::User(user("bob")),
            body: Body::from(b"1".to_vec()),
            key: None,
            by_user: true,
        };
        hub.push(vec![draft]).await.unwrap().remove(0).unwrap();
        assert_eq!(numbers(&hub, "bob", 1, 9).await, (String::new(), 202));
        assert_eq!(hub.open_channel(&user("bob")).await, Ok(true));
        assert!(!fits(&hub, "cyd"));
        push(&hub, "ann", bob()).await;
        for start in 0..4 {
            let hub = match start {
                0 => hub.clone(),
                _ => open(data.path(), 1),
            };
            for from in [0, 1, 64, 201, 202] {
                let expected = ("202=d202".to_owned(), 203);
                assert_eq!(numbers(&hub, "bob", from, 9).await, expected, "{from}");
            }
            assert!(!fits(&hub, "cyd"));
            hub.close();
            if start == 2 {
                rebuild(&Options::small(data.path()), false).unwrap();
            }
            let verified = verify(data.path(), 8 << 20, &mut |_, _| ()).unwrap();
            assert_eq!(verified.view, Compared::Same);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn openings_closings_and_pushes_at_once_are_counted_exactly() {
        const MAX: usize = 4;
        let data = tempfile::tempdir().unwrap();
        let hub = open(data.path(), MAX);
        let tasks: Vec<_> = (0..24_usize)
            .map(|task| {
                let hub = hub.clone();
                tokio::spawn(async move {
                    let mut last: HashMap<UserName, u64> = HashMap::new();
                    for round in 0..40 {
                        let name = format!("user-{}", (task + round) % 6);
                        let to = Receiver::User(user(&name));
                        match (task + round / 6) % 3 {
                            0 => drop(hub.open_channel(&user(&name)).await.unwrap()),
                            1 => push(&hub, "ann", to).await,
                            _ => drop(hub.close_channel(user(&name)).await.unwrap()),
                        }
                        assert!(hub.0.channels.taken() <= MAX);
                        assert!(hub.open_channels(None, 9).len() <= MAX);
                        // No number comes again, and a page has no gap.
                        let page = hub.channel_page(user(&name), 0, 99).await.unwrap();
                        let numbers: Vec<_> = page.messages.iter().map(|m| m.0).collect();
                        let all: Vec<_> = (page.first..page.next).collect();
                        assert_eq!(numbers, all);
                        let before = last.insert(user(&name), page.next);
                        assert!(before <= Some(page.next));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        // What a proposal holds is let go only behind its answer, at the latest with the last thread.
        hub.close();
        let open_now = hub.open_channels(None, 9);
        let channels = &hub.0.channels;
        assert!(channels.none_is_proposed(), "{channels:?}");
        let hub = open(data.path(), MAX);
        assert_eq!(hub.open_channels(None, 9), open_now);
        hub.close();
        let verified = verify(data.path(), 8 << 20, &mut |_, _| ()).unwrap();
        assert_eq!(verified.view, Compared::Same);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_at_once_get_as_many_channels_as_may_be_and_what_is_not_stored_takes_none() {
        const MAX: usize = 7;
        let data = tempfile::tempdir().unwrap();
        let hub = open(data.path(), MAX);
        let asking: Vec<_> = (0..64)
            .map(|n| {
                let (hub, name) = (hub.clone(), user(&format!("user-{}", n % 32)));
                tokio::spawn(async move { (hub.open_channel(&name).await, name) })
            })
            .collect();
        let mut opened = HashSet::new();
        for asked in asking {
            if let (Ok(true), name) = asked.await.unwrap() {
                opened.insert(name);
            }
        }
        assert_eq!(opened.len(), MAX);
        hub.close();
        // What cannot be written is counted only as long as it is tried.
        let hub = open(data.path(), MAX + 1);
        hub.begin_close();
        assert_eq!(hub.open_channel(&user("x")).await, Err(Error::Closing));
        assert!(fits(&hub, "y"));
        hub.close();
    }
}
