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
    let rendered = &app.shared().rendered;
    out.page(
        app.hub.log(),
        "messages",
        &batch.messages,
        |out, message| {
            rendered.write(out, message);
        },
    );
    out.text(format_args!(",\"next\":\"{}\"", batch.next));
    out.end_page(batch.more);
}
