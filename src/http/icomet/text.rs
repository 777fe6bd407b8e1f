//! icomet's objects as text, and how each kind of reply frames them.

use std::borrow::Cow;

use super::params::Callback;
use crate::http::response::json::one_line;
use crate::hub;
use crate::model::{Message, Receiver, UserName};

/// What a client is told. All but messages carry a number only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// This is the next number.
    NextSeq,
    /// Nothing came.
    Noop,
    /// The backend closed the channel.
    Close,
    /// The token is wrong.
    Token,
    /// A limit is reached.
    Channels,
    /// A limit is reached.
    Subscribers,
}

impl Kind {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NextSeq => ("next_seq", ""),
            Self::Noop => ("noop", ""),
            Self::Close => ("close", ""),
            Self::Token => ("401", "Token error"),
            Self::Channels => ("429", "Too many channels"),
            Self::Subscribers => ("429", "Too many subscribers"),
        }
    }
}

/// How a reply is put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One reply; a call of a function if there is one.
    Poll(Option<Callback>),
    /// An object a line.
    Stream,
    /// An event an object.
    Events,
    /// A script an object, in a page inside of a page.
    Frame,
}

/// A JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text is always JSON")
}

/// What a client is told at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Object {
    pub(super) json: String,
    /// The number up to which the client has been given everything with this.
    through: Option<u64>,
}

impl From<String> for Object {
    fn from(json: String) -> Self {
        Self {
            json,
            through: None,
        }
    }
}

/// The object that tells the next number.
pub(super) fn next_seq(channel: &UserName, number: u64) -> Object {
    Object {
        json: sign(Kind::NextSeq, channel, number),
        through: number.checked_sub(1),
    }
}

/// `{"type":"T","cname":"C","seq":N,"content":"S"}`; the texts are JSON already.
fn object(kind: &str, channel: &UserName, number: impl std::fmt::Display, content: &str) -> String {
    let channel = quoted(channel.as_str());
    format!("{{\"type\":\"{kind}\",\"cname\":{channel},\"seq\":{number},\"content\":{content}}}")
}

/// An object without a message.
pub(super) fn sign(kind: Kind, channel: &UserName, number: impl std::fmt::Display) -> String {
    let (kind, content) = kind.words();
    object(kind, channel, number, &quoted(content))
}

/// A message, and after a broadcast the next number: clients count only data.
pub(super) fn message(channel: &UserName, number: u64, message: &Message) -> Vec<Object> {
    // Bodies are JSON, checked when they were taken.
    let body = String::from_utf8_lossy(message.body.as_bytes());
    let content = if body.starts_with('"') {
        body.into_owned()
    } else {
        quoted(&body)
    };
    let of = |kind| Object {
        json: object(kind, channel, number, &content),
        through: Some(number),
    };
    if message.to == Receiver::Group(hub::icomet_group()) {
        vec![of("broadcast"), next_seq(channel, number + 1)]
    } else {
        vec![of("data")]
    }
}

/// Text that may stand in a line, an event or a script: JSON allows line ends that these do not.
fn line(json: &str) -> Cow<'_, str> {
    match one_line(json.as_bytes()) {
        Cow::Borrowed(_) => json.into(),
        Cow::Owned(line) => String::from_utf8(line)
            .expect("what was replaced was whole characters")
            .into(),
    }
}

/// JSON that may stand in a page: what would be markup is written as an escape of the same character.
pub(super) fn page(json: &str) -> String {
    json.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

/// `cb(json);` or the JSON alone, with a line end.
pub(super) fn call(callback: Option<&Callback>, json: &str) -> String {
    match callback {
        Some(callback) => format!("{}({});\n", callback.as_str(), line(json)),
        None => format!("{json}\n"),
    }
}

impl Form {
    /// The type of the reply. A script must be labelled one, as browsers are told not to guess.
    pub(super) fn content_type(&self) -> &'static str {
        match self {
            Self::Poll(Some(_)) => "text/javascript; charset=utf-8",
            Self::Poll(None) | Self::Stream => "application/json; charset=utf-8",
            Self::Events => "text/event-stream; charset=utf-8",
            Self::Frame => "text/html; charset=utf-8",
        }
    }

    /// What stands before the first object. The script lets pages of one domain but another host reach each other,
    /// as icomet's own does.
    pub(super) fn beginning(&self) -> &'static str {
        match self {
            Self::Frame => {
                "<html><head><meta http-equiv='Content-Type' content='text/html; charset=utf-8'>\
                 <meta http-equiv='Cache-Control' content='no-store'>\
                 <script type='text/javascript'>try{document.domain = \
                 window.location.hostname.split('.').slice(-2).join('.');}catch(e){}</script>\
                 </head><body>\n"
            }
            Self::Poll(_) | Self::Stream | Self::Events => "",
        }
    }

    /// One object of a reply. As an event it has the number as its id, with which an `EventSource` comes again.
    pub(super) fn framed(&self, object: &Object) -> String {
        let json = object.json.as_str();
        match self {
            Self::Poll(callback) => call(callback.as_ref(), json),
            Self::Stream => format!("{}\n", line(json)),
            Self::Events => match object.through {
                Some(number) => format!("id: {number}\ndata: {}\n\n", line(json)),
                None => format!("data: {}\n\n", line(json)),
            },
            Self::Frame => format!(
                "<script>parent.icomet_cb({});</script>\n",
                line(&page(json))
            ),
        }
    }
}

