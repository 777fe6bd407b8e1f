//! The server as a whole: opens the data directory, binds both listeners, runs until it is told to stop, and
//! stops in order under one deadline.

use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::{debug, error, info, warn};

use crate::config::{Config, Durability, IcometRules, KeyError};
use crate::http::{self, App, Held, ListenerKind, Parts, Timeouts};
use crate::hub::{self, Closed, Hub};
use crate::logging;
use crate::secret::{self, KeySource};
use crate::signals::{self, Hangup, Request, Signals};
use crate::store::{self, SLED_OPEN_THREAD};

/// Reads of the view that are under way at once; more wait their turn. A burst of returning clients must not
/// start hundreds of threads.
const READS_MAX: usize = 32;

/// Why the server did not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}, the {kind} address: if Halley or another program already uses it, set another with {option}"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// `client` or `admin`.
        kind: &'static str,
        /// The option that sets it.
        option: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The runtime or its signals failed.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
    /// The store was not closed at the deadline.
    #[error(
        "the stop took longer than {0:?} (shutdown-s): the next start checks the readable view; nothing acknowledged is lost"
    )]
    Deadline(Duration),
    /// The stop left no mark.
    #[error(
        "stopped, but not cleanly ({0}): the next start checks the readable view; nothing acknowledged is lost"
    )]
    Unmarked(String),
    /// A second signal came while it stopped.
    #[error(
        "ended at once, as a second signal asked: the next start checks the readable view; nothing acknowledged is lost"
    )]
    Hurried,
}

/// A server that listens, and is not yet run.
#[derive(Debug)]
pub struct Server {
    client: TcpListener,
    admin: TcpListener,
    app: App,
    grace: Duration,
}

impl Server {
    /// Binds both addresses, then opens the data directory, which may take long after a damage. Blocks.
    pub fn open(config: &Config, timeouts: Timeouts) -> Result<Self, ServeError> {
        let client = bind(config.listen, ListenerKind::Client)?;
        let admin = bind(config.admin_listen, ListenerKind::Admin)?;
        if config.icomet == Some(IcometRules::Open) {
            warn!(
                "icomet-open: who reaches {} may read every channel, who reaches {} may publish",
                config.listen, config.admin_listen
            );
        }
        if config.must_exist {
            store::must_exist(&config.data)?;
        }
        let hub = Hub::open(hub_options(config))?;
        let keys = match config.auth.load_or_create() {
            Ok(keys) => keys,
            Err(e) => {
                hub.close();
                return Err(e.into());
            }
        };
        let parts = Parts {
            hub,
            limits: config.limits.clone(),
            timeouts,
            admin_key: keys.admin,
            verifier: keys.verifier,
            token_secret: keys.token_secret,
            cors_origins: config.cors_origins.clone(),
            allowed_hosts: config.allowed_hosts.clone(),
            icomet: config.icomet,
            started: Instant::now(),
            demo: config.demo,
        };
        let hub = parts.hub.clone();
        let app = App::new(parts).map_err(|e| {
            hub.close();
            ServeError::Io("start threads for connections", e)
        })?;
        Ok(Self {
            client,
            admin,
            app,
            grace: config.shutdown,
        })
    }

    /// The addresses of the client and the admin listener.
    pub fn addresses(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.client.local_addr()?, self.admin.local_addr()?))
    }

    /// The hub behind both listeners.
    pub fn hub(&self) -> &Hub {
        &self.app.hub
    }

    /// Serves until `stop` resolves. Then it accepts nothing more, answers held requests, lets those under way
    /// finish, commits what was accepted, and closes the store; what is not done within the grace is cut.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self {
            client,
            admin,
            app,
            grace,
        } = self;
        let hub = app.hub.clone();
        let held = Held::by(&app);
        let (stopping, stopped) = watch::channel(false);
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(http::serve(
            client,
            ListenerKind::Client,
            app.clone(),
            stopped.clone(),
        ));
        serving.spawn(http::serve(admin, ListenerKind::Admin, app, stopped));
        stop.await;
        // One deadline for all; half of it for those who read slowly.
        let began = tokio::time::Instant::now();
        hub.begin_close();
        stopping.send_replace(true);
        let ended = async { while serving.join_next().await.is_some() {} };
        if tokio::time::timeout_at(began + grace / 2, ended)
            .await
            .is_err()
        {
            warn!("requests that were still open are cut");
        }
        serving.shutdown().await;
        drop(held);
        let closing = spawn_blocking(move || hub.close());
        let closed = tokio::time::timeout_at(began + grace, closing).await;
        match closed.map_err(|_| ServeError::Deadline(grace))? {
            Ok(Closed::Unmarked(why)) => Err(ServeError::Unmarked(why)),
            Ok(Closed::Cleanly | Closed::Unchecked | Closed::Before) => Ok(()),
            Err(e) => Err(ServeError::Unmarked(e.to_string())),
        }
    }
}

