//! Recovery: a view that holds all of the journal, from whatever the last run left.

use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use super::guard::guarded;
use crate::clock;
use crate::hub::Options;
use crate::hub::channel::Channels;
use crate::hub::damage::Damage;
use crate::hub::membership::Memberships;
use crate::hub::state::State;
use crate::hub::tail::{Sealer, Tail};
use crate::hub::write::apply::catch_up;
use crate::store::{Aside, Directory, Error, Follower, Journal, Trust, View};

/// A view and a tail that hold all of the journal.
pub(super) struct Recovered {
    pub(super) sealer: Sealer,
    pub(super) state: State,
    pub(super) follower: Follower,
    pub(super) memberships: Memberships,
    pub(super) channels: Channels,
    /// Whether the view is to be read as a whole once it is served.
    pub(super) unchecked: bool,
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
                // All that is in those is in the journal, too.
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
    recovered.sealer.seal_waiting()?;
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

/// One try. With [`Trust::Rebuild`] the view must be put aside: it is made anew.
pub(super) fn attempt(
    directory: &Directory,
    journal: &mut Journal,
    trust: Trust,
    options: &Options,
) -> Result<Recovered, Error> {
    if trust == Trust::Rebuild {
        directory.forget_damage()?;
    }
    guarded(directory.path(), || {
        recovered(directory, journal, trust, options)
    })
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
    let applied = guarded(directory.path(), || View::last_seen(directory, cache_bytes));
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
    let end = journal.last_offset();
    let seen = view.seen()?;
    if seen > end {
        return Err(Error::JournalBehind {
            journal: end,
            applied: seen,
            data: directory.path().to_owned(),
        });
    }
    // Not before it is known that the journal has all of it.
    if let Some(found) = directory.noted_damage()? {
        return Err(Error::View(found));
    }
    if trust == Trust::Check {
        view.check_ends()?;
        info!("the last stop was not clean: the readable view is checked while it is served");
    }
    let view = Arc::new(view);
    let mut state = State::load(&view, applied, options.caches.values)?;
    state.applied.log = lineage.log;
    let mut follower = journal.follow(applied.offset)?;
    let memberships = Memberships::new(&state, options.caches.memberships_bytes);
    let channels = Channels::load(&view, options.channels_max)?;
    let tail = Tail::after(*state.applied(), options.window, options.tail_bytes_max);
    let damage = Damage::new(directory.damage_note());
    let sealer = Sealer::new(view, Arc::new(tail), damage);
    let readers = (&memberships, &channels);
    catch_up(&mut state, &sealer, &mut follower, readers)?;
    sealer.view.flush()?;
    Ok(Recovered {
        sealer,
        state,
        follower,
        memberships,
        channels,
        unchecked: trust == Trust::Check,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::{Hub, WindowSize};
    use crate::model::{Body, Draft, Position, Receiver, UserName};
    use crate::store::{Command, Entry};

    const ENTRIES: u64 = 40;

    #[test]
    fn a_start_leaves_full_windows_to_the_sealer_while_they_have_room() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        Hub::open(Options::small(data)).unwrap().close();
        let directory = Directory::open(data).unwrap();
        let mut journal = Journal::open(&directory, true).unwrap();
        for n in 1..=ENTRIES {
            let user = UserName::parse("alice").unwrap();
            let draft = Draft {
                from: user.clone(),
                to: Receiver::User(user),
                body: Body::from(b"1".to_vec()),
                key: None,
                by_user: false,
            };
            let entry = Entry {
                proposer: 1,
                n,
                at_ms: n,
                keys_us: n * 1000,
                commands: vec![Command::Message(draft)],
            };
            let heads = |direct| Ok(Position { direct, group: 0 });
            journal.append(entry, heads).unwrap();
        }
        drop((journal, directory));
        for (tail_bytes_max, sealed) in [(u64::MAX, 0), (0, ENTRIES)] {
            let options = Options {
                tail_bytes_max,
                window: WindowSize {
                    ids: 1,
                    bytes: u64::MAX,
                },
                ..Options::small(data)
            };
            let directory = Directory::open(data).unwrap();
            let mut journal = Journal::open(&directory, true).unwrap();
            let recovered = recover(&directory, &mut journal, Trust::Check, false, &options);
            let tail = recovered.unwrap().sealer.tail;
            assert_eq!(tail.applied_offset(), ENTRIES);
            assert_eq!(tail.sealed_offset(), sealed);
        }
    }
}
