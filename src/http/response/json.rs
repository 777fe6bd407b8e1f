//! Messages as JSON. A body stands in it byte for byte as it was pushed.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::Serialize;

use crate::model::{LogId, Message, Receiver};

/// How many group messages are kept serialised: those that many waiters are being told.
const RENDERED_MAX: usize = 64;
/// Shared pieces from this size are referred to; smaller ones are cheaper to copy.
const SHARED_BYTES_MIN: usize = 1024;
/// More than the JSON of a message without its body and names.
const MESSAGE_BYTES: usize = 160;

/// JSON text in the making: own bytes, and shared pieces between them.
#[derive(Debug, Default)]
pub(in crate::http) struct Writer {
    done: Vec<Bytes>,
    open: Vec<u8>,
    /// A line's end is the end of the text: see [`one_line`].
    lines: bool,
}

impl Writer {
    pub(in crate::http) fn raw(&mut self, text: &str) {
        self.open.extend_from_slice(text.as_bytes());
    }

    /// Text in pieces, without a string of its own.
    pub(in crate::http) fn text(&mut self, text: fmt::Arguments<'_>) {
        self.open.write_fmt(text).expect(IN_MEMORY);
    }

    /// A number, a text, or anything else that cannot fail to serialise.
    pub(in crate::http) fn value(&mut self, value: &(impl Serialize + ?Sized)) {
        put(&mut self.open, value);
    }

    /// For texts that are lines, or within one.
    pub(in crate::http) fn lines() -> Self {
        Self {
            lines: true,
            ..Self::default()
        }
    }

    pub(in crate::http) fn message(&mut self, message: &Message) {
        let start = self.open.len();
        write(&mut self.open, message);
        if self.lines {
            let text = self.open.get(start..).unwrap_or_default();
            if let Cow::Owned(text) = one_line(text) {
                self.open.truncate(start);
                self.open.extend_from_slice(&text);
            }
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

    /// `{"log":"...","LIST":[item,item,...]`: how every page begins.
    pub(in crate::http) fn page<T>(
        &mut self,
        log: LogId,
        list: &str,
        items: impl IntoIterator<Item = T>,
        item: impl Fn(&mut Self, T),
    ) {
        self.text(format_args!("{{\"log\":\"{log}\",\"{list}\":["));
        for (index, one) in items.into_iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            item(self, one);
        }
        self.raw("]");
    }

    /// `,"more":true}`: how every page ends.
    pub(in crate::http) fn end_page(&mut self, more: bool) {
        self.text(format_args!(",\"more\":{more}}}"));
    }

    pub(in crate::http) fn finish(mut self) -> Vec<Bytes> {
        if !self.open.is_empty() {
            self.done.push(self.open.into());
        }
        self.done
    }
}

/// The last group messages as JSON, by id: a group's waiters are all told the same text.
#[derive(Debug)]
pub(in crate::http) struct Rendered(Vec<Mutex<Option<Text>>>);

/// One message as JSON.
#[derive(Debug)]
struct Text {
    id: u64,
    json: Bytes,
    /// The same as [`one_line`]; mostly the very same bytes.
    line: Bytes,
}

impl Text {
    fn of(message: &Message) -> Self {
        let mut json = Vec::new();
        write(&mut json, message);
        let json = Bytes::from(json);
        let line = match one_line(&json) {
            Cow::Borrowed(_) => json.clone(),
            Cow::Owned(line) => line.into(),
        };
        let id = message.id;
        Self { id, json, line }
    }

    fn form(&self, lines: bool) -> Bytes {
        if lines {
            self.line.clone()
        } else {
            self.json.clone()
        }
    }
}

impl Default for Rendered {
    fn default() -> Self {
        Self((0..RENDERED_MAX).map(|_| Mutex::default()).collect())
    }
}

impl Rendered {
    /// Writes a message, from here if it is a group's.
    pub(in crate::http) fn write(&self, to: &mut Writer, message: &Arc<Message>) {
        match message.to {
            Receiver::User(_) => to.message(message),
            Receiver::Group(_) => to.shared(self.text_of(message, to.lines)),
        }
    }