/// What a program does around a server: once before the first connection is served, and when it is asked to reload.
#[derive(Debug)]
pub struct Hooks<R, L> {
    /// Says where the server is.
    pub ready: R,
    /// Reads the configuration again.
    pub reload: L,
    /// What SIGHUP asks for.
    pub hangup: Hangup,
}

/// Runs the server of a configuration until a signal stops it. A second one ends the process at once.
pub fn serve<R, L>(config: Config, hooks: Hooks<R, L>) -> Result<(), ServeError>
where
    R: FnOnce(&Server, &Config) -> Result<(), ServeError>,
    L: Fn(),
{
    quiet_panics();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(READS_MAX)
        .build()
        .map_err(|e| ServeError::Io("start the runtime", e))?;
    let _entered = runtime.enter();
    // From the first moment on: as the first process of a container, it would not hear what it has no handler for.
    let mut signals =
        Signals::listen(hooks.hangup).map_err(|e| ServeError::Io("listen for signals", e))?;
    let Some((server, config)) = runtime.block_on(open_unless_stopped(config, &mut signals))?
    else {
        // What opens it ends with the process.
        runtime.shutdown_background();
        return Ok(());
    };
    if let Err(e) = (hooks.ready)(&server, &config) {
        server.hub().close();
        return Err(e);
    }
    // It may hold keys, which the server has taken over.
    drop(config);
    notify(&[NotifyState::Ready]);
    let done = runtime.block_on(async {
        let run = server.run(stop_asked(&mut signals, hooks.reload));
        tokio::pin!(run);
        tokio::select! {
            done = &mut run => done,
            () = signals::stopped_twice(hooks.hangup) => {
                warn!("a second signal: ending at once");
                Err(ServeError::Hurried)
            }
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    if done.is_ok() {
        info!("stopped");
    }
    done
}

/// Opens the server, which may take long. A signal ends that at once, as a kill does: there is nothing yet that
/// could be stopped in order.
async fn open_unless_stopped(
    config: Config,
    signals: &mut Signals,
) -> Result<Option<(Server, Config)>, ServeError> {
    let opening = spawn_blocking(move || {
        Server::open(&config, Timeouts::default()).map(|server| (server, config))
    });
    tokio::select! {
        opened = opening => match opened {
            Ok(opened) => opened.map(Some),
            Err(e) => Err(ServeError::Io("open the server", io::Error::other(e))),
        },
        signal = signals.stop() => {
            info!(signal, "stopped before it was ready");
            Ok(None)
        }
    }
}

/// Resolves when a signal asks to stop; reloads as often as another asks for that.
async fn stop_asked(signals: &mut Signals, reload: impl Fn()) {
    let signal = loop {
        match signals.next().await {
            Request::Stop(name) => break name,
            Request::Reload => reload(),
        }
    };
    info!(
        signal,
        "stopping: held requests are answered, accepted messages are committed"
    );
    notify(&[NotifyState::Stopping]);
}

fn bind(address: SocketAddr, kind: ListenerKind) -> Result<TcpListener, ServeError> {
    let option = match kind {
        ListenerKind::Client => "--listen",
        ListenerKind::Admin => "--admin-listen",
    };
    let failed = |source| ServeError::Bind {
        address,
        kind: kind.name(),
        option,
        source,
    };
    http::listen(address, kind).map_err(failed)
}

/// What a hub needs to know of the configuration.
pub(crate) fn hub_options(config: &Config) -> hub::Options {
    hub::Options {
        tail_bytes_max: config.store.tail_bytes_max,
        window: hub::WindowSize::of(config.store.window_messages),
        caches: hub::Caches::default(),
        data: config.data.clone(),
        durability: match config.store.durability {
            Durability::Always => hub::Durability::Always,
            Durability::Interval => hub::Durability::Interval,
        },
        cache_bytes: config.store.cache_bytes,
        disk_free_min_bytes: config.store.disk_free_min_bytes,
        queue_bytes_max: config.limits.queue_bytes_max,
        waiters_per_user_max: config.limits.waiters_per_user_max,
        channels_max: match config.icomet {
            Some(_) => config.limits.icomet_channels_max,
            None => 0,
        },
    }
}

fn cause(error: &io::Error) -> &(dyn std::error::Error + 'static) {
    error
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        debug!(error = cause(&e), "the service manager was not told");
    }
}

/// Panics go to the log. One of sled over a damaged database is an answer, which is logged where it is got.
fn quiet_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        if name == SLED_OPEN_THREAD {
            debug!(%panic, "sled panicked");
        } else {
            error!(thread = name, %panic, "a thread panicked");
        }
    }));
}

