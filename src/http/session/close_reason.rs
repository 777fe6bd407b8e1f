//! Why a stream or a WebSocket ends, told to the client in its own way: a last event, a last line, or
//! the code of the close frame.

use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;

use crate::error::Error;
use crate::http::response::problem::{Code, Problem};
use crate::model::Cursor;

/// Why it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) enum CloseReason {
    /// The server stops.
    Closing,
    /// It has lasted long enough: a load balancer or a new version gets its chance.
    Over,
    /// The token is no longer good.
    TokenExpired,
    /// The client did not answer pings.
    Silent,
    /// A reading failed.
    Failed(Problem),
    /// The client broke RFC 6455.
    Protocol,
    /// The client sent something else than text.
    NotText,
    /// The client sent text that is not UTF-8.
    NotUtf8,
    /// The client sent a message beyond the limit.
    TooLarge,
    /// The client sent too many frames that bring nothing.
    TooManyFrames,
}

impl CloseReason {
    /// Of a reading that failed.
    pub(in crate::http) fn of(error: Error) -> Self {
        match error {
            Error::Closing => Self::Closing,
            error => Self::Failed(Problem::Hub(error)),
        }
    }

    /// A stable code; also the reason of the close frame.
    pub(in crate::http) fn code(&self) -> &'static str {
        match self {
            Self::Closing => Code::Closing.text(),
            Self::Over => "stream_over",
            Self::TokenExpired => Code::TokenExpired.text(),
            Self::Silent => "silent",
            Self::Failed(problem) => problem.code().text(),
            Self::Protocol => "protocol_error",
            Self::NotText => "not_text",
            Self::NotUtf8 => "not_utf8",
            Self::TooLarge => Code::BodyTooLarge.text(),
            Self::TooManyFrames => "too_many_frames",
        }
    }

    /// The code of the close frame. From 4000 on they are ours.
    pub(in crate::http) fn close_code(&self) -> CloseCode {
        match self {
            Self::Closing => CloseCode::Away,
            Self::Over => CloseCode::from(4000),
            Self::TokenExpired => CloseCode::from(4001),
            Self::Silent => CloseCode::from(4008),
            Self::Failed(_) => CloseCode::Error,
            Self::Protocol => CloseCode::Protocol,
            Self::NotText => CloseCode::Unsupported,
            Self::NotUtf8 => CloseCode::Invalid,
            Self::TooLarge => CloseCode::Size,
            Self::TooManyFrames => CloseCode::Policy,
        }
    }

    /// Whether to connect again with the same cursor. If not, the client is at fault.
    pub(in crate::http) fn reconnect(&self) -> bool {
        !matches!(
            self,
            Self::Protocol | Self::NotText | Self::NotUtf8 | Self::TooLarge
        )
    }

    fn detail(&self) -> String {
        match self {
            Self::Closing => "the server is stopping: connect again in a moment".to_owned(),
            Self::Over => "it has lasted long enough: connect again".to_owned(),
            Self::TokenExpired => Problem::TokenExpired.to_string(),
            Self::Silent => "pings were not answered: connect again".to_owned(),
            Self::Failed(problem) => problem.to_string(),
            Self::Protocol => "a frame breaks RFC 6455".to_owned(),
            Self::NotText => "a binary frame came, and only text is understood".to_owned(),
            Self::NotUtf8 => "a text frame is not UTF-8".to_owned(),
            Self::TooLarge => "a message is longer than the server takes".to_owned(),
            Self::TooManyFrames => {
                "too many pings, pongs, tokens or refused messages a second".to_owned()
            }
        }
    }

    /// As it stands in the last event or line.
    pub(in crate::http) fn object(&self, next: Cursor) -> Value {
        json!({
            "code": self.code(),
            "detail": self.detail(),
            "reconnect": self.reconnect(),
            "next": next.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LogId, Position};

    /// As docs/clients.md says it, and as clients decide by it.
    #[test]
    fn every_reason_has_its_code_and_says_whether_to_connect_again() {
        for (reason, code, close, reconnect) in [
            (CloseReason::of(Error::Closing), "closing", 1001, true),
            (
                CloseReason::of(Error::StoreDamaged),
                "store_damaged",
                1011,
                true,
            ),
            (
                CloseReason::of(Error::WritesRefused),
                "writes_refused",
                1011,
                true,
            ),
            (CloseReason::Over, "stream_over", 4000, true),
            (CloseReason::TokenExpired, "token_expired", 4001, true),
            (CloseReason::Silent, "silent", 4008, true),
            (CloseReason::Protocol, "protocol_error", 1002, false),
            (CloseReason::NotText, "not_text", 1003, false),
            (CloseReason::NotUtf8, "not_utf8", 1007, false),
            (CloseReason::TooLarge, "body_too_large", 1009, false),
            (CloseReason::TooManyFrames, "too_many_frames", 1008, true),
        ] {
            let object = reason.object(Cursor::new(Position::default(), LogId([0; 16])));
            assert_eq!(object["code"], code);
            assert_eq!(object["reconnect"], reconnect, "{code}");
            assert!(
                object["detail"]
                    .as_str()
                    .is_some_and(|text| text.len() > 10),
                "{code}"
            );
            assert_eq!(reason.code(), code);
            assert_eq!(u16::from(reason.close_code()), close, "{code}");
        }
    }
}
