//! The reactors' threads, and which of them holds whose connections.

use std::fmt;
use std::hash::{BuildHasher, Hash, RandomState};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::Handle;

use super::gate::{Arrivals, Gate};
use super::turn;
use super::{Guest, Manners};

/// All reactors.
pub(in crate::http) struct Reactors {
    gates: Vec<Arc<Gate>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    hasher: RandomState,
}

impl Reactors {
    /// Starts so many. Sessions may use the runtime in which this is called.
    pub(in crate::http) fn start(count: usize, manners: Manners) -> io::Result<Self> {
        let mut all = Self {
            gates: Vec::new(),
            threads: Mutex::default(),
            hasher: RandomState::new(),
        };
        for number in 0..count.max(1) {
            let poll = mio::Poll::new()?;
            let gate = Arc::new(Gate::new(poll.registry())?);
            all.gates.push(gate.clone());
            let runtime = Handle::current();
            let thread = std::thread::Builder::new()
                .name(format!("reactor-{number}"))
                .spawn(move || {
                    let _entered = runtime.enter();
                    // Behind all that it held.
                    let _closing = Closing(&gate);
                    turn::run(poll, &gate, manners);
                })?;
            let threads = all.threads.get_mut();
            threads.unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(all)
    }

    /// Gives a connection to the reactor of this key: all of one key are on one.
    pub(in crate::http) fn park(&self, key: &impl Hash, guest: Guest) {
        let count = u64::try_from(self.gates.len()).expect("they are few");
        let number = usize::try_from(self.hasher.hash_one(key) % count).expect("they are few");
        let gate = self.gates.get(number);
        gate.expect("the remainder is within").park(guest);
    }

    /// Tells all sessions that the server stops.
    pub(in crate::http) fn stop(&self) {
        for gate in &self.gates {
            gate.stop();
        }
    }

    /// Cuts what is left, and waits until it is gone.
    pub(in crate::http) fn end(&self) {
        self.cut();
        let threads = self.threads.lock();
        let threads = std::mem::take(&mut *threads.unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a reactor failed");
            }
        }
    }

    /// Cuts what is left.
    pub(in crate::http) fn cut(&self) {
        for gate in &self.gates {
            gate.cut();
        }
    }
}

/// Nobody waits in front of a reactor that is gone, also if it failed.
struct Closing<'a>(&'a Gate);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "a reactor failed: what it held is lost, and what is handed to it from now on"
            );
        }
        let mut arrivals = Arrivals::default();
        self.0.cut();
        self.0.take(&mut arrivals);
    }
}

impl Drop for Reactors {
    fn drop(&mut self) {
        self.cut();
    }
}

impl fmt::Debug for Reactors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactors")
            .field("count", &self.gates.len())
            .finish_non_exhaustive()
    }
}
