//! Every endpoint in one table: the router, `Allow` and the `OpenAPI` document are made from it, so none
//! of them can know more or less than the others.

use std::pin::Pin;

use super::app::Face;
use super::call::Call;
use super::reply::{Code, Outcome, Refusal, Reply};
use super::{admin, conversations, groups, history, inbox, openapi, push, tokens};

/// A method that some endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

impl Verb {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Auth {
    /// Anyone.
    Nobody,
    /// A user with a token.
    User,
    /// The backend with the API key.
    Key,
}

/// A query parameter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Param {
    pub(super) name: &'static str,
    /// A whole number, or else a text.
    pub(super) number: bool,
    pub(super) about: &'static str,
}

type Handling = Pin<Box<dyn Future<Output = Result<Outcome, Refusal>> + Send>>;

/// One method of one path.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) verb: Verb,
    /// With `{parameters}`.
    pub(super) path: &'static str,
    pub(super) auth: Auth,
    pub(super) handler: fn(Call) -> Handling,
    pub(super) summary: &'static str,
    pub(super) query: &'static [Param],
    /// The schema of the request's body.
    pub(super) takes: Option<&'static str>,
    /// Status and schema of what is answered if all goes well.
    pub(super) gives: &'static [(u16, &'static str)],
    /// Codes of refusals beyond those that the rest of the row implies.
    pub(super) refuses: &'static [Code],
}

/// The endpoints of one listener.
pub(super) fn of(face: Face) -> impl Iterator<Item = &'static Endpoint> {
    let own: &[Endpoint] = match face {
        Face::Client => CLIENT,
        Face::Admin => ADMIN,
    };
    own.iter().chain(BOTH)
}

/// The name in `{name}`.
pub(super) fn parameter(part: &'static str) -> Option<&'static str> {
    part.strip_prefix('{')?.strip_suffix('}')
}

impl Endpoint {
    const fn new(
        verb: Verb,
        path: &'static str,
        handler: fn(Call) -> Handling,
        summary: &'static str,
    ) -> Self {
        Self {
            verb,
            path,
            auth: Auth::Nobody,
            handler,
            summary,
            query: &[],
            takes: None,
            gives: &[],
            refuses: &[],
        }
    }

    const fn by(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    const fn query(mut self, query: &'static [Param]) -> Self {
        self.query = query;
        self
    }

    const fn takes(mut self, schema: &'static str) -> Self {
        self.takes = Some(schema);
        self
    }

    const fn gives(mut self, gives: &'static [(u16, &'static str)]) -> Self {
        self.gives = gives;
        self
    }

    const fn refuses(mut self, refuses: &'static [Code]) -> Self {
        self.refuses = refuses;
        self
    }
}

fn later(reply: impl Future<Output = Result<Reply, Refusal>> + Send + 'static) -> Handling {
    Box::pin(async move { reply.await.map(Outcome::Reply) })
}

fn now(reply: Result<Reply, Refusal>) -> Handling {
    Box::pin(std::future::ready(reply.map(Outcome::Reply)))
}

const LIMIT: Param = Param {
    name: "limit",
    number: true,
    about: "Most messages of the page: 1 to 1000 (`page-messages-max`), usually 100.",
};
const INBOX_QUERY: &[Param] = &[
    Param {
        name: "after",
        number: false,
        about: "The cursor of the last reply; `0` or absent: from the beginning; `now`: from here on.",
    },
    Param {
        name: "wait",
        number: true,
        about: "Seconds to hold the request if there is nothing: 0 to 300 (`poll-wait-s-max`); \
                usually 30 for users and 0 for the backend.",
    },
    LIMIT,
];
const HISTORY_QUERY: &[Param] = &[
    Param {
        name: "before",
        number: true,
        about: "The page just before this id.",
    },
    Param {
        name: "after",
        number: true,
        about: "The page just after this id.",
    },
    LIMIT,
];
const CONVERSATIONS_QUERY: &[Param] = &[
    Param {
        name: "before",
        number: false,
        about: "The `next` of the page before.",
    },
    LIMIT,
];