    fn text_of(&self, message: &Message, lines: bool) -> Bytes {
        let slots = u64::try_from(self.0.len()).unwrap_or(u64::MAX).max(1);
        let slot = usize::try_from(message.id % slots)
            .ok()
            .and_then(|index| self.0.get(index));
        // Locked while serialising, so that others who need the same message wait for its text instead of making it again.
        let mut slot = slot
            .expect("a remainder is less than the number of slots")
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*slot {
            Some(text) if text.id == message.id => text.form(lines),
            _ => slot.insert(Text::of(message)).form(lines),
        }
    }
}

/// The bytes of a message as JSON, with the comma before it.
pub(in crate::http) fn bytes_of(message: &Message) -> usize {
    count(message, false)
}

/// The bytes of a message in a text that is one line, with the comma before it.
pub(in crate::http) fn line_bytes_of(message: &Message) -> usize {
    count(message, true)
}

/// The bytes of a message as an event, with its cursor.
pub(in crate::http) fn event_bytes_of(message: &Message) -> usize {
    /// `id: `, two numbers of 20 digits, the log's tag, `data: `, and the ends of the lines.
    const AROUND_EVENT_BYTES: usize = 64;
    AROUND_EVENT_BYTES + line_bytes_of(message)
}

fn count(message: &Message, lines: bool) -> usize {
    let mut count = Count { bytes: 1, lines };
    fields(&mut count, message).expect(IN_MEMORY);
    count.bytes
}

/// Counts what is written to it.
struct Count {
    bytes: usize,
    lines: bool,
}

impl Write for Count {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.bytes += text.len();
        if self.lines {
            let breaks = breaks(text).map(|(_, length, text)| text.len() - length);
            self.bytes += breaks.sum::<usize>();
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// JSON in which nothing ends a line, not even for readers that split by Unicode's rules, as Python's `splitlines`
/// does. The value is the same: between tokens a line's end is a blank, and within a string an escape.
pub(in crate::http) fn one_line(json: &[u8]) -> Cow<'_, [u8]> {
    let mut breaks = breaks(json).peekable();
    if breaks.peek().is_none() {
        return Cow::Borrowed(json);
    }
    let (mut line, mut done) = (Vec::with_capacity(json.len() + 16), 0);
    for (at, length, text) in breaks {
        line.extend_from_slice(json.get(done..at).unwrap_or_default());
        line.extend_from_slice(text);
        done = at + length;
    }
    line.extend_from_slice(json.get(done..).unwrap_or_default());
    Cow::Owned(line)
}

/// What ends a line: where, how many bytes, and what is written for it.
fn breaks(json: &[u8]) -> impl Iterator<Item = (usize, usize, &'static [u8])> {
    json.iter().enumerate().filter_map(|(at, first)| {
        // Most bytes are none of these.
        if !matches!(first, b'\n' | b'\r' | 0xc2 | 0xe2) {
            return None;
        }
        let (length, text): (usize, &[u8]) = match json.get(at..)? {
            // In JSON only between tokens: within a string they are escaped.
            [b'\n' | b'\r', ..] => (1, b" "),
            // In JSON only within a string.
            [0xc2, 0x85, ..] => (2, b"\\u0085"),
            [0xe2, 0x80, 0xa8, ..] => (3, b"\\u2028"),
            [0xe2, 0x80, 0xa9, ..] => (3, b"\\u2029"),
            _ => return None,
        };
        Some((at, length, text))
    })
}

/// Why writing cannot fail.
const IN_MEMORY: &str = "plain values are written to memory without fail";

fn put(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    serde_json::to_writer(out, value).expect(IN_MEMORY);
}

fn write(out: &mut Vec<u8>, message: &Message) {
    out.reserve(MESSAGE_BYTES + message.body.as_bytes().len());
    fields(out, message).expect(IN_MEMORY);
}

/// By hand: a derived serialiser takes a quarter longer (232 ns instead of 182 for 256 bytes), and would parse the body
/// once more before it wrote it as it is.
fn fields(out: &mut impl Write, message: &Message) -> io::Result<()> {
    let text = |out: &mut _, text: &str| serde_json::to_writer(out, text);
    write!(
        out,
        "{{\"sequence\":\"{}\",\"id\":{},\"prev\":{},\"n\":{},\"from\":",
        message.sequence().name(),
        message.id,
        message.prev,
        message.n
    )?;
    text(&mut *out, message.from.as_str())?;
    match &message.to {
        Receiver::User(user) => {
            out.write_all(b",\"to\":")?;
            text(&mut *out, user.as_str())?;
        }
        Receiver::Group(group) => {
            out.write_all(b",\"group\":")?;
            text(&mut *out, group.as_str())?;
        }
    }
    write!(out, ",\"at\":{},\"body\":", message.at_ms)?;
    out.write_all(message.body.as_bytes())?;
    out.write_all(b"}")
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
            n: 2,
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
            "{\"sequence\":\"direct\",\"id\":7,\"prev\":3,\"n\":2,\"from\":\"al\\\"ice\",\"to\":\"bob\",\
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

    /// Whatever may stand in a name or a body.
    const ODD: [&str; 6] = [
        "1",
        "{\r\n\"a\":\n\"b\\n\"}",
        "\"\u{2028}\u{2029}\u{85}\u{2027}\u{e9}\u{84}\u{20ac}\\\\\"",
        "[\"\u{2028}\u{2028}\",\n\"\u{85}\"]",
        "\"\\u2028\"",
        "\"\u{e2}\u{80}\u{a8}\u{c2}\"",
    ];

    #[test]
    fn a_line_has_no_end_by_unicode_either_and_the_value_is_the_same() {
        let name = "a\u{2028}\\\"b";
        let users = || Receiver::User(UserName::parse(name).unwrap());
        let groups = || Receiver::Group(GroupName::parse(name).unwrap());
        for to in [users(), groups()] {
            for body in ODD {
                let message = message(7, to.clone(), body);
                let rendered = Rendered::default();
                let text = |mut writer: Writer| {
                    rendered.write(&mut writer, &message);
                    String::from_utf8(writer.finish().concat()).unwrap()
                };
                let (line, plain) = (text(Writer::lines()), text(Writer::default()));
                let ends = ['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'];
                assert!(!line.contains(ends), "{line:?}");
                assert!(plain.contains(body), "{plain:?}");
                let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
                assert_eq!(value(&line), value(&plain));
                assert_eq!(line_bytes_of(&message), line.len() + 1);
                assert_eq!(bytes_of(&message), plain.len() + 1);
            }
        }
    }

    #[test]
    fn a_message_of_a_group_is_serialised_once_and_never_mistaken_for_another() {
        let rendered = Rendered::default();
        let group = || Receiver::Group(GroupName::parse("team").unwrap());
        let long = format!("\"{}\"", "x".repeat(2000));
        let (one, other) = (message(1, group(), &long), message(65, group(), "2"));
        let first = rendered.text_of(&one, false);
        assert_eq!(first.as_ptr(), rendered.text_of(&one, true).as_ptr());
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
