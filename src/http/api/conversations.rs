//! The list of a user's conversations and groups, each with its last message.

use warp::http::StatusCode;

use crate::http::context::App;
use crate::http::parked::Outcome;
use crate::http::parked::cancellable::CancellableReply;
use crate::http::request::call::Call;
use crate::http::request::query::{self, PageForm, Parameter};
use crate::http::response::json::Writer;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::model::{ConversationEntry, ConversationToken, Message, PageLimit, Sequence, UserName};

/// Newest first, in pages.
pub(in crate::http) async fn list(call: Call) -> Result<Outcome, Problem> {
    let user = call.reader()?;
    let limit = call.page(PageForm::Reply)?;
    let before = match call.query.get(Parameter::Before) {
        None => None,
        Some(text) => Some(
            parse(&text)
                .ok_or_else(|| query::wrong("before", &text, "the `next` of an earlier page"))?,
        ),
    };
    let reply = page(call.app, user, before, limit);
    // A list may take long. Parked, it is dropped when the client leaves, and keeps none of hyper's buffers meanwhile.
    if call.may_hold {
        return Ok(Outcome::park(CancellableReply::new(reply)));
    }
    reply.await.map(Outcome::Reply)
}

async fn page(
    app: App,
    user: UserName,
    before: Option<ConversationToken>,
    limit: PageLimit,
) -> Result<Reply, Problem> {
    let page = app.hub.conversations(user, before, limit).await?;
    let mut out = Writer::default();
    out.page(app.hub.log(), "conversations", &page.entries, write);
    out.raw(",\"next\":");
    out.value(&page.next.map(text));
    out.end_page(page.next.is_some());
    Ok(Reply::parts(StatusCode::OK, out.finish()))
}

fn write(out: &mut Writer, entry: &ConversationEntry) {
    let last: Option<&Message> = match entry {
        ConversationEntry::Direct { peer, last } => {
            out.raw("{\"user\":");
            out.value(peer.as_str());
            Some(last)
        }
        ConversationEntry::Group {
            group,
            member,
            last,
        } => {
            out.raw("{\"group\":");
            out.value(group.as_str());
            out.raw(",\"member\":");
            out.value(member);
            last.as_deref()
        }
    };
    out.raw(",\"last\":");
    match last {
        Some(message) => out.message(message),
        None => out.raw("null"),
    }
    out.raw("}");
}

fn text(token: ConversationToken) -> String {
    format!("{}-{}-{}", token.at_ms, token.sequence, token.id)
}

fn parse(text: &str) -> Option<ConversationToken> {
    let mut parts = text.split('-');
    let at_ms = query::digits(parts.next()?)?;
    let name = parts.next()?;
    let sequence = Sequence::ALL
        .into_iter()
        .find(|sequence| sequence.name() == name)?;
    let id = query::digits(parts.next()?)?;
    parts.next().is_none().then_some(ConversationToken {
        at_ms,
        sequence,
        id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_round_trips() {
        let token = ConversationToken {
            at_ms: 1_763_890_000_123,
            sequence: Sequence::Group,
            id: 7,
        };
        assert_eq!(parse(&text(token)), Some(token));
        for wrong in [
            "",
            "1",
            "1-group",
            "1-team-2",
            "1-group-2-3",
            "-1-group-2",
            "x-direct-1",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
