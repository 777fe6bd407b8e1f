//! `halley rebuild`: the view made anew, and a damaged journal cut where its operator accepts the loss.

use std::path::Path;

use super::open::{close_view, unshared};
use super::recover::{Recovered, Stopping, attempt, guarded};
use crate::clock;
use crate::model::Position;
use crate::store::{Directory, Error, Journal, Trust, View};

/// What a rebuild made.
#[derive(Clone, Copy, Debug)]
pub struct Rebuilt {
    /// The last entry.
    pub offset: u64,
    /// The last ids.
    pub heads: Position,
}

/// Refuses a journal that lacks what was applied, as far as the mark of a clean stop or the view can tell.
fn check_view_end(directory: &Directory, end: u64, cache_bytes: u64) -> Result<(), Error> {
    directory.check_end(end)?;
    if directory.must_fork() || !directory.sled().is_dir() {
        return Ok(());
    }
    match guarded(directory, || View::open(directory, cache_bytes)) {
        Ok((_, applied)) if applied.offset > end => Err(Error::JournalBehind {
            journal: end,
            applied: applied.offset,
        }),
        // A view that does not open is what a rebuild is for.
        _ => Ok(()),
    }
}

/// Makes the view of a data directory anew from its journal. With `accept_loss`, a damaged journal is first
/// cut where the damage begins, and the log goes on under a new id.
pub fn rebuild(data: &Path, accept_loss: bool, cache_bytes: u64) -> Result<Rebuilt, Error> {
    let mut directory = Directory::open_existing(data)?;
    let lineage = directory.lineage();
    let (path, now) = (directory.journal(), clock::now_ms());
    let lost =
        accept_loss && Journal::cut_damage(&path, &lineage, now, &mut || directory.expect_loss())?;
    let mut journal = Journal::open(&path, &lineage, true)?;
    let (_, _, end) = journal.identity();
    if !accept_loss {
        check_view_end(&directory, end, cache_bytes)?;
    }
    let behind = directory.trust(end)? != Trust::Clean;
    let fork = directory.must_fork() || lost || (accept_loss && behind);
    if fork {
        directory.expect_loss()?;
    }
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
