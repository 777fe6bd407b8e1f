//! What all requests share: the hub, the limits, the keys, and what the HTTP side itself counts and remembers.

pub(super) mod admission;
pub(super) mod attempts;
pub(super) mod channels;
pub(super) mod in_progress;
mod timeouts;

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;

use self::admission::Connections;
use self::attempts::Attempts;
use self::channels::ChannelsInUse;
use self::in_progress::RequestsInProgress;
pub use self::timeouts::Timeouts;
use super::listener_kind::ListenerKind;
use super::reactor::{Manners, Reactors};
use super::response::cors::CorsPolicy;
use super::response::json::Rendered;
use crate::config::{AllowedOrigin, IcometRules, Limits};
use crate::hub::Hub;
use crate::secret::Secret;
use crate::token::Verifier;

/// What an [`App`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// The domain.
    pub hub: Hub,
    /// What requests may take.
    pub limits: Limits,
    /// How long peers may take.
    pub timeouts: Timeouts,
    /// The API key of the admin listener.
    pub admin_key: Secret,
    /// Checks user tokens.
    pub verifier: Verifier,
    /// Signs user tokens; absent where only a public key is known.
    pub token_secret: Option<Secret>,
    /// Pages that browsers may call from.
    pub cors_origins: Vec<AllowedOrigin>,
    /// Names by which a server that is open to all may be reached.
    pub allowed_hosts: Vec<String>,
    /// Whether icomet's protocol is spoken, and under which rules.
    pub icomet: Option<IcometRules>,
    /// When the server started.
    pub started: Instant,
    /// Whether this is `halley demo`, with its page, where anyone may be any user.
    pub demo: bool,
}

/// Everything that requests share. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Shared>);

/// The parts, and what the HTTP side itself keeps.
pub(super) struct Shared {
    parts: Parts,
    pub(super) attempts: Attempts,
    pub(super) connections: Arc<Connections>,
    pub(super) cors: CorsPolicy,
    pub(super) rendered: Rendered,
    pub(super) in_progress: Arc<RequestsInProgress>,
    delivered: AtomicU64,
    channels: Option<Arc<ChannelsInUse>>,
    documents: [OnceLock<Bytes>; 2],
    pub(super) reactors: Arc<Reactors>,
}

impl App {
    /// Ready to serve, in the runtime in which this is called.
    pub fn new(parts: Parts) -> io::Result<Self> {
        let Parts {
            limits, timeouts, ..
        } = &parts;
        let channels = parts.icomet.map(|_| ChannelsInUse::new(timeouts.channel));
        let in_progress = RequestsInProgress::new(limits.requests_per_user_max, timeouts.crowd);
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let manners = Manners {
            patience: timeouts.patience(),
            linger: timeouts.linger,
        };
        Ok(Self(Arc::new(Shared {
            reactors: Arc::new(Reactors::start(cores, manners)?),
            attempts: Attempts::new(timeouts.refusal),
            connections: Arc::new(Connections::new(limits)),
            cors: CorsPolicy::new(parts.cors_origins.clone()),
            channels: channels.map(Arc::new),
            documents: Default::default(),
            rendered: Rendered::default(),
            in_progress: Arc::new(in_progress),
            delivered: AtomicU64::new(0),
            parts,
        })))
    }

    /// Connections that are open on one listener.
    pub fn connections(&self, kind: ListenerKind) -> usize {
        self.0.connections.count(kind)
    }

    /// Messages that were written to clients, each counted for every device.
    pub fn deliveries(&self) -> u64 {
        self.0.delivered.load(Ordering::Relaxed)
    }

    /// The `OpenAPI` document of a listener, once it is made.
    pub(super) fn document(&self, kind: ListenerKind) -> &OnceLock<Bytes> {
        let [client, admin] = &self.0.documents;
        match kind {
            ListenerKind::Client => client,
            ListenerKind::Admin => admin,
        }
    }

    /// icomet's channels in use, where its protocol is spoken.
    pub(super) fn channels(&self) -> Option<&Arc<ChannelsInUse>> {
        self.0.channels.as_ref()
    }

    /// Counts messages that were written to a client.
    pub(super) fn delivered(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.0.delivered.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }
}

/// What is held; it ends with this, whatever ends the server.
#[derive(Debug)]
pub struct Held(App);

impl Held {
    /// All that is held by one server.
    pub fn by(app: &App) -> Self {
        Self(app.clone())
    }
}

impl Drop for Held {
    /// Cuts what is left, and waits until it is gone.
    fn drop(&mut self) {
        self.0.0.reactors.end();
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("App").field(&self.0.parts).finish()
    }
}
