//! Reading the journal: its segments in order, checked against each other, then what is appended.

use std::fs::{self, File};
use std::io::{BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};

use super::command::Entry;
use super::rest::only_zeros;
use super::segment::{Next, SegmentReader};
use crate::model::Lineage;
use crate::store::directory::segments::{no_segments, segments};
use crate::store::directory::{Directory, Tail};
use crate::store::error::Error;

/// What a follower finds that does not wait.
#[derive(Debug)]
pub enum TryNext {
    /// The next entry and its offset.
    Entry(u64, Arc<Entry>),
    /// Nothing yet.
    NotYet,
    /// Nothing more will come.
    End,
}

/// Reads entries in order, first from disk, then as they are appended.
#[derive(Debug)]
pub struct Follower {
    /// With the offset that each begins with.
    segments: std::vec::IntoIter<(u64, PathBuf)>,
    reader: Option<SegmentReader>,
    /// The offset of the next entry.
    next: u64,
    /// The last entry on disk when following began.
    end: u64,
    /// What is appended while it follows, if it does.
    appended: Option<Receiver<(u64, Arc<Entry>)>>,
    /// How the end of the last segment was written.
    tail: Tail,
    /// What is wrong behind the segments that are read.
    damage: Option<Error>,
}

impl Follower {
    /// Only what is on disk, from after `after` up to `end`, of segments that were checked when the journal was opened.
    pub(super) fn of_disk(directory: &Path, after: u64, end: u64) -> Result<Self, Error> {
        let all = segments(directory)?;
        let first = all
            .iter()
            .rposition(|(first, _)| *first <= after + 1)
            .unwrap_or(0);
        let wanted: Vec<_> = all.into_iter().skip(first).collect();
        Ok(Self {
            segments: wanted.into_iter(),
            reader: None,
            next: after + 1,
            end,
            appended: None,
            tail: Tail::Synced,
            damage: None,
        })
    }

    /// Goes on with what is appended.
    pub(super) fn then(self, appended: Receiver<(u64, Arc<Entry>)>) -> Self {
        let appended = Some(appended);
        Self { appended, ..self }
    }

    /// All that is on disk: segments are checked against each other first, and the first damage comes behind what is
    /// sound. A torn tail is no damage. Nothing is changed.
    pub fn checked(of: &Directory) -> Result<Self, Error> {
        let (sound, damage) = segments_until_damage(&of.journal(), &of.lineage())?;
        Ok(Self {
            segments: sound.into_iter(),
            reader: None,
            next: 1,
            end: u64::MAX,
            appended: None,
            tail: of.tail(),
            damage,
        })
    }

    /// Reads the end of the last segment as if it was written like this.
    #[cfg(test)]
    pub(super) fn ending(self, tail: Tail) -> Self {
        Self { tail, ..self }
    }

    /// Reads all, for its errors.
    pub fn drain(mut self) -> Result<(), Error> {
        while self.next_entry()?.is_some() {}
        Ok(())
    }

    /// The last entry that was on disk when following began.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether all that was on disk when following began has been given.
    pub fn caught_up(&self) -> bool {
        self.next > self.end
    }

    /// The next entry and its offset; waits for it. `None`: nothing more will come.
    pub fn next_entry(&mut self) -> Result<Option<(u64, Arc<Entry>)>, Error> {
        let found = if self.caught_up() {
            self.appended_entry()
        } else {
            self.disk_entry()?
        };
        if let Some((offset, _)) = &found {
            self.count(*offset);
        }
        Ok(found)
    }

    /// This entry is given now.
    fn count(&mut self, offset: u64) {
        assert!(
            offset == self.next,
            "entry {offset} follows entry {}",
            self.next - 1
        );
        self.next += 1;
    }

    /// What was appended since all was given that was on disk when following began; does not wait.
    pub fn try_next_entry(&mut self) -> Result<TryNext, Error> {
        if !self.caught_up() {
            let found = self.next_entry()?;
            return Ok(found.map_or(TryNext::End, |(offset, entry)| {
                TryNext::Entry(offset, entry)
            }));
        }
        let Some(appended) = &self.appended else {
            return Ok(TryNext::End);
        };
        match appended.try_recv() {
            Ok((offset, entry)) => {
                self.count(offset);
                Ok(TryNext::Entry(offset, entry))
            }
            Err(TryRecvError::Empty) => Ok(TryNext::NotYet),
            Err(TryRecvError::Disconnected) => Ok(TryNext::End),
        }
    }

    fn appended_entry(&mut self) -> Option<(u64, Arc<Entry>)> {
        self.appended.as_ref()?.recv().ok()
    }

