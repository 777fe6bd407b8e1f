//! `/psub`: which channels come into use and go out of it, a line each.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::admin;
use super::reply::{BACKEND_HEADERS, headers, method_not_allowed};
use crate::http::context::channels::ChannelsInUse;
use crate::http::parked::endless::EndlessReply;
use crate::http::parked::{NextState, Outcome, Parked, ParkedConnection, Running};
use crate::http::request::call::Call;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::http::socket::peer_disconnected;
use crate::model::UserName;

/// How long changes are gathered, so that many of them are one look.
const GATHERED: Duration = Duration::from_millis(50);
/// How often time alone may change something.
const TICK: Duration = Duration::from_millis(500);

/// A listening backend. Remembers what it last reported, so a slow listener still converges on the current state.
#[derive(Debug, Default)]
struct Watcher {
    /// What was last reported of each user, and when.
    known: HashMap<UserName, (u64, Instant)>,
}

/// Checks who asks.
pub(super) async fn open(mut call: Call) -> Result<Outcome, Problem> {
    let log = call.app.hub.log();
    let refused = |reply| {
        Ok(Outcome::Reply(Reply {
            more: headers(BACKEND_HEADERS),
            ..reply
        }))
    };
    if !call.may_hold {
        return refused(method_not_allowed(&["GET"]));
    }
    match admin::asked(&mut call).await {
        Ok(_) => Ok(Outcome::park(Watcher::default())),
        Err(problem) => refused(Reply::problem(&problem, log)),
    }
}

impl Parked for Watcher {
    fn run(self: Box<Self>, mut connection: ParkedConnection<'_>) -> Running<'_> {
        let mut watcher = *self;
        Box::pin(async move {
            let Some(channels) = connection.app.channels() else {
                return NextState::Gone;
            };
            let reply = Reply {
                more: headers(BACKEND_HEADERS),
                ..Reply::stream("text/plain; charset=utf-8")
            };
            let mut out = EndlessReply::new(&connection.response, &reply);
            drop(reply);
            let mut changes = channels.changes();
            let tick = TICK.min(channels.idle() / 4);
            loop {
                changes.borrow_and_update();
                out.put_texts(watcher.news(channels));
                if out.send(&connection).await.is_err() {
                    return connection.cut();
                }
                // The peer first: where something changes all the time, nobody would see it leave.
                tokio::select! {
                    biased;
                    () = peer_disconnected(&mut connection.socket) => return NextState::Gone,
                    () = connection.shutdown.begun() => break,
                    _ = changes.changed() => sleep(GATHERED).await,
                    () = sleep(tick) => {}
                }
            }
            out.end(connection).await
        })
    }
}

impl Watcher {
    /// What is not known yet, and again what was told long ago: that is how others build their tables.
    fn news(&mut self, channels: &ChannelsInUse) -> Vec<String> {
        let (now, again) = (Instant::now(), channels.idle());
        let lives = channels.lives();
        let mut news = Vec::new();
        let mut tell =
            |sign: char, name: &UserName| news.push(format!("{sign} {}\n", name.as_str()));
        self.known.retain(|name, (life, _)| {
            let same = lives.get(name) == Some(life);
            if !same {
                tell('0', name);
            }
            same
        });
        for (name, life) in lives {
            let told = self.known.get(&name);
            if told.is_none_or(|(_, at)| now.saturating_duration_since(*at) >= again) {
                tell('1', &name);
                self.known.insert(name, (life, now));
            }
        }
        news
    }
}
