//! Query parameters, strictly.
//!
//! Unknown ones are ignored; of one that is repeated the first counts. An error names the parameter,
//! what it was (at most 64 bytes of it) and what it may be.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use crate::http::response::json;
use crate::http::response::problem::Problem;
use crate::model::{After, Bound, Message, PageLimit};

/// How much of a wrong value is repeated.
const ECHO_BYTES_MAX: usize = 64;

/// What `page_bytes` may be: a page without messages is shorter.
pub(in crate::http) const PAGE_BYTES_MIN: u64 = 256;
pub(in crate::http) const PAGE_BYTES_MAX: u64 = 1 << 20;
/// A page of a reply, when the client does not say.
const REPLY_BYTES: usize = 1 << 20;
/// A line or a frame, when the client does not say: many libraries read neither beyond 32 or 64 KiB.
const FRAME_BYTES: usize = 32 << 10;
/// The most that stands around the messages of a page: the rest of its object with a cursor of two ids of 20 digits
/// (129 bytes), the line's end, and a chunk's or a frame's head and end (10).
const AROUND_PAGE_BYTES: usize = 144;

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum PageForm {
    /// The body of a reply.
    Reply,
    /// One frame of a WebSocket.
    Frame,
    /// One line of an endless reply.
    Line,
    /// Events that are written at once.
    Events,
}

/// A parameter that some endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Parameter {
    After,
    Before,
    Heartbeat,
    LastEventId,
    Limit,
    PageBytes,
    Refusals,
    Token,
    Wait,
}

impl Parameter {
    const ALL: [Self; 9] = [
        Self::After,
        Self::Before,
        Self::Heartbeat,
        Self::LastEventId,
        Self::Limit,
        Self::PageBytes,
        Self::Refusals,
        Self::Token,
        Self::Wait,
    ];

    pub(in crate::http) const fn name(self) -> &'static str {
        match self {
            Self::After => "after",
            Self::Before => "before",
            Self::Heartbeat => "heartbeat",
            Self::LastEventId => "lastEventId",
            Self::Limit => "limit",
            Self::PageBytes => "page_bytes",
            Self::Refusals => "refusals",
            Self::Token => "token",
            Self::Wait => "wait",
        }
    }

    /// Whether a pair of the query gives this parameter. Libraries spell `lastEventId` in many ways (`last_event_id`,
    /// `last-event-id`, `Last-Event-ID`), and send it empty before there was an event.
    fn is_given_by(self, name: &str, value: &str) -> bool {
        if self != Self::LastEventId {
            return name == self.name();
        }
        let letters = name.bytes().filter(|byte| !matches!(byte, b'-' | b'_'));
        let letters = letters.map(|letter| letter.to_ascii_lowercase());
        letters.eq(*b"lasteventid") && !value.is_empty()
    }
}

/// A query, parsed once: where each parameter stands. It may hold a token, so it has no `Debug`.
pub(in crate::http) struct Query {
    raw: String,
    /// Where the pair of each of [`Parameter::ALL`] begins. Values stay in the text, as most of them need no decoding.
    pairs: [Option<u32>; Parameter::ALL.len()],
}

impl Query {
    pub(in crate::http) fn new(raw: String) -> Self {
        let mut pairs = [None; Parameter::ALL.len()];
        let mut begin = 0;
        for pair in raw.split('&') {
            if let Some((name, value)) = decoded(pair) {
                for (parameter, place) in Parameter::ALL.into_iter().zip(&mut pairs) {
                    if place.is_none() && parameter.is_given_by(&name, &value) {
                        *place = u32::try_from(begin).ok();
                    }
                }
            }
            // The `&` too.
            begin += pair.len() + 1;
        }
        Self { raw, pairs }
    }

    /// As it came.
    pub(in crate::http) fn raw(&self) -> &str {
        &self.raw
    }