/// Says where the server is, and at the first start how to send a first message.
pub fn greet(server: &Server, config: &Config) -> Result<(), ServeError> {
    let printed = greeting(server, config).and_then(|text| logging::say(io::stdout, text + "\n"));
    if let Err(e) = printed {
        // A closed standard output is no reason not to serve.
        warn!(error = %e, "cannot print the addresses");
    }
    Ok(())
}

fn greeting(server: &Server, config: &Config) -> io::Result<String> {
    let (client, admin) = server.addresses()?;
    let data = config
        .data
        .canonicalize()
        .unwrap_or_else(|_| config.data.clone());
    let status = server.hub().status();
    let mut text = format!(
        "Halley {version} is ready.\n\
         \n  clients   http://{client}   (show user tokens)\
         \n  backends  http://{admin}   (show the admin key; {key})\
         \n            the same address in a browser is the admin page\
         \n  data      {data}   (log {log}, {direct} direct and {group} group messages)\n",
        version = env!("CARGO_PKG_VERSION"),
        key = key_place(config),
        data = data.display(),
        log = status.log,
        direct = status.watermark.direct,
        group = status.watermark.group,
    );
    if status.journal.offset == 0
        && let KeySource::DataFile(key) = &config.auth.admin_key
        && config.auth.signs_tokens()
    {
        let key = key.canonicalize().unwrap_or_else(|_| key.clone());
        first_message(&mut text, client, admin, &key);
    }
    Ok(text)
}

fn key_place(config: &Config) -> String {
    match &config.auth.admin_key {
        KeySource::DataFile(path) | KeySource::File(path) => {
            let path = path.canonicalize().unwrap_or_else(|_| path.clone());
            format!("it is in {}", path.display())
        }
        KeySource::Given(..) => "as given to this start".into(),
    }
}

/// Lines to paste: a token for Bob, a request that Bob holds, a message to Bob. Each answer is printed at once,
/// so that they do not mix.
fn first_message(text: &mut String, client: SocketAddr, admin: SocketAddr, key: &Path) {
    let key = secret::shell_reading(key);
    write!(
        text,
        "\nA first message: paste these lines into another terminal.\n\n\
         KEY={key}\n\
         TOKEN=$(curl -s http://{admin}/v1/tokens -H \"Authorization: Bearer $KEY\" -d '{{\"user\":\"bob\",\"ttl_s\":3600,\"send\":true}}' | sed 's/.*\"token\":\"\\([^\"]*\\)\".*/\\1/')\n\
         echo \"$(curl -s \"http://{client}/v1/inbox?wait=30\" -H \"Authorization: Bearer $TOKEN\")\" &\n\
         sleep 1; echo \"$(curl -s http://{admin}/v1/direct/bob/messages -H \"Authorization: Bearer $KEY\" -d '{{\"from\":\"alice\",\"body\":\"Hello, Bob\"}}')\"; wait\n"
    )
    .expect("a string can be written to");
}
