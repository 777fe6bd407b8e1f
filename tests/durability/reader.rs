//! A reader: polls with its cursor, over crashes too, and notices what is missed or repeated.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::client::{Client, Message};
use crate::http::Reply;
use crate::ledger::{Ledger, lock};
use crate::load::Control;
use crate::support::pause;

/// A device: it knows its cursor and what it has read.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) user: &'static str,
    pub(crate) token: String,
    pub(crate) cursor: String,
    pub(crate) direct: Vec<u64>,
    pub(crate) group: Vec<u64>,
    last: HashMap<String, (u64, u64)>,
}

impl Reader {
    /// A device that has read nothing yet.
    pub(crate) fn new(user: &'static str, token: String) -> Self {
        Self {
            user,
            token,
            cursor: "0".to_owned(),
            direct: Vec::new(),
            group: Vec::new(),
            last: HashMap::new(),
        }
    }

    /// Polls until the test says that it is over.
    pub(crate) fn run(&mut self, mut client: Client, control: &Control, ledger: &Mutex<Ledger>) {
        while !control.is_over() {
            let reply = client.poll(&self.cursor, 100, 1);
            match reply {
                Ok(reply) if reply.status == 200 => {
                    self.take(reply, ledger);
                }
                other => {
                    assert!(control.is_down(), "{}: {other:?}", self.user);
                    pause(Duration::from_millis(1));
                }
            }
        }
    }

    /// Takes what a 200 gave; the next request with the new cursor is all the thanks.
    #[track_caller]
    pub(crate) fn take(&mut self, reply: Reply, ledger: &Mutex<Ledger>) -> bool {
        let page = reply.page();
        let tag = page.log.get(..8).unwrap();
        assert!(
            page.next.ends_with(tag),
            "a cursor of another log: {page:?}"
        );
        for message in &page.messages {
            lock(ledger).seen(message);
            self.read(message);
        }
        self.cursor = page.next;
        page.more
    }

    fn read(&mut self, message: &Message) {
        let ids = match message.sequence.as_str() {
            "direct" => &mut self.direct,
            _ => &mut self.group,
        };
        let rises = ids.last().is_none_or(|last| *last < message.id);
        assert!(rises, "{} read {message:?} again or late", self.user);
        ids.push(message.id);
        let (place, whole) = match (&message.group, &message.to) {
            // Who joins later does not see the beginning of the chain.
            (Some(group), _) => (group.clone(), self.user.starts_with('a')),
            (None, Some(to)) if message.from == self.user => (format!("to {to}"), true),
            (None, _) => (format!("to {}", message.from), true),
        };
        let end = (message.id, message.n);
        let (last, n) = self.last.insert(place, end).unwrap_or((0, 0));
        assert!(
            !whole || (message.prev, message.n) == (last, n + 1),
            "{last} with number {n} before {message:?}"
        );
    }
}
