//! What several rows of the tables share: query parameters, refusals, answers.

use crate::http::endpoint::Param;
use crate::http::request::query::Parameter;
use crate::http::response::problem::Code;

pub(super) const LIMIT: Param = Param {
    parameter: Parameter::Limit,
    number: true,
    about: "Most messages of the page: 1 to 1000 (`page-messages-max`), usually 100.",
};
pub(super) const PAGE_BYTES: Param = Param {
    parameter: Parameter::PageBytes,
    number: true,
    about: "Most bytes of the page with everything around it, unless it has a single message: 256 to 1048576, \
            usually 1048576.",
};
pub(super) const FRAME_BYTES: Param = Param {
    parameter: Parameter::PageBytes,
    number: true,
    about: "Most bytes of a line, a frame or the events that are written at once, unless it has a single message: \
            256 to 1048576, usually 32768.",
};
pub(super) const AFTER: Param = Param {
    parameter: Parameter::After,
    number: false,
    about: "The cursor of the last reply; `0` or absent: from the beginning; `now`: from here on.",
};
pub(super) const INBOX_QUERY: &[Param] = &[
    AFTER,
    Param {
        parameter: Parameter::Wait,
        number: true,
        about: "Seconds to hold the request if there is nothing: 0 to 300 (`poll-wait-s-max`); \
                usually 30 for users and 0 for the backend.",
    },
    LIMIT,
    PAGE_BYTES,
];
pub(super) const HEARTBEAT: Param = Param {
    parameter: Parameter::Heartbeat,
    number: true,
    about: "Seconds between signs of life when nothing comes: 5 to 300, usually 30.",
};
pub(super) const STREAM_QUERY: &[Param] = &[AFTER, HEARTBEAT, LIMIT, FRAME_BYTES];
pub(super) const EVENTS_QUERY: &[Param] = &[
    AFTER,
    Param {
        parameter: Parameter::LastEventId,
        number: false,
        about: "The same as the header `Last-Event-ID`, which wins over it, for clients that cannot set headers; \
                both win over `after`. Also `last_event_id` and `last-event-id`.",
    },
    Param {
        parameter: Parameter::Refusals,
        number: false,
        about: "`event`: a refusal is answered with 200 and an event `end` that carries the problem, as an \
                `EventSource` is told nothing else.",
    },
    HEARTBEAT,
    LIMIT,
    FRAME_BYTES,
];
pub(super) const HISTORY_QUERY: &[Param] = &[
    Param {
        parameter: Parameter::Before,
        number: true,
        about: "The page just before this id.",
    },
    Param {
        parameter: Parameter::After,
        number: true,
        about: "The page just after this id.",
    },
    LIMIT,
    PAGE_BYTES,
];
pub(super) const CONVERSATIONS_QUERY: &[Param] = &[
    Param {
        parameter: Parameter::Before,
        number: false,
        about: "The `next` of the page before.",
    },
    LIMIT,
    PAGE_BYTES,
];

pub(super) const CURSOR: &[Code] = &[
    Code::BadCursor,
    Code::CursorAhead,
    Code::LogUnknown,
    Code::CursorGone,
    Code::TooManyWaiters,
    Code::Closing,
    Code::WritesRefused,
    Code::StoreDamaged,
];
/// For the backend, which the limit of a user's requests does not bind.
pub(super) const CURSOR_BACKEND: &[Code] = &[
    Code::BadCursor,
    Code::CursorAhead,
    Code::LogUnknown,
    Code::CursorGone,
    Code::Closing,
    Code::WritesRefused,
    Code::StoreDamaged,
];
pub(super) const SOCKET: &[Code] = &[
    Code::BadCursor,
    Code::CursorAhead,
    Code::LogUnknown,
    Code::CursorGone,
    Code::UpgradeRequired,
    Code::TooManyWaiters,
    Code::Closing,
    Code::WritesRefused,
    Code::StoreDamaged,
];
/// Of every read of the store: it may have to write, too.
pub(super) const READ: &[Code] = &[Code::Closing, Code::WritesRefused, Code::StoreDamaged];
pub(super) const READ_HISTORY: &[Code] = &[
    Code::CursorAhead,
    Code::Closing,
    Code::WritesRefused,
    Code::StoreDamaged,
];
pub(super) const READ_GROUP: &[Code] = &[
    Code::GroupNotFound,
    Code::CursorAhead,
    Code::Closing,
    Code::WritesRefused,
    Code::StoreDamaged,
];
pub(super) const READ_GROUP_NOW: &[Code] = &[
    Code::GroupNotFound,
    Code::Closing,
    Code::WritesRefused,
    Code::StoreDamaged,
];
pub(super) const READ_MESSAGE: &[Code] = &[
    Code::MessageNotFound,
    Code::Closing,
    Code::WritesRefused,
    Code::StoreDamaged,
];
pub(super) const WRITE: &[Code] = &[
    Code::BodyNotPortable,
    Code::IdempotencyConflict,
    Code::Busy,
    Code::Closing,
    Code::DiskFull,
    Code::WritesRefused,
];
pub(super) const WRITE_GROUP: &[Code] = &[
    Code::BodyNotPortable,
    Code::GroupNotFound,
    Code::IdempotencyConflict,
    Code::Busy,
    Code::Closing,
    Code::DiskFull,
    Code::WritesRefused,
];
pub(super) const SEND: &[Code] = &[
    Code::BodyNotPortable,
    Code::Forbidden,
    Code::IdempotencyConflict,
    Code::Busy,
    Code::Closing,
    Code::DiskFull,
    Code::WritesRefused,
];
pub(super) const SEND_GROUP: &[Code] = &[
    Code::BodyNotPortable,
    Code::Forbidden,
    Code::GroupNotFound,
    Code::IdempotencyConflict,
    Code::Busy,
    Code::Closing,
    Code::DiskFull,
    Code::WritesRefused,
];
pub(super) const CHANGE: &[Code] = &[
    Code::GroupNotFound,
    Code::GroupFull,
    Code::Busy,
    Code::Closing,
    Code::DiskFull,
    Code::WritesRefused,
];

pub(super) const RECEIPT: &[(u16, &str)] = &[(201, "Receipt"), (200, "Receipt")];
pub(super) const GROUP_CHANGED: &[(u16, &str)] = &[(200, "GroupReceipt")];
