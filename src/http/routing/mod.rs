//! Which request goes where: the table of endpoints, the warp filters made of it, and the `OpenAPI` document.

pub(super) mod openapi;
pub(super) mod routes;
mod schemas;
pub(super) mod table;
