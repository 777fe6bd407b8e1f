//! The head of a request that has been found right once: one that comes again on the same connection, byte for byte the
//! same but for its cursor, needs no parser, no routes and no check of its token.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::LazyLock;

use warp::http::Uri;

use crate::model::After;

/// The longest head that is remembered.
const HEAD_BYTES_MAX: usize = 4 * 1024;
/// The longest cursor that is taken from a head: two numbers of 20 digits and a tag are shorter.
const CURSOR_BYTES_MAX: usize = 64;

/// Nobody outside knows it, so nobody can make two heads that are taken for one another.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// A head, without the cursor in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) struct RememberedHead {
    /// Of what stands before the cursor, and of what stands behind it.
    hash: u64,
    cursor_at: u16,
}

impl RememberedHead {
    /// Of bytes that hyper has read as the head of a GET without a body; none if they are more than one head, or its
    /// cursor stands where it could be mistaken.
    pub(in crate::http) fn of(head: &[u8]) -> Option<Self> {
        if head.len() > HEAD_BYTES_MAX || !is_one_head(head) {
            return None;
        }
        let cursor = cursor_of(head)?;
        let hash = hash(head, &cursor)?;
        let cursor_at = u16::try_from(cursor.start).ok()?;
        Some(Self { hash, cursor_at })
    }

    /// The cursor, if this is the same head.
    pub(in crate::http) fn cursor_in(self, said: &[u8]) -> Option<After> {
        let start = usize::from(self.cursor_at);
        let rest = said.get(start..)?;
        let length = rest.iter().position(|byte| matches!(byte, b'&' | b' '))?;
        let text = rest.get(..length).filter(|text| is_plain(text))?;
        if length > CURSOR_BYTES_MAX || hash(said, &(start..start + length))? != self.hash {
            return None;
        }
        After::parse(std::str::from_utf8(text).ok()?).ok()
    }
}

/// Whether the text means the same percent-decoded.
fn is_plain(text: &[u8]) -> bool {
    text.iter()
        .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'.')
}

fn hash(head: &[u8], cursor: &Range<usize>) -> Option<u64> {
    let before = head.get(..cursor.start)?;
    let behind = head.get(cursor.end..)?;
    Some(HASHER.hash_one((before, behind)))
}

/// Whether the bytes are one head and nothing else. Parsers also take a single LF for the end of a line.
fn is_one_head(head: &[u8]) -> bool {
    let Some(lines) = head.strip_suffix(b"\r\n\r\n") else {
        return false;
    };
    let mut rest = lines;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, behind) = rest.split_at(at);
        if line.last() != Some(&b'\r') || line.len() < 2 {
            return false;
        }
        rest = behind.get(1..).unwrap_or_default();
    }
    !rest.is_empty() && rest.last() != Some(&b'\r')
}

/// Where the first `after` of the query has its value.
fn cursor_of(head: &[u8]) -> Option<Range<usize>> {
    const METHOD: &str = "GET ";
    let end = head.windows(2).position(|pair| pair == b"\r\n")?;
    let line = std::str::from_utf8(head.get(..end)?).ok()?;
    let (target, _) = line.strip_prefix(METHOD)?.split_once(' ')?;
    let (path, query) = target.split_once('?')?;
    // As the long way reads it.
    if target.parse::<Uri>().ok()?.query() != Some(query) {
        return None;
    }
    let mut start = METHOD.len() + path.len() + 1;
    for pair in query.split('&') {
        let name = form_urlencoded::parse(pair.as_bytes()).next();
        if name.is_some_and(|(name, _)| name == "after") {
            let value = pair.strip_prefix("after=")?;
            start += pair.len() - value.len();
            return Some(start..start + value.len());
        }
        start += pair.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer x\r\n\r\n")
    }

    fn of(head: &str) -> Option<RememberedHead> {
        RememberedHead::of(head.as_bytes())
    }

    #[test]
    fn a_head_is_known_again_whatever_its_cursor() {
        for (before, behind) in [
            ("/v1/inbox?after=", ""),
            ("/v1/inbox?wait=30&after=", "&limit=5"),
            ("/v1/inbox?afters=1&after=", "&after=7.7"),
            ("/v1/inbox?&x&after=", "&"),
            ("http://a/v1/inbox?after=", "&x=?"),
        ] {
            let head = |cursor: &str| head(&format!("{before}{cursor}{behind}"));
            let known = of(&head("now")).unwrap();
            for cursor in ["0", "now", "1.0", "71.20", "3.4.0aabe3ff"] {
                let said = head(cursor);
                let found = known.cursor_in(said.as_bytes());
                assert_eq!(found, After::parse(cursor).ok(), "{said}");
                assert_eq!(of(&said), Some(known));
            }
            let wrong = [
                "",
                "1",
                "+1.0",
                " 1.0",
                "1.0 ",
                "-1.0",
                "1.0.xyz",
                "1%2e0",
                "1.0#",
                "1.0?",
                "99999999999999999999.0",
                "1.0\r\nx: y\r\n",
                "1.0&after=2.0",
                "1.0&",
            ];
            for cursor in wrong {
                assert_eq!(known.cursor_in(head(cursor).as_bytes()), None, "{cursor:?}");
            }
            let long = format!("{:0>70}.0", 7);
            assert_eq!(known.cursor_in(head(&long).as_bytes()), None);
        }
    }

    #[test]
    fn what_is_more_or_less_than_one_head_or_has_no_plain_cursor_is_not_remembered() {
        let whole = head("/v1/inbox?after=1.0");
        assert!(of(&whole).is_some());
        for other in [
            head("/v1/inbox"),
            head("/v1/inbox?wait=3"),
            head("/v1/inbox?%61fter=1.0&after=2.0"),
            head("/v1/inbox?x=1#&after=1.0"),
            head("/v1/inbox?after"),
            format!("{whole}{whole}"),
            format!("{whole}x"),
            format!("\r\n{whole}"),
            whole.replace("\r\n", "\n"),
            whole.replacen("\r\n", "\n", 1),
            whole.replacen("\r\nauth", "\n\r\nauth", 1),
            format!("GET /healthz?after=1.0 HTTP/1.1\nhost: a\n\n{whole}"),
            format!("GET /healthz?after=1.0 HTTP/1.1\r\nhost: a\n\r\n{whole}"),
            whole.strip_suffix('\n').unwrap().to_owned(),
            whole.replace("GET", "POST"),
            whole.replace("host: a", &format!("host: {}", "a".repeat(5000))),
            "\r\n\r\n".to_owned(),
            String::new(),
        ] {
            assert_eq!(of(&other), None, "{other:?}");
        }
    }

    #[test]
    fn any_other_byte_is_another_head() {
        let whole = head("/v1/inbox?after=1.0&wait=3").into_bytes();
        let known = RememberedHead::of(&whole).unwrap();
        let cursor = usize::from(known.cursor_at)..usize::from(known.cursor_at) + 3;
        for at in 0..whole.len() {
            let mut less = whole.clone();
            less.remove(at);
            let mut more = whole.clone();
            more.insert(at, b'x');
            let mut other = whole.clone();
            other[at] ^= 0x20;
            for changed in [less, more, other] {
                let inside = cursor.contains(&at) || at == cursor.end;
                let found = known.cursor_in(&changed);
                assert!(found.is_none() || inside, "byte {at}: {found:?}");
            }
        }
    }
}
