//! Opens a data directory, recovers what the last run left, starts the stages; and closes in order.

use std::any::Any;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::accept::QUEUE_PROPOSALS;
use super::apply::{ApplyStage, catch_up};
use super::flush::Flusher;
use super::journal::{JournalStage, Pending};
use super::membership::Memberships;
use super::recent::Recent;
use super::state::State;
use super::wake::Waiters;
use super::watermark::{Progress, Watermark};
use super::{Durability, Hub, Inner, Options};
use crate::clock;
use crate::model::Position;
use crate::store::{Directory, Error, Follower, Journal, SLED_OPEN_THREAD, Trust, View};

/// The threads of an open hub, and the directory that they work on.
#[derive(Debug)]
pub(super) struct Running {
    directory: Directory,
    journal: JoinHandle<()>,
    apply: JoinHandle<u64>,
    flush: JoinHandle<()>,
    flusher: Arc<Flusher>,
}

/// A view that holds all of the journal.
struct Recovered {
    view: Arc<View>,
    state: State,
    follower: Follower,
    flusher: Arc<Flusher>,
    flush: JoinHandle<()>,
}

/// What a rebuild made.
#[derive(Clone, Copy, Debug)]
pub struct Rebuilt {
    /// The last entry.
    pub offset: u64,
    /// The last ids.
    pub heads: Position,
}

impl Hub {
    /// Opens a data directory, or makes one, and starts the stages. Long work is logged as it goes on.
    pub fn open(options: Options) -> Result<Self, Error> {
        let mut directory = Directory::open(&options.data)?;
        let always = options.durability == Durability::Always;
        let mut journal = Journal::open(&directory.journal(), &directory.lineage(), always)?;
        let trust = directory.trust(journal.identity().2)?;
        let fork = directory.must_fork();
        directory.begin(!always)?;
        let mut recovered = recover(&directory, &mut journal, trust, fork, options.cache_bytes)?;
        if fork {
            directory.fork(recovered.state.applied.heads)?;
            journal.go_on_as(directory.lineage().log);
            recovered.state.applied.log = directory.lineage().log;
        }
        start(options, directory, journal, recovered)
    }

    /// Refuses writes and new feeds, and tells those that wait; then everything accepted is committed. Blocks.
    /// Only the first call does it.
    pub fn close(&self) {
        self.begin_close();
        self.0
            .queue
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let running = self
            .0
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(running) = running {
            self.finish(running);
        }
    }

    /// Refuses writes and new feeds, and tells all feeds to end.
    pub fn begin_close(&self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.waiters.close();
    }

    fn finish(&self, running: Running) {
        let Running {
            directory,
            journal,
            apply,
            flush,
            flusher,
        } = running;
        let journal = joined("journal", journal);
        let offset = joined("apply", apply);
        flusher.stop();
        let flushed = joined("flush", flush);
        let view = self
            .0
            .view
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(view) = view.and_then(unshared) else {
            warn!("reads are still under way: the next start will check the readable view");
            return;
        };
        let sound =
            !self.0.refused.load(Ordering::Acquire) && !self.0.damaged.load(Ordering::Acquire);
        let (Some(offset), true, Some(()), Some(())) = (offset, sound, journal, flushed) else {
            return;
        };
        if let Err(e) = close_view(view, &directory, self.0.options.cache_bytes, offset) {
            warn!(
                error = e.cause(),
                "the stop left no mark: the next start will check the readable view"
            );
        }
    }
}

/// Flushes and closes sled. It writes its snapshot only while opening: opened once more here, the next start
/// is quick.
fn close_view(
    view: View,
    directory: &Directory,
    cache_bytes: u64,
    offset: u64,
) -> Result<(), Error> {
    view.flush()?;
    drop(view);
    drop(View::open(directory, cache_bytes)?);
    directory.close(offset)
}

