//! What a body may hold so that every client can read it.
//!
//! A body reaches every receiver as it was written, within a page of others. A parser that stops at one body stops at
//! the page, and its client asks for the same page again: one body would lock it out. So what common parsers refuse
//! is refused when it is pushed: I-JSON (RFC 7493), as far as a parser breaks on it. Bodies that were stored before
//! are not checked again.
//!
//! The text is JSON already; this is one pass over its bytes, which keeps nothing but the keys of open objects.

use std::borrow::Cow;
use std::fmt;

/// Ruby's parser stops at 100 levels, serde's at 128, jq's at 256, PHP's and Perl's at 512, Python's near 1,000; a
/// page adds four of its own.
const DEPTH_MAX: usize = 64;
/// Python reads at most 4,300 digits of a whole number, Jackson 1,000 characters of any.
const NUMBER_BYTES_MAX: usize = 400;
/// A number of fewer characters and without an exponent is always within a double.
const NUMBER_BYTES_SAFE: usize = 300;
/// Jackson stops at keys of 50,000 characters.
const KEY_BYTES_MAX: usize = 32 * 1024;
/// `\u` and four digits.
const UNIT_BYTES: usize = 6;
/// How much of a key is repeated.
const ECHO_CHARS_MAX: usize = 32;

/// Where a body has something that some client could not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not every client can read this body: at byte {at}, {fault}")]
pub struct NotPortable {
    at: usize,
    fault: Fault,
}

impl NotPortable {
    /// The limit that is exceeded, if it is one.
    pub fn limit(&self) -> Option<usize> {
        match self.fault {
            Fault::Depth => Some(DEPTH_MAX),
            Fault::LongNumber(_) => Some(NUMBER_BYTES_MAX),
            Fault::LongKey(_) => Some(KEY_BYTES_MAX),
            Fault::LargeNumber | Fault::Surrogate | Fault::NulKey | Fault::SameKey(_) => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    Depth,
    LongNumber(usize),
    LargeNumber,
    Surrogate,
    LongKey(usize),
    NulKey,
    SameKey(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Depth => write!(
                f,
                "arrays and objects are nested more than {DEPTH_MAX} levels deep"
            ),
            Self::LongNumber(bytes) => write!(
                f,
                "a number has {bytes} characters; at most {NUMBER_BYTES_MAX}: write it as text"
            ),
            Self::LargeNumber => f.write_str(
                "a number is beyond the range of a double (1.8e308): write it as text",
            ),
            Self::Surrogate => f.write_str(
                "an escape is half of a surrogate pair, which is no character: a text was cut within one",
            ),
            Self::LongKey(bytes) => {
                write!(f, "a key has {bytes} bytes; at most {KEY_BYTES_MAX}")
            }
            Self::NulKey => f.write_str("a key begins with U+0000"),
            Self::SameKey(key) => write!(f, "the key {key:?} is in the same object twice"),
        }
    }
}

/// Checks JSON text that a parser has accepted.
pub(super) fn check(json: &str) -> Result<(), NotPortable> {
    Walk {
        text: json,
        at: 0,
        open: Vec::new(),
        keys: Vec::new(),
    }
    .run()
}

/// One pass over a text.
struct Walk<'a> {
    text: &'a str,
    at: usize,
    /// For each array and object that is open, how many keys were known before it.
    open: Vec<usize>,
    /// The keys of the objects that are open, and where each stands.
    keys: Vec<(Cow<'a, str>, usize)>,
}

impl<'a> Walk<'a> {
    fn run(mut self) -> Result<(), NotPortable> {
        while let Some(byte) = self.byte() {
            match byte {
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b'{' | b'[' => self.open()?,
                b'}' | b']' => self.close()?,
                _ => self.at += 1,
            }
        }
        Ok(())
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn since(&self, begin: usize) -> &'a str {
        self.text.get(begin..self.at).unwrap_or_default()
    }

    fn open(&mut self) -> Result<(), NotPortable> {
        if self.open.len() == DEPTH_MAX {
            return Err(fault(self.at, Fault::Depth));
        }
        self.open.push(self.keys.len());
        self.at += 1;
        Ok(())
    }

    /// The keys of the object that ends here: no two are the same.
    fn close(&mut self) -> Result<(), NotPortable> {
        self.at += 1;
        let Some(begin) = self.open.pop() else {
            return Ok(());
        };
        let keys = self.keys.get_mut(begin..).unwrap_or_default();
        keys.sort_unstable();
        for pair in keys.windows(2) {
            if let [(one, _), (other, at)] = pair
                && one == other
            {
                let key = other.chars().take(ECHO_CHARS_MAX).collect();
                return Err(fault(*at, Fault::SameKey(key)));
            }
        }
        self.keys.truncate(begin);
        Ok(())
    }

