//! Listens, accepts the connections of one listener and owns their tasks.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::connection::{self, Returned, Seat};
use super::service::Listener;
use crate::http::context::App;
use crate::http::listener_kind::ListenerKind;
use crate::http::response::head::ResponseContext;
use crate::http::response::problem::Problem;
use crate::http::response::reply::Reply;
use crate::http::routing::routes;
use crate::http::shutdown::Shutdown;
use crate::http::socket::linger;

/// After an error of `accept` that may last, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections beyond the limit that are told so at once, by each listener; those beyond these are just closed. All
/// fit into the open files that are not counted as connections.
const REFUSALS_MAX: usize = 32;

/// Connections that may wait to be accepted, as far as the system allows (`net.core.somaxconn`). When all clients
/// come back at once, those beyond it are not answered, and try again only after a second.
const BACKLOG: u32 = 4096;

/// What the system keeps of replies for each client that does not read; it counts twice as much, with its own
/// overhead. By itself it keeps up to 4 MiB. It reports room only when a third of that is free, so this also decides how
/// slowly a client may read: a third within the 30 s that a reply may rest is 1.4 KiB a second.
const SEND_BUFFER_BYTES: u32 = 64 * 1024;

/// Listens on an address.
pub fn listen(address: SocketAddr, kind: ListenerKind) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Or the address is not free for a minute after a stop.
    socket.set_reuseaddr(true)?;
    if kind == ListenerKind::Client {
        // Connections inherit it.
        socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves a listener until `shutdown` is true and every connection has ended. Dropping the future cuts
/// those that are left.
pub async fn serve(
    listener: TcpListener,
    kind: ListenerKind,
    app: App,
    shutdown: watch::Receiver<bool>,
) {
    let mut shutdown = Shutdown::from(shutdown);
    let routes = routes::routes(&app, kind);
    let (home, mut returning) = mpsc::channel(app.limits.connections_max.max(1));
    let reactors = app.shared().reactors.clone();
    let shared = Arc::new(Listener { app, kind, routes });
    let stop = shutdown.clone();
    let mut connections = JoinSet::new();
    let mut refusals = JoinSet::new();
    let mut accept_after = Instant::now();
    loop {
        tokio::select! {
            () = shutdown.begun() => break,
            Some(ended) = connections.join_next() => note(ended),
            Some(ended) = refusals.join_next() => note(ended),
            Some(returned) = returning.recv() => {
                connections.spawn(connection::come_back(returned, stop.clone()));
            }
            (stream, peer) = accept(&listener, &mut accept_after) => {
                let tasks = (&mut connections, &mut refusals);
                admit((stream, peer.ip()), (&shared, &home), &stop, tasks);
            }
        }
    }
    // Before the connections have ended: new clients are refused at once and can try another server.
    drop((listener, home));
    reactors.stop();
    // It ends when no connection has a way back any longer.
    while let Some(returned) = returning.recv().await {
        connections.spawn(connection::come_back(returned, stop.clone()));
    }
    for tasks in [&mut connections, &mut refusals] {
        while let Some(ended) = tasks.join_next().await {
            note(ended);
        }
    }
}

/// Accepts the next connection, after the pause that an error makes. The pause is kept if this is dropped: others are
/// served meanwhile.
async fn accept(listener: &TcpListener, after: &mut Instant) -> (TcpStream, SocketAddr) {
    loop {
        sleep_until(*after).await;
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for now");
                *after = Instant::now() + ACCEPT_PAUSE;
            }
        }
    }
}

fn admit(
    (stream, address): (TcpStream, IpAddr),
    (listener, home): (&Arc<Listener>, &mpsc::Sender<Returned>),
    stop: &Shutdown,
    (connections, refusals): (&mut JoinSet<()>, &mut JoinSet<()>),
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let listener = listener.clone();
    let open = &listener.app.shared().connections;
    match open.admit(listener.kind, address) {
        Ok(admitted) => {
            let seat = Seat {
                listener,
                _admitted: admitted,
                home: home.clone(),
            };
            connections.spawn(connection::run(stream, seat, stop.clone()));
        }
        Err(problem) if refusals.len() < REFUSALS_MAX => {
            refusals.spawn(refuse(stream, listener, problem));
        }
        Err(_) => {}
    }
}

/// Says that there is no room.
async fn refuse(stream: TcpStream, listener: Arc<Listener>, problem: Problem) {
    let app = &listener.app;
    let reply = Reply::problem(&problem, app.hub.log());
    let text = [
        &ResponseContext::unknown().head(&reply, false)[..],
        &reply.body.concat(),
    ]
    .concat();
    if stream.try_write(&text).is_ok() {
        linger(stream, app.timeouts.linger).await;
    }
}

fn is_of_one_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn many_clients_may_come_at_once() {
        const CLIENTS: usize = 400;
        let listener = listen("127.0.0.1:0".parse().unwrap(), ListenerKind::Client).unwrap();
        let address = listener.local_addr().unwrap();
        let mut clients = Vec::new();
        // None is accepted. Those that are not let in wait for ever.
        for n in 0..CLIENTS {
            let connected = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5));
            clients.push(connected.unwrap_or_else(|error| panic!("client {n}: {error}")));
        }
    }
}
