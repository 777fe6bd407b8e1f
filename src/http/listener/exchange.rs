//! Where one request stands, between hyper, our socket and the connection loop.
//!
//! All three run in the connection's task, one after the other, so the flags need no order among themselves; they are
//! atomics and mutexes only because a task may go from thread to thread.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::http::context::in_progress::InProgress;
use crate::http::parked::ParkedRequest;

/// Where one request stands, seen from the connection loop.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    request_done: AtomicBool,
    reply_done: AtomicBool,
    /// The last write waits for the peer. Meanwhile the socket stays hyper's: what others write would overtake it.
    blocked: AtomicBool,
    /// A request has begun since the last write.
    begun: AtomicBool,
    parked: Mutex<Option<ParkedRequest>>,
    /// Counts the request until its reply is written.
    in_progress: Mutex<Option<InProgress>>,
}

impl Exchange {
    pub(super) fn begin(&self, without_body: bool) {
        self.reply_done.store(false, Ordering::Relaxed);
        self.request_done.store(without_body, Ordering::Relaxed);
        self.begun.store(true, Ordering::Relaxed);
        self.set_in_progress(None);
    }

    /// Whether a request has begun since this was last asked.
    pub(super) fn take_begun(&self) -> bool {
        self.begun.swap(false, Ordering::Relaxed)
    }

    pub(super) fn set_in_progress(&self, in_progress: Option<InProgress>) {
        *self
            .in_progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = in_progress;
    }

    /// Whether the request was read to its end.
    pub(super) fn is_request_done(&self) -> bool {
        self.request_done.load(Ordering::Relaxed)
    }

    pub(super) fn set_request_done(&self) {
        self.request_done.store(true, Ordering::Relaxed);
    }

    /// hyper has taken all of the reply.
    pub(super) fn set_reply_done(&self) {
        self.reply_done.store(true, Ordering::Relaxed);
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Whether the last request was read to its end and its reply is written. Then it is no longer in progress.
    pub(super) fn is_over(&self) -> bool {
        let over =
            self.reply_done.load(Ordering::Relaxed) && self.is_request_done() && !self.is_blocked();
        if over {
            self.set_in_progress(None);
        }
        over
    }

    /// Whether the last write waits for the peer.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    /// The request that is to be parked, once what was to be written before it is written.
    pub(super) fn take_parked(&self) -> Option<ParkedRequest> {
        if self.is_blocked() {
            return None;
        }
        self.parked
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    pub(super) fn park(&self, request: ParkedRequest) {
        *self.parked.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
    }
}
