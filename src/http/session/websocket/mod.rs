//! A WebSocket: pages as they come, and from the client messages to send and fresh tokens.
//!
//! Frames from the client are read by tungstenite; pages are written past it, as their text is shared and
//! its buffer would keep the size of the longest. So its buffer is emptied before anything else is written.

mod allowance;
mod frames;
mod request;

use std::net::IpAddr;
use std::pin::Pin;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::time::{Instant, sleep_until};
use tungstenite::handshake::derive_accept_key;
use warp::http::{HeaderMap, header};

use self::allowance::Allowance;
use self::frames::{ClientFrame, Frames, ReadEnd, SocketEnd};
use self::request::Answer;
use super::close_reason::CloseReason;
use super::page;
use super::schedule::Schedule;
use crate::http::api::push::AROUND_BODY_BYTES;
use crate::http::context::App;
use crate::http::parked::{NextState, Outcome, Parked, ParkedConnection, Running};
use crate::http::request::call::{Call, Caller};
use crate::http::request::query::PageForm;
use crate::http::response::head::{ResponseContext, header_has_token};
use crate::http::response::json::Writer;
use crate::http::response::problem::Problem;
use crate::http::shutdown::Shutdown;
use crate::http::socket::{cut, write};
use crate::hub::Feed;
use crate::model::{Batch, Cursor, PageLimit, Transport};

/// Messages of one client that wait for their receipts; beyond, its next frames wait in the kernel.
const SENDS_MAX: usize = 16;
/// Frames read in one turn, so that a client that sends much still receives, and others do.
const FRAMES_MAX: usize = 64;
/// The length of the key in the base64 that RFC 6455 asks for.
const KEY_BYTES: usize = 24;

type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// An open socket.
struct Socket {
    feed: Feed,
    limit: PageLimit,
    schedule: Schedule,
    caller: Caller,
    peer: Option<IpAddr>,
    /// What the client's key is answered with.
    accept: String,
    /// The last cursor that was sent.
    last_sent: Cursor,
    last_heard_at: Instant,
    sends: FuturesOrdered<Answering>,
    allowance: Allowance,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket")
            .field("feed", &self.feed)
            .finish_non_exhaustive()
    }
}

/// `GET /v1/inbox/ws`
pub(in crate::http) fn open(call: &Call) -> Result<Outcome, Problem> {
    let caller = call.caller()?.clone();
    let schedule = Schedule::of(call, &caller)?;
    let after = call.query.after()?;
    let key = key(&call.headers).filter(|_| call.may_hold);
    // Before the feed is opened: a request that cannot become a socket must not count as a waiter.
    let key = key.ok_or(Problem::UpgradeRequired)?;
    let feed = call
        .app
        .hub
        .feed(caller.user.clone(), after, Transport::Socket)?;
    Ok(Outcome::park(Socket {
        last_sent: feed.cursor(),
        feed,
        limit: call.page(PageForm::Frame)?,
        schedule,
        caller,
        peer: call.peer,
        accept: derive_accept_key(key.as_bytes()),
        last_heard_at: Instant::now(),
        sends: FuturesOrdered::new(),
        allowance: Allowance::new(),
    }))
}

/// The client's key, if it asks for a WebSocket of the one version there is.
fn key(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let wants = header_has_token(headers, header::UPGRADE, "websocket")
        && header_has_token(headers, header::CONNECTION, "upgrade")
        && text(header::SEC_WEBSOCKET_VERSION)? == "13";
    text(header::SEC_WEBSOCKET_KEY).filter(|key| wants && key.len() == KEY_BYTES)
}

