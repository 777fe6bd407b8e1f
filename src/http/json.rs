//! Messages as JSON. A body stands in it byte for byte as it was pushed.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Serialize;

use crate::model::{Cursor, LogId, Message, Receiver};

/// How many group messages are kept serialised: those that many waiters are being told.
const RENDERED_MAX: usize = 64;
/// Shared pieces from this size are referred to; smaller ones are cheaper to copy.
const SHARED_BYTES_MIN: usize = 1024;
/// More than the JSON of a message without its body and names.
const MESSAGE_BYTES: usize = 160;

/// JSON text in the making: own bytes, and shared pieces between them.
#[derive(Debug, Default)]
pub(super) struct Writer {
    done: Vec<Bytes>,
    open: Vec<u8>,
    /// A line's end is the end of the text: those between the tokens of a body become blanks.
    one_line: bool,
}

impl Writer {
    pub(super) fn raw(&mut self, text: &str) {
        self.open.extend_from_slice(text.as_bytes());
    }

    /// A number, a text, or anything else that cannot fail to serialise.
    pub(super) fn value(&mut self, value: &(impl Serialize + ?Sized)) {
        put(&mut self.open, value);
    }

    /// For texts that are lines, or within one.
    pub(super) fn lines() -> Self {
        Self {
            one_line: true,
            ..Self::default()
        }
    }

    pub(super) fn message(&mut self, message: &Message) {
        let start = self.open.len();
        write(&mut self.open, message);
        if self.one_line {
            let text = self.open.get_mut(start..).unwrap_or_default();
            text.iter_mut()
                .filter(|byte| is_line_end(**byte))
                .for_each(|byte| *byte = b' ');
        }
    }

    fn shared(&mut self, piece: Bytes) {
        if piece.len() < SHARED_BYTES_MIN {
            self.open.extend_from_slice(&piece);
            return;
        }
        if !self.open.is_empty() {
            self.done.push(std::mem::take(&mut self.open).into());
        }
        self.done.push(piece);
    }

    /// `[message,message,...]`
    pub(super) fn messages<'a>(&mut self, messages: impl IntoIterator<Item = &'a Message>) {
        self.raw("[");
        for (index, message) in messages.into_iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            self.message(message);
        }
        self.raw("]");
    }

    /// `{"log":"...",` with which every page begins.
    pub(super) fn page_of(&mut self, log: LogId) {
        self.raw("{\"log\":\"");
        self.raw(&log.to_string());
        self.raw("\",");
    }

    /// `"name":"cursor"`
    pub(super) fn cursor(&mut self, cursor: Cursor) {
        self.raw("\"next\":\"");
        self.raw(&cursor.to_string());
        self.raw("\"");
    }

    pub(super) fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.done.push(self.open.into());
        }
        self.done
    }
}

/// The last group messages as JSON, by id: a group's waiters are all told the same text.
#[derive(Debug)]
pub(super) struct Rendered(Vec<Mutex<Option<(u64, Bytes)>>>);

impl Default for Rendered {
    fn default() -> Self {
        Self((0..RENDERED_MAX).map(|_| Mutex::default()).collect())
    }
}

impl Rendered {
    /// Writes a message, from here if it is a group's.
    pub(super) fn write(&self, to: &mut Writer, message: &Arc<Message>) {
        match message.to {
            Receiver::User(_) => to.message(message),
            Receiver::Group(_) if to.one_line && has_line_ends(message) => {
                to.message(message);
            }
            Receiver::Group(_) => to.shared(self.json_of(message)),
        }
    }

    fn json_of(&self, message: &Arc<Message>) -> Bytes {
        let slots = u64::try_from(self.0.len()).unwrap_or(u64::MAX).max(1);
        let slot = usize::try_from(message.id % slots)
            .ok()
            .and_then(|index| self.0.get(index));
        let mut slot = slot
            .expect("a remainder is less than the number of slots")
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((id, json)) = &*slot
            && *id == message.id
        {
            return json.clone();
        }
        let mut json = Vec::new();
        write(&mut json, message);
        let json = Bytes::from(json);
        *slot = Some((message.id, json.clone()));
        json
    }
}

