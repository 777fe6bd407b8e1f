//! Pages of one conversation or group, before or after an id; and one message by its id.

use warp::http::StatusCode;

use crate::error::Error;
use crate::http::context::App;
use crate::http::request::call::Call;
use crate::http::request::query::{self, PageForm};
use crate::http::response::json::Writer;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::model::{HistoryPage, Sequence};

/// The history of two users.
pub(in crate::http) async fn direct(call: Call) -> Result<Reply, Problem> {
    let (user, peer) = (call.reader()?, call.user("peer")?);
    let bound = call.query.bound()?;
    let limit = call.page(PageForm::Reply)?;
    let history = call
        .app
        .hub
        .direct_history(user, peer, bound, limit)
        .await?;
    Ok(page(&call.app, &history))
}

/// The history of a group, as one who is or was its member sees it.
pub(in crate::http) async fn group(call: Call) -> Result<Reply, Problem> {
    let (user, group) = (call.reader()?, call.group()?);
    let bound = call.query.bound()?;
    let limit = call.page(PageForm::Reply)?;
    let history = call
        .app
        .hub
        .group_history(user, group, bound, limit)
        .await?;
    Ok(page(&call.app, &history))
}

/// One message, whoever may read it.
pub(in crate::http) async fn message(call: Call) -> Result<Reply, Problem> {
    let sequence = call.text("sequence")?;
    let sequence = Sequence::ALL
        .into_iter()
        .find(|known| known.name() == sequence)
        .ok_or(Problem::NoRoute)?;
    let id = query::digits(&call.text("id")?).ok_or(Error::MessageNotFound)?;
    let message = call.app.hub.message(sequence, id).await?;
    let mut out = Writer::default();
    out.message(&message);
    Ok(Reply::parts(StatusCode::OK, out.finish()))
}

fn page(app: &App, history: &HistoryPage) -> Reply {
    let mut out = Writer::default();
    out.page(
        app.hub.log(),
        "messages",
        &history.messages,
        |out, message| {
            out.message(message);
        },
    );
    out.end_page(history.more);
    Reply::parts(StatusCode::OK, out.finish())
}
