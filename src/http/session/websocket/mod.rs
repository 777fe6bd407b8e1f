//! A WebSocket: pages as they come, and from the client messages to send and fresh tokens.
//!
//! Frames from the client are read by tungstenite; pages are written past it, as their text is shared and
//! its buffer would keep the size of the longest. So its buffer is emptied before anything else is written.

mod allowance;
mod frames;
mod request;

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tungstenite::handshake::derive_accept_key;
use warp::http::{HeaderMap, header};

use self::allowance::Allowance;
use self::frames::{Frames, Heard};
use self::request::Answer;
use crate::http::api::push::AROUND_BODY_BYTES;
use crate::http::context::App;
use crate::http::listener::service::Listener;
use crate::http::parked::stopped;
use crate::http::parked::{End, Ticket, cut};
use crate::http::request::call::{Call, Caller};
use crate::http::request::query::PageForm;
use crate::http::response::head::{Asked, says};
use crate::http::response::json::Writer;
use crate::http::response::reply::{Outcome, Refusal};
use crate::http::session::close_reason::Ending;
use crate::http::session::page;
use crate::http::session::stream::Times;
use crate::http::socket::Line;
use crate::http::socket::write;
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
pub(in crate::http) struct Socket {
    feed: Feed,
    limit: PageLimit,
    times: Times,
    caller: Caller,
    peer: Option<IpAddr>,
    /// What the client's key is answered with.
    accept: String,
    /// The last cursor that the client was told.
    told: Cursor,
    heard: Instant,
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
pub(in crate::http) fn open(call: &Call) -> Result<Outcome, Refusal> {
    let caller = call.caller()?.clone();
    let times = Times::of(call, &caller)?;
    let after = call.query.after()?;
    let key = key(&call.headers).filter(|_| call.may_hold);
    let key = key.ok_or(Refusal::UpgradeRequired)?;
    let feed = call
        .app
        .hub
        .feed(caller.user.clone(), after, Transport::Socket)?;
    Ok(Outcome::Held(Ticket::Socket(Box::new(Socket {
        told: feed.cursor(),
        feed,
        limit: call.page(PageForm::Frame)?,
        times,
        caller,
        peer: call.peer,
        accept: derive_accept_key(key.as_bytes()),
        heard: Instant::now(),
        sends: FuturesOrdered::new(),
        allowance: Allowance::new(),
    }))))
}

/// The client's key, if it asks for a WebSocket of the one version there is.
fn key(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let wants = says(headers, header::UPGRADE, "websocket")
        && says(headers, header::CONNECTION, "upgrade")
        && text(header::SEC_WEBSOCKET_VERSION)? == "13";
    text(header::SEC_WEBSOCKET_KEY).filter(|key| wants && key.len() == KEY_BYTES)
}

impl Socket {
    pub(in crate::http) async fn wait(
        mut self: Box<Self>,
        line: Line,
        _: Asked,
        listener: &Arc<Listener>,
        shutdown: &mut watch::Receiver<bool>,
    ) -> End {
        let app = &listener.app;
        let patience = app.timeouts.patience();
        let head = Asked::raw_switch(&self.accept);
        if write(&line.stream, head, Vec::new(), patience)
            .await
            .is_err()
        {
            return cut(&line.stream);
        }
        let longest = app.limits.body_bytes_max.saturating_add(AROUND_BODY_BYTES);
        let mut frames = Frames::new(line, longest, patience);
        let ended = self.run(app, &mut frames, shutdown).await;
        // What was asked for is done in any case, and answered if somebody listens.
        let mut gone = matches!(ended, Err(Over::Gone));
        while let Some(answer) = self.sends.next().await {
            gone = gone || frames.text(vec![answer.text.into()]).await.is_err();
        }
        drop(self);
        let closed = match ended {
            _ if gone => Err(Over::Gone),
            Ok(ending) => frames.close(&ending, app.timeouts.linger).await,
            Err(_) => frames.flush().await,
        };
        match closed {
            Ok(()) | Err(Over::Closed) => End::Close(frames.into_stream()),
            Err(Over::Gone) => cut(&frames.into_stream()),
        }
    }

