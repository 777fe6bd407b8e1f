//! Ids: the two sequences, positions in both, and the identity of a log.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One of the two global id lines.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Sequence {
    /// Messages from one user to another.
    Direct,
    /// Messages to a group.
    Group,
}

impl Sequence {
    /// Both, direct first.
    pub const ALL: [Self; 2] = [Self::Direct, Self::Group];

    /// `direct` or `group`, as in JSON and in paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Group => "group",
        }
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A place in both sequences: all ids up to and including these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Position {
    /// Last direct id; 0 is before the first.
    pub direct: u64,
    /// Last group id; 0 is before the first.
    pub group: u64,
}

impl Position {
    /// The id in one sequence.
    pub fn of(self, sequence: Sequence) -> u64 {
        match sequence {
            Sequence::Direct => self.direct,
            Sequence::Group => self.group,
        }
    }

    /// The id in one sequence, to change.
    pub fn of_mut(&mut self, sequence: Sequence) -> &mut u64 {
        match sequence {
            Sequence::Direct => &mut self.direct,
            Sequence::Group => &mut self.group,
        }
    }

    /// Whether both ids are at most those of `other`.
    pub fn within(self, other: Self) -> bool {
        self.direct <= other.direct && self.group <= other.group
    }

    /// The smaller id of each sequence.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            direct: self.direct.min(other.direct),
            group: self.group.min(other.group),
        }
    }
}

/// The random identity of one history, made at first start and when a copied directory starts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogId(pub [u8; 16]);

impl LogId {
    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        Some(Self(u128::from_str_radix(text, 16).ok()?.to_be_bytes()))
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_id_text_round_trips_and_refuses_other_text() {
        let id = LogId([7; 16]);
        assert_eq!(LogId::parse(&id.to_string()), Some(id));
        for wrong in [
            "",
            "07",
            "zz070707070707070707070707070707",
            "+7070707070707070707070707070707",
        ] {
            assert_eq!(LogId::parse(wrong), None, "{wrong}");
        }
    }
}
