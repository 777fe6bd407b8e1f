//! A writer: single pushes, arrays, memberships, with and without keys, one after the other.
//!
//! What was not answered is kept, and sent again with its key once the server is back.

use std::sync::Mutex;

use crate::client::{Client, Receipt};
use crate::http::Reply;
use crate::ledger::{Change, Draft, Ledger, Target, lock};
use crate::load::{ANCHORS, Control, GROUPS, everybody};
use crate::random::Random;

/// One backend worker.
#[derive(Debug)]
pub(crate) struct Writer {
    user: &'static str,
    rng: Random,
    unanswered: Vec<Draft>,
    unanswered_change: Option<Change>,
    answered: Vec<(Draft, Receipt)>,
}

impl Writer {
    /// A writer that alone changes the memberships of this user.
    pub(crate) fn new(user: &'static str, rng: Random) -> Self {
        Self {
            user,
            rng,
            unanswered: Vec::new(),
            unanswered_change: None,
            answered: Vec::new(),
        }
    }

    /// Pushes until the test says that it is over.
    pub(crate) fn run(&mut self, mut client: Client, control: &Control, ledger: &Mutex<Ledger>) {
        while !control.is_over() {
            let answered = match self.rng.range(1, 100) {
                1..=65 => self.push_one(&mut client, ledger),
                66..=90 => self.push_many(&mut client, ledger),
                _ => self.change_membership(&mut client, ledger),
            };
            if answered.is_none() {
                // Whoever stops the server says so first; anything else is a fault of the server.
                assert!(control.is_down(), "a running server did not answer a push");
            }
        }
    }

    fn draft(&mut self) -> Draft {
        let rng = &mut self.rng;
        if rng.percent(60) {
            let everybody = everybody();
            let to = everybody[rng.index(everybody.len())];
            let from = everybody[rng.index(everybody.len())];
            return Draft::new(rng, from, Target::Direct(to.to_owned()));
        }
        let group = rng.index(GROUPS.len());
        let target = Target::Group(GROUPS[group].to_owned());
        Draft::new(rng, ANCHORS[group], target)
    }

    /// Pushes one message; `None` if there is no answer.
    fn push_one(&mut self, client: &mut Client, ledger: &Mutex<Ledger>) -> Option<()> {
        let draft = self.draft();
        let before = {
            let mut ledger = lock(ledger);
            ledger.sent(&draft);
            ledger.last()
        };
        let Some(reply) = push(client, &draft) else {
            self.unanswered.push(draft);
            return None;
        };
        let receipt = reply.receipt();
        let last = before.of(&receipt.sequence);
        assert!(receipt.id > last && !receipt.duplicate, "{receipt:?}");
        self.note(draft, receipt, ledger);
        Some(())
    }

    /// Pushes an array; `None` if there is no answer.
    fn push_many(&mut self, client: &mut Client, ledger: &Mutex<Ledger>) -> Option<()> {
        let count = self.rng.range(2, 20);
        let drafts: Vec<Draft> = (0..count).map(|_| self.draft()).collect();
        let mut before = {
            let mut ledger = lock(ledger);
            for draft in &drafts {
                ledger.sent(draft);
            }
            ledger.last()
        };
        let items: Vec<String> = drafts.iter().map(item).collect();
        let body = format!("[{}]", items.join(","));
        let reply = client.send("POST", "/v1/messages", None, &body).ok();
        let Some(reply) = reply.filter(|reply| reply.status != 503) else {
            self.unanswered.extend(drafts);
            return None;
        };
        let results = reply.expect(200).json()["results"].take();
        let receipts: Vec<Receipt> = serde_json::from_value(results).unwrap();
        assert_eq!(receipts.len(), drafts.len());
        for (draft, receipt) in drafts.into_iter().zip(receipts) {
            let last = match receipt.sequence.as_str() {
                "direct" => &mut before.direct,
                _ => &mut before.group,
            };
            assert!(receipt.id > *last && !receipt.duplicate, "{receipt:?}");
            *last = receipt.id;
            self.note(draft, receipt, ledger);
        }
        Some(())
    }

    fn note(&mut self, draft: Draft, receipt: Receipt, ledger: &Mutex<Ledger>) {
        lock(ledger).acknowledged(&draft, &receipt);
        if draft.key.is_some() && self.rng.percent(5) {
            self.answered.push((draft, receipt));
        }
    }

    /// Lets this writer's own user join or leave a group; nobody else does.
    fn change_membership(&mut self, client: &mut Client, ledger: &Mutex<Ledger>) -> Option<()> {
        let group = GROUPS[self.rng.index(GROUPS.len())];
        let change = Change {
            group: group.to_owned(),
            user: self.user.to_owned(),
            joins: !lock(ledger).is_member(group, self.user),
            low: last_of(client, group)?,
            high: 0,
        };
        self.unanswered_change = Some(change);
        self.finish_change(client, ledger)
    }

    fn finish_change(&mut self, client: &mut Client, ledger: &Mutex<Ledger>) -> Option<()> {
        let mut change = self.unanswered_change.clone()?;
        let path = format!("/v1/groups/{}/members/{}", change.group, change.user);
        let method = if change.joins { "PUT" } else { "DELETE" };
        let reply = client.send(method, &path, None, "").ok();
        reply.filter(|reply| reply.status != 503)?.expect(200);
        change.high = last_of(client, &change.group)?;
        lock(ledger).changed(change);
        self.unanswered_change = None;
        Some(())
    }

    /// Sends again what was not answered, and checks that repeats are known as such.
    pub(crate) fn settle(&mut self, client: &mut Client, ledger: &Mutex<Ledger>) {
        if self.unanswered_change.is_some() {
            self.finish_change(client, ledger).unwrap();
        }
        for draft in std::mem::take(&mut self.unanswered) {
            if draft.key.is_some() {
                let receipt = push(client, &draft).unwrap().receipt();
                lock(ledger).acknowledged(&draft, &receipt);
                self.answered.push((draft, receipt));
            }
        }
        while self.answered.len() > 20 {
            self.answered.swap_remove(self.rng.index(20));
        }
        for (draft, receipt) in &self.answered {
            let again = push(client, draft).unwrap().receipt();
            let first = Receipt {
                duplicate: true,
                ..receipt.clone()
            };
            assert_eq!(again, first, "a key was forgotten: {draft:?}");
        }
        if let Some((draft, _)) = self.answered.last() {
            let other = Draft {
                body: "{}".to_owned(),
                ..draft.clone()
            };
            let refused = push(client, &other).unwrap().expect(422);
            assert_eq!(refused.code(), "idempotency_conflict");
        }
    }
}

/// Pushes a draft; `None` if the server did not answer, or refused for now.
fn push(client: &mut Client, draft: &Draft) -> Option<Reply> {
    draft.push(client).ok().filter(|reply| reply.status != 503)
}

fn item(draft: &Draft) -> String {
    let (from, body) = (&draft.from, &draft.body);
    let target = match &draft.target {
        Target::Direct(to) => format!(r#""to":"{to}""#),
        Target::Group(group) => format!(r#""group":"{group}""#),
    };
    let key = draft
        .key
        .as_ref()
        .map(|key| format!(r#","idempotency_key":"{key}""#));
    let key = key.unwrap_or_default();
    format!(r#"{{"from":"{from}",{target},"body":{body}{key}}}"#)
}

fn last_of(client: &mut Client, group: &str) -> Option<u64> {
    let reply = client.get(&format!("/v1/groups/{group}")).ok()?;
    reply.expect(200).json()["last"].as_u64()
}
