//! The endpoints for users.

use super::shared::{
    CONVERSATIONS_QUERY, CURSOR, EVENTS_QUERY, HISTORY_QUERY, INBOX_QUERY, READ, READ_GROUP,
    READ_HISTORY, RECEIPT, SEND, SEND_GROUP, SOCKET, STREAM_QUERY,
};
use crate::http::api::conversations;
use crate::http::api::history;
use crate::http::api::push;
use crate::http::endpoint::{Auth, Endpoint, Verb, later, ready};
use crate::http::routing::openapi;
use crate::http::session::poll;
use crate::http::session::stream;
use crate::http::session::websocket;

/// For users. The first are asked for the most.
pub(super) const CLIENT: &[Endpoint] = &[
    Endpoint::new(
        Verb::Get,
        "/v1/inbox",
        |call| Box::pin(poll::open(call)),
        "What came for the user after a cursor; waits for it if there is nothing",
    )
    .named("pollInbox")
    .by(Auth::User)
    .query(INBOX_QUERY)
    .gives(&[(200, "InboxPage")])
    .refuses(CURSOR),
    Endpoint::new(
        Verb::Get,
        "/v1/inbox/sse",
        |call| ready(stream::events(&call)),
        "The same as events, for an `EventSource`; the header `Last-Event-ID` wins over `after`",
    )
    .named("inboxEvents")
    .by(Auth::User)
    .query(EVENTS_QUERY)
    .gives(&[(200, "Events")])
    .events()
    .refuses(CURSOR),
    Endpoint::new(
        Verb::Get,
        "/v1/inbox/stream",
        |call| ready(stream::lines(&call)),
        "The same as lines of JSON in one reply: a page a line",
    )
    .named("inboxLines")
    .by(Auth::User)
    .query(STREAM_QUERY)
    .gives(&[(200, "Lines")])
    .refuses(CURSOR),
    Endpoint::new(
        Verb::Get,
        "/v1/inbox/ws",
        |call| ready(websocket::open(&call)),
        "The same as frames of a WebSocket, by which the user may send, too",
    )
    .named("inboxSocket")
    .by(Auth::User)
    .query(STREAM_QUERY)
    .gives(&[(101, openapi::SOCKET)])
    .refuses(SOCKET),
    Endpoint::new(
        Verb::Post,
        "/v1/direct/{peer}/messages",
        |call| later(push::direct(call)),
        "Send a message to another user",
    )
    .named("sendDirect")
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
    .named("sendToGroup")
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
    .named("directHistory")
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
    .named("groupHistory")
    .by(Auth::User)
    .query(HISTORY_QUERY)
    .gives(&[(200, "HistoryPage")])
    .refuses(READ_GROUP),
    Endpoint::new(
        Verb::Get,
        "/v1/conversations",
        |call| Box::pin(conversations::list(call)),
        "Every conversation and group of the user with its last message, newest first",
    )
    .named("listConversations")
    .by(Auth::User)
    .query(CONVERSATIONS_QUERY)
    .gives(&[(200, "ConversationPage")])
    .refuses(READ),
];
