//! One message as one line, for people or as JSON.

use std::io::{self, Write};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::clock;

/// What a line shows of a message.
#[derive(Deserialize)]
struct Message<'a> {
    sequence: String,
    id: u64,
    from: String,
    to: Option<String>,
    group: Option<String>,
    at: u64,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Writes the message and flushes, so that whoever reads a pipe sees it at once.
pub(super) fn write(message: &RawValue, json: bool, out: &mut dyn Write) -> io::Result<()> {
    if json {
        writeln!(out, "{}", one_line(message.get()))?;
    } else {
        let shown: Message<'_> = serde_json::from_str(message.get())?;
        let receiver = match (&shown.to, &shown.group) {
            (Some(to), _) => to.clone(),
            (None, Some(group)) => format!("[{group}]"),
            (None, None) => String::new(),
        };
        let (at, sequence, id) = (clock::rfc3339(shown.at), &shown.sequence, shown.id);
        let line = format!(
            "{at} {sequence} {id} {} -> {receiver}: {}",
            shown.from,
            shown.body.get()
        );
        writeln!(out, "{}", one_line(&line))?;
    }
    out.flush()
}

/// A body is kept byte for byte, also with line breaks between its parts; inside JSON strings there are
/// none. Other control characters, which could steer a terminal, are replaced as well.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, json: bool) -> String {
        let mut out = Vec::new();
        let raw = RawValue::from_string(message.to_owned()).unwrap();
        write(&raw, json, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    const DIRECT: &str = "{\"sequence\":\"direct\",\"id\":7,\"prev\":3,\"n\":2,\"from\":\"alice\",\"to\":\"bob\",\
                          \"at\":1763890000123,\"body\":{\n  \"text\": \"a\\nb\"\n}}";

    #[test]
    fn a_message_is_one_line_whatever_its_body() {
        assert_eq!(
            line(DIRECT, false),
            "2025-11-23T09:26:40.123Z direct 7 alice -> bob: {   \"text\": \"a\\nb\" }\n"
        );
        let json = line(DIRECT, true);
        assert_eq!(json.lines().count(), 1);
        let (kept, sent): (serde_json::Value, serde_json::Value) = (
            serde_json::from_str(&json).unwrap(),
            serde_json::from_str(DIRECT).unwrap(),
        );
        assert_eq!(kept, sent);
    }

    #[test]
    fn a_group_stands_in_brackets() {
        let message = DIRECT.replace("\"to\":\"bob\"", "\"group\":\"team\"");
        assert!(line(&message, false).contains("alice -> [team]: "));
    }

    #[test]
    fn a_body_cannot_steer_the_terminal() {
        let message = DIRECT.replace("a\\nb", "\u{9b}31m");
        assert!(!line(&message, false).contains('\u{9b}'));
    }
}
