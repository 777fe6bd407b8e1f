//! User and group names.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

/// The longest name, in bytes of UTF-8: what fits a phone number, an e-mail address or a UUID with a
/// prefix, and keeps every key small.
pub const NAME_BYTES_MAX: usize = 128;

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a {what} name is 1 to {NAME_BYTES_MAX} bytes of UTF-8 without control characters, and not `.` or `..`; \
     this one {fault}"
)]
pub struct NameError {
    what: &'static str,
    fault: NameFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NameFault {
    Empty,
    Long(usize),
    Control,
    Dots,
}

impl fmt::Display for NameFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::Long(bytes) => write!(f, "has {bytes} bytes"),
            Self::Control => f.write_str("has a control character"),
            Self::Dots => f.write_str("is one that browsers take out of a path"),
        }
    }
}

fn check(what: &'static str, text: &str) -> Result<(), NameError> {
    let fault = if text.is_empty() {
        NameFault::Empty
    } else if text.len() > NAME_BYTES_MAX {
        NameFault::Long(text.len())
    } else if text.chars().any(char::is_control) {
        NameFault::Control
    } else if matches!(text, "." | "..") {
        NameFault::Dots
    } else {
        return Ok(());
    };
    Err(NameError { what, fault })
}

/// The name of a user: 1 to 128 bytes of UTF-8 without control characters, and not `.` or `..`, which browsers
/// take out of a path, also percent-encoded. Kept and compared byte for byte: two spellings of one character (NFC and
/// NFD) are two names. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct UserName(Arc<str>);

/// The name of a group: the same rule as for users, in a space of its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct GroupName(Arc<str>);

impl UserName {
    /// Checks the rule for names.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check("user", text).map(|()| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl GroupName {
    /// Checks the rule for names.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check("group", text).map(|()| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl<'de> Deserialize<'de> for UserName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for GroupName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_kept_and_said() {
        assert!(UserName::parse("bob").is_ok());
        assert!(GroupName::parse("a/b ü 日本").is_ok());
        assert!(UserName::parse(&"x".repeat(128)).is_ok());
        for wrong in ["", ".", "..", "a\nb", "a\u{0}", "\u{85}", &"x".repeat(129)] {
            let error = UserName::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("1 to 128 bytes"), "{error}");
            assert!(GroupName::parse(wrong).is_err(), "{wrong:?}");
        }
        assert!(UserName::parse("...").is_ok());
    }
}
