//! The life of one connection.
//!
//! hyper reads requests and writes replies, but its state (two buffers and more, about 19 KB) lives
//! only as long as there is something to read or write. Between requests, and while a request is held,
//! there is only the socket.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1::{Builder, Connection};
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::consume_budget;
use tokio::time::{sleep, timeout};

use crate::http::listener::hyper_io::Io;
use crate::http::listener::service::{Exchange, Front, Listener};
use crate::http::listener_kind::ListenerKind;
use crate::http::parked::stopped;
use crate::http::parked::{self, Held};
use crate::http::socket::Line;
use crate::http::socket::has_byte;

/// The longest head of a request; hyper answers longer ones with 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// What the line of a request may have more where icomet's backends publish by GET: as much as a URI can have.
const LINE_BYTES_MORE: usize = 64 * 1024;
/// How long hyper is kept for a peer that may ask again at once, as backends do.
const QUIET: Duration = Duration::from_millis(250);
/// What is read and thrown away of a peer that goes on sending after our end.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// What became of the requests that hyper was given.
enum Turn {
    /// The connection is to be closed.
    Over(Option<TcpStream>),
    /// All is answered; the next request may take long to come.
    Idle(Line),
    /// A request waits for something to happen.
    Held(Line, Box<Held>),
}

/// Serves one connection until it ends.
pub(in crate::http) async fn run(
    stream: TcpStream,
    listener: Arc<Listener>,
    mut shutdown: watch::Receiver<bool>,
) {
    let peer = stream.peer_addr().ok().map(|peer| peer.ip());
    let mut line = Line {
        stream,
        front: Bytes::new(),
    };
    loop {
        // Requests that came together must not keep others waiting.
        consume_budget().await;
        if line.front.is_empty()
            && !next_byte(&line.stream, listener.app.timeouts.idle, &mut shutdown).await
        {
            return;
        }
        // Boxed, so that the hyper part takes no room in the task while it is not there.
        match Box::pin(drive(line, &listener, peer, &mut shutdown)).await {
            Turn::Over(stream) => {
                if let Some(stream) = stream {
                    Box::pin(linger(stream, listener.app.timeouts.linger)).await;
                }
                return;
            }
            Turn::Idle(idle) => line = idle,
            Turn::Held(held_line, held) => {
                match parked::wait(held_line, *held, &listener, &mut shutdown).await {
                    parked::End::GoOn(answered) => line = answered,
                    parked::End::Close(stream) => {
                        return Box::pin(linger(stream, listener.app.timeouts.linger)).await;
                    }
                    parked::End::Gone => return,
                }
            }
        }
    }
}

/// Waits for the next request without a buffer. False: the connection ends here.
async fn next_byte(
    stream: &TcpStream,
    idle: Duration,
    shutdown: &mut watch::Receiver<bool>,
) -> bool {
    tokio::select! {
        biased;
        more = has_byte(stream) => more,
        () = stopped(shutdown) => false,
        () = sleep(idle) => false,
    }
}

/// Lets hyper serve requests until there is nothing left to do for it.
async fn drive(
    line: Line,
    listener: &Arc<Listener>,
    peer: Option<IpAddr>,
    shutdown: &mut watch::Receiver<bool>,
) -> Turn {
    let exchange = Arc::new(Exchange::default());
    let timeouts = &listener.app.timeouts;
    let io = Io::new(line, timeouts.patience(), exchange.clone());
    let front = Front {
        listener: listener.clone(),
        exchange: exchange.clone(),
        peer,
    };
    let mut connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.head)
        .max_buf_size(head_bytes_max(listener))
        .half_close(true) // a pusher may shut its sending side and still wants the receipt
        .serve_connection(io, front);
    let mut stopping = false;
    // hyper counts the time until the next head begins as the head's own.
    let pause = QUIET.min(timeouts.head / 2);
    let mut quiet = std::pin::pin!(quiet(&exchange, pause));
    let end = loop {
        tokio::select! {
            biased;
            end = next_end(&mut connection, &exchange) => break end,
            () = &mut quiet, if !stopping => break End::Idle,
            () = stopped(shutdown), if !stopping => {
                stopping = true;
                stop(&mut connection);
            }
        }
    };
    let parts = connection.into_parts();
    let line = parts.io.into_line(&parts.read_buf);
    match end {
        End::Over { cut: true } => {
            // What the peer did not take is dropped with the socket, not kept by the kernel.
            drop(line.stream.set_zero_linger());
            Turn::Over(None)
        }
        End::Over { cut: false } => Turn::Over(Some(line.stream)),
        End::Idle => Turn::Idle(line),
        End::Held(held) => Turn::Held(line, held),
    }
}

fn head_bytes_max(listener: &Listener) -> usize {
    if listener.kind == ListenerKind::Admin && listener.app.channels().is_some() {
        HEAD_BYTES_MAX + LINE_BYTES_MORE
    } else {
        HEAD_BYTES_MAX
    }
}

/// Lets the request under way finish, and no other begin.
fn stop(connection: &mut Connection<Io, Front>) {
    Pin::new(connection).graceful_shutdown();
}

/// Resolves when the last request was answered a while ago and no other has begun. Must be polled after the
/// connection.
async fn quiet(exchange: &Exchange, pause: Duration) {
    let mut waiting = None;
    poll_fn(|cx| {
        if !exchange.is_over() {
            waiting = None;
            return Poll::Pending;
        }
        let waiting = waiting.get_or_insert_with(|| Box::pin(sleep(pause)));
        waiting.as_mut().poll(cx)
    })
    .await;
}

enum End {
    Over { cut: bool },
    Idle,
    Held(Box<Held>),
}

async fn next_end(connection: &mut Connection<Io, Front>, exchange: &Exchange) -> End {
    poll_fn(|cx| {
        if let Poll::Ready(done) = connection.poll_without_shutdown(cx) {
            if let Err(error) = &done {
                tracing::debug!(%error, "connection ended early");
            }
            return Poll::Ready(End::Over {
                cut: exchange.is_blocked(),
            });
        }
        if let Some(held) = exchange.take_held() {
            return Poll::Ready(End::Held(Box::new(held)));
        }
        Poll::Pending
    })
    .await
}

/// Ends our side and waits a little for the peer's, so that the last reply is not lost to a reset.
pub(in crate::http) async fn linger(mut stream: TcpStream, limit: Duration) {
    let discard = async {
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES_MAX;
        let mut scrap = [0; 1024];
        while left > 0 {
            match tokio::io::AsyncReadExt::read(&mut stream, &mut scrap).await {
                Ok(length @ 1..) => left = left.saturating_sub(length),
                Ok(0) | Err(_) => return,
            }
        }
    };
    if timeout(limit, discard).await.is_err() {
        tracing::trace!("the peer did not close");
    }
}