const CURSOR: &[Code] = &[
    Code::BadCursor,
    Code::CursorAhead,
    Code::LogUnknown,
    Code::CursorGone,
    Code::TooManyWaiters,
    Code::Closing,
    Code::StoreDamaged,
];
const READ: &[Code] = &[Code::StoreDamaged];
const READ_HISTORY: &[Code] = &[Code::CursorAhead, Code::StoreDamaged];
const READ_GROUP: &[Code] = &[Code::GroupNotFound, Code::CursorAhead, Code::StoreDamaged];
const WRITE: &[Code] = &[
    Code::IdempotencyConflict,
    Code::Busy,
    Code::Closing,
    Code::DiskFull,
    Code::WritesRefused,
];
const WRITE_GROUP: &[Code] = &[
    Code::GroupNotFound,
    Code::IdempotencyConflict,
    Code::Busy,
    Code::Closing,
    Code::DiskFull,
    Code::WritesRefused,
];
const SEND: &[Code] = &[
    Code::Forbidden,
    Code::IdempotencyConflict,
    Code::Busy,
    Code::Closing,
    Code::DiskFull,
    Code::WritesRefused,
];
const SEND_GROUP: &[Code] = &[
    Code::Forbidden,
    Code::GroupNotFound,
    Code::IdempotencyConflict,
    Code::Busy,
    Code::Closing,
    Code::DiskFull,
    Code::WritesRefused,
];
const CHANGE: &[Code] = &[
    Code::GroupNotFound,
    Code::Busy,
    Code::Closing,
    Code::DiskFull,
    Code::WritesRefused,
];

const RECEIPT: &[(u16, &str)] = &[(201, "Receipt"), (200, "Receipt")];
const GROUP_CHANGED: &[(u16, &str)] = &[(200, "GroupReceipt")];

/// For users. The first are asked for the most.
const CLIENT: &[Endpoint] = &[
    Endpoint::new(
        Verb::Get,
        "/v1/inbox",
        |call| Box::pin(inbox::poll(call)),
        "What came for the user after a cursor; waits for it if there is nothing",
    )
    .by(Auth::User)
    .query(INBOX_QUERY)
    .gives(&[(200, "InboxPage")])
    .refuses(CURSOR),
    Endpoint::new(
        Verb::Post,
        "/v1/direct/{peer}/messages",
        |call| later(push::direct(call)),
        "Send a message to another user",
    )
    .by(Auth::User)
    .takes("Send")
    .gives(RECEIPT)
    .refuses(SEND),
    Endpoint::new(
        Verb::Post,
        "/v1/groups/{group}/messages",
        |call| later(push::group(call)),
        "Send a message to a group",
    )
    .by(Auth::User)
    .takes("Send")
    .gives(RECEIPT)
    .refuses(SEND_GROUP),
    Endpoint::new(
        Verb::Get,
        "/v1/direct/{peer}/messages",
        |call| later(history::direct(call)),
        "The history with another user, in id order",
    )
    .by(Auth::User)
    .query(HISTORY_QUERY)
    .gives(&[(200, "HistoryPage")])
    .refuses(READ_HISTORY),
    Endpoint::new(
        Verb::Get,
        "/v1/groups/{group}/messages",
        |call| later(history::group(call)),
        "The history of a group, as far as the user may see it",
    )
    .by(Auth::User)
    .query(HISTORY_QUERY)
    .gives(&[(200, "HistoryPage")])
    .refuses(READ_GROUP),
    Endpoint::new(
        Verb::Get,
        "/v1/conversations",
        |call| later(conversations::list(call)),
        "Every conversation and group of the user with its last message, newest first",
    )
    .by(Auth::User)
    .query(CONVERSATIONS_QUERY)
    .gives(&[(200, "ConversationPage")])
    .refuses(READ),
];

