//! A batch of an inbox as JSON: the same object by every transport.

use warp::http::StatusCode;

use crate::http::context::App;
use crate::http::response::json::Writer;
use crate::http::response::reply::{HELD, Reply};
use crate::model::Batch;

/// The reply that carries a batch.
pub(in crate::http) fn reply(app: &App, batch: &Batch) -> Reply {
    let mut out = Writer::default();
    write(app, &mut out, batch);
    Reply {
        cache: HELD,
        ..Reply::parts(StatusCode::OK, out.finish())
    }
}

/// Writes a batch.
pub(in crate::http) fn write(app: &App, out: &mut Writer, batch: &Batch) {
    out.page_of(app.hub.log());
    out.raw("\"messages\":[");
    for (index, message) in batch.messages.iter().enumerate() {
        if index > 0 {
            out.raw(",");
        }
        app.shared().rendered.write(out, message);
    }
    out.raw("],");
    out.cursor(batch.next);
    out.raw(if batch.more {
        ",\"more\":true}"
    } else {
        ",\"more\":false}"
    });
}
