//! What a start and a clean stop leave behind in the data directory, for the next start to tell what has happened
//! to it meanwhile.

use std::fs::{self, File, Metadata};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::identity::{changed, files_of, inode};
use super::place::Place;
use crate::store::error::Error;

const CLEAN: &str = "clean";
const BEGUN: &str = "begun";

/// The mark that a clean stop leaves: sled is just as it was then.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Clean {
    /// The last applied entry.
    pub(super) offset: u64,
    /// Name, length and modification time of every file of sled.
    pub(super) files: Vec<(String, u64, u64)>,
    /// What a copy of the mark cannot have. Not in those of version 0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
}

/// The mark that a start leaves until the clean stop.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begun {
    /// The last entry of the journal.
    pub(super) offset: u64,
    /// When `format` was last changed: nobody can set that, also not who copies a backup over the directory.
    format: String,
    /// What a copy of the mark cannot have. Not in the first ones of version 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<String>,
}

/// A file that is written until the clean stop: rsync, used to restore a backup, replaces it and leaves `format` alone.
/// Each is a line appended to the mark of the start. Rewriting the mark for each segment would make a `begun.new` while
/// the server runs, which a copier may list and then not find.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::store) struct Own {
    name: String,
    /// What a copy cannot have.
    inode: String,
}

impl Own {
    /// Where the segments of the journal are.
    const JOURNAL: &str = "journal/";
    /// The file that sled writes.
    const SLED: &str = "sled/db";

    /// The last segment of the journal.
    pub(in crate::store) fn segment(path: &Path, file: &File) -> Result<Self, Error> {
        let name = path.file_name().unwrap_or_default();
        Ok(Self {
            name: format!("{}{}", Self::JOURNAL, name.display()),
            inode: inode_of(path, file)?,
        })
    }

    fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).expect("plain data encodes");
        line.push(b'\n');
        line
    }

    /// What is there under its name now; `None` without it.
    fn is_there(&self, place: &Place) -> Option<bool> {
        let there = fs::metadata(place.path().join(&self.name)).ok()?;
        Some(inode(&there) == self.inode)
    }
}

/// Where the journal ends when a start leaves its mark: its last entry, and the segment that is written.
#[derive(Debug)]
pub struct JournalEnd {
    pub(in crate::store) offset: u64,
    pub(in crate::store) segment: Own,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Marks {
    pub(super) clean: Option<Clean>,
    pub(super) begun: Option<Begun>,
    /// A backup was copied over the directory.
    pub(super) restored: bool,
}

impl Marks {
    /// Reads both, given what the inode of `format` says. What is not readable is not there.
    pub(super) fn read(place: &Place, format: &Metadata) -> Self {
        let clean: Option<Clean> = read(place, CLEAN);
        let (begun, own): (Option<Begun>, _) = read_begun(place).unzip();
        let clean_mark = clean.as_ref().and_then(|clean| clean.mark.as_ref());
        let begun_mark = begun.as_ref().and_then(|begun| begun.mark.as_ref());
        // `cp -a` writes a backup into the files that are here. `format` has the same content then, and its
        // modification time can be set back; that its inode was changed cannot be hidden.
        let other_format = |begun: &Begun| begun.format != changed(format);
        // None of these sees every way of restoring: a mark that came with the backup names its inode there; one
        // that stayed does not fit a `format` that was written; rsync passes over a `format` that is the same, and
        // replaces the files that have grown.
        let restored = is_copied(place, CLEAN, clean_mark)
            || is_copied(place, BEGUN, begun_mark)
            || begun.as_ref().is_some_and(other_format)
            || are_others(place, &own.unwrap_or_default());
        Self {
            clean,
            begun,
            restored,
        }
    }

    /// Leaves the mark of a start.
    pub(super) fn begin(
        &mut self,
        place: &Place,
        format: &Metadata,
        end: &JournalEnd,
    ) -> Result<(), Error> {
        // Its own inode is in it: a copy of the mark names another file than itself.
        let mut file = place.create_new(BEGUN)?;
        let path = place.path().join(BEGUN);
        let begun = Begun {
            offset: end.offset,
            format: changed(format),
            mark: Some(inode_of(&path, &file)?),
        };
        let mut text = serde_json::to_vec_pretty(&begun).expect("plain data encodes");
        text.push(b'\n');
        text.extend(end.segment.line());
        file.write_all(&text).map_err(Error::io("write", &path))?;
        place.finish_new(BEGUN, &file)?;
        self.begun = Some(begun);
        // The witnesses are replaced; it is written in `format` by now.
        self.restored = false;
        Ok(())
    }