    /// The first value of a parameter, decoded.
    pub(in crate::http) fn get(&self, parameter: Parameter) -> Option<Cow<'_, str>> {
        let mut pairs = Parameter::ALL.into_iter().zip(self.pairs);
        let (_, begin) = pairs.find(|(known, _)| *known == parameter)?;
        let rest = self.raw.get(usize::try_from(begin?).ok()?..)?;
        let (_, value) = decoded(rest)?;
        Some(value)
    }

    /// A whole number within limits.
    pub(in crate::http) fn number(
        &self,
        parameter: Parameter,
        limits: RangeInclusive<u64>,
    ) -> Result<Option<u64>, Problem> {
        let Some(text) = self.get(parameter) else {
            return Ok(None);
        };
        let number = digits(&text).filter(|number| limits.contains(number));
        number.map(Some).ok_or_else(|| {
            let (least, most) = (limits.start(), limits.end());
            wrong(
                parameter.name(),
                &text,
                &format!("a whole number from {least} to {most}"),
            )
        })
    }

    /// How much a page may hold, by `limit` and `page_bytes`.
    pub(in crate::http) fn page(&self, most: usize, form: PageForm) -> Result<PageLimit, Problem> {
        const USUAL: usize = 100;
        let messages = self.number(
            Parameter::Limit,
            1..=u64::try_from(most).unwrap_or(u64::MAX),
        )?;
        let bytes = self.number(Parameter::PageBytes, PAGE_BYTES_MIN..=PAGE_BYTES_MAX)?;
        let whole = |number: Option<u64>| number.and_then(|number| usize::try_from(number).ok());
        let (usual, size_of): (_, fn(&Message) -> usize) = match form {
            PageForm::Reply => (REPLY_BYTES, json::bytes_of),
            PageForm::Frame => (FRAME_BYTES, json::bytes_of),
            PageForm::Line => (FRAME_BYTES, json::line_bytes_of),
            PageForm::Events => (FRAME_BYTES, json::event_bytes_of),
        };
        Ok(PageLimit {
            messages: whole(messages).unwrap_or(USUAL.min(most)),
            bytes: whole(bytes)
                .unwrap_or(usual)
                .saturating_sub(AROUND_PAGE_BYTES),
            size_of,
        })
    }

    /// Where an inbox goes on; the beginning if it does not say.
    pub(in crate::http) fn after(&self) -> Result<After, Problem> {
        self.get(Parameter::After)
            .map_or(Ok(After::START), |text| Ok(After::parse(&text)?))
    }

    /// Which way a history goes.
    pub(in crate::http) fn bound(&self) -> Result<Bound, Problem> {
        match (
            self.number(Parameter::Before, 0..=u64::MAX)?,
            self.number(Parameter::After, 0..=u64::MAX)?,
        ) {
            (None, None) => Ok(Bound::Newest),
            (Some(id), None) => Ok(Bound::Before(id)),
            (None, Some(id)) => Ok(Bound::After(id)),
            (Some(_), Some(_)) => Err(Problem::BadQuery(
                "`before` and `after` exclude each other: give one of them".to_owned(),
            )),
        }
    }
}

/// The first pair of a query's text.
fn decoded(text: &str) -> Option<(Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(text.as_bytes()).next()
}

/// A refusal that says what was given and what may be.
pub(in crate::http) fn wrong(name: &str, given: &str, wanted: &str) -> Problem {
    let shown = beginning(given, ECHO_BYTES_MAX);
    let more = if shown.len() < given.len() { "…" } else { "" };
    Problem::BadQuery(format!("`{name}` is {shown:?}{more}, but must be {wanted}"))
}

/// At most so many bytes of a text, cut between characters.
pub(in crate::http) fn beginning(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Digits only: no sign, no blank.
pub(in crate::http) fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::new(text.to_owned())
    }

    #[test]
    fn the_first_of_repeated_parameters_counts_and_unknown_ones_do_not() {
        let limit = |text, most| query(text).page(most, PageForm::Reply).unwrap().messages;
        assert_eq!(limit("x=1&limit=5&limit=7", 1000), 5);
        assert_eq!(limit("", 1000), 100);
        assert_eq!(limit("", 10), 10);
    }

    #[test]
    fn names_and_values_are_decoded_and_empty_pairs_skipped() {
        let query = query("&&%61fter=now%2B+&&before&wait==5&token=a%26limit%3D3");
        let get = |parameter| query.get(parameter);
        assert_eq!(get(Parameter::After).as_deref(), Some("now+ "));
        assert_eq!(get(Parameter::Before).as_deref(), Some(""));
        assert_eq!(get(Parameter::Wait).as_deref(), Some("=5"));
        assert_eq!(get(Parameter::Token).as_deref(), Some("a&limit=3"));
        assert_eq!(get(Parameter::Limit), None);
    }

    #[test]
    fn the_last_id_of_an_event_source_has_many_spellings_and_counts_if_it_says_something() {
        for name in [
            "lastEventId",
            "last_event_id",
            "last-event-id",
            "Last-Event-ID",
            "lastEventID",
        ] {
            let text = format!("after=now&lastEventId=&{name}=7.1.ab&lastEventId=9");
            assert_eq!(
                query(&text).get(Parameter::LastEventId).as_deref(),
                Some("7.1.ab")
            );
        }
        assert_eq!(
            query("lastEventIds=1&eventId=2").get(Parameter::LastEventId),
            None
        );
    }

    #[test]
    fn numbers_are_plain_and_within_limits() {
        for wrong in [
            "0",
            "1001",
            "-1",
            "+5",
            " 5",
            "5 ",
            "",
            "5.0",
            "1e2",
            "99999999999999999999",
        ] {
            let pairs = form_urlencoded::Serializer::new(String::new())
                .append_pair("limit", wrong)
                .finish();
            let error = query(&pairs).page(1000, PageForm::Line);
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains("`limit`") && error.contains("1 to 1000"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_long_wrong_value_is_not_repeated_whole() {
        let error = query(&format!("limit={}", "ü".repeat(500)))
            .page(10, PageForm::Frame)
            .unwrap_err();
        assert!(error.to_string().len() < 160, "{error}");
    }

    #[test]
    fn bounds_exclude_each_other() {
        assert_eq!(query("").bound(), Ok(Bound::Newest));
        assert_eq!(query("before=7").bound(), Ok(Bound::Before(7)));
        assert_eq!(query("after=7").bound(), Ok(Bound::After(7)));
        assert!(query("after=7&before=9").bound().is_err());
    }
}