/// Waits for the last reader to let go of the view.
fn unshared(mut view: Arc<View>) -> Option<View> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let began = Instant::now();
    loop {
        match Arc::try_unwrap(view) {
            Ok(view) => return Some(view),
            Err(shared) if began.elapsed() < PATIENCE => view = shared,
            Err(_) => return None,
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn joined<T>(name: &str, thread: JoinHandle<T>) -> Option<T> {
    thread
        .join()
        .map_err(|_| warn!("the {name} thread panicked"))
        .ok()
}

fn start(
    options: Options,
    directory: Directory,
    journal: Journal,
    recovered: Recovered,
) -> Result<Hub, Error> {
    let Recovered {
        view,
        state,
        follower,
        flusher,
        flush,
    } = recovered;
    let (sender, queue) = sync_channel(QUEUE_PROPOSALS);
    let applied = *state.applied();
    let inner = Arc::new(Inner {
        lineage: directory.lineage(),
        floor: applied.floor,
        proposer: random(),
        queue: RwLock::new(Some(sender)),
        queued_bytes: Arc::new(AtomicUsize::new(0)),
        pending: Pending::default(),
        progress: Progress::default(),
        journal_size: Mutex::new(journal.size()),
        view: RwLock::new(Some(Arc::clone(&view))),
        memberships: Memberships::load(&view, &state)?,
        recent: Recent::new(applied.heads.direct),
        visible: Watermark::default(),
        woken: Watermark::default(),
        waiters: Waiters::new(options.waiters_per_user_max),
        refused: AtomicBool::new(false),
        damaged: AtomicBool::new(false),
        closing: AtomicBool::new(false),
        running: Mutex::new(None),
        options,
    });
    inner.visible.raise(applied.heads);
    inner.woken.raise(applied.heads);
    inner.progress.applied(applied.offset, applied.heads);
    let stage = JournalStage {
        inner: Arc::clone(&inner),
        journal,
        queue,
        at_ms: applied.at_ms,
        n: 0,
    };
    let apply = ApplyStage {
        inner: Arc::clone(&inner),
        view,
        state,
        follower,
        flusher: Arc::clone(&flusher),
    };
    let path = directory.path().to_owned();
    let journal = thread("journal", &path, move || stage.run())?;
    let apply = thread("apply", &path, move || apply.run())?;
    let running = Running {
        directory,
        journal,
        apply,
        flush,
        flusher,
    };
    *inner.running.lock().unwrap_or_else(PoisonError::into_inner) = Some(running);
    Ok(Hub(inner))
}

fn thread<T: Send + 'static>(
    name: &str,
    path: &Path,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, Error> {
    Builder::new()
        .name(name.into())
        .spawn(work)
        .map_err(Error::io("start a thread for", path))
}

fn random() -> u64 {
    getrandom::u64().expect("the operating system gives random bytes")
}

/// Opens the view and applies what it lacks. A view that is missing, damaged, or a copy taken while it was in
/// use is put aside and made anew.
fn recover(
    directory: &Directory,
    journal: &mut Journal,
    trust: Trust,
    fork: bool,
    cache_bytes: u64,
) -> Result<Recovered, Error> {
    if trust != Trust::Rebuild {
        let tried = attempt(directory, journal, trust, cache_bytes);
        if !must_be_made_anew(&tried, fork) {
            return tried;
        }
    }
    let began = Instant::now();
    directory.set_sled_aside(clock::now_ms())?;
    let recovered = attempt(directory, journal, Trust::Rebuild, cache_bytes)?;
    let applied = recovered.state.applied();
    if applied.offset > 0 {
        info!(
            entries = applied.offset,
            direct = applied.heads.direct,
            group = applied.heads.group,
            seconds = began.elapsed().as_secs_f32(),
            "made the readable view anew from the journal"
        );
    }
    Ok(recovered)
}

/// Whether the journal can give what the view did not.
fn must_be_made_anew(tried: &Result<Recovered, Error>, fork: bool) -> bool {
    match tried {
        Err(Error::View(reason)) => {
            warn!(
                reason,
                "the readable view is damaged: it is made anew from the journal"
            );
            true
        }
        // What was acknowledged may be lost then, and the log gets a new id.
        Err(Error::JournalBehind { journal, applied }) if fork => {
            warn!(
                journal,
                applied, "the readable view is ahead of the journal: it is made anew"
            );
            true
        }
        _ => false,
    }
}

/// One try. A panic of sled is damage.
fn attempt(
    directory: &Directory,
    journal: &mut Journal,
    trust: Trust,
    cache_bytes: u64,
) -> Result<Recovered, Error> {
    let tried = std::thread::scope(|scope| {
        let work = || recovered(directory, journal, trust, cache_bytes);
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

fn recovered(
    directory: &Directory,
    journal: &mut Journal,
    trust: Trust,
    cache_bytes: u64,
) -> Result<Recovered, Error> {
    let (view, applied) = View::open(directory, cache_bytes)?;
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
    if applied.offset > end {
        return Err(Error::JournalBehind {
            journal: end,
            applied: applied.offset,
        });
    }
    let view = Arc::new(view);
    let mut state = State::load(&view, applied)?;
    state.applied.log = lineage.log;
    let mut follower = journal.follow(applied.offset)?;
    let (flusher, flush) = Flusher::start(&view)?;
    let stopping = Stopping(Some((Arc::clone(&flusher), flush)));
    catch_up(&mut state, &view, &flusher, &mut follower)?;
    if trust == Trust::Check {
        info!("the last stop was not clean: checking the readable view");
        view.check(state.applied())?;
    }
    view.flush()?;
    let (flusher, flush) = stopping.keep();
    Ok(Recovered {
        view,
        state,
        follower,
        flusher,
        flush,
    })
}

/// Ends the flusher unless it is kept: a view that is put aside must be closed.
struct Stopping(Option<(Arc<Flusher>, JoinHandle<()>)>);

impl Stopping {
    fn keep(mut self) -> (Arc<Flusher>, JoinHandle<()>) {
        self.0.take().expect("it is taken only here and in drop")
    }
}

impl Drop for Stopping {
    fn drop(&mut self) {
        if let Some((flusher, thread)) = self.0.take() {
            flusher.stop();
            joined("flush", thread);
        }
    }
}

/// Makes the view of a data directory anew from its journal. With `accept_loss`, a damaged journal is first
/// cut where the damage begins, and the log goes on under a new id.
pub fn rebuild(data: &Path, accept_loss: bool, cache_bytes: u64) -> Result<Rebuilt, Error> {
    let mut directory = Directory::open_existing(data)?;
    let lineage = directory.lineage();
    let lost = accept_loss && Journal::cut_damage(&directory.journal(), &lineage, clock::now_ms())?;
    let mut journal = Journal::open(&directory.journal(), &lineage, true)?;
    let behind = directory.trust(journal.identity().2)? != Trust::Clean;
    let fork = directory.must_fork() || lost || (accept_loss && behind);
    directory.begin(false)?;
    directory.set_sled_aside(clock::now_ms())?;
    let recovered = attempt(&directory, &mut journal, Trust::Rebuild, cache_bytes)?;
    let Recovered {
        view,
        state,
        follower,
        flusher,
        flush,
    } = recovered;
    let rebuilt = Rebuilt {
        offset: state.applied().offset,
        heads: state.applied().heads,
    };
    if fork {
        directory.fork(rebuilt.heads)?;
    }
    drop((follower, state, journal));
    drop(Stopping(Some((flusher, flush))));
    let view = unshared(view).ok_or_else(|| Error::View("it is still in use".into()))?;
    close_view(view, &directory, cache_bytes, rebuilt.offset)?;
    Ok(rebuilt)
}
