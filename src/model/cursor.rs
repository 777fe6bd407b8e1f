//! Cursors: where a reader stands, and whether this log can go on from there.
//!
//! The text is `D.G` or `D.G.L`: the last direct id, the last group id, and the first eight digits of
//! the log id. Clients keep it and hand it back; they need not understand it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::{LogId, Position};

/// The first four bytes of a log id: enough to tell one history from another in a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTag([u8; 4]);

impl From<LogId> for LogTag {
    fn from(log: LogId) -> Self {
        let [a, b, c, d, ..] = log.0;
        Self([a, b, c, d])
    }
}

impl fmt::Display for LogTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// Where a reader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// All that its reader may see up to here has been given.
    pub position: Position,
    /// The log that gave it; cursors written by hand may leave it out.
    pub tag: Option<LogTag>,
}

/// Where a reader wants to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// From here on.
    Now,
    /// After this cursor.
    Cursor(Cursor),
}

/// Why a text is not a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a cursor is `D.G` or `D.G.L` (two message ids and eight hexadecimal digits), `0` or `now`"
)]
pub struct CursorError;

impl Cursor {
    /// A cursor of this log.
    pub fn new(position: Position, log: LogId) -> Self {
        Self {
            position,
            tag: Some(log.into()),
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.position.direct, self.position.group)?;
        self.tag.map_or(Ok(()), |tag| write!(f, ".{tag}"))
    }
}

impl After {
    /// From the beginning.
    pub const START: Self = Self::Cursor(Cursor {
        position: Position {
            direct: 0,
            group: 0,
        },
        tag: None,
    });

    /// Reads `D.G`, `D.G.L`, `0` or `now`.
    pub fn parse(text: &str) -> Result<Self, CursorError> {
        match text {
            "now" => return Ok(Self::Now),
            "0" => return Ok(Self::START),
            _ => {}
        }
        let mut parts = text.split('.');
        let direct = parts.next().and_then(id).ok_or(CursorError)?;
        let group = parts.next().and_then(id).ok_or(CursorError)?;
        let tag = parts
            .next()
            .map(|part| tag(part).ok_or(CursorError))
            .transpose()?;
        if parts.next().is_some() {
            return Err(CursorError);
        }
        Ok(Self::Cursor(Cursor {
            position: Position { direct, group },
            tag,
        }))
    }
}

fn id(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn tag(text: &str) -> Option<LogTag> {
    let digits = text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits
        .then(|| u32::from_str_radix(text, 16).ok())
        .flatten()
        .map(|n| LogTag(n.to_be_bytes()))
}

/// An older log that this one continues, and the last ids that both share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// The older log.
    #[serde(with = "log_text")]
    pub log: LogId,
    /// Where they parted: ids up to here mean the same messages in both.
    pub parted: Position,
}

/// What this log is, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// The log that is written now.
    pub log: LogId,
    /// The logs before it, oldest first.
    pub ancestors: Vec<Ancestor>,
}

/// What a cursor means to this log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Go on from here.
    GoOn(Position),
    /// Beyond what this log shares with the cursor: start over here.
    Ahead {
        /// The last position that both share.
        restart: Position,
    },
    /// From a log that this one does not know: start over here.
    Unknown {
        /// The beginning of this log.
        restart: Position,
    },
    /// Before the first message that is still kept.
    Gone {
        /// The position before the first kept message.
        first: Position,
    },
}

impl Lineage {
    /// Decides what a cursor means, given the position before the first kept message and the
    /// watermark.
    pub fn resolve(&self, cursor: Cursor, floor: Position, watermark: Position) -> Resolution {
        let shared = match cursor.tag {
            None => Some(watermark),
            Some(tag) if tag == self.log.into() => Some(watermark),
            Some(tag) => self.shared_with(tag).map(|parted| parted.min(watermark)),
        };
        let Some(shared) = shared else {
            return Resolution::Unknown { restart: floor };
        };
        if !cursor.position.within(shared) {
            return Resolution::Ahead {
                restart: cursor.position.min(shared),
            };
        }
        let start = cursor.position == Position::default();
        if !start && !floor.within(cursor.position) {
            return Resolution::Gone { first: floor };
        }
        Resolution::GoOn(cursor.position)
    }

    /// The last ids that an older log shares with this one: what was lost at any parting since is not shared.
    fn shared_with(&self, tag: LogTag) -> Option<Position> {
        let mut shared: Option<Position> = None;
        for ancestor in self.ancestors.iter().rev() {
            let parted = shared.map_or(ancestor.parted, |later| later.min(ancestor.parted));
            if LogTag::from(ancestor.log) == tag {
                return Some(parted);
            }
            shared = Some(parted);
        }
        None
    }
}

