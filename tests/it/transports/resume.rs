//! Every cursor that a stream has named is a place to go on from.

use crate::device::{push_many, set_group};
use crate::support::{Event, Message, Random, Reader, TestServer, Way};

/// Direct and group messages in turns, in many batches.
async fn filled() -> TestServer {
    let server = TestServer::start().await;
    set_group(&server, "team", &["bob"]).await;
    for (direct, group) in [(3, 2), (0, 30), (40, 1), (7, 7), (20, 0), (1, 12)] {
        push_many(&server, ("to", "bob"), 0..direct).await;
        push_many(&server, ("group", "team"), 0..group).await;
        // Moves the cursor and is not for bob.
        push_many(&server, ("to", "carol"), 0..3).await;
    }
    server
}

const ALL: usize = 123;

fn keys(messages: &[Message]) -> Vec<(String, u64)> {
    let mut keys: Vec<_> = messages
        .iter()
        .map(|m| (m.sequence.clone(), m.id))
        .collect();
    keys.sort();
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_every_single_event_the_rest_follows_by_every_transport() {
    let server = filled().await;
    let token = TestServer::token("bob");
    let mut reader = Reader::open(server.client, Way::Sse, &token, "0")
        .await
        .unwrap();
    let mut steps = Vec::new();
    while steps.len() < ALL {
        if let Event::Page(page) = reader.next().await {
            steps.extend(
                page.messages
                    .into_iter()
                    .map(|message| (message, page.next.clone())),
            );
        }
    }
    let all: Vec<Message> = steps.iter().map(|(message, _)| message.clone()).collect();
    for (index, (_, cursor)) in steps.iter().enumerate() {
        let expected = keys(&all[index + 1..]);
        if expected.is_empty() {
            continue;
        }
        let way = Way::ALL[index % 4];
        let after = format!("{cursor}&wait=0");
        let mut reader = Reader::open(server.client, way, &token, &after)
            .await
            .unwrap();
        let rest = reader.count(expected.len()).await;
        assert_eq!(keys(&rest), expected, "{way:?} after {cursor}");
    }
    let last = &steps.last().unwrap().1;
    let mut rest = Reader::open(server.client, Way::Poll, &token, &format!("{last}&wait=0"))
        .await
        .unwrap();
    assert!(matches!(rest.next().await, Event::Page(page) if page.messages.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_cut_at_any_byte_goes_on_from_the_last_whole_cursor() {
    let mut random = Random::from_environment("resume");
    let server = filled().await;
    let token = TestServer::token("bob");
    for _ in 0..6 {
        let (mut cursor, mut got) = ("0".to_owned(), Vec::new());
        let mut connections = 0;
        while got.len() < ALL {
            connections += 1;
            let way = random.of(&Way::ALL);
            let after = format!("{cursor}&wait=1");
            let mut reader = Reader::open(server.client, way, &token, &after)
                .await
                .unwrap();
            let most = if random.below(2) == 0 { 1000 } else { 30_000 };
            reader.stop_after(usize::try_from(random.below(most)).unwrap());
            while got.len() < ALL
                && let Event::Page(page) = reader.next().await
            {
                got.extend(page.messages);
            }
            if !reader.cursor.is_empty() {
                cursor.clone_from(&reader.cursor);
            }
        }
        let mut once = keys(&got);
        once.dedup();
        assert_eq!(
            (got.len(), once.len()),
            (ALL, ALL),
            "{connections} connections"
        );
    }
}
