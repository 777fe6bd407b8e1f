//! The endpoints for the backend.

use super::shared::{
    CHANGE, CONVERSATIONS_QUERY, CURSOR_BACKEND, GROUP_CHANGED, HISTORY_QUERY, INBOX_QUERY, READ,
    READ_GROUP, READ_GROUP_NOW, READ_HISTORY, READ_MESSAGE, RECEIPT, WRITE, WRITE_GROUP,
};
use crate::http::api::conversations;
use crate::http::api::groups;
use crate::http::api::history;
use crate::http::api::operations;
use crate::http::api::push;
use crate::http::api::tokens;
use crate::http::endpoint::{Auth, Endpoint, Verb, later, now};
use crate::http::response::problem::Code;
use crate::http::session::poll;

/// For the backend.
pub(super) const ADMIN: &[Endpoint] = &[
    Endpoint::new(
        Verb::Post,
        "/v1/direct/{to}/messages",
        |call| later(push::direct(call)),
        "Push a message to a user",
    )
    .named("pushDirect")
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
    .named("pushToGroup")
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
    .named("pushMany")
    .by(Auth::Key)
    .takes("PushMany")
    .gives(&[(200, "PushResults")])
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
    .named("setGroup")
    .by(Auth::Key)
    .takes("GroupSet")
    .gives(&[(201, "GroupReceipt"), (200, "GroupReceipt")])
    .refuses(&[
        Code::GroupFull,
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
    .named("getGroup")
    .by(Auth::Key)
    .gives(&[(200, "Group")])
    .refuses(READ_GROUP_NOW),
    Endpoint::new(
        Verb::Delete,
        "/v1/groups/{group}",
        |call| later(groups::delete(call)),
        "Let everybody leave; what was sent stays readable to those who could read it",
    )
    .named("deleteGroup")
    .by(Auth::Key)
    .gives(&[(200, "GroupRemoved")])
    .refuses(CHANGE),
    Endpoint::new(
        Verb::Post,
        "/v1/groups/{group}/members",
        |call| later(groups::change_members(call)),
        "Add and remove members",
    )
    .named("changeMembers")
    .by(Auth::Key)
    .takes("MembersChange")
    .gives(GROUP_CHANGED)
    .refuses(CHANGE),
    Endpoint::new(
        Verb::Put,
        "/v1/groups/{group}/members/{user}",
        |call| later(groups::add_member(call)),
        "Add one member",
    )
    .named("addMember")
    .by(Auth::Key)
    .gives(GROUP_CHANGED)
    .refuses(CHANGE),
    Endpoint::new(
        Verb::Delete,
        "/v1/groups/{group}/members/{user}",
        |call| later(groups::remove_member(call)),
        "Remove one member",
    )
    .named("removeMember")
    .by(Auth::Key)
    .gives(GROUP_CHANGED)
    .refuses(CHANGE),
    Endpoint::new(
        Verb::Post,
        "/v1/tokens",
        |call| later(tokens::make(call)),
        "Make a user token",
    )
    .named("createToken")
    .by(Auth::Key)
    .takes("TokenRequest")
    .gives(&[(201, "Token")])
    .refuses(&[Code::BadName, Code::Forbidden]),
    Endpoint::new(
        Verb::Get,
        "/v1/users/{user}/inbox",
        |call| Box::pin(poll::open(call)),
        "A user's inbox, for the backend",
    )
    .named("pollUserInbox")
    .by(Auth::Key)
    .query(INBOX_QUERY)
    .gives(&[(200, "InboxPage")])
    .refuses(CURSOR_BACKEND),
    Endpoint::new(
        Verb::Get,
        "/v1/users/{user}/direct/{peer}/messages",
        |call| later(history::direct(call)),
        "The history of two users, for the backend",
    )
    .named("userDirectHistory")
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
    .named("userGroupHistory")
    .by(Auth::Key)
    .query(HISTORY_QUERY)
    .gives(&[(200, "HistoryPage")])
    .refuses(READ_GROUP),
    Endpoint::new(
        Verb::Get,
        "/v1/users/{user}/conversations",
        |call| Box::pin(conversations::list(call)),
        "A user's conversations and groups, for the backend",
    )
    .named("listUserConversations")
    .by(Auth::Key)
    .query(CONVERSATIONS_QUERY)
    .gives(&[(200, "ConversationPage")])
    .refuses(READ),
    Endpoint::new(
        Verb::Get,
        "/v1/users/{user}/presence",
        |call| now(operations::presence(&call)),
        "How many requests of a user are held now",
    )
    .named("userPresence")
    .by(Auth::Key)
    .gives(&[(200, "Presence")]),
    Endpoint::new(
        Verb::Get,
        "/v1/messages/{sequence}/{id}",
        |call| later(history::message(call)),
        "One message",
    )
    .named("getMessage")
    .by(Auth::Key)
    .gives(&[(200, "Message")])
    .refuses(READ_MESSAGE),
    Endpoint::new(
        Verb::Get,
        "/v1/status",
        |call| now(Ok(operations::status(&call))),
        "What the server is doing",
    )
    .named("getStatus")
    .by(Auth::Key)
    .gives(&[(200, "Status")]),
];
