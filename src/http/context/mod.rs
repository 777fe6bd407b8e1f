//! What every request may use: the hub, the limits, the keys.

pub(super) mod attempts;
pub(super) mod in_progress;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::config::{AllowedOrigin, IcometRules, Limits};
use crate::http::address::network;
use crate::http::context::attempts::Attempts;
use crate::http::context::in_progress::InWork;
use crate::http::icomet::Live;
use crate::http::request::host::Strangers;
use crate::http::response::json::Rendered;
use crate::http::response::reply::Refusal;
use crate::http::socket::pace::Patience;
use crate::hub::Hub;
use crate::secret::Secret;
use crate::token::Verifier;

/// Connections that are kept for the backend, unless the limit is very small.
const BACKEND_RESERVE: usize = 64;

/// Which of the two listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Face {
    /// Users, with tokens.
    Client,
    /// The backend, with the API key.
    Admin,
}

impl Face {
    /// `client` or `admin`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Admin => "admin",
        }
    }
}

/// How long a peer may take. Tests shorten them.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// Between two pieces of a request's body; three times as long for a short body as a whole.
    pub body: Duration,
    /// Between requests.
    pub idle: Duration,
    /// A peer that takes nothing of a reply for so long is cut; one that takes it too slowly after three times as
    /// long.
    pub write: Duration,
    /// The lowest rate of a long reply, beside that time.
    pub write_bytes_per_s: u64,
    /// How long the peer's end is awaited after ours.
    pub linger: Duration,
    /// After about so long a stream ends, and the client asks again.
    pub stream: Duration,
    /// After about so long without a message icomet's clients are told so.
    pub noop: Duration,
    /// After so long without a request icomet's channels are not in use.
    pub channel: Duration,
    /// What a WebSocket's client may be late with its pong, beyond two heartbeats.
    pub silence: Duration,
    /// How long a request waits for others of its user to be over, before it is refused as one too many.
    pub crowd: Duration,
    /// How late a wrong key or token is refused, at the most.
    pub refusal: Duration,
    /// The shortest heartbeat that a client may ask for, in whole seconds.
    pub heartbeat_s_min: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            body: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            write: Duration::from_secs(30),
            // Less than a phone has at the edge of its network; a page of 1 MiB may take six minutes.
            write_bytes_per_s: 4 * 1024,
            linger: Duration::from_secs(1),
            stream: Duration::from_secs(600),
            noop: Duration::from_secs(30),
            channel: Duration::from_secs(30),
            silence: Duration::from_secs(10),
            crowd: Duration::from_secs(1),
            refusal: Duration::from_secs(1),
            heartbeat_s_min: 5,
        }
    }
}

impl Timeouts {
    /// With those who read.
    pub(super) fn patience(&self) -> Patience {
        Patience {
            pause: self.write,
            bytes_per_s: self.write_bytes_per_s,
        }
    }
}

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
    pub(super) parts: Parts,
    pub(super) attempts: Attempts,
    pub(super) strangers: Strangers,
    pub(super) rendered: Rendered,
    pub(super) in_work: InWork,
    open: [AtomicUsize; 2],
    addresses: Addresses,
    delivered: AtomicU64,
    live: Option<Live>,
    documents: [OnceLock<Bytes>; 2],
}

impl App {
    /// Ready to serve.
    pub fn new(parts: Parts) -> Self {
        let live = parts.icomet.map(|_| Live::new(parts.timeouts.channel));
        Self(Arc::new(Shared {
            attempts: Attempts::new(parts.timeouts.refusal),
            strangers: Strangers::default(),
            parts,
            live,
            documents: Default::default(),
            rendered: Rendered::default(),
            in_work: InWork::default(),
            open: Default::default(),
            addresses: Addresses::default(),
            delivered: AtomicU64::new(0),
        }))
    }

    /// Connections that are open on one listener.
    pub fn connections(&self, face: Face) -> usize {
        self.counter(face).load(Ordering::Relaxed)
    }

    /// Messages that were written to clients, each counted for every device.
    pub fn deliveries(&self) -> u64 {
        self.0.delivered.load(Ordering::Relaxed)
    }

    /// The `OpenAPI` document of a listener, once it is made.
    pub(super) fn document(&self, face: Face) -> &OnceLock<Bytes> {
        let [client, admin] = &self.0.documents;
        match face {
            Face::Client => client,
            Face::Admin => admin,
        }
    }

    /// icomet's channels in use, where its protocol is spoken.
    pub(super) fn live(&self) -> Option<&Live> {
        self.0.live.as_ref()
    }

    /// Counts messages that were written to a client.
    pub(super) fn delivered(&self, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.0.delivered.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts a connection until the guard is dropped, if there is room. The last places are the backend's: users
    /// must not shut it out.
    pub(super) fn admit(&self, face: Face, address: IpAddr) -> Result<Admitted, Refusal> {
        let limit = self.limits.connections_max;
        let most = match face {
            Face::Client => limit.saturating_sub((limit / 8).min(BACKEND_RESERVE)),
            Face::Admin => limit,
        };
        let counter = self.counter(face);
        counter.fetch_add(1, Ordering::Relaxed);
        // Counted from here on, whatever comes of it.
        let mut admitted = Admitted {
            app: self.clone(),
            face,
            address: None,
        };
        let open = self.connections(Face::Client) + self.connections(Face::Admin);
        if open > most {
            return Err(Refusal::TooManyConnections { limit });
        }
        if let (Face::Client, Some(limit)) = (face, self.limits.connections_per_address_max) {
            let address = self.0.addresses.take(address, limit);
            admitted.address = Some(address.ok_or(Refusal::TooManyOfAddress { limit })?);
        }
        Ok(admitted)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    fn counter(&self, face: Face) -> &AtomicUsize {
        let [client, admin] = &self.0.open;
        match face {
            Face::Client => client,
            Face::Admin => admin,
        }
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

/// One open connection in the count.
pub(super) struct Admitted {
    app: App,
    face: Face,
    /// Where it is counted by address.
    address: Option<IpAddr>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.app.counter(self.face).fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = self.address {
            self.app.0.addresses.give_back(address);
        }
    }
}

/// Open connections by address.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

impl Addresses {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more, and says under which address; none if it has all it may have.
    fn take(&self, address: IpAddr, limit: usize) -> Option<IpAddr> {
        let address = network(address);
        let mut all = self.lock();
        let count = all.entry(address).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(address)
    }

    fn give_back(&self, address: IpAddr) {
        let mut all = self.lock();
        if let Some(count) = all.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_own_count_and_a_network_of_ipv6_one() {
        let addresses = Addresses::default();
        let parse = |text: &str| text.parse::<IpAddr>().unwrap();
        let take = |text| addresses.take(parse(text), 2);
        let first = take("2001:db8::1").unwrap();
        assert_eq!(first, parse("2001:db8::"));
        assert!(take("2001:db8::2").is_some() && take("2001:db8::ffff:3").is_none());
        assert!(take("2001:db8:0:1::1").is_some());
        assert_eq!(take("::ffff:10.0.0.1"), Some(parse("10.0.0.1")));
        assert!(take("10.0.0.1").is_some() && take("10.0.0.1").is_none());
        assert!(take("10.0.0.2").is_some());
        addresses.give_back(first);
        assert!(take("2001:db8::4").is_some());
        for address in ["2001:db8::", "2001:db8::", "2001:db8:0:1::"] {
            addresses.give_back(parse(address));
        }
        assert_eq!(addresses.lock().len(), 2);
    }
}
