//! icomet's objects as text, and how each kind of reply frames them.

use super::params::Callback;
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
pub(super) fn message(channel: &UserName, number: u64, message: &Message) -> Vec<String> {
    // Bodies are JSON, checked when they were taken.
    let body = String::from_utf8_lossy(message.body.as_bytes());
    let content = if body.starts_with('"') {
        body.into_owned()
    } else {
        quoted(&body)
    };
    if message.to == Receiver::Group(hub::icomet_group()) {
        vec![
            object("broadcast", channel, number, &content),
            sign(Kind::NextSeq, channel, number + 1),
        ]
    } else {
        vec![object("data", channel, number, &content)]
    }
}

/// Text that may stand in a script: JSON allows two line ends that old JavaScript does not.
pub(super) fn script(json: &str) -> String {
    json.replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
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
        Some(callback) => format!("{}({});\n", callback.as_str(), script(json)),
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

    /// One object of an endless reply.
    pub(super) fn framed(&self, json: &str) -> String {
        match self {
            Self::Poll(callback) => call(callback.as_ref(), json),
            Self::Stream => format!("{json}\n"),
            Self::Events => format!("data: {json}\n\n"),
            Self::Frame => format!(
                "<script>parent.icomet_cb({});</script>\n",
                script(&page(json))
            ),
        }
    }
}

/// `[{..},{..}]`
pub(super) fn array(objects: &[String]) -> String {
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
            assert_eq!(data(body), [format!("{begin}{content}}}")]);
        }
        let team = Receiver::Group(GroupName::parse("team").unwrap());
        assert!(message(&bob, 3, &sent(team, "\"x\""))[0].starts_with(begin));
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
        let params = Params::of_query("cb=f").unwrap_or_else(|refusal| panic!("{refusal}"));
        let callback = params.callback().unwrap();
        let json: serde_json::Value = serde_json::from_str(&evil).unwrap();
        for form in [
            Form::Poll(callback),
            Form::Stream,
            Form::Events,
            Form::Frame,
        ] {
            let text = form.framed(&evil);
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
            if matches!(form, Form::Poll(_) | Form::Frame) {
                assert!(!inside.contains('\u{2028}'));
            }
            if form == Form::Frame {
                assert!(!inside.contains(['<', '>', '&']), "{inside}");
            }
        }
    }
}
