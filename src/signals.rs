//! Signals: which of them stop the program, which one asks it to reload, and that none of the others ends it.
//!
//! Signals that tell of a fault in the program itself (SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP)
//! keep their meaning, and so do those that suspend it. Nobody can do anything about SIGKILL.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::ops::RangeInclusive;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// These ask for a clean stop. Container managers send SIGPWR for it; after SIGXCPU, which says that the limit of
/// processor time is reached, SIGKILL follows.
const STOP: [(Number, &str); 5] = [
    (Number::TERM, "SIGTERM"),
    (Number::INT, "SIGINT"),
    (Number::QUIT, "SIGQUIT"),
    (Number::POWER, "SIGPWR"),
    (Number::XCPU, "SIGXCPU"),
];

/// These would end the program, and mean nothing to it. Without SIGXFSZ and SIGPIPE a write that cannot be done
/// fails, and is answered like any other that failed.
const IGNORED: [Number; 9] = [
    Number::USR1,
    Number::USR2,
    Number::PIPE,
    Number::ALARM,
    Number::VTALARM,
    Number::PROF,
    Number::IO,
    Number::STKFLT,
    Number::XFSZ,
];

/// The C library keeps the first ones for itself.
const REALTIME: RangeInclusive<i32> = if cfg!(target_env = "musl") {
    35..=64
} else {
    34..=64
};

/// Signals within this time are one.
const TOGETHER: Duration = Duration::from_secs(1);

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// To stop; the name of the signal.
    Stop(&'static str),
    /// To read the configuration again.
    Reload,
}

/// What SIGHUP, which a closed terminal sends, asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// To read the configuration again, as from every service.
    Reloads,
    /// To stop: the program belongs to its terminal.
    Stops,
}

impl Hangup {
    /// For a program that ends with its terminal, unless it was started with `nohup`.
    pub fn of_terminal() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let ignored = status
            .lines()
            .find_map(|line| line.strip_prefix("SigIgn:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        // The lowest bit is that of signal 1, SIGHUP.
        if ignored.is_some_and(|mask| mask & 1 == 1) {
            Self::Reloads
        } else {
            Self::Stops
        }
    }
}

/// The signals that ask for something, each remembered from now on until it is taken.
#[derive(Debug)]
pub struct Signals {
    stop: Vec<(&'static str, Signal)>,
    reload: Option<Signal>,
}

impl Signals {
    /// Takes over all signals that would end the program. Must be called within a runtime.
    pub fn listen(hangup: Hangup) -> io::Result<Self> {
        for kind in IGNORED.iter().map(|number| number.as_raw()).chain(REALTIME) {
            // The handler stays when the receiver is dropped. The system may not have each of them.
            drop(signal(SignalKind::from_raw(kind)));
        }
        let mut stop = STOP
            .iter()
            .map(|(number, name)| Ok((*name, signal(SignalKind::from_raw(number.as_raw()))?)))
            .collect::<io::Result<Vec<_>>>()?;
        let hup = signal(SignalKind::hangup())?;
        let reload = match hangup {
            Hangup::Reloads => Some(hup),
            Hangup::Stops => {
                stop.push(("SIGHUP", hup));
                None
            }
        };
        Ok(Self { stop, reload })
    }

    /// The next request.
    pub async fn next(&mut self) -> Request {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// The name of the next signal that asks to stop; what else is asked for meanwhile is forgotten.
    pub async fn stop(&mut self) -> &'static str {
        loop {
            if let Request::Stop(name) = self.next().await {
                return name;
            }
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Request> {
        // Each is polled, so that each wakes this task.
        let mut request = Poll::Pending;
        if let Some(reload) = &mut self.reload
            && reload.poll_recv(cx).is_ready()
        {
            request = Poll::Ready(Request::Reload);
        }
        for (name, signal) in &mut self.stop {
            if signal.poll_recv(cx).is_ready() {
                request = Poll::Ready(Request::Stop(name));
            }
        }
        request
    }
}

/// Resolves at the second signal from now that asks to stop. What comes together with the first is one wish: `timeout`
/// sends its signal to the process and to its group, and a terminal that is closed may say so twice.
pub async fn stopped_twice(hangup: Hangup) {
    let heard = async {
        Signals::listen(hangup)?.stop().await;
        tokio::time::sleep(TOGETHER).await;
        Signals::listen(hangup)?.stop().await;
        Ok::<(), io::Error>(())
    };
    if let Err(e) = heard.await {
        tracing::error!(error = %e, "a second signal will not be heard");
        std::future::pending::<()>().await;
    }
}