/// A log id as 32 hexadecimal digits in text formats.
pub(crate) mod log_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    use crate::model::id::LogId;

    pub(crate) fn serialize<S: Serializer>(log: &LogId, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(log)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<LogId, D::Error> {
        let text = String::deserialize(from)?;
        LogId::parse(&text).ok_or_else(|| D::Error::custom("a log id is 32 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: LogId = LogId([0xaa; 16]);
    const OLD: LogId = LogId([0xbb; 16]);

    fn at(direct: u64, group: u64) -> Position {
        Position { direct, group }
    }

    fn lineage() -> Lineage {
        Lineage {
            log: HERE,
            ancestors: vec![Ancestor {
                log: OLD,
                parted: at(10, 5),
            }],
        }
    }

    fn resolve(text: &str) -> Resolution {
        let After::Cursor(cursor) = After::parse(text).unwrap() else {
            panic!("{text}")
        };
        lineage().resolve(cursor, at(3, 2), at(20, 8))
    }

    #[test]
    fn text_round_trips() {
        for text in ["7.9.aaaaaaaa", "0.0", "18446744073709551615.1.00000000"] {
            let After::Cursor(cursor) = After::parse(text).unwrap() else {
                panic!("{text}")
            };
            assert_eq!(cursor.to_string(), text);
        }
        assert_eq!(After::parse("now"), Ok(After::Now));
        assert_eq!(After::parse("0"), Ok(After::START));
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "1",
            "1.",
            ".1",
            "1.2.",
            "1.2.3",
            "1.2.aaaaaaaa.1",
            "-1.2",
            "+1.2",
            "1.2.aaaaaaag",
            "18446744073709551616.0",
            " 1.2",
            "NOW",
        ] {
            assert_eq!(After::parse(text), Err(CursorError), "{text}");
        }
    }

    #[test]
    fn a_cursor_goes_on_where_the_logs_agree() {
        assert_eq!(resolve("20.8"), Resolution::GoOn(at(20, 8)));
        assert_eq!(resolve("20.8.aaaaaaaa"), Resolution::GoOn(at(20, 8)));
        assert_eq!(resolve("10.5.bbbbbbbb"), Resolution::GoOn(at(10, 5)));
        assert_eq!(resolve("3.2"), Resolution::GoOn(at(3, 2)));
    }

    #[test]
    fn a_cursor_beyond_is_told_where_to_start_over() {
        assert_eq!(resolve("21.8"), Resolution::Ahead { restart: at(20, 8) });
        assert_eq!(
            resolve("5.9.aaaaaaaa"),
            Resolution::Ahead { restart: at(5, 8) }
        );
        assert_eq!(
            resolve("11.5.bbbbbbbb"),
            Resolution::Ahead { restart: at(10, 5) }
        );
        assert_eq!(
            resolve("5.6.bbbbbbbb"),
            Resolution::Ahead { restart: at(5, 5) }
        );
        assert_eq!(
            resolve("1.1.cccccccc"),
            Resolution::Unknown { restart: at(3, 2) }
        );
    }

    #[test]
    fn what_a_later_parting_lost_is_not_shared_with_an_older_log() {
        let older = Ancestor {
            log: LogId([0xcc; 16]),
            parted: at(15, 2),
        };
        let mut lineage = lineage();
        lineage.ancestors.insert(0, older);
        let resolve = |text: &str| {
            let After::Cursor(cursor) = After::parse(text).unwrap() else {
                panic!("{text}")
            };
            lineage.resolve(cursor, at(0, 0), at(20, 8))
        };
        assert_eq!(resolve("10.2.cccccccc"), Resolution::GoOn(at(10, 2)));
        assert_eq!(
            resolve("12.2.cccccccc"),
            Resolution::Ahead { restart: at(10, 2) }
        );
        assert_eq!(
            resolve("10.3.cccccccc"),
            Resolution::Ahead { restart: at(10, 2) }
        );
    }

    #[test]
    fn a_cursor_before_retention_is_gone_but_the_start_is_not() {
        assert_eq!(resolve("2.2"), Resolution::Gone { first: at(3, 2) });
        assert_eq!(
            resolve("3.1.aaaaaaaa"),
            Resolution::Gone { first: at(3, 2) }
        );
        assert_eq!(resolve("0.0"), Resolution::GoOn(at(0, 0)));
    }
}