    fn disk_entry(&mut self) -> Result<Option<(u64, Arc<Entry>)>, Error> {
        loop {
            if self.reader.is_none() {
                let Some((_, path)) = self.segments.next() else {
                    return self.damage.take().map_or(Ok(None), Err);
                };
                let last = self.segments.len() == 0;
                let tail = if last { self.tail } else { Tail::Synced };
                self.reader = SegmentReader::open(&path)?.map(|reader| reader.ending(tail));
            }
            let Some(reader) = &mut self.reader else {
                // It has no header yet, so no entries either.
                continue;
            };
            match reader.next()? {
                // The first segment may begin earlier than what is asked for.
                Next::Entry(offset, _) if offset < self.next => {}
                Next::Entry(offset, entry) => return Ok(Some((offset, Arc::new(entry)))),
                Next::End { good, torn } => {
                    // Entries that are missing between two segments were there: it is no torn tail.
                    let following = self.segments.as_slice().first();
                    if following.is_some_and(|(first, _)| torn > 0 || reader.next_offset() < *first)
                    {
                        return Err(reader.damage_at(good));
                    }
                    self.reader = None;
                }
            }
        }
    }
}

/// The segments, after checking that none is missing, cut, or of another log. A last segment whose
/// header was never completed is left out and, being empty, written again when its turn comes.
pub(super) fn sound_segments(
    directory: &Path,
    lineage: &Lineage,
) -> Result<Vec<(u64, PathBuf)>, Error> {
    let (sound, damage) = segments_until_damage(directory, lineage)?;
    damage.map_or(Ok(sound), Err)
}

/// The segments before the first that is missing, cut, or of another log, and what is wrong with that one.
type UntilDamage = (Vec<(u64, PathBuf)>, Option<Error>);

fn segments_until_damage(directory: &Path, lineage: &Lineage) -> Result<UntilDamage, Error> {
    let mut all = segments(directory)?;
    if let Some((_, path)) = all.last()
        && all.len() > 1
        && let Ok(None) = SegmentReader::open(path)
    {
        all.pop();
    }
    if all.is_empty() {
        return Err(no_segments(directory));
    }
    let mut sound: Vec<(u64, PathBuf)> = Vec::new();
    for (first, path) in all {
        match check_segment(first, &path, sound.last(), lineage) {
            Ok(()) => sound.push((first, path)),
            Err(damage @ Error::Journal { .. }) => return Ok((sound, Some(damage))),
            Err(e) => return Err(e),
        }
    }
    Ok((sound, None))
}

/// Checks a segment's header against its name, its log and the segment before it.
fn check_segment(
    first: u64,
    path: &Path,
    previous: Option<&(u64, PathBuf)>,
    lineage: &Lineage,
) -> Result<(), Error> {
    let damage = |reason: String| Error::Journal {
        path: path.to_owned(),
        position: 0,
        reason,
    };
    let reader = SegmentReader::open(path)?.ok_or_else(|| damage("it has no header".into()))?;
    let head = reader.head;
    let known = head.log == lineage.log
        || lineage
            .ancestors
            .iter()
            .any(|ancestor| ancestor.log == head.log);
    if !known {
        return Err(damage(format!("it belongs to another log, {}", head.log)));
    }
    if head.first != first {
        return Err(damage(format!(
            "its name says entry {first}, its header {}",
            head.first
        )));
    }
    let (wanted, wanted_bytes) = head.previous;
    let (found, found_bytes) = match previous {
        Some((first, path)) => (*first, length_without_zeros(path, wanted_bytes)?),
        None => (0, 0),
    };
    if (wanted, wanted_bytes) == (found, found_bytes) {
        return Ok(());
    }
    Err(damage(if wanted == found {
        format!(
            "the file to replace is {found:020}.journal, the one before it: it has {found_bytes} bytes, and had \
             {wanted_bytes} when this one was begun"
        )
    } else {
        format!(
            "before it belongs a segment that begins with entry {wanted} and has {wanted_bytes} bytes; \
             there is one that begins with entry {found} and has {found_bytes} bytes (0: none)"
        )
    }))
}

/// How long a segment is, without zeros behind the length that it should have: from a live copy they were not cut off
/// yet.
fn length_without_zeros(path: &Path, wanted: u64) -> Result<u64, Error> {
    let length = fs::metadata(path)
        .map_err(Error::io("read the size of", path))?
        .len();
    if length <= wanted {
        return Ok(length);
    }
    let mut file = File::open(path).map_err(Error::io("open", path))?;
    file.seek(SeekFrom::Start(wanted))
        .map_err(Error::io("seek in", path))?;
    let zeros = only_zeros(&mut BufReader::new(file)).map_err(Error::io("read", path))?;
    Ok(if zeros { wanted } else { length })
}
