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
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::consume_budget;
use tokio::time::{sleep, timeout};

use super::exchange::Exchange;
use super::hyper_io::Io;
use super::service::{HttpService, Listener};
use crate::http::context::admission::Admitted;
use crate::http::listener_kind::ListenerKind;
use crate::http::parked::{NextState, ParkedRequest};
use crate::http::reactor::{self, Guest, Session};
use crate::http::shutdown::Shutdown;
use crate::http::socket::{ClientSocket, cut, has_byte, linger};
use crate::model::UserName;

/// The longest head of a request; hyper answers longer ones with 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// What the line of a request may have more where icomet's backends publish by GET: as much as a URI can have.
const LINE_BYTES_MORE: usize = 64 * 1024;
/// How long hyper is kept for a peer that may ask again at once, as backends do.
const QUIET: Duration = Duration::from_millis(250);

/// What a connection has wherever it is: with hyper in a task, or held by a reactor.
pub(super) struct Seat {
    pub(super) listener: Arc<Listener>,
    /// It counts as open.
    pub(super) _admitted: Admitted,
    /// Where it goes when a reactor gives it back.
    pub(super) home: mpsc::Sender<Returned>,
}

/// A connection that a reactor gives back.
pub(super) struct Returned {
    line: reactor::Line,
    seat: Seat,
}

/// What became of the requests that hyper was given.
enum AfterHyper {
    /// The connection is to be closed.
    Close(Option<TcpStream>),
    /// All is answered; the next request may take long to come.
    Idle(ClientSocket),
    /// A request waits for something to happen.
    Parked(ClientSocket, ParkedRequest),
}

/// Serves a new connection until it ends, or until a reactor has it.
pub(super) async fn run(stream: TcpStream, seat: Seat, shutdown: Shutdown) {
    let read_ahead = Bytes::new();
    serve(ClientSocket { stream, read_ahead }, seat, shutdown).await;
}

/// The same for one that comes back.
pub(super) async fn come_back(returned: Returned, shutdown: Shutdown) {
    let Returned { line, seat } = returned;
    let stream = match TcpStream::from_std(line.stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::warn!(%error, "a connection is lost"),
    };
    // The runtime takes it for full until it has been told otherwise, and a reply that hyper cannot write at once is lost
    // where the connection ends with it.
    let patience = seat.listener.app.timeouts.write;
    if timeout(patience, stream.writable()).await.is_err() {
        return cut(&stream);
    }
    let read_ahead = line.front;
    serve(ClientSocket { stream, read_ahead }, seat, shutdown).await;
}

async fn serve(mut socket: ClientSocket, seat: Seat, mut shutdown: Shutdown) {
    let listener = seat.listener.clone();
    let peer = socket.stream.peer_addr().ok().map(|peer| peer.ip());
    loop {
        // Requests that came together must not keep others waiting.
        consume_budget().await;
        if socket.read_ahead.is_empty()
            && !next_byte(&socket.stream, listener.app.timeouts.idle, &mut shutdown).await
        {
            return;
        }
        // Boxed, so that the hyper part takes no room in the task while it is not there.
        match Box::pin(drive(socket, &listener, peer, &mut shutdown)).await {
            AfterHyper::Close(stream) => {
                if let Some(stream) = stream {
                    Box::pin(linger(stream, listener.app.timeouts.linger)).await;
                }
                return;
            }
            AfterHyper::Idle(idle) => socket = idle,
            AfterHyper::Parked(parked_socket, request) => {
                let parked = request.run(parked_socket, &listener.app, &mut shutdown);
                match parked.await {
                    NextState::KeepAlive(answered) => socket = answered,
                    NextState::Reactor(socket, user, session) => {
                        return hand_over(socket, &user, session, seat);
                    }
                    NextState::Close(stream) => {
                        return Box::pin(linger(stream, listener.app.timeouts.linger)).await;
                    }
                    NextState::Gone => return,
                }
            }
        }
    }
}

