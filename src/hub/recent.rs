//! The last direct message of each user who had one lately: most polls come back to an inbox without news, and
//! this says so without a reading of the view.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use super::plan::{Delivery, Receivers};
use crate::model::UserName;

/// Users kept; beyond, all are forgotten, and what was before is unknown.
const USERS_MAX: usize = 200_000;

/// Of every user with a direct message after `since`, the last one.
#[derive(Debug)]
pub(super) struct Recent {
    inside: RwLock<Inside>,
}

#[derive(Debug)]
struct Inside {
    since: u64,
    last: HashMap<UserName, u64>,
}

impl Recent {
    /// Knows nothing of what was before.
    pub(super) fn new(since: u64) -> Self {
        Self {
            inside: RwLock::new(Inside {
                since,
                last: HashMap::new(),
            }),
        }
    }

    /// Takes over the messages of an entry. Must be done before readers may see them.
    pub(super) fn took(&self, deliveries: &[Delivery]) {
        let mut inside = self.inside.write().unwrap_or_else(PoisonError::into_inner);
        for delivery in deliveries {
            let Receivers::Pair(from, to) = &delivery.receivers else {
                continue;
            };
            if inside.last.len() + 2 > USERS_MAX {
                inside.since = delivery.message.id - 1;
                inside.last = HashMap::new();
            }
            for user in [from, to] {
                inside.last.insert(user.clone(), delivery.message.id);
            }
        }
    }

    /// Whether it is known that a user has no direct message after an id.
    pub(super) fn none_after(&self, user: &UserName, id: u64) -> bool {
        let inside = self.inside.read().unwrap_or_else(PoisonError::into_inner);
        inside
            .last
            .get(user)
            .map_or(id >= inside.since, |last| *last <= id)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Body, Message, Receiver};

    fn direct(id: u64, from: &str, to: &str) -> Delivery {
        let [from, to] = [from, to].map(|name| UserName::parse(name).unwrap());
        let message = Message {
            id,
            prev: 0,
            n: 1,
            at_ms: 0,
            from: from.clone(),
            to: Receiver::User(to.clone()),
            body: Body::from(b"1".to_vec()),
        };
        Delivery {
            message: Arc::new(message),
            receivers: Receivers::Pair(from, to),
        }
    }

    #[test]
    fn what_is_not_known_is_never_denied() {
        let recent = Recent::new(10);
        let [a, b, c] = ["a", "b", "c"].map(|name| UserName::parse(name).unwrap());
        assert!(recent.none_after(&a, 10));
        assert!(!recent.none_after(&a, 9), "what was before is unknown");
        recent.took(&[direct(11, "a", "b"), direct(12, "b", "b")]);
        assert!(recent.none_after(&a, 11) && !recent.none_after(&a, 10));
        assert!(recent.none_after(&b, 12) && !recent.none_after(&b, 11));
        assert!(recent.none_after(&c, 10));
    }

    #[test]
    fn when_all_are_forgotten_what_was_before_is_unknown() {
        let recent = Recent::new(0);
        let last = u64::try_from(USERS_MAX).unwrap();
        for id in 1..=last {
            recent.took(&[direct(id, &format!("user {id}"), "same")]);
        }
        let first = UserName::parse("user 1").unwrap();
        assert!(!recent.none_after(&first, 0));
        assert!(recent.none_after(&first, last));
    }
}
