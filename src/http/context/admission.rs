//! Which connections are let in, and how many there are of each listener and address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config::Limits;
use crate::http::address::network;
use crate::http::listener_kind::ListenerKind;
use crate::http::response::problem::Problem;

/// Connections that are kept for the backend, unless the limit is very small.
const BACKEND_RESERVE: usize = 64;

/// The connections that are open.
#[derive(Debug)]
pub(in crate::http) struct Connections {
    limit: usize,
    limit_per_address: Option<usize>,
    open: [AtomicUsize; 2],
    addresses: Addresses,
}

impl Connections {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            limit: limits.connections_max,
            limit_per_address: limits.connections_per_address_max,
            open: Default::default(),
            addresses: Addresses::default(),
        }
    }

    /// Connections that are open on one listener.
    pub(in crate::http) fn count(&self, kind: ListenerKind) -> usize {
        self.counter(kind).load(Ordering::Relaxed)
    }

    /// Counts a connection until the guard is dropped, if there is room. The last places are the backend's: users
    /// must not shut it out.
    pub(in crate::http) fn admit(
        self: &Arc<Self>,
        kind: ListenerKind,
        address: IpAddr,
    ) -> Result<Admitted, Problem> {
        let limit = self.limit;
        let most = match kind {
            ListenerKind::Client => limit.saturating_sub((limit / 8).min(BACKEND_RESERVE)),
            ListenerKind::Admin => limit,
        };
        self.counter(kind).fetch_add(1, Ordering::Relaxed);
        // Counted from here on, whatever comes of it: two that come at once must each see the other.
        let mut admitted = Admitted {
            connections: self.clone(),
            kind,
            address: None,
        };
        let open = self.count(ListenerKind::Client) + self.count(ListenerKind::Admin);
        if open > most {
            return Err(Problem::TooManyConnections { limit });
        }
        if let (ListenerKind::Client, Some(limit)) = (kind, self.limit_per_address) {
            let address = self.addresses.take(address, limit);
            admitted.address = Some(address.ok_or(Problem::TooManyOfAddress { limit })?);
        }
        Ok(admitted)
    }

    fn counter(&self, kind: ListenerKind) -> &AtomicUsize {
        let [client, admin] = &self.open;
        match kind {
            ListenerKind::Client => client,
            ListenerKind::Admin => admin,
        }
    }
}

/// One open connection in the count.
#[derive(Debug)]
pub(in crate::http) struct Admitted {
    connections: Arc<Connections>,
    kind: ListenerKind,
    /// Where it is counted by address.
    address: Option<IpAddr>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Self {
            connections,
            kind,
            address,
        } = self;
        connections.counter(*kind).fetch_sub(1, Ordering::Relaxed);
        if let Some(address) = address {
            connections.addresses.give_back(*address);
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
