//! Schemas of what no type of ours holds as it is in JSON: texts with a rule, and what is written piece by piece
//! (messages, pages, problems, the last line of a stream). Only the schemas of these types are used; tests compare
//! them with what is written.

#![expect(dead_code, reason = "the fields are read by the derived schemas only")]

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use crate::http::response::problem::Code;

/// A text with a rule: a name and the schema.
macro_rules! texts {
    ($($(#[$about:meta])* $name:ident $schema:tt;)*) => {$(
        $(#[$about])*
        pub(in crate::http) enum $name {}

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

texts! {
    /// Of a user or a group.
    Name {
        "type": "string",
        "minLength": 1,
        "maxLength": 128,
        "pattern": "^(?!\\.{1,2}$)[^\\u0000-\\u001f\\u007f-\\u009f]+$",
        "description": "1 to 128 bytes of UTF-8 without control characters, and not `.` or `..`. Kept and compared byte \
                        for byte: two spellings of one character (NFC and NFD) are two names.",
    };
    /// Where an inbox goes on.
    Cursor {
        "type": "string",
        "pattern": "^[0-9]{1,19}\\.[0-9]{1,19}(\\.[0-9a-f]{8})?$",
        "description": "`D.G.L`: opaque; pass it back as `after`.",
    };
    /// Where a reader wants to begin.
    After {
        "type": "string",
        "pattern": "^(now|0|[0-9]{1,19}\\.[0-9]{1,19}(\\.[0-9a-fA-F]{8})?)$",
        "description": "A cursor, `0` or `now`.",
    };
    /// Which history it is.
    LogId {
        "type": "string",
        "pattern": "^[0-9a-f]{32}$",
        "description": "The identity of this history.",
    };
    /// Where a list of conversations goes on.
    Place {
        "type": "string",
        "pattern": "^[0-9]{1,19}-(direct|group)-[0-9]{1,19}$",
        "description": "Opaque; pass it back as `before`.",
    };
    /// Under which a push is stored once.
    IdempotencyKey {
        "type": "string",
        "minLength": 1,
        "maxLength": 255,
        "pattern": "^[ -~]+$",
        "description": "1 to 255 printable ASCII characters.",
    };
    /// An `OpenAPI` document.
    OpenApiDocument {
        "type": "object",
        "description": "An OpenAPI 3.1 document.",
    };
}

/// Any JSON value: what a message carries.
pub(in crate::http) enum AnyJson {}

impl JsonSchema for AnyJson {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "AnyJson".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Any JSON value, at most `body-bytes-max` bytes; returned byte for byte. At most 64 levels \
                            deep, no number of more than 400 characters, no lone surrogates.",
        })
    }
}

impl JsonSchema for Code {
    fn schema_name() -> Cow<'static, str> {
        "ErrorCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let codes: Vec<_> = Self::ALL.iter().map(|code| code.text()).collect();
        json_schema!({
            "type": "string",
            "description": "Stable; a new version may know more of them.",
            "enum": codes,
        })
    }
}

/// From one user to another.
#[derive(JsonSchema)]
pub(in crate::http) struct DirectMessage {
    #[schemars(extend("const" = "direct"))]
    pub(in crate::http) sequence: String,
    #[schemars(range(min = 1))]
    id: u64,
    /// The id before it in the same conversation; 0 for the first.
    prev: u64,
    /// Its number in the conversation: one more than the message before it.
    #[schemars(range(min = 1))]
    n: u64,
    #[schemars(with = "Name")]
    from: String,
    #[schemars(with = "Name")]
    to: String,
    /// Commit time, Unix milliseconds.
    at: u64,
    body: AnyJson,
}

/// To a group.
#[derive(JsonSchema)]
pub(in crate::http) struct GroupMessage {
    #[schemars(extend("const" = "group"))]
    sequence: String,
    #[schemars(range(min = 1))]
    id: u64,
    /// The id before it in the same group; 0 for the first.
    prev: u64,
    /// Its number in the group: one more than the message before it.
    #[schemars(range(min = 1))]
    n: u64,
    #[schemars(with = "Name")]
    from: String,
    #[schemars(with = "Name")]
    group: String,
    /// Commit time, Unix milliseconds.
    at: u64,
    body: AnyJson,
}

/// Either of them.
pub(in crate::http) enum Message {}

impl JsonSchema for Message {
    fn schema_name() -> Cow<'static, str> {
        "Message".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`sequence` says which: `direct` to a user, `group` to a group.",
            "oneOf": [
                generator.subschema_for::<DirectMessage>(),
                generator.subschema_for::<GroupMessage>(),
            ],
            "discriminator": {
                "propertyName": "sequence",
                "mapping": {
                    "direct": "#/components/schemas/DirectMessage",
                    "group": "#/components/schemas/GroupMessage",
                },
            },
        })
    }
}

