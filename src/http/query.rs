//! Query parameters, strictly.
//!
//! Unknown ones are ignored; of one that is repeated the first counts. An error names the parameter,
//! what it was (at most 64 bytes of it) and what it may be.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use super::reply::Refusal;
use crate::model::{After, Bound};

/// How much of a wrong value is repeated.
const ECHO_BYTES_MAX: usize = 64;

/// A query as it came. It may hold a token, so it has no `Debug`.
pub(super) struct Query(String);

impl Query {
    pub(super) fn new(raw: String) -> Self {
        Self(raw)
    }

    /// As it came.
    pub(super) fn raw(&self) -> &str {
        &self.0
    }

    /// The first value of a parameter, decoded.
    pub(super) fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        form_urlencoded::parse(self.0.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value)
    }

    /// A whole number within limits.
    pub(super) fn number(
        &self,
        name: &str,
        limits: RangeInclusive<u64>,
    ) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let number = digits(&text).filter(|number| limits.contains(number));
        number.map(Some).ok_or_else(|| {
            let (least, most) = (limits.start(), limits.end());
            wrong(
                name,
                &text,
                &format!("a whole number from {least} to {most}"),
            )
        })
    }

    /// How many messages a page may have.
    pub(super) fn limit(&self, most: usize) -> Result<usize, Refusal> {
        const USUAL: usize = 100;
        let limit = self.number("limit", 1..=u64::try_from(most).unwrap_or(u64::MAX))?;
        Ok(limit
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(USUAL.min(most)))
    }

    /// Where an inbox goes on; the beginning if it does not say.
    pub(super) fn after(&self) -> Result<After, Refusal> {
        self.get("after")
            .map_or(Ok(After::START), |text| Ok(After::parse(&text)?))
    }

    /// Which way a history goes.
    pub(super) fn bound(&self) -> Result<Bound, Refusal> {
        match (
            self.number("before", 0..=u64::MAX)?,
            self.number("after", 0..=u64::MAX)?,
        ) {
            (None, None) => Ok(Bound::Newest),
            (Some(id), None) => Ok(Bound::Before(id)),
            (None, Some(id)) => Ok(Bound::After(id)),
            (Some(_), Some(_)) => Err(Refusal::BadQuery(
                "`before` and `after` exclude each other: give one of them".to_owned(),
            )),
        }
    }
}

/// A refusal that says what was given and what may be.
pub(super) fn wrong(name: &str, given: &str, wanted: &str) -> Refusal {
    let shown = beginning(given, ECHO_BYTES_MAX);
    let more = if shown.len() < given.len() { "…" } else { "" };
    Refusal::BadQuery(format!("`{name}` is {shown:?}{more}, but must be {wanted}"))
}

/// At most so many bytes of a text, cut between characters.
pub(super) fn beginning(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// Digits only: no sign, no blank.
pub(super) fn digits(text: &str) -> Option<u64> {
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
        assert_eq!(query("x=1&limit=5&limit=7").limit(1000), Ok(5));
        assert_eq!(query("").limit(1000), Ok(100));
        assert_eq!(query("").limit(10), Ok(10));
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
            let error = query(&pairs).limit(1000).unwrap_err().to_string();
            assert!(
                error.contains("`limit`") && error.contains("1 to 1000"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_long_wrong_value_is_not_repeated_whole() {
        let error = query(&format!("limit={}", "ü".repeat(500)))
            .limit(10)
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
