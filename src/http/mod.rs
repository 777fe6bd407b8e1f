//! HTTP: both listeners, their routes, and held requests.
//!
//! The only folder that names warp and hyper. Routes are ordinary warp filters, made from one table
//! (`endpoints`); our own connection loop drives them (`connection`), because a request that is held
//! inside hyper costs ten times the memory of one that is held outside of it (`hold`).

mod accept;
mod address;
mod admin;
mod app;
mod attempts;
mod auth;
mod body;
mod call;
mod connection;
mod conversations;
mod demo;
mod ending;
mod endpoint;
mod endpoints;
mod groups;
mod head;
mod history;
mod hold;
mod host;
mod icomet;
mod inbox;
mod io;
mod json;
mod later;
mod openapi;
mod pace;
mod pages;
mod poll;
mod push;
mod query;
mod reply;
mod routes;
mod schemas;
mod service;
mod shapes;
mod socket;
mod stream;
mod tokens;
mod wire;
mod work;

pub use accept::{listen, serve};
pub use app::{App, Face, Parts, Timeouts};
pub use demo::EVERYONE;