    /// Writes what comes and does what the client asks, until it ends.
    async fn run(
        &mut self,
        app: &App,
        frames: &mut Frames,
        shutdown: &mut watch::Receiver<bool>,
    ) -> Result<Ending, Over> {
        let mut heartbeat = self.times.next_heartbeat();
        self.page(app, frames, &self.nothing()).await?;
        loop {
            if let Some(ending) = self.listen(app, frames).await? {
                return Ok(ending);
            }
            let batch = match Box::pin(self.feed.read(self.limit)).await {
                Ok(batch) => batch,
                Err(error) => return Ok(Ending::of(error)),
            };
            if !batch.messages.is_empty() {
                self.page(app, frames, &batch).await?;
                app.delivered(batch.messages.len());
            }
            if *shutdown.borrow() || (self.feed.closing() && !batch.more) {
                return Ok(Ending::Closing);
            }
            let (ends_at, ending) = self.times.end();
            if Instant::now() >= ends_at {
                return Ok(ending);
            }
            if batch.more {
                continue;
            }
            tokio::select! {
                Some(answer) = self.sends.next() => {
                    frames.text(vec![answer.text.into()]).await?;
                    if answer.useless && !self.allowance.take() {
                        return Ok(Ending::TooManyFrames);
                    }
                }
                () = self.feed.wait() => {}
                () = frames.readable(), if self.sends.len() < SENDS_MAX => {}
                () = stopped(shutdown) => {}
                () = sleep_until(heartbeat.min(ends_at)) => {}
            }
            if Instant::now() >= heartbeat {
                if self.heard.elapsed() > 2 * self.times.heartbeat + app.timeouts.silence {
                    return Ok(Ending::Silent);
                }
                frames.ping().await?;
                if self.feed.cursor() != self.told {
                    self.page(app, frames, &self.nothing()).await?;
                }
                heartbeat = self.times.next_heartbeat();
            }
        }
    }

    /// Reads what the client has sent, and begins to do it.
    async fn listen(&mut self, app: &App, frames: &mut Frames) -> Result<Option<Ending>, Over> {
        for _ in 0..FRAMES_MAX {
            if self.sends.len() >= SENDS_MAX {
                break;
            }
            let heard = match frames.next() {
                Ok(Some(heard)) => heard,
                Ok(None) => break,
                Err(frames::Fault::Ending(ending)) => return Ok(Some(ending)),
                Err(frames::Fault::Over(over)) => return Err(over),
            };
            self.heard = Instant::now();
            match heard {
                Heard::Text(text) => {
                    // The journal's queue is entered when they are first polled: in the order of the frames.
                    let answer = self.answer(app, text.as_str());
                    self.sends.push_back(answer);
                }
                // At once, so that nothing of it is left when something else is written.
                Heard::Life => {
                    frames.flush().await?;
                    if !self.allowance.take() {
                        return Ok(Some(Ending::TooManyFrames));
                    }
                }
                Heard::Close => return Err(Over::Closed),
            }
        }
        frames.end_turn().await;
        Ok(None)
    }

    /// Does what one message asks for.
    fn answer(&mut self, app: &App, text: &str) -> Answering {
        let (reference, done) = request::take(app, &mut self.caller, text);
        self.times.expires = self.caller.ends;
        Box::pin(request::answer(app.clone(), self.peer, reference, done))
    }

    async fn page(&mut self, app: &App, frames: &Frames, batch: &Batch) -> Result<(), Over> {
        let mut out = Writer::default();
        page::write(app, &mut out, batch);
        self.told = batch.next;
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

/// Why there is nothing more to say.
#[derive(Debug)]
pub(in crate::http) enum Over {
    /// The client closes.
    Closed,
    /// The client is gone, or does not read.
    Gone,
}

impl From<std::io::Error> for Over {
    fn from(_: std::io::Error) -> Self {
        Self::Gone
    }
}

/// The head of a text frame from a server: never masked, never in parts.
fn text_head(length: usize) -> Bytes {
    const TEXT: u8 = 0x81;
    let mut head = vec![TEXT];
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(length @ ..126), _) => head.push(length),
        (_, Ok(length)) => {
            head.push(126);
            head.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            head.push(127);
            let length = u64::try_from(length).unwrap_or(u64::MAX);
            head.extend_from_slice(&length.to_be_bytes());
        }
    }
    head.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_short_as_the_standard_wants() {
        for (length, head) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_535, vec![0x81, 126, 0xff, 0xff]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(text_head(length)[..], head, "{length}");
        }
    }

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