fn has_line_ends(message: &Message) -> bool {
    message.body.as_bytes().iter().copied().any(is_line_end)
}

/// In JSON only between tokens: within a string they are escaped.
fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn put(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect("plain values are written to memory without fail");
}

fn write(out: &mut Vec<u8>, message: &Message) {
    let body = message.body.as_bytes();
    out.reserve(MESSAGE_BYTES + body.len());
    out.extend_from_slice(b"{\"sequence\":\"");
    out.extend_from_slice(message.sequence().name().as_bytes());
    out.extend_from_slice(b"\",\"id\":");
    put(out, &message.id);
    out.extend_from_slice(b",\"prev\":");
    put(out, &message.prev);
    out.extend_from_slice(b",\"from\":");
    put(out, message.from.as_str());
    match &message.to {
        Receiver::User(user) => {
            out.extend_from_slice(b",\"to\":");
            put(out, user.as_str());
        }
        Receiver::Group(group) => {
            out.extend_from_slice(b",\"group\":");
            put(out, group.as_str());
        }
    }
    out.extend_from_slice(b",\"at\":");
    put(out, &message.at_ms);
    out.extend_from_slice(b",\"body\":");
    out.extend_from_slice(body);
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Body, GroupName, UserName};

    fn message(id: u64, to: Receiver, body: &str) -> Arc<Message> {
        let from = UserName::parse("al\"ice").unwrap();
        let body = Body::from(body.as_bytes().to_vec());
        Arc::new(Message {
            id,
            prev: 3,
            at_ms: 9,
            from,
            to,
            body,
        })
    }

    fn text(write: impl FnOnce(&mut Writer)) -> String {
        let mut writer = Writer::default();
        write(&mut writer);
        String::from_utf8(writer.finish().concat()).unwrap()
    }

    #[test]
    fn a_body_is_returned_byte_for_byte() {
        let to = Receiver::User(UserName::parse("bob").unwrap());
        let message = message(7, to, "{ \"a\" : 1.50e0,\n\"a\":2}");
        assert_eq!(
            text(|out| out.message(&message)),
            "{\"sequence\":\"direct\",\"id\":7,\"prev\":3,\"from\":\"al\\\"ice\",\"to\":\"bob\",\
             \"at\":9,\"body\":{ \"a\" : 1.50e0,\n\"a\":2}}"
        );
    }

    #[test]
    fn a_line_has_one_end() {
        let users = || Receiver::User(UserName::parse("bob").unwrap());
        let groups = || Receiver::Group(GroupName::parse("team").unwrap());
        for to in [users(), groups()] {
            let message = message(7, to, "{\r\n\"a\":\n\"b\\n\"}");
            let mut writer = Writer::lines();
            Rendered::default().write(&mut writer, &message);
            let line = String::from_utf8(writer.finish().concat()).unwrap();
            assert!(line.ends_with("\"body\":{  \"a\": \"b\\n\"}}"), "{line}");
        }
    }

    #[test]
    fn a_message_of_a_group_is_serialised_once_and_never_mistaken_for_another() {
        let rendered = Rendered::default();
        let group = || Receiver::Group(GroupName::parse("team").unwrap());
        let long = format!("\"{}\"", "x".repeat(2000));
        let (one, other) = (message(1, group(), &long), message(65, group(), "2"));
        let first = rendered.json_of(&one);
        assert_eq!(first.as_ptr(), rendered.json_of(&one).as_ptr());
        assert!(text(|out| rendered.write(out, &other)).contains("\"id\":65,"));
        let joined = text(|out| {
            out.raw("[");
            rendered.write(out, &one);
            out.raw("]");
        });
        assert!(
            joined.starts_with("[{") && joined.ends_with("\"}]"),
            "{joined}"
        );
    }
}
