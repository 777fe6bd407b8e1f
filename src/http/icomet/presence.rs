//! `/psub`: which channels come into use and go out of it, a line each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::out::Out;
use super::{ADMIN, admin, headers, not_allowed};
use crate::http::context::channels::ChannelsInUse;
use crate::http::listener::service::Listener;
use crate::http::parked::stopped;
use crate::http::parked::{self, End, cut};
use crate::http::request::call::Call;
use crate::http::response::head::Asked;
use crate::http::response::reply::{Outcome, Refusal, Reply};
use crate::http::socket::Line;
use crate::http::socket::left;
use crate::model::UserName;

/// How long changes are gathered, so that many of them are one look.
const GATHERED: Duration = Duration::from_millis(50);
/// How often time alone may change something.
const TICK: Duration = Duration::from_millis(500);

/// A listening backend. Remembers what it last reported, so a slow listener still converges on the current state.
#[derive(Debug, Default)]
pub(in crate::http) struct Watcher {
    /// What was last reported of each user, and when.
    known: HashMap<UserName, (u64, Instant)>,
}

/// Checks who asks.
pub(super) async fn open(mut call: Call) -> Result<Outcome, Refusal> {
    let log = call.app.hub.log();
    let refused = |reply| {
        Ok(Outcome::Reply(Reply {
            more: headers(ADMIN),
            ..reply
        }))
    };
    if !call.may_hold {
        return refused(not_allowed(&["GET"]));
    }
    match admin::asked(&mut call).await {
        Ok(_) => {
            let ticket = super::Ticket::Watcher(Watcher::default());
            Ok(Outcome::Held(parked::Ticket::Icomet(ticket)))
        }
        Err(refusal) => refused(Reply::refusal(&refusal, log)),
    }
}

impl Watcher {
    pub(super) async fn wait(
        mut self,
        mut line: Line,
        asked: Asked,
        listener: &Arc<Listener>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> End {
        let app = &listener.app;
        let Some(live) = app.channels() else {
            return End::Gone;
        };
        let mut changes = live.changes();
        let reply = Reply {
            more: headers(ADMIN),
            ..Reply::stream("text/plain; charset=utf-8")
        };
        let mut out = Out::new(&asked, &reply);
        let tick = TICK.min(live.idle() / 4);
        loop {
            changes.borrow_and_update();
            self.news(live, &mut out);
            if out.send(app, &line).await.is_err() {
                return cut(&line.stream);
            }
            tokio::select! {
                biased;
                () = left(&mut line) => return End::Gone,
                () = stopped(shutdown) => break,
                _ = changes.changed() => sleep(GATHERED).await,
                () = sleep(tick) => {}
            }
        }
        out.end(app, line).await
    }

    /// What is not known yet, and again what was told long ago: that is how others build their tables.
    fn news(&mut self, live: &ChannelsInUse, out: &mut Out) {
        let (now, again) = (Instant::now(), live.idle());
        let lives = live.lives();
        let mut tell =
            |sign: char, name: &UserName| out.put(&format!("{sign} {}\n", name.as_str()));
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
    }
}