/// `[{..},{..}]`
pub(super) fn array(objects: &[Object]) -> String {
    let objects: Vec<_> = objects.iter().map(|object| object.json.as_str()).collect();
    format!("[{}]", objects.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::icomet::params::Params;
    use crate::model::{Body, GroupName};

    fn name(text: &str) -> UserName {
        UserName::parse(text).unwrap()
    }

    fn sent(to: Receiver, body: &str) -> Message {
        Message {
            id: 9,
            prev: 0,
            n: 1,
            at_ms: 0,
            from: name("ann"),
            to,
            body: Body::from(body.as_bytes().to_vec()),
        }
    }

    #[test]
    fn a_text_is_content_as_it_is_and_all_else_is_its_json() {
        let bob = name("bo\"b");
        let data = |body: &str| message(&bob, 3, &sent(Receiver::User(bob.clone()), body));
        let begin = "{\"type\":\"data\",\"cname\":\"bo\\\"b\",\"seq\":3,\"content\":";
        for (body, content) in [
            ("\"a\\u00e9\\n/<\"", "\"a\\u00e9\\n/<\""),
            ("{\n \"k\" : [1.0]}", "\"{\\n \\\"k\\\" : [1.0]}\""),
            ("null", "\"null\""),
        ] {
            assert_eq!(data(body)[0].json, format!("{begin}{content}}}"));
        }
        let team = Receiver::Group(GroupName::parse("team").unwrap());
        assert!(
            message(&bob, 3, &sent(team, "\"x\""))[0]
                .json
                .starts_with(begin)
        );
        let all = message(
            &bob,
            3,
            &sent(Receiver::Group(hub::icomet_group()), "\"x\""),
        );
        assert_eq!(
            array(&all),
            "[{\"type\":\"broadcast\",\"cname\":\"bo\\\"b\",\"seq\":3,\"content\":\"x\"},\
             {\"type\":\"next_seq\",\"cname\":\"bo\\\"b\",\"seq\":4,\"content\":\"\"}]"
        );
    }

    #[test]
    fn no_text_leaves_its_script_page_event_or_line() {
        let evil = sign(Kind::Noop, &name("</script>\u{2028}<b>&'\""), -1);
        let params = Params::of_query("cb=f").unwrap_or_else(|problem| panic!("{problem}"));
        let callback = params.callback().unwrap();
        let json: serde_json::Value = serde_json::from_str(&evil).unwrap();
        for form in [
            Form::Poll(callback),
            Form::Stream,
            Form::Events,
            Form::Frame,
        ] {
            let text = form.framed(&evil.clone().into());
            assert!(!text.trim_end().contains('\n'), "{text}");
            let (begin, end) = match &form {
                Form::Poll(_) => ("f(", ");\n"),
                Form::Stream => ("", "\n"),
                Form::Events => ("data: ", "\n\n"),
                Form::Frame => ("<script>parent.icomet_cb(", ");</script>\n"),
            };
            let inside = text
                .strip_prefix(begin)
                .and_then(|rest| rest.strip_suffix(end));
            let inside = inside.unwrap();
            assert_eq!(
                serde_json::from_str::<serde_json::Value>(inside).unwrap(),
                json
            );
            assert!(!inside.contains('\u{2028}'));
            if form == Form::Frame {
                assert!(!inside.contains(['<', '>', '&']), "{inside}");
            }
        }
    }
}
