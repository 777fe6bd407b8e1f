//! `halley rebuild`: rebuilds the view, and cuts a damaged journal where its operator accepts the loss. The upgrade of a
//! directory of an earlier format is a rebuild, too.

use std::sync::PoisonError;
use std::time::Instant;

use tracing::{info, warn};

use super::guard::{close_view, unshared};
use super::recover::{Recovered, applied_beyond, attempt, check_view_end};
use crate::clock;
use crate::hub::Options;
use crate::hub::tail::Sealer;
use crate::model::Position;
use crate::store::{Aside, Directory, Error, FORMAT_VERSION, Journal, Trust};

/// What a rebuild made.
#[derive(Clone, Copy, Debug)]
pub struct Rebuilt {
    /// The last entry.
    pub offset: u64,
    /// The last ids.
    pub heads: Position,
}

/// Rebuilds the view of a data directory from its journal. With `accept_loss`, a damaged journal is first
/// cut where the damage begins, and the log goes on under a new id.
pub fn rebuild(options: &Options, accept_loss: bool) -> Result<Rebuilt, Error> {
    let mut directory = Directory::open_existing(&options.data)?;
    let lost = accept_loss && Journal::cut_damage(&mut directory, clock::now_ms())?;
    let journal = Journal::open(&directory, true)?;
    let end = journal.last_offset();
    directory.must_have_room_to_upgrade(bytes_of(&journal))?;
    // Before anything is changed: what cannot be read must not replace what can.
    journal.full_segments()?.drain()?;
    let ahead = match check_view_end(&directory, end, options.cache_bytes) {
        Err(Error::JournalBehind { .. }) if accept_loss => true,
        checked => checked.map(|()| lost)?,
    };
    let behind = directory.trust(end)? != Trust::Clean;
    let fork = directory.must_fork() || lost || (accept_loss && behind);
    if fork {
        directory.expect_loss()?;
    }
    let aside = if ahead { Aside::Ahead } else { Aside::Damaged };
    rebuild_view(&mut directory, journal, fork, aside, options)
}

/// Brings a data directory of an earlier format to the present one: its view is rebuilt from the journal, and then it
/// is as after a clean stop. A stop in between leaves it of the earlier format, to begin again.
pub(super) fn upgrade(directory: &mut Directory, options: &Options) -> Result<(), Error> {
    let Some(found) = directory.earlier_format() else {
        return Ok(());
    };
    let began = Instant::now();
    let journal = Journal::open(directory, true)?;
    let end = journal.last_offset();
    directory.check_end(end)?;
    directory.must_have_room()?;
    let journal_bytes = bytes_of(&journal);
    directory.must_have_room_to_upgrade(journal_bytes)?;
    // What cannot be read must not replace what an earlier program can.
    journal.full_segments()?.drain()?;
    let fork = directory.must_fork();
    let aside = if view_is_ahead(directory, end, fork, options.cache_bytes)? {
        Aside::Ahead
    } else {
        Aside::Damaged
    };
    info!(
        from = found,
        to = FORMAT_VERSION,
        entries = end,
        journal_bytes,
        "upgrading the data directory to a new format: its readable view is rebuilt from the journal"
    );
    let rebuilt = rebuild_view(directory, journal, fork, aside, options)?;
    info!(
        format = FORMAT_VERSION,
        entries = rebuilt.offset,
        direct = rebuilt.heads.direct,
        group = rebuilt.heads.group,
        ms = began.elapsed().as_millis(),
        "upgraded the data directory; earlier versions of Halley no longer open it"
    );
    Ok(())
}

/// Whether the view of an earlier format holds more than the journal. That is only accepted where the log forks.
fn view_is_ahead(
    directory: &Directory,
    end: u64,
    fork: bool,
    cache_bytes: u64,
) -> Result<bool, Error> {
    if directory.trust(end)? != Trust::Check {
        return Ok(false);
    }
    let Some(applied) = applied_beyond(directory, end, cache_bytes) else {
        return Ok(false);
    };
    if !fork {
        let data = directory.path().to_owned();
        return Err(Error::JournalBehind {
            journal: end,
            applied,
            data,
        });
    }
    warn!(
        journal = end,
        applied, "the readable view is ahead of the journal: it is rebuilt"
    );
    Ok(true)
}

/// Makes the view from the journal, and leaves the mark of a clean stop. The directory has the present format then.
fn rebuild_view(
    directory: &mut Directory,
    mut journal: Journal,
    fork: bool,
    aside: Aside,
    options: &Options,
) -> Result<Rebuilt, Error> {
    directory.begin(false, &journal.end()?)?;
    let latest = directory.set_sled_aside(aside, clock::now_ms())?;
    journal.cut_tail()?;
    let recovered = attempt(directory, &mut journal, Trust::Rebuild, options)?;
    let Recovered {
        sealer,
        state,
        follower,
        ..
    } = recovered;
    sealer.seal_waiting()?;
    let rebuilt = Rebuilt {
        offset: state.applied().offset,
        heads: state.applied().heads,
    };
    if fork {
        directory.fork(rebuilt.heads, &journal.end()?)?;
    }
    drop((follower, state));
    journal.close()?;
    let Sealer { view, .. } = sealer;
    let view = unshared(view).ok_or_else(|| Error::View("it is still in use".into()))?;
    close_view(view, directory, options.cache_bytes, rebuilt.offset)?;
    directory.close(rebuilt.offset)?;
    // What an upgrade has put aside only takes room from here on: no program that is left reads it.
    let keep = latest.filter(|_| directory.earlier_format().is_none());
    directory.finish_upgrade()?;
    directory.remove_set_aside(keep.as_deref())?;
    Ok(rebuilt)
}

