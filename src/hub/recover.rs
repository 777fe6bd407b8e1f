//! Recovery: a view that holds all of the journal, from whatever the last run left.

use std::any::Any;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Instant;

use tracing::{info, warn};

use super::Options;
use super::apply::catch_up;
use super::channel::Channels;
use super::membership::Memberships;
use super::seal::Sealer;
use super::state::State;
use super::tail::Tail;
use crate::clock;
use crate::store::{Aside, Directory, Error, Follower, Journal, SLED_OPEN_THREAD, Trust, View};

/// A view and a tail that hold all of the journal.
pub(super) struct Recovered {
    pub(super) sealer: Sealer,
    pub(super) state: State,
    pub(super) follower: Follower,
    pub(super) memberships: Memberships,
    pub(super) channels: Channels,
}

/// Opens the view and applies what it lacks. A view that is missing, damaged, or a copy taken while it was in
/// use is set aside and rebuilt.
pub(super) fn recover(
    directory: &Directory,
    journal: &mut Journal,
    trust: Trust,
    fork: bool,
    options: &Options,
) -> Result<Recovered, Error> {
    let mut aside = Aside::Damaged;
    if trust == Trust::Rebuild {
        tell_untrusted(directory);
    } else {
        let tried = attempt(directory, journal, trust, options);
        if !must_be_rebuilt(&tried, fork) {
            if tried.is_ok() {
                directory.remove_set_aside(None)?;
            }
            return tried;
        }
        if let Err(Error::JournalBehind { .. }) = tried {
            aside = Aside::Ahead;
        }
    }
    let began = Instant::now();
    let mut latest = None;
    if directory.sled().exists() {
        // What cannot be read must not replace what, perhaps, can.
        journal.full_segments()?.drain()?;
        latest = directory.set_sled_aside(aside, clock::now_ms())?;
    }
    let recovered = attempt(directory, journal, Trust::Rebuild, options)?;
    directory.remove_set_aside(latest.as_deref())?;
    let applied = recovered.state.applied();
    if applied.offset > 0 {
        info!(
            entries = applied.offset,
            direct = applied.heads.direct,
            group = applied.heads.group,
            ms = began.elapsed().as_millis(),
            "rebuilt the readable view from the journal"
        );
    }
    Ok(recovered)
}

/// Why the view that is there is not even looked at.
fn tell_untrusted(directory: &Directory) {
    let sled = directory.sled();
    if sled.is_dir() {
        info!(
            "this directory is a copy, or a backup was put into it: its readable view, whose files may be of many \
             moments, is rebuilt from the journal"
        );
    } else if sled.exists() {
        warn!(
            "the readable view is damaged, as it is no directory: it is rebuilt from the journal"
        );
    }
}

/// Whether the journal can give what the view did not.
fn must_be_rebuilt(tried: &Result<Recovered, Error>, fork: bool) -> bool {
    match tried {
        Err(Error::View(reason)) => {
            warn!(
                reason,
                "the readable view is damaged: it is rebuilt from the journal"
            );
            true
        }
        Err(Error::OlderView) => tell_older(),
        // What was acknowledged may be lost then, and the log gets a new id.
        Err(Error::JournalBehind {
            journal, applied, ..
        }) if fork => {
            warn!(
                journal,
                applied, "the readable view is ahead of the journal: it is rebuilt"
            );
            true
        }
        _ => false,
    }
}

/// It is no damage.
fn tell_older() -> bool {
    info!("the readable view is of an older layout: it is rebuilt from the journal");
    true
}

/// One try.
pub(super) fn attempt(
    directory: &Directory,
    journal: &mut Journal,
    trust: Trust,
    options: &Options,
) -> Result<Recovered, Error> {
    guarded(directory, || recovered(directory, journal, trust, options))
}

/// Does work with a view that may be damaged. A panic of sled is damage.
pub(super) fn guarded<T: Send>(
    directory: &Directory,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let tried = std::thread::scope(|scope| {
        let thread = Builder::new()
            .name(SLED_OPEN_THREAD.into())
            .spawn_scoped(scope, work);
        thread.map(std::thread::ScopedJoinHandle::join)
    });
    let tried = tried.map_err(Error::io("start a thread for", directory.path()))?;
    tried.unwrap_or_else(|panic| Err(Error::View(format!("it panicked: {}", panic_text(&*panic)))))
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no reason given")
}

/// Refuses a journal that lacks what was applied, as far as the mark of a clean stop or the view can tell.
pub(super) fn check_view_end(
    directory: &Directory,
    end: u64,
    cache_bytes: u64,
) -> Result<(), Error> {
    directory.check_end(end)?;
    if directory.must_fork() {
        return Ok(());
    }
    match applied_beyond(directory, end, cache_bytes) {
        Some(applied) => Err(Error::JournalBehind {
            journal: end,
            applied,
            data: directory.path().to_owned(),
        }),
        None => Ok(()),
    }
}

/// The last entry that the view holds, if the journal ends before it.
pub(super) fn applied_beyond(directory: &Directory, end: u64, cache_bytes: u64) -> Option<u64> {
    if !directory.sled().is_dir() {
        return None;
    }
    let applied = guarded(directory, || View::last_seen(directory, cache_bytes));
    // A view that does not open is what a rebuild is for.
    applied.ok().filter(|applied| *applied > end)
}

fn recovered(
    directory: &Directory,
    journal: &mut Journal,
    trust: Trust,
    options: &Options,
) -> Result<Recovered, Error> {
    let (view, applied) = View::open(directory, options.cache_bytes)?;
    let lineage = directory.lineage();
    let known = applied.log == lineage.log
        || lineage
            .ancestors
            .iter()
            .any(|ancestor| ancestor.log == applied.log);
    if !known {
        return Err(Error::View(format!(
            "it belongs to another log, {}",
            applied.log
        )));
    }
    let (_, _, end) = journal.identity();
    let seen = view.seen()?;
    if seen > end {
        return Err(Error::JournalBehind {
            journal: end,
            applied: seen,
            data: directory.path().to_owned(),
        });
    }
    if trust == Trust::Check {
        info!("the last stop was not clean: checking the readable view");
        view.check()?;
    }
    let view = Arc::new(view);
    let mut state = State::load(&view, applied)?;
    state.applied.log = lineage.log;
    let mut follower = journal.follow(applied.offset)?;
    let memberships = Memberships::load(&view, &state)?;
    let channels = Channels::load(&view, options.channels_max)?;
    let tail = Tail::after(*state.applied(), options.window, options.tail_bytes_max);
    let sealer = Sealer::new(view, Arc::new(tail));
    let readers = (&memberships, &channels);
    catch_up(&mut state, &sealer, &mut follower, readers)?;
    sealer.view.flush()?;
    Ok(Recovered {
        sealer,
        state,
        follower,
        memberships,
        channels,
    })
}