impl Parked for Socket {
    fn run(self: Box<Self>, connection: ParkedConnection<'_>) -> Running<'_> {
        let mut session = *self;
        let ParkedConnection {
            socket,
            app,
            shutdown,
            ..
        } = connection;
        Box::pin(async move {
            let patience = app.timeouts.patience();
            let head = ResponseContext::switching_head(&session.accept);
            let written = Box::pin(write(&socket.stream, head, Vec::new(), patience)).await;
            if written.is_err() {
                cut(&socket.stream);
                return NextState::Gone;
            }
            let longest = app.limits.body_bytes_max.saturating_add(AROUND_BODY_BYTES);
            let mut frames = Frames::new(socket, longest, patience);
            let ended = session.deliver(app, &mut frames, shutdown).await;
            // What was asked for is done in any case, and answered if somebody listens.
            let mut gone = matches!(ended, Err(SocketEnd::Gone));
            while let Some(answer) = session.sends.next().await {
                gone = gone || frames.text(vec![answer.text.into()]).await.is_err();
            }
            drop(session);
            let closed = match ended {
                _ if gone => Err(SocketEnd::Gone),
                Ok(reason) => frames.close(&reason, app.timeouts.linger).await,
                Err(_) => frames.flush().await,
            };
            let stream = frames.into_stream();
            match closed {
                Ok(()) | Err(SocketEnd::Closed) => NextState::Close(stream),
                Err(SocketEnd::Gone) => {
                    cut(&stream);
                    NextState::Gone
                }
            }
        })
    }
}

impl Socket {
    /// Writes what comes and does what the client asks, until it ends.
    async fn deliver(
        &mut self,
        app: &App,
        frames: &mut Frames,
        shutdown: &mut Shutdown,
    ) -> Result<CloseReason, SocketEnd> {
        let mut heartbeat = self.schedule.next_heartbeat();
        self.page(app, frames, &self.nothing()).await?;
        loop {
            if let Some(reason) = self.listen(app, frames).await? {
                return Ok(reason);
            }
            let batch = match Box::pin(self.feed.read(self.limit)).await {
                Ok(batch) => batch,
                Err(error) => return Ok(CloseReason::of(error)),
            };
            if !batch.messages.is_empty() {
                self.page(app, frames, &batch).await?;
                app.delivered(batch.messages.len());
            }
            if shutdown.has_begun() || (self.feed.closing() && !batch.more) {
                return Ok(CloseReason::Closing);
            }
            let (ends_at, reason) = self.schedule.end();
            if Instant::now() >= ends_at {
                return Ok(reason);
            }
            if batch.more {
                continue;
            }
            tokio::select! {
                // Not biased, unlike the other sessions: both sides may send much, and neither may starve the other.
                Some(answer) = self.sends.next() => {
                    frames.text(vec![answer.text.into()]).await?;
                    if answer.useless && !self.allowance.take() {
                        return Ok(CloseReason::TooManyFrames);
                    }
                }
                () = self.feed.wait() => {}
                () = frames.readable(), if self.sends.len() < SENDS_MAX => {}
                () = shutdown.begun() => {}
                () = sleep_until(heartbeat.min(ends_at)) => {}
            }
            if Instant::now() >= heartbeat {
                // Any frame counts, not only a pong: a client that sends is there.
                if self.last_heard_at.elapsed() > 2 * self.schedule.heartbeat + app.timeouts.silence
                {
                    return Ok(CloseReason::Silent);
                }
                frames.ping().await?;
                if self.feed.cursor() != self.last_sent {
                    self.page(app, frames, &self.nothing()).await?;
                }
                heartbeat = self.schedule.next_heartbeat();
            }
        }
    }

    /// Reads what the client has sent, and begins to do it.
    async fn listen(
        &mut self,
        app: &App,
        frames: &mut Frames,
    ) -> Result<Option<CloseReason>, SocketEnd> {
        for _ in 0..FRAMES_MAX {
            if self.sends.len() >= SENDS_MAX {
                break;
            }
            let heard = match frames.next() {
                Ok(Some(heard)) => heard,
                Ok(None) => break,
                Err(ReadEnd::Reason(reason)) => return Ok(Some(reason)),
                Err(ReadEnd::End(end)) => return Err(end),
            };
            self.last_heard_at = Instant::now();
            match heard {
                ClientFrame::Text(text) => {
                    // The journal's queue is entered when they are first polled: in the order of the frames.
                    let answer = self.answer(app, text.as_str());
                    self.sends.push_back(answer);
                }
                // At once, so that nothing of it is left when something else is written.
                ClientFrame::Alive => {
                    frames.flush().await?;
                    if !self.allowance.take() {
                        return Ok(Some(CloseReason::TooManyFrames));
                    }
                }
                ClientFrame::Close => return Err(SocketEnd::Closed),
            }
        }
        frames.end_turn().await;
        Ok(None)
    }

    /// Does what one message asks for.
    fn answer(&mut self, app: &App, text: &str) -> Answering {
        let (reference, done) = request::take(app, &mut self.caller, text);
        // A fresh token extends the socket, which would have ended with the old one.
        self.schedule.expires = self.caller.ends;
        Box::pin(request::answer(app.clone(), self.peer, reference, done))
    }

    async fn page(&mut self, app: &App, frames: &Frames, batch: &Batch) -> Result<(), SocketEnd> {
        let mut out = Writer::default();
        page::write(app, &mut out, batch);
        self.last_sent = batch.next;
        frames.text(out.finish()).await
    }

    fn nothing(&self) -> Batch {
        Batch {
            messages: Vec::new(),
            next: self.feed.cursor(),
            more: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_right_handshake_has_a_key() {
        let right = [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let with = |wrong: usize, value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            for (index, (name, right)) in right.into_iter().enumerate() {
                let value = if index == wrong { value } else { Some(right) };
                if let Some(value) = value {
                    headers.insert(name, value.parse().unwrap());
                }
            }
            key(&headers).map(str::to_owned)
        };
        assert_eq!(with(9, None).as_deref(), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        let mut headers = HeaderMap::new();
        for (name, value) in right {
            headers.append(name, value.parse().unwrap());
        }
        headers.insert("connection", "keep-alive".parse().unwrap());
        headers.append("connection", "upgrade".parse().unwrap());
        assert!(
            key(&headers).is_some(),
            "a header may come in several lines"
        );
        for (index, wrong) in [(0, "h2c"), (1, "keep-alive"), (2, "8"), (3, "short")] {
            assert_eq!(with(index, Some(wrong)), None, "{wrong}");
            assert_eq!(with(index, None), None, "without {index}");
        }
    }
}
