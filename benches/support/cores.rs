//! A core for the server and another one for the load, so that neither takes time from the other.

use std::fmt;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The first two cores that this process may use; where there is one, all share it.
pub(crate) struct Cores {
    server: usize,
    load: usize,
}

impl Cores {
    /// Keeps this thread, which makes the load, on its core.
    pub(crate) fn divide() -> Self {
        let usable = sched_getaffinity(None).expect("Linux tells it");
        let mut usable = (0..CpuSet::MAX_CPU).filter(|core| usable.is_set(*core));
        let server = usable.next().expect("this runs somewhere");
        let load = usable.next().unwrap_or(server);
        stay_on(load);
        Self { server, load }
    }

    /// Starts a server on its core: a process stays on those of the thread that starts it.
    pub(crate) fn start<S>(&self, start: impl FnOnce() -> S) -> S {
        stay_on(self.server);
        let server = start();
        stay_on(self.load);
        server
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "servers on core {}, load on core {}",
            self.server, self.load
        )
    }
}

fn stay_on(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).expect("it is one of ours");
}
