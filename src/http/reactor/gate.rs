//! How other threads reach a reactor: connections that are handed over, and sessions that are to be woken. Whoever comes
//! first wakes the reactor if it sleeps; the others find it awake.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Wake;

use mio::{Registry, Token, Waker};

use super::Guest;

/// Stands for no connection.
pub(super) const WAKER: Token = Token(usize::MAX);

/// What waits for a reactor.
pub(super) struct Gate {
    inside: Mutex<Inside>,
    waker: Waker,
}

#[derive(Default)]
struct Inside {
    arrivals: Arrivals,
    asleep: bool,
    stopping: bool,
    ended: bool,
}

/// What has come for a reactor.
#[derive(Default)]
pub(super) struct Arrivals {
    pub(super) parked: Vec<Guest>,
    /// Places in the slab.
    pub(super) woken: Vec<usize>,
}

/// Whether a reactor goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    GoOn,
    Stop,
    End,
}

impl Gate {
    pub(super) fn new(registry: &Registry) -> io::Result<Self> {
        Ok(Self {
            inside: Mutex::default(),
            waker: Waker::new(registry, WAKER)?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Inside)) {
        let mut inside = self.lock();
        change(&mut inside);
        let asleep = std::mem::take(&mut inside.asleep);
        drop(inside);
        if asleep && let Err(error) = self.waker.wake() {
            tracing::error!(%error, "a reactor cannot be woken");
        }
    }

    /// Hands a connection over. Behind the end it is dropped.
    pub(super) fn park(&self, guest: Guest) {
        let mut refused = None;
        self.change(|inside| {
            if inside.ended {
                refused = Some(guest);
            } else {
                inside.arrivals.parked.push(guest);
            }
        });
        // Without the lock: it may be the last that holds much else.
        drop(refused);
    }

    fn wake(&self, place: usize) {
        self.change(|inside| {
            if !inside.ended {
                inside.arrivals.woken.push(place);
            }
        });
    }

    pub(super) fn stop(&self) {
        self.change(|inside| inside.stopping = true);
    }

    pub(super) fn cut(&self) {
        self.change(|inside| inside.ended = true);
    }

    /// Takes what has come, for what is empty.
    pub(super) fn take(&self, arrivals: &mut Arrivals) -> Course {
        let mut inside = self.lock();
        inside.asleep = false;
        std::mem::swap(&mut inside.arrivals, arrivals);
        match *inside {
            Inside { ended: true, .. } => Course::End,
            Inside { stopping: true, .. } => Course::Stop,
            Inside { .. } => Course::GoOn,
        }
    }

    /// Whether nothing has come since it was last taken; what comes from now on wakes.
    pub(super) fn sleep(&self, seen: Course) -> bool {
        let mut inside = self.lock();
        let quiet = inside.arrivals.parked.is_empty() && inside.arrivals.woken.is_empty();
        let told = !inside.ended && (seen == Course::Stop || !inside.stopping);
        inside.asleep = quiet && told;
        inside.asleep
    }
}

/// Wakes one session, once until it is stepped.
pub(super) struct Bell {
    gate: Arc<Gate>,
    place: usize,
    rung: AtomicBool,
}

impl Bell {
    pub(super) fn new(gate: &Arc<Gate>, place: usize) -> Arc<Self> {
        Arc::new(Self {
            gate: gate.clone(),
            place,
            rung: AtomicBool::new(false),
        })
    }

    /// From here on it may be rung again. To be called before the session looks what there is.
    pub(super) fn heard(&self) {
        self.rung.swap(false, Ordering::AcqRel);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.gate.wake(self.place);
        }
    }
}
