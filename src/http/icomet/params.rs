//! Parameters as icomet takes them: of the query or of a form, with names in any case.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::http::response::problem::Problem;
use crate::model::UserName;

/// The longest name of a callback.
const CALLBACK_BYTES_MAX: usize = 128;

/// What was asked: pairs as they came, those of a form before those of the query. They may hold a token or the
/// key, so there is no `Debug`.
pub(super) struct Params(Vec<(String, String)>);

/// The name of a function of the page that asks, safe to be put into a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Callback(Box<str>);

impl Callback {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Identifiers with dots between them, such as `jQuery1102_163` or `app.push.cb`.
    fn parse(text: &str) -> Option<Self> {
        let identifier = |part: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$';
            part.bytes().all(plain) && !part.starts_with(|c: char| c.is_ascii_digit())
        };
        let good = text.len() <= CALLBACK_BYTES_MAX
            && text
                .split('.')
                .all(|part| !part.is_empty() && identifier(part));
        good.then(|| Self(text.into()))
    }
}

impl Params {
    pub(super) fn of_query(query: &str) -> Result<Self, Problem> {
        Ok(Self(pairs(query.as_bytes())?))
    }

    /// Values of a form win over those of the query, name by name.
    pub(super) fn add_form(&mut self, form: &[u8]) -> Result<(), Problem> {
        let mut form = pairs(form)?;
        form.append(&mut self.0);
        self.0 = form;
        Ok(())
    }

    /// The first value of this name; empty without one.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map_or("", |(_, value)| value)
    }

    /// The digits at the beginning, with their sign; 0 without any.
    pub(super) fn number(&self, name: &str) -> i64 {
        let text = self.get(name).trim_start();
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let value = digits
            .bytes()
            .map_while(|byte| char::from(byte).to_digit(10))
            .fold(0_i64, |value, digit| {
                value.saturating_mul(10).saturating_add(digit.into())
            });
        if negative { -value } else { value }
    }

    /// The channel: a user's name.
    pub(super) fn channel(&self) -> Result<UserName, Problem> {
        Ok(UserName::parse(self.get("cname"))?)
    }

    /// Whether this is asked for, by `1`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            "" | "0" => Ok(false),
            "1" => Ok(true),
            _ => Err(Problem::BadQuery(format!("`{name}` must be 0 or 1"))),
        }
    }

    /// The channel behind which a list goes on.
    pub(super) fn after(&self) -> Result<Option<UserName>, Problem> {
        match self.get("after") {
            "" => Ok(None),
            name => Ok(Some(UserName::parse(name)?)),
        }
    }

    /// The function to call with the reply, if there is to be one.
    pub(super) fn callback(&self) -> Result<Option<Callback>, Problem> {
        match self.get("cb") {
            "" => Ok(None),
            text => Callback::parse(text).map(Some).ok_or_else(|| {
                Problem::BadQuery(format!(
                    "`cb` must be the name of a JavaScript function, at most {CALLBACK_BYTES_MAX} bytes: \
                     letters, digits, `_`, `$` and `.`"
                ))
            }),
        }
    }
}

/// `name=value&name=value`. What has no name says nothing.
fn pairs(text: &[u8]) -> Result<Vec<(String, String)>, Problem> {
    let mut found = Vec::new();
    for pair in text.split(|byte| *byte == b'&') {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let name = decode(halves.next().unwrap_or_default())?;
        let value = decode(halves.next().unwrap_or_default())?;
        if !name.is_empty() {
            found.push((name, value));
        }
    }
    Ok(found)
}

fn decode(text: &[u8]) -> Result<String, Problem> {
    let spaced: Cow<'_, [u8]> = if text.contains(&b'+') {
        let space = |byte: &u8| if *byte == b'+' { b' ' } else { *byte };
        text.iter().map(space).collect()
    } else {
        text.into()
    };
    let decoded: Vec<u8> = percent_decode(&spaced).collect();
    String::from_utf8(decoded)
        .map_err(|_| Problem::BadQuery("a parameter is not UTF-8 when it is decoded".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        Params::of_query(query).unwrap_or_else(|problem| panic!("{problem}"))
    }

    #[test]
    fn names_have_any_case_and_the_first_wins() {
        let query = params("CNAME=a&cname=b&_=1&x&&callback=?&_=2&token=&seq=5&");
        assert_eq!(query.get("cname"), "a");
        assert_eq!(query.get("Seq"), "5");
        assert_eq!(query.get("token"), "");
        assert_eq!(query.get("absent"), "");
        assert_eq!(query.get(""), "");
    }

    #[test]
    fn values_are_decoded_and_a_form_wins() {
        let mut both = params("cname=J%c3%bcrgen+%E6%97%A5&content=q&k==%3D=&raw=日%zz");
        assert_eq!(both.get("cname"), "Jürgen 日");
        assert_eq!(both.get("k"), "===");
        assert_eq!(both.get("raw"), "日%zz");
        both.add_form(b"Content=a%26b&other=1").unwrap();
        assert_eq!(
            (both.get("content"), both.get("cname")),
            ("a&b", "Jürgen 日")
        );
        assert!(both.add_form(b"content=%ff").is_err());
        assert!(Params::of_query("cname=%c3").is_err());
    }

    #[test]
    fn numbers_are_the_digits_in_front() {
        for (text, number) in [
            ("", 0),
            ("7", 7),
            ("7x", 7),
            ("x7", 0),
            ("-3", -3),
            ("%2B4", 4),
            ("+4", 4),
            ("4294967299", 4_294_967_299),
            ("99999999999999999999", i64::MAX),
            ("-99999999999999999999", -i64::MAX),
        ] {
            assert_eq!(
                params(&format!("seq={text}")).number("seq"),
                number,
                "{text}"
            );
        }
    }

    #[test]
    fn a_callback_is_a_name_and_nothing_else() {
        for good in ["icomet_cb_0", "jQuery1102_163", "$", "a.b.c", "_.$1"] {
            let found = params(&format!("cb={good}")).callback().unwrap().unwrap();
            assert_eq!(found.as_str(), good);
        }
        assert_eq!(params("cb=").callback(), Ok(None));
        let long = "x".repeat(CALLBACK_BYTES_MAX + 1);
        for bad in [
            "a(", "1a", "a..b", ".a", "a.", "a-b", "a[0]", "ä", "a%0A", "a;b", &long,
        ] {
            assert!(params(&format!("cb={bad}")).callback().is_err(), "{bad}");
        }
    }
}