    /// Removes the mark of the last clean stop.
    pub(super) fn remove_clean(&mut self, place: &Place) -> Result<(), Error> {
        self.clean = None;
        // Durable before sled is written: a power cut must not bring back a mark that vouches for a sled as it was.
        if place.remove(CLEAN)? {
            place.sync()?;
        }
        Ok(())
    }
}

/// Notes in the mark of the start that the journal goes on in another file.
pub(in crate::store) fn note_segment(place: &Place, segment: &Own) -> Result<(), Error> {
    place.append(BEGUN, &segment.line())
}

/// Notes in the mark of the start which sled is written.
pub(super) fn note_sled(place: &Place) -> Result<(), Error> {
    // By name, for sled does not give its file out.
    let path = place.path().join(Own::SLED);
    let data = fs::metadata(&path).map_err(Error::io("read the inode of", &path))?;
    let own = Own {
        name: Own::SLED.into(),
        inode: inode(&data),
    };
    place.append(BEGUN, &own.line())
}

/// The mark of a start, and what was noted behind it. A line may be torn.
fn read_begun(place: &Place) -> Option<(Begun, Vec<Own>)> {
    let bytes = fs::read(place.path().join(BEGUN)).ok()?;
    let mut text = serde_json::Deserializer::from_slice(&bytes);
    let begun = Begun::deserialize(&mut text).ok()?;
    // The last note may be torn: it is written before anything is in its file, so nothing is lost with it.
    let own = text.into_iter().map_while(Result::ok).collect();
    Some((begun, own))
}

/// Whether a mark was copied here, given what it says of itself.
fn is_copied(place: &Place, name: &str, mark: Option<&String>) -> bool {
    let own = fs::metadata(place.path().join(name)).map(|data| inode(&data));
    // A mark without it is of an older version, and says nothing.
    mark.is_some_and(|mark| own.is_ok_and(|own| *mark != own))
}

/// Whether the files that were written have been replaced. Of the segments, the last one noted counts: an older one may
/// be repaired from a backup, and a kill may leave a later one that is not noted yet. sled may be removed.
fn are_others(place: &Place, own: &[Own]) -> bool {
    let last = |of: &str| own.iter().rfind(|own| own.name.starts_with(of));
    // Without the last segment the journal would end earlier, and look whole.
    let segment = last(Own::JOURNAL).is_some_and(|own| own.is_there(place) != Some(true));
    let sled = last(Own::SLED).is_some_and(|own| own.is_there(place) == Some(false));
    segment || sled
}

fn inode_of(path: &Path, file: &File) -> Result<String, Error> {
    let data = file.metadata();
    data.map(|data| inode(&data))
        .map_err(Error::io("read the inode of", path))
}

fn read<T: for<'a> Deserialize<'a>>(place: &Place, name: &str) -> Option<T> {
    let bytes = fs::read(place.path().join(name)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Leaves the mark of a clean stop, and removes that of the start. sled must be closed.
pub(super) fn close(place: &Place, sled: &Place, offset: u64) -> Result<(), Error> {
    let mut file = place.create_new(CLEAN)?;
    let path = place.path().join(CLEAN);
    let clean = Clean {
        offset,
        files: files_of(sled.path())?,
        mark: Some(inode_of(&path, &file)?),
    };
    let text = serde_json::to_vec_pretty(&clean).expect("plain data encodes");
    file.write_all(&text).map_err(Error::io("write", &path))?;
    // In this order: both marks together do no harm, and without any a restore would not be noticed.
    place.finish_new(CLEAN, &file)?;
    place.remove(BEGUN).map(drop)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::model::{GroupName, Position};
    use crate::store::{Command, Directory, Entry, Journal};

    /// A directory that was killed after its journal had gone through several files; and these.
    fn killed() -> (tempfile::TempDir, PathBuf, Vec<PathBuf>) {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("data");
        let mut directory = Directory::open(&data).unwrap();
        let mut journal = Journal::open(&directory, true).unwrap();
        directory.begin(false, &journal.end().unwrap()).unwrap();
        fs::create_dir(directory.sled()).unwrap();
        fs::write(data.join(Own::SLED), "1").unwrap();
        directory.note_sled().unwrap();
        journal.roll_at(130);
        for n in 1..=20 {
            let group = GroupName::parse(&format!("group {n}")).unwrap();
            let entry = Entry {
                proposer: 1,
                n,
                at_ms: n,
                keys_us: n * 1000,
                commands: vec![Command::DeleteGroup { group }],
            };
            journal.append(entry, |_| Ok(Position::default())).unwrap();
        }
        let listed = fs::read_dir(data.join("journal")).unwrap();
        let mut segments: Vec<_> = listed.map(|entry| entry.unwrap().path()).collect();
        segments.sort();
        assert!(segments.len() > 3);
        (parent, data, segments)
    }

    /// What it is called, and what does it to a directory and its segments.
    type Change<'a> = (&'a str, &'a dyn Fn(&Path, &[PathBuf]));

    /// What it is next started as; and once more, after a kill.
    fn is_restored(data: &Path) -> bool {
        let restored = || {
            let mut directory = Directory::open(data).unwrap();
            let journal = Journal::open(&directory, true).unwrap();
            let restored = directory.must_fork();
            directory.begin(false, &journal.end().unwrap()).unwrap();
            restored
        };
        let first = restored();
        assert_eq!(restored(), first);
        first
    }

    fn replace(file: &Path) {
        let beside = file.with_extension("beside");
        fs::copy(file, &beside).unwrap();
        fs::rename(&beside, file).unwrap();
    }

    /// Cuts the mark of the start, which stays the same file.
    fn cut_begun(data: &Path, end: impl Fn(&str) -> usize) {
        let path = data.join(BEGUN);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.get(..end(&text)).unwrap()).unwrap();
    }

    #[test]
    fn a_kill_is_no_restore_whatever_it_leaves() {
        let last_line = |text: &str| text.trim_end().rfind('\n').unwrap() + 1;
        let kills: [Change<'_>; 8] = [
            ("nothing more", &|_, _| ()),
            ("a file that is not noted yet", &|data, _| {
                cut_begun(data, last_line);
            }),
            ("half a note", &|data, _| {
                cut_begun(data, |text| last_line(text) + 9);
            }),
            ("a mark as it was before files were noted", &|data, _| {
                let text = fs::read_to_string(data.join(BEGUN)).unwrap();
                let (text, _) = text.split_once('}').unwrap();
                let mut begun: serde_json::Value =
                    serde_json::from_str(&format!("{text}}}")).unwrap();
                begun.as_object_mut().unwrap().remove("mark");
                fs::write(data.join(BEGUN), begun.to_string()).unwrap();
            }),
            ("a torn entry", &|_, segments| {
                let last = File::options().append(true).open(segments.last().unwrap());
                last.unwrap().write_all(&[7; 30]).unwrap();
            }),
            ("a torn header", &|data, _| {
                fs::write(data.join("journal/00000000000000000099.journal"), "HALL").unwrap();
            }),
            ("sled deleted", &|data, _| {
                fs::remove_dir_all(data.join("sled")).unwrap();
            }),
            ("an older segment mended from a backup", &|_, segments| {
                replace(&segments[1]);
            }),
        ];
        for (what, kill) in kills {
            let (_parent, data, segments) = killed();
            kill(&data, &segments);
            assert!(!is_restored(&data), "{what}");
        }
    }

    #[test]
    fn files_put_in_the_place_of_those_that_were_written_are_a_restore() {
        let restores: [Change<'_>; 5] = [
            ("the last segment", &|_, segments| {
                replace(segments.last().unwrap());
            }),
            ("the last segments deleted", &|_, segments| {
                for segment in &segments[2..] {
                    fs::remove_file(segment).unwrap();
                }
            }),
            ("sled", &|data, _| replace(&data.join(Own::SLED))),
            ("the mark", &|data, _| replace(&data.join(BEGUN))),
            ("format", &|data, _| replace(&data.join("format"))),
        ];
        for (what, restore) in restores {
            let (_parent, data, segments) = killed();
            restore(&data, &segments);
            assert!(is_restored(&data), "{what}");
        }
    }
}