    fn number(&mut self) -> Result<(), NotPortable> {
        let begin = self.at;
        let mut exponent = false;
        while let Some(byte @ (b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')) = self.byte() {
            exponent |= matches!(byte, b'e' | b'E');
            self.at += 1;
        }
        let number = self.since(begin);
        if number.len() > NUMBER_BYTES_MAX {
            return Err(fault(begin, Fault::LongNumber(number.len())));
        }
        if (exponent || number.len() > NUMBER_BYTES_SAFE)
            && number.parse().is_ok_and(f64::is_infinite)
        {
            return Err(fault(begin, Fault::LargeNumber));
        }
        Ok(())
    }

    fn string(&mut self) -> Result<(), NotPortable> {
        let begin = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            match self.byte() {
                None => return Ok(()),
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.byte() {
            self.at += 1;
        }
        if self.byte() == Some(b':') {
            let quoted = self.since(begin).trim_ascii_end();
            self.key(begin, quoted, escaped)?;
        }
        Ok(())
    }

    /// One escape, or the two of a surrogate pair.
    fn escape(&mut self) -> Result<(), NotPortable> {
        let begin = self.at;
        match self.unit(begin) {
            Some(0xd800..=0xdbff) => match self.unit(begin + UNIT_BYTES) {
                Some(0xdc00..=0xdfff) => self.at += 2 * UNIT_BYTES,
                _ => return Err(fault(begin, Fault::Surrogate)),
            },
            Some(0xdc00..=0xdfff) => return Err(fault(begin, Fault::Surrogate)),
            Some(_) => self.at += UNIT_BYTES,
            None => self.at += 2,
        }
        Ok(())
    }

    /// The number in a `\u` escape; none if there is another thing.
    fn unit(&self, begin: usize) -> Option<u16> {
        let escape = self.text.get(begin..begin + UNIT_BYTES)?;
        u16::from_str_radix(escape.strip_prefix("\\u")?, 16).ok()
    }

    fn key(&mut self, at: usize, quoted: &'a str, escaped: bool) -> Result<(), NotPortable> {
        if quoted.len() > KEY_BYTES_MAX {
            return Err(fault(at, Fault::LongKey(quoted.len())));
        }
        // Two ways to write a key are the same key.
        let key = if escaped {
            Cow::Owned(serde_json::from_str(quoted).unwrap_or_default())
        } else {
            let inside = quoted.get(1..quoted.len() - 1);
            Cow::Borrowed(inside.unwrap_or_default())
        };
        if key.starts_with('\0') {
            return Err(fault(at, Fault::NulKey));
        }
        self.keys.push((key, at));
        Ok(())
    }
}

fn fault(at: usize, fault: Fault) -> NotPortable {
    NotPortable { at, fault }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn nested(open: &str, inner: &str, close: &str, levels: usize) -> String {
        open.repeat(levels) + inner + &close.repeat(levels)
    }

    fn refusal(json: &str) -> (usize, String, Option<usize>) {
        let refused = check(json).expect_err(json);
        (refused.at, refused.to_string(), refused.limit())
    }

    #[test]
    fn what_every_parser_reads_is_taken() {
        for json in [
            "null",
            "-0",
            "-0.0",
            "0e99999999999999999999",
            "1e-99999999999999999999",
            "1.7976931348623157e308",
            "-1.7976931348623157E+308",
            "123456789012345678901234567890.000100e+0200",
            "\"\\ud83d\\ude00 \\uD83D\\uDE00 \\\\ud800 \\\"\\\\\"",
            "\"\\u0000 \\uffff \u{feff} \u{2028} \u{7f} \u{ffff}\"",
            "{\"\":1,\"a\":1,\"A\":2,\"e\\u0301\":1,\"\\u00e9\":2}",
            "[{\"a\":1},{\"a\":1},{\"b\":{\"a\":[{\"a\":1}]},\"a\":1}]",
            "{\"a\":{\"a\":{\"b\":1},\"b\":2},\"b\":[\"a\",\"a\"]}",
            "{\"a\":\"\\u0000\",\"a\\u0000\":1}",
            "{ \"a\" : \":\" , \"b\" : [ \"a\" , \":\" ] }",
            "{\"{{{[[[\":\"}]]]\"}",
            &nested("[", "", "]", 64),
            &nested("{\"a\":", "1", "}", 64),
            &nested("[{\"a\":", "[]", "}]", 31),
            &format!("[{}[]]", "[],".repeat(1000)),
            &"9".repeat(300),
            &format!("1{}", "0".repeat(308)),
            &format!("0.{}", "1".repeat(398)),
            &format!("{{\"{}\":1}}", "k".repeat(KEY_BYTES_MAX - 2)),
        ] {
            assert_eq!(check(json), Ok(()), "{json}");
        }
    }

    #[test]
    fn what_some_parser_refuses_is_refused_and_says_where() {
        for (json, at, words, limit) in [
            (nested("[", "", "]", 65), 64, "64 levels", Some(64)),
            (nested("[", "", "]", 1100), 64, "64 levels", Some(64)),
            (nested("{\"a\":", "1", "}", 65), 320, "64 levels", Some(64)),
            (
                format!("[{}]", "1".repeat(401)),
                1,
                "401 characters",
                Some(400),
            ),
            ("1".repeat(60_000), 0, "60000 characters", Some(400)),
            (
                format!("0.{}", "1".repeat(399)),
                0,
                "401 characters",
                Some(400),
            ),
            (
                format!("1e-{}", "1".repeat(398)),
                0,
                "401 characters",
                Some(400),
            ),
            ("1".repeat(400), 0, "range of a double", None),
            (
                format!("-1{}", "0".repeat(309)),
                0,
                "range of a double",
                None,
            ),
            ("[1, 1e400]".to_owned(), 4, "range of a double", None),
            ("-1.8E+308".to_owned(), 0, "range of a double", None),
            (
                "1e99999999999999999999".to_owned(),
                0,
                "range of a double",
                None,
            ),
            ("\"\\ud800\"".to_owned(), 1, "surrogate", None),
            ("\"ab\\uDC00\"".to_owned(), 3, "surrogate", None),
            ("\"\\udc00\\ud800\"".to_owned(), 1, "surrogate", None),
            ("\"\\ud800\\ud800\"".to_owned(), 1, "surrogate", None),
            ("\"\\ud800\\n\"".to_owned(), 1, "surrogate", None),
            ("\"\\ud800 \\udc00\"".to_owned(), 1, "surrogate", None),
            ("{\"\\ud83d\":1}".to_owned(), 2, "surrogate", None),
            ("{\"\\u0000a\":1}".to_owned(), 1, "U+0000", None),
            ("{\"a\":1,\"b\":2,\"a\":3}".to_owned(), 13, "\"a\"", None),
            ("{\"a\":1,\"\\u0061\":2}".to_owned(), 7, "\"a\"", None),
            ("[{\"b\":{\"\":1 , \"\" :2}}]".to_owned(), 14, "twice", None),
            ("{\"a\":{\"a\":1},\"a\":2}".to_owned(), 13, "\"a\"", None),
            (
                format!("{{\"{}\":1}}", "k".repeat(KEY_BYTES_MAX - 1)),
                1,
                "32769 bytes",
                Some(KEY_BYTES_MAX),
            ),
        ] {
            let (found_at, said, found_limit) = refusal(&json);
            assert_eq!((found_at, found_limit), (at, limit), "{said}");
            assert!(said.contains(words) && said.len() < 300, "{said}");
        }
    }

    /// Text of JSON with all that the rules are about, some of it beyond them.
    fn json() -> impl Strategy<Value = String> {
        let text = prop_oneof![
            "[a-c]{0,2}",
            Just("\\u0061".to_owned()),
            Just("\\ud83d\\ude00".to_owned()),
            Just("\\ud83d".to_owned()),
            Just("\\ude00\\ud83d".to_owned()),
            Just("\\\\ud83d\\\"".to_owned()),
            Just("\\u0000".to_owned()),
        ]
        .prop_map(|inside| format!("\"{inside}\""));
        let number = prop_oneof![
            "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,3})?",
            (290_usize..420).prop_map(|digits| "7".repeat(digits)),
        ];
        let leaf = prop_oneof![text.clone(), number, Just("null".to_owned())];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            let pair = (text.clone(), inner.clone()).prop_map(|(key, value)| key + ": " + &value);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5)
                    .prop_map(|items| format!("[{}]", items.join(" ,"))),
                prop::collection::vec(pair, 0..4)
                    .prop_map(|pairs| format!("{{ {} }}", pairs.join(","))),
                (inner, 1_usize..70).prop_map(|(inner, levels)| nested("[", &inner, "]", levels)),
            ]
        })
    }

    /// The same rules, of a parser's tree: what serde has read into it has no lone surrogate and only finite numbers.
    fn levels(value: &Value) -> usize {
        match value {
            Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(levels).max().unwrap_or(0),
            _ => 0,
        }
    }

    fn nul_key(value: &Value) -> bool {
        match value {
            Value::Array(items) => items.iter().any(nul_key),
            Value::Object(fields) => {
                fields.keys().any(|key| key.starts_with('\0')) || fields.values().any(nul_key)
            }
            _ => false,
        }
    }

    /// Written again, an object without its repeated keys has fewer.
    fn colons(text: &str) -> usize {
        let mut count = 0;
        let mut inside = false;
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => drop(bytes.next()),
                b'"' => inside = !inside,
                b':' if !inside => count += 1,
                _ => {}
            }
        }
        count
    }

    proptest! {
        #[test]
        fn the_same_is_taken_as_by_a_parser_of_trees(json in json()) {
            let read: Result<Value, _> = serde_json::from_str(&json);
            // serde itself stops at 128 levels.
            let right = read.is_ok_and(|value| {
                levels(&value) <= DEPTH_MAX
                    && !nul_key(&value)
                    && colons(&json) == colons(&value.to_string())
            });
            let long = json.split(|c: char| !c.is_ascii_digit()).any(|part| part.len() > NUMBER_BYTES_MAX);
            prop_assert_eq!(check(&json).is_ok(), right && !long, "{}", json);
        }

        #[test]
        fn no_text_is_too_much(text in "[\\[\\]{}\":,\\\\ud8c0-9eE.+ é\u{10000}-]{0,60}") {
            drop(check(&text));
        }
    }
}