/// Gives a connection to the reactor that holds what is this user's.
fn hand_over(socket: ClientSocket, user: &UserName, session: Box<dyn Session>, seat: Seat) {
    let ClientSocket { stream, read_ahead } = socket;
    let line = match stream.into_std() {
        Ok(stream) => reactor::Line {
            stream,
            front: read_ahead,
        },
        Err(error) => return tracing::warn!(%error, "a connection is lost"),
    };
    let listener = seat.listener.clone();
    let way_back = Box::new(move |line| {
        let home = seat.home.clone();
        // There is room for every connection that is admitted.
        if home.try_send(Returned { line, seat }).is_err() {
            tracing::debug!("a connection comes back too late");
        }
    });
    let guest = Guest {
        line,
        session,
        way_back,
    };
    listener.app.shared().reactors.park(user, guest);
}

/// Waits for the next request without a buffer. False: the connection ends here.
async fn next_byte(stream: &TcpStream, idle: Duration, shutdown: &mut Shutdown) -> bool {
    tokio::select! {
        biased;
        // A request that has come is answered, also while the server stops.
        more = has_byte(stream) => more,
        () = shutdown.begun() => false,
        () = sleep(idle) => false,
    }
}

/// Lets hyper serve requests until there is nothing left to do for it.
async fn drive(
    socket: ClientSocket,
    listener: &Arc<Listener>,
    peer: Option<IpAddr>,
    shutdown: &mut Shutdown,
) -> AfterHyper {
    let exchange = Arc::new(Exchange::default());
    let head = socket.read_ahead.clone();
    let timeouts = &listener.app.timeouts;
    let io = Io::new(socket, timeouts.patience(), exchange.clone());
    let service = HttpService {
        listener: listener.clone(),
        exchange: exchange.clone(),
        peer,
    };
    let mut connection = Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.head)
        .max_buf_size(head_bytes_max(listener))
        .half_close(true) // a pusher may shut its sending side and still wants the receipt
        .serve_connection(io, service);
    let mut stopping = false;
    // hyper counts the time until the next head begins as the head's own.
    let pause = QUIET.min(timeouts.head / 2);
    let mut quiet = std::pin::pin!(quiet(&exchange, pause));
    let end = loop {
        tokio::select! {
            biased;
            // hyper first: what it has just done decides whether it is quiet.
            end = hyper_end(&mut connection, &exchange) => break end,
            () = &mut quiet, if !stopping => break HyperEnd::Idle,
            () = shutdown.begun(), if !stopping => {
                stopping = true;
                stop(&mut connection);
            }
        }
    };
    // hyper may have read part of the next request, which must go with the socket.
    let parts = connection.into_parts();
    let is_whole = parts.io.gave_read_ahead_only() && parts.read_buf.is_empty();
    let socket = parts.io.into_socket(&parts.read_buf);
    match end {
        HyperEnd::Closed { cut: true } => {
            cut(&socket.stream);
            AfterHyper::Close(None)
        }
        HyperEnd::Closed { cut: false } => AfterHyper::Close(Some(socket.stream)),
        HyperEnd::Idle => AfterHyper::Idle(socket),
        HyperEnd::Parked(mut request) => {
            request.head = is_whole.then_some(head);
            AfterHyper::Parked(socket, request)
        }
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
fn stop(connection: &mut Connection<Io, HttpService>) {
    Pin::new(connection).graceful_shutdown();
}

/// Resolves when the last request was answered a while ago and no other has begun. Must be polled after the connection:
/// it registers no waker for the flags that hyper sets, but is polled whenever hyper has got on.
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

enum HyperEnd {
    Closed { cut: bool },
    Idle,
    Parked(ParkedRequest),
}

async fn hyper_end(connection: &mut Connection<Io, HttpService>, exchange: &Exchange) -> HyperEnd {
    poll_fn(|cx| {
        if let Poll::Ready(done) = connection.poll_without_shutdown(cx) {
            if let Err(error) = &done {
                tracing::debug!(%error, "connection ended early");
            }
            return Poll::Ready(HyperEnd::Closed {
                cut: exchange.is_blocked(),
            });
        }
        if let Some(request) = exchange.take_parked() {
            return Poll::Ready(HyperEnd::Parked(request));
        }
        Poll::Pending
    })
    .await
}