fn bytes_of(journal: &Journal) -> u64 {
    let size = journal.size();
    let size = size.lock().unwrap_or_else(PoisonError::into_inner);
    size.bytes
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::path::{Path, PathBuf};
    use std::time::Instant;

    use super::*;
    use crate::hub::{Compared, Hub, WindowSize, verify};
    use crate::model::{Body, Draft, Receiver, UserName};
    use crate::store::{Command, Entry, View};

    const CACHE: u64 = 8 << 20;

    fn rebuilt(data: &Path, accept_loss: bool) -> Result<Rebuilt, Error> {
        rebuild(&options(data), accept_loss)
    }

    const MESSAGES: u64 = 40;

    /// With a window for each message: the view has them all.
    fn options(data: &Path) -> Options {
        Options {
            window: WindowSize {
                ids: 1,
                bytes: u64::MAX,
            },
            ..Options::small(data)
        }
    }

    fn open(data: &Path) -> Result<Hub, Error> {
        Hub::open(options(data))
    }

    fn draft() -> Draft {
        Draft {
            from: UserName::parse("alice").unwrap(),
            to: Receiver::User(UserName::parse("bob").unwrap()),
            body: Body::from(b"1".to_vec()),
            key: None,
            by_user: false,
        }
    }

    async fn push(hub: &Hub) {
        hub.push(vec![draft()]).await.unwrap().remove(0).unwrap();
    }

    /// Messages in small segments, and their view; the first segment.
    fn segmented(data: &Path) -> PathBuf {
        let directory = Directory::open(data).unwrap();
        let mut journal = Journal::open(&directory, true).unwrap();
        journal.roll_at(300);
        for n in 1..=MESSAGES {
            let entry = Entry {
                proposer: 1,
                n,
                at_ms: n,
                keys_us: n * 1000,
                commands: vec![Command::Message(draft())],
            };
            let heads = |direct| Ok(Position { direct, group: 0 });
            journal.append(entry, heads).unwrap();
        }
        assert!(journal.size().lock().unwrap().segments > 3);
        drop((journal, directory));
        rebuilt(data, false).unwrap();
        data.join("journal/00000000000000000001.journal")
    }

    /// Flips a bit in the middle; gives the sound bytes.
    fn damage(segment: &Path) -> Vec<u8> {
        let sound = fs::read(segment).unwrap();
        let mut bytes = sound.clone();
        bytes[sound.len() / 2] ^= 1;
        fs::write(segment, bytes).unwrap();
        sound
    }

    fn set_aside(data: &Path) -> usize {
        let names = fs::read_dir(data)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with("sled.damaged-"))
            .count()
    }

    /// Refused because the journal is damaged, with what mends it; sled is where it was.
    #[track_caller]
    fn assert_refused<T>(data: &Path, tried: Result<T, Error>) {
        assert!(data.join("sled/db").exists(), "sled is where it was");
        assert_eq!(set_aside(data), 0);
        let error = tried.err().expect("it is refused");
        let text = error.to_string();
        assert!(matches!(error, Error::Journal { .. }), "{text}");
        assert!(text.contains("the same file from any backup"), "{text}");
    }

    #[test]
    fn a_damaged_old_segment_costs_no_sled_and_is_mended_from_a_backup() {
        let folder = tempfile::tempdir().unwrap();
        let (data, copy) = (&folder.path().join("data"), &folder.path().join("copy"));
        let segment = segmented(data);
        let sound = damage(&segment);
        let mut copying = std::process::Command::new("cp");
        let copied = copying.arg("-a").args([data, copy]).status().unwrap();
        assert!(copied.success());
        fs::remove_file(copy.join("clean")).unwrap();
        for _ in 0..2 {
            assert_refused(data, rebuilt(data, false));
            assert_refused(copy, open(copy));
        }
        let hub = open(data).unwrap();
        assert_eq!(hub.status().watermark.direct, MESSAGES, "sled has it all");
        let begun = Instant::now();
        let damage = loop {
            match hub.status().journal.damage {
                Some(damage) => break damage,
                None => assert!(begun.elapsed().as_secs() < 10, "the damage is not noticed"),
            }
            std::thread::yield_now();
        };
        assert!(damage.contains(segment.to_str().unwrap()), "{damage}");
        hub.close();
        for data in [data, copy] {
            let segment = data.join("journal").join(segment.file_name().unwrap());
            fs::write(segment, &sound).unwrap();
        }
        assert_eq!(rebuilt(data, false).unwrap().offset, MESSAGES);
        let hub = open(copy).unwrap();
        assert_eq!(hub.status().watermark.direct, MESSAGES);
        hub.close();
        assert_eq!(hub.status().journal.damage, None);
        assert_eq!(
            verify(copy, CACHE, &mut |_, _| ()).unwrap().messages.direct,
            MESSAGES
        );
    }

    #[test]
    fn a_loss_of_everything_is_not_accepted_and_no_journal_is_not_a_whole_one() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let first = segmented(data);
        let sound = fs::read(&first).unwrap();
        let mut bytes = sound.clone();
        bytes[30] ^= 1;
        fs::write(&first, &bytes).unwrap();
        for accept_loss in [false, true] {
            assert_refused(data, rebuilt(data, accept_loss));
            assert_eq!(fs::read(&first).unwrap(), bytes);
        }
        fs::write(&first, &sound).unwrap();
        let verified = || verify(data, CACHE, &mut |_, _| ());
        let view = verified().unwrap().view;
        assert!(
            matches!(view, Compared::Same),
            "it is as if nothing was tried"
        );
        for segment in fs::read_dir(data.join("journal")).unwrap() {
            fs::remove_file(segment.unwrap().path()).unwrap();
        }
        fs::remove_file(data.join("clean")).unwrap();
        let refused = |error: Error| assert!(matches!(error, Error::Directory { .. }), "{error}");
        refused(verified().unwrap_err());
        refused(rebuilt(data, true).unwrap_err());
        refused(open(data).unwrap_err());
    }

    /// Of a directory that was killed only its view may know that the journal has lost its end.
    #[test]
    fn a_view_of_format_1_that_is_ahead_of_its_journal_is_not_upgraded() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        segmented(data);
        fs::remove_file(data.join("clean")).unwrap();
        let format = data.join("format");
        let text = fs::read_to_string(&format).unwrap();
        fs::write(&format, text.replace("\"version\": 2", "\"version\": 1")).unwrap();
        let directory = Directory::open(data).unwrap();
        for (applied, ahead) in [(MESSAGES, false), (MESSAGES + 1, true)] {
            View::mark_as_format_1(&directory, applied);
            let beyond = applied_beyond(&directory, MESSAGES, CACHE);
            assert_eq!(beyond, ahead.then_some(applied));
        }
        drop(directory);
        let refused = |tried: Result<(), Error>| match tried.unwrap_err() {
            Error::JournalBehind {
                journal, applied, ..
            } => assert_eq!((journal, applied), (MESSAGES, MESSAGES + 1)),
            other => panic!("{other}"),
        };
        refused(open(data).map(drop));
        refused(rebuilt(data, false).map(drop));
        refused(verify(data, CACHE, &mut |_, _| ()).map(drop));
        assert!(data.join("sled/db").exists(), "it is where it was");
        let directory = Directory::open(data).unwrap();
        assert_eq!(directory.earlier_format(), Some(1));
        View::mark_as_format_1(&directory, MESSAGES);
        drop(directory);
        let view = verify(data, CACHE, &mut |_, _| ()).unwrap().view;
        assert_eq!(view, Compared::Earlier(1));
        let hub = open(data).unwrap();
        assert_eq!(hub.status().watermark.direct, MESSAGES);
        hub.close();
        let view = verify(data, CACHE, &mut |_, _| ()).unwrap().view;
        assert_eq!(view, Compared::Same);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_journal_that_lost_its_end_is_only_gone_on_with_when_that_is_accepted() {
        let data = tempfile::tempdir().unwrap();
        let data = data.path();
        let hub = open(data).unwrap();
        let log = hub.log();
        push(&hub).await;
        let segment = data.join("journal/00000000000000000001.journal");
        let length = hub.status().journal.bytes;
        push(&hub).await;
        hub.close();
        drop(hub);
        assert_eq!(verify(data, CACHE, &mut |_, _| ()).unwrap().entries, 2);
        let file = OpenOptions::new().write(true).open(&segment).unwrap();
        file.set_len(length).unwrap();
        let refused = |error: Error| match error {
            Error::JournalBehind {
                journal, applied, ..
            } => assert_eq!((journal, applied), (1, 2)),
            other => panic!("{other}"),
        };
        refused(verify(data, CACHE, &mut |_, _| ()).unwrap_err());
        refused(open(data).unwrap_err());
        refused(rebuilt(data, false).unwrap_err());
        // The view knows it too.
        fs::remove_file(data.join("clean")).unwrap();
        refused(rebuilt(data, false).unwrap_err());
        refused(open(data).unwrap_err());
        // Nothing is given up before it is noted that the log must get another id.
        fs::create_dir(data.join("format.new")).unwrap();
        assert!(matches!(rebuilt(data, true), Err(Error::Io { .. })));
        fs::remove_dir(data.join("format.new")).unwrap();
        refused(open(data).unwrap_err());
        assert_eq!(rebuilt(data, true).unwrap().offset, 1);
        let hub = open(data).unwrap();
        assert_ne!(hub.log(), log);
        hub.close();
    }
}