/// For the backend.
const ADMIN: &[Endpoint] = &[
    Endpoint::new(
        Verb::Post,
        "/v1/direct/{to}/messages",
        |call| later(push::direct(call)),
        "Push a message to a user",
    )
    .by(Auth::Key)
    .takes("Push")
    .gives(RECEIPT)
    .refuses(WRITE),
    Endpoint::new(
        Verb::Post,
        "/v1/groups/{group}/messages",
        |call| later(push::group(call)),
        "Push a message to a group",
    )
    .by(Auth::Key)
    .takes("Push")
    .gives(RECEIPT)
    .refuses(WRITE_GROUP),
    Endpoint::new(
        Verb::Post,
        "/v1/messages",
        |call| later(push::batch(call)),
        "Push up to 1000 messages, each with its own outcome, in order",
    )
    .by(Auth::Key)
    .takes("PushMany")
    .gives(&[(200, "Results")])
    .refuses(&[
        Code::Busy,
        Code::Closing,
        Code::DiskFull,
        Code::WritesRefused,
    ]),
    Endpoint::new(
        Verb::Put,
        "/v1/groups/{group}",
        |call| later(groups::set(call)),
        "Make a group, or set its members",
    )
    .by(Auth::Key)
    .takes("GroupSet")
    .gives(&[(201, "GroupReceipt"), (200, "GroupReceipt")])
    .refuses(&[
        Code::Busy,
        Code::Closing,
        Code::DiskFull,
        Code::WritesRefused,
    ]),
    Endpoint::new(
        Verb::Get,
        "/v1/groups/{group}",
        |call| later(groups::get(call)),
        "A group and its members",
    )
    .by(Auth::Key)
    .gives(&[(200, "Group")])
    .refuses(&[Code::GroupNotFound, Code::StoreDamaged]),
    Endpoint::new(
        Verb::Delete,
        "/v1/groups/{group}",
        |call| later(groups::delete(call)),
        "Let everybody leave; what was sent stays readable to those who could read it",
    )
    .by(Auth::Key)
    .gives(&[(200, "GroupRemoved")])
    .refuses(CHANGE),
    Endpoint::new(
        Verb::Post,
        "/v1/groups/{group}/members",
        |call| later(groups::change_members(call)),
        "Add and remove members",
    )
    .by(Auth::Key)
    .takes("Members")
    .gives(GROUP_CHANGED)
    .refuses(CHANGE),
    Endpoint::new(
        Verb::Put,
        "/v1/groups/{group}/members/{user}",
        |call| later(groups::add_member(call)),
        "Add one member",
    )
    .by(Auth::Key)
    .gives(GROUP_CHANGED)
    .refuses(CHANGE),
    Endpoint::new(
        Verb::Delete,
        "/v1/groups/{group}/members/{user}",
        |call| later(groups::remove_member(call)),
        "Remove one member",
    )
    .by(Auth::Key)
    .gives(GROUP_CHANGED)
    .refuses(CHANGE),
    Endpoint::new(
        Verb::Post,
        "/v1/tokens",
        |call| later(tokens::make(call)),
        "Make a user token",
    )
    .by(Auth::Key)
    .takes("TokenAsk")
    .gives(&[(201, "Token")])
    .refuses(&[Code::BadName, Code::Forbidden]),
    Endpoint::new(
        Verb::Get,
        "/v1/users/{user}/inbox",
        |call| Box::pin(inbox::poll(call)),
        "A user's inbox, for the backend",
    )
    .by(Auth::Key)
    .query(INBOX_QUERY)
    .gives(&[(200, "InboxPage")])
    .refuses(CURSOR),
    Endpoint::new(
        Verb::Get,
        "/v1/users/{user}/direct/{peer}/messages",
        |call| later(history::direct(call)),
        "The history of two users, for the backend",
    )
    .by(Auth::Key)
    .query(HISTORY_QUERY)
    .gives(&[(200, "HistoryPage")])
    .refuses(READ_HISTORY),
    Endpoint::new(
        Verb::Get,
        "/v1/users/{user}/groups/{group}/messages",
        |call| later(history::group(call)),
        "The history of a group as a user may see it, for the backend",
    )
    .by(Auth::Key)
    .query(HISTORY_QUERY)
    .gives(&[(200, "HistoryPage")])
    .refuses(READ_GROUP),
    Endpoint::new(
        Verb::Get,
        "/v1/users/{user}/conversations",
        |call| later(conversations::list(call)),
        "A user's conversations and groups, for the backend",
    )
    .by(Auth::Key)
    .query(CONVERSATIONS_QUERY)
    .gives(&[(200, "ConversationPage")])
    .refuses(READ),
    Endpoint::new(
        Verb::Get,
        "/v1/users/{user}/presence",
        |call| now(admin::presence(&call)),
        "How many requests of a user are held now",
    )
    .by(Auth::Key)
    .gives(&[(200, "Presence")]),
    Endpoint::new(
        Verb::Get,
        "/v1/messages/{sequence}/{id}",
        |call| later(history::message(call)),
        "One message",
    )
    .by(Auth::Key)
    .gives(&[(200, "Message")])
    .refuses(&[Code::MessageNotFound, Code::StoreDamaged]),
    Endpoint::new(
        Verb::Get,
        "/v1/status",
        |call| now(Ok(admin::status(&call))),
        "What the server is doing",
    )
    .by(Auth::Key)
    .gives(&[(200, "Status")]),
];

/// For anyone, on both listeners.
const BOTH: &[Endpoint] = &[
    Endpoint::new(
        Verb::Get,
        "/healthz",
        |_| now(Ok(admin::health())),
        "The process answers",
    )
    .gives(&[(200, "Health")]),
    Endpoint::new(
        Verb::Get,
        "/readyz",
        |call| now(admin::ready(&call)),
        "The server can do all its work",
    )
    .gives(&[(200, "Health")])
    .refuses(&[
        Code::WritesRefused,
        Code::DiskFull,
        Code::Closing,
        Code::StoreDamaged,
    ]),
    Endpoint::new(
        Verb::Get,
        "/openapi.json",
        |call| now(Ok(openapi::reply(call.face))),
        "This document",
    )
    .gives(&[(200, "Document")]),
];