/// What came for a user after a cursor.
#[derive(JsonSchema)]
pub(in crate::http) struct InboxPage {
    #[schemars(with = "LogId")]
    log: String,
    messages: Vec<Message>,
    #[schemars(with = "Cursor")]
    next: String,
    /// Whether there is more at once.
    more: bool,
}

/// Part of a conversation's or group's history, in id order.
#[derive(JsonSchema)]
pub(in crate::http) struct HistoryPage {
    #[schemars(with = "LogId")]
    log: String,
    messages: Vec<Message>,
    /// Whether there is more in the direction that was asked for.
    more: bool,
}

/// With another user.
#[derive(JsonSchema)]
struct DirectConversation {
    #[schemars(with = "Name")]
    user: String,
    last: DirectMessage,
}

/// A group that the user is or was a member of.
#[derive(JsonSchema)]
struct GroupConversation {
    #[schemars(with = "Name")]
    group: String,
    member: bool,
    /// The last message that the user may see, if there is one.
    last: Option<GroupMessage>,
}

/// Either of them.
enum Conversation {}

impl JsonSchema for Conversation {
    fn schema_name() -> Cow<'static, str> {
        "Conversation".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "There is `user` or `group`.",
            "oneOf": [
                generator.subschema_for::<DirectConversation>(),
                generator.subschema_for::<GroupConversation>(),
            ],
        })
    }
}

/// Part of a user's list, newest first.
#[derive(JsonSchema)]
pub(in crate::http) struct ConversationPage {
    #[schemars(with = "LogId")]
    log: String,
    conversations: Vec<Conversation>,
    #[schemars(with = "Option<Place>")]
    next: Option<String>,
    more: bool,
}

/// Why a stream ended.
#[derive(JsonSchema)]
struct StreamEnd {
    /// A stable code: one of those of problems, or `stream_over`.
    code: String,
    detail: String,
    /// Whether to connect again with `next`. If not, the client is at fault.
    reconnect: bool,
    #[schemars(with = "Cursor")]
    next: String,
}

/// The last line of a stream.
#[derive(JsonSchema)]
struct LastLine {
    end: StreamEnd,
}

/// Lines of JSON.
pub(in crate::http) enum Lines {}

impl JsonSchema for Lines {
    fn schema_name() -> Cow<'static, str> {
        "Lines".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Lines, each of them JSON: an `InboxPage`, and last of all a `LastLine`.",
            "contentMediaType": "application/json",
            "contentSchema": { "oneOf": [
                generator.subschema_for::<InboxPage>(),
                generator.subschema_for::<LastLine>(),
            ] },
        })
    }
}

/// Events of an `EventSource`.
pub(in crate::http) enum Events {}

impl JsonSchema for Events {
    fn schema_name() -> Cow<'static, str> {
        "Events".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Events: `id` is the cursor after the message, `data` a `Message`. The last event is called \
                            `end`, and its `data` is a `StreamEnd`; with `after=now` the first is called `start`.",
            "contentMediaType": "application/json",
            "contentSchema": { "oneOf": [
                generator.subschema_for::<Message>(),
                generator.subschema_for::<StreamEnd>(),
            ] },
        })
    }
}

