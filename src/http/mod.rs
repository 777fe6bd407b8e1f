//! HTTP: both listeners, their routes, and what is held open.
//!
//! The only folder that names warp and hyper. Routes are ordinary warp filters, made from one table; our own connection
//! loop drives them, because a request that is held inside hyper costs ten times the memory of one that is held
//! outside of it.
//!
//! The modules stand in layers. Each imports those below it only, which `tests/layers.rs` checks:
//!
//! | module | holds |
//! |---|---|
//! | `listener` | listening, accepting, and the life of each connection with hyper and without |
//! | `routing` | the table of endpoints, the warp filters made of it, the `OpenAPI` document |
//! | `icomet`, `pages` | icomet's protocol; the files for browsers |
//! | `session` | what is held for a reader of an inbox: polls, streams, `WebSocket`s |
//! | `api` | what is answered at once: pushes, histories, groups, tokens, operations |
//! | `endpoint` | what there is to know of one endpoint |
//! | `parked` | the trait of what waits outside of hyper, and what all that waits has in common |
//! | `request` | a request as handlers see it: caller, path, query, body |
//! | `context` | what all requests share, count and remember |
//! | `response` | replies, problems, headers, JSON |
//! | `socket` | a socket without hyper |
//!
//! The circle that these would be is open at one place: a handler returns what is to wait as a `Box<dyn Parked>`, so
//! neither the connection loop nor the routes know what there is to wait for.

mod listener;
mod routing;

mod icomet;
mod pages;

mod session;

mod api;

mod endpoint;
mod parked;
mod request;

mod context;
mod reactor;
mod response;
mod socket;

mod address;
mod authority;
mod listener_kind;
mod shutdown;

pub use api::demo::EVERYONE;
pub use context::{App, Held, Parts, Timeouts};
pub use listener::{listen, serve};
pub use listener_kind::ListenerKind;
