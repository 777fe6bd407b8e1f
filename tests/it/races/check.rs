//! What must be true of everything that was sent, and of what each user then has.

use std::collections::{BTreeMap, HashMap};

use super::many::STABLE;
use crate::device::{Message, ids, listed};

/// When something happened, on a clock that only orders.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) began: u64,
    pub(super) ended: u64,
}

pub(super) struct Sent {
    pub(super) message: Message,
    pub(super) span: Span,
}

pub(super) struct Moved {
    pub(super) group: &'static str,
    pub(super) user: &'static str,
    pub(super) joined: bool,
    pub(super) span: Span,
}

pub(super) fn check_ids_and_chains(sent: &mut [Sent], goal: (u64, u64)) {
    sent.sort_by_key(|sent| (sent.message.sequence.clone(), sent.message.id));
    let mut ends = HashMap::new();
    for Sent { message, .. } in &mut *sent {
        let (last, n) = ends.entry(message.chain()).or_insert((0, 0));
        assert_eq!(message.prev, *last, "{message:?}");
        // Receipts do not tell it; whoever reads the message must find this.
        message.n = *n + 1;
        (*last, *n) = (message.id, message.n);
    }
    let messages: Vec<Message> = sent.iter().map(|sent| sent.message.clone()).collect();
    assert_eq!(ids(&messages, "direct"), listed(1..=goal.0));
    assert_eq!(ids(&messages, "group"), listed(1..=goal.1));
    let mut at = HashMap::new();
    for message in &messages {
        let before = at.insert(&message.sequence, message.at).unwrap_or(0);
        assert!(before <= message.at, "the time falls: {message:?}");
    }
}

/// What the user has is what was sent to them, and what was sent to their groups while they surely were in them;
/// nothing from when they surely were not.
pub(super) fn check_inbox(user: &str, inbox: &[Message], sent: &[Sent], moved: &[Moved]) {
    let got: HashMap<(&str, u64), &Message> = inbox
        .iter()
        .map(|message| ((message.sequence.as_str(), message.id), message))
        .collect();
    assert_eq!(got.len(), inbox.len(), "{user} got something twice");
    for Sent { message, span } in sent {
        let found = got.get(&(message.sequence.as_str(), message.id));
        assert!(
            found.is_none_or(|found| *found == message),
            "{found:?} is not {message:?}"
        );
        let expected = match (&message.to, message.group.as_deref()) {
            (Some(to), _) => Some(message.from == user || to == user),
            (_, Some(STABLE)) => Some(true),
            (_, group) => was_in(user, group.unwrap(), *span, moved),
        };
        if let Some(expected) = expected {
            assert_eq!(found.is_some(), expected, "{user}: {message:?}");
        }
    }
    let mut last = HashMap::new();
    for message in inbox {
        let before = last.insert(message.chain(), message.id).unwrap_or(0);
        let stable = message.group.as_deref().is_none_or(|group| group == STABLE);
        // Between two times of being a member there may be others.
        assert!(
            message.prev == before || !stable && before < message.prev,
            "{user}: {message:?}"
        );
        assert!(
            !got.contains_key(&(message.sequence.as_str(), message.prev)) || message.prev == before
        );
    }
}

/// Whether a user was a member all that time, or never in it; `None` if they came or went.
fn was_in(user: &str, group: &str, span: Span, moved: &[Moved]) -> Option<bool> {
    let own = moved
        .iter()
        .filter(|moved| moved.user == user && moved.group == group);
    let before: Vec<&Moved> = own.filter(|moved| moved.span.began < span.ended).collect();
    let surely = before
        .iter()
        .filter(|moved| moved.span.ended < span.began)
        .count();
    (surely == before.len()).then(|| before.last().is_some_and(|moved| moved.joined))
}

/// What a reader got is all of the inbox behind the place where it began, once and in order.
pub(super) fn check_reader(user: &str, start: (u64, u64), got: &[Message], inbox: &[Message]) {
    for (sequence, start) in [("direct", start.0), ("group", start.1)] {
        let mut all = ids(inbox, sequence);
        all.retain(|id| *id > start);
        assert_eq!(
            ids(got, sequence),
            all,
            "{sequence} messages of {user} after {start}"
        );
    }
    let of = |messages: &[Message]| -> BTreeMap<(String, u64), Message> {
        let keyed = |m: &Message| ((m.sequence.clone(), m.id), m.clone());
        messages.iter().map(keyed).collect()
    };
    let all = of(inbox);
    assert!(
        of(got)
            .into_iter()
            .all(|(key, message)| all[&key] == message)
    );
}
