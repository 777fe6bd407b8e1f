//! Messages: the part of planning that gives them their ids, and refuses those that may not be sent.

use std::sync::Arc;

use super::planner::{Delivery, Event, Planner, Receivers, live};
use crate::error::Error;
use crate::hub::state::{content_hash, key_hash};
use crate::model::{ChainEnd, Draft, GroupName, Message, Receipt, Receiver, Sequence, UserName};
use crate::store::{Addition, Change, KeyUse};

impl Planner<'_> {
    pub(super) fn message(&mut self, draft: &Draft) -> Result<Receipt, Error> {
        let hash = key_hash(draft);
        if let Some(kept) = hash.and_then(|hash| self.state.keys.get(&hash).flatten())
            && kept.lives_at(self.keys_ms)
        {
            let same = kept.content == content_hash(draft);
            let receipt = Receipt {
                duplicate: true,
                ..kept.receipt
            };
            return if same {
                Ok(receipt)
            } else {
                Err(Error::IdempotencyConflict)
            };
        }
        let receipt = match &draft.to {
            Receiver::User(to) => self.direct_message(draft, to),
            Receiver::Group(group) => self.group_message(draft, group)?,
        };
        if let Some(hash) = hash {
            let first = KeyUse {
                receipt,
                keys_ms: self.keys_ms,
                content: content_hash(draft),
            };
            self.state.keys.change(hash, Some(first), self.offset);
            self.change(Change::KeyUsed { hash, first });
        }
        Ok(receipt)
    }

    fn direct_message(&mut self, draft: &Draft, to: &UserName) -> Receipt {
        let (sender, receiver) = (self.number(&draft.from), self.number(to));
        let users = (sender.min(receiver), sender.max(receiver));
        let id = self.take(Sequence::Direct);
        let mut end = self.state.conversations.get(&users).unwrap_or_default();
        let message = new_message(draft, id, self.at_ms, &mut end);
        self.state.conversations.change(users, end, self.offset);
        self.add(Addition::DirectMessage {
            message: Arc::clone(&message),
            from: sender,
            to: receiver,
            group_head: self.state.applied.heads.group,
        });
        let receivers = Receivers::Pair(draft.from.clone(), to.clone());
        self.deliver(message, receivers)
    }

    fn group_message(&mut self, draft: &Draft, name: &GroupName) -> Result<Receipt, Error> {
        let group = live(self.state.groups.get(name))?;
        let backends = self.is_backends(name);
        let facts = Arc::clone(&group.facts);
        if draft.by_user && !self.is_member(facts.number, &draft.from) {
            return Err(Error::GroupNotFound);
        }
        if draft.by_user && backends {
            return Err(Error::BackendsOnly);
        }
        let id = self.take(Sequence::Group);
        let group = self
            .state
            .groups
            .get_mut(name)
            .ok_or(Error::GroupNotFound)?;
        let message = new_message(draft, id, self.at_ms, &mut group.end);
        self.add(Addition::GroupMessage {
            message: Arc::clone(&message),
            group: facts.number,
            listener: self.listener(&draft.from),
        });
        Ok(self.deliver(message, Receivers::Group(facts)))
    }

    fn deliver(&mut self, message: Arc<Message>, receivers: Receivers) -> Receipt {
        let receipt = Receipt {
            sequence: message.sequence(),
            id: message.id,
            prev: message.prev,
            at_ms: message.at_ms,
            duplicate: false,
        };
        let delivery = Delivery { message, receivers };
        self.plan.events.push(Event::Message(delivery));
        receipt
    }
}

/// The draft as the next message of its conversation or group, whose end it becomes.
fn new_message(draft: &Draft, id: u64, at_ms: u64, end: &mut ChainEnd) -> Arc<Message> {
    let prev = end.last;
    *end = end.then(id);
    Arc::new(Message {
        id,
        prev,
        n: end.n,
        at_ms,
        from: draft.from.clone(),
        to: draft.to.clone(),
        body: draft.body.clone(),
    })
}
