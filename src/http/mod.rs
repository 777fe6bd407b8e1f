//! HTTP: both listeners, their routes, and held requests.
//!
//! The only folder that names warp and hyper. Routes are ordinary warp filters, made from one table
//! (`routing`); our own connection loop drives them (`listener`), because a request that is held
//! inside hyper costs ten times the memory of one that is held outside of it (`parked`).

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
mod response;
mod socket;

mod address;
mod authority;
mod listener_kind;
mod shutdown;

pub use api::demo::EVERYONE;
pub use context::{App, Parts, Timeouts};
pub use listener::{listen, serve};
pub use listener_kind::ListenerKind;
