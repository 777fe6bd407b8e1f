//! Watchers that look for holes while writers race: whoever sees an id must be able to see all before it.

use std::net::SocketAddr;

use tokio::sync::watch;

use super::many::WATCHER;
use crate::device::{Device, Page, admin, ids, position};
use crate::support::{Http, TestServer};

/// Where all has been read, once it is known.
pub(super) type Goal = watch::Receiver<Option<(u64, u64)>>;

/// Follows a group's history forward, and looks at its newest page in between: each page goes on exactly where
/// the chain stood.
pub(super) async fn watch_history(client: SocketAddr, group: &str, goal: Goal) {
    let mut http = Http::connect(client).await;
    let bearer = format!("authorization: Bearer {}", TestServer::token(WATCHER));
    let (mut seen, mut newest) = (vec![0], 0);
    loop {
        let over = goal.borrow().is_some();
        let last = *seen.last().unwrap();
        let path = format!("/v1/groups/{group}/messages?after={last}&limit=7");
        let page = Page::of(&http.request("GET", &path, &[&bearer], "").await);
        for message in &page.messages {
            assert_eq!(
                Some(&message.prev),
                seen.last(),
                "a hole before {message:?}"
            );
            assert_eq!(message.n, u64::try_from(seen.len()).unwrap());
            seen.push(message.id);
        }
        let path = format!("/v1/groups/{group}/messages?limit=20");
        let ahead = Page::of(&http.request("GET", &path, &[&bearer], "").await).messages;
        for pair in ahead.windows(2) {
            assert_eq!(
                (pair[1].prev, pair[1].n),
                (pair[0].id, pair[0].n + 1),
                "a hole before {:?}",
                pair[1]
            );
        }
        let end = ahead.last().map_or(0, |message| message.id);
        assert!(
            end >= newest && end >= *seen.last().unwrap(),
            "the newest page went back"
        );
        newest = end;
        if over && !page.more {
            return assert_eq!(seen.last(), Some(&newest));
        }
    }
}

/// Asks for single ids ahead of what is known: as soon as one is there, all before it are.
pub(super) async fn watch_ids(address: SocketAddr, sequence: &str, goal: Goal) {
    let mut http = Http::connect(address).await;
    let (mut known, mut ahead) = (0, 0);
    loop {
        let over = *goal.borrow();
        ahead = ahead % 7 + 1;
        let path = |id: u64| format!("/v1/messages/{sequence}/{id}");
        if admin(&mut http, "GET", &path(known + ahead), "", "")
            .await
            .status
            == 200
        {
            for id in (known + 1..known + ahead).rev() {
                let reply = admin(&mut http, "GET", &path(id), "", "").await;
                assert_eq!(
                    reply.status,
                    200,
                    "{} was there, {id} is not",
                    known + ahead
                );
            }
            known += ahead;
        }
        let end = over.map(|(direct, group)| if sequence == "direct" { direct } else { group });
        if end.is_some_and(|end| known + 7 >= end) {
            return;
        }
    }
}

/// Reads the inbox of one who is in all groups: it has all ids of the group sequence, one after the other.
pub(super) async fn watch_inbox(client: SocketAddr, limit: usize, goal: Goal) {
    let mut device = Device::at(client, WATCHER, "0");
    let mut last = 0;
    loop {
        let over = goal.borrow().is_some();
        let before = device.got.len();
        device.poll(limit, u64::from(!over)).await;
        for id in ids(&device.got[before..], "group") {
            assert_eq!(id, last + 1, "a hole in the inbox");
            last = id;
        }
        if over && !device.more {
            return assert_eq!(last, position(&device.next).1);
        }
    }
}