/// Why a request was refused (RFC 9457).
#[derive(JsonSchema)]
#[schemars(extend("required" = ["type", "title", "status", "code", "detail"]))]
pub(in crate::http) struct Problem {
    /// `urn:halley:error:` and the code.
    #[schemars(rename = "type")]
    kind: String,
    title: String,
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    code: Code,
    /// What to do, for a person.
    detail: String,
    /// With a cursor that this log does not know: where to start over.
    #[schemars(with = "Cursor")]
    restart: String,
    /// With a cursor before what is kept: where history begins.
    #[schemars(with = "Cursor")]
    first: String,
    /// With an `after` beyond the last id of a history: that id.
    last: u64,
    #[schemars(with = "LogId")]
    log: String,
    /// What was exceeded.
    limit: u64,
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value};

    use super::*;
    use crate::error::Error;
    use crate::http::response::json::Writer;
    use crate::http::response::problem::Problem;
    use crate::http::session::close_reason::CloseReason;
    use crate::model::{self, Body, GroupName, Position, Receiver, UserName};

    /// What a schema allows and what it requires, in order.
    fn fields<T: JsonSchema>() -> (Vec<String>, Vec<String>) {
        let schema = schemars::generate::SchemaSettings::draft2020_12()
            .for_serialize()
            .into_generator()
            .into_root_schema_for::<T>();
        let sorted = |mut names: Vec<String>| {
            names.sort_unstable();
            names
        };
        let all = schema.get("properties").unwrap().as_object().unwrap();
        let required = schema.get("required").unwrap().as_array().unwrap();
        let required = required
            .iter()
            .map(|name| name.as_str().unwrap().to_owned());
        (
            sorted(all.keys().cloned().collect()),
            sorted(required.collect()),
        )
    }

    fn keys(object: &Map<String, Value>) -> Vec<String> {
        let mut keys: Vec<_> = object.keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    #[test]
    fn messages_have_the_fields_of_their_schemas() {
        let to_user = Receiver::User(UserName::parse("bob").unwrap());
        let to_group = Receiver::Group(GroupName::parse("team").unwrap());
        for (to, (all, required)) in [
            (to_user, fields::<DirectMessage>()),
            (to_group, fields::<GroupMessage>()),
        ] {
            let mut out = Writer::default();
            out.message(&model::Message {
                id: 7,
                prev: 3,
                n: 2,
                at_ms: 9,
                from: UserName::parse("alice").unwrap(),
                to,
                body: Body::from(b"1".to_vec()),
            });
            let written = serde_json::from_slice(&out.finish().concat()).unwrap();
            assert_eq!((keys(&written), &keys(&written)), (all, &required));
        }
    }

    #[test]
    fn problems_and_ends_have_the_fields_of_their_schemas() {
        let log = model::LogId([7; 16]);
        let cursor = model::Cursor::new(Position::default(), log);
        let (all, required) = fields::<super::Problem>();
        let sequence = model::Sequence::Direct;
        for error in [
            Error::LogUnknown { restart: cursor },
            Error::CursorGone { first: cursor },
            Error::AfterAhead { sequence, last: 1 },
            Error::GroupFull { limit: 1 },
            Error::Busy,
            Error::Behind { limit: 1 },
        ] {
            let written = Problem::Hub(error).to_json(log);
            let written = keys(written.as_object().unwrap());
            assert!(written.iter().all(|key| all.contains(key)), "{written:?}");
            assert!(
                required.iter().all(|key| written.contains(key)),
                "{written:?}"
            );
        }
        let end = CloseReason::Over.object(cursor);
        assert_eq!(keys(end.as_object().unwrap()), fields::<StreamEnd>().1);
    }
}
