//! Who owns a data directory: what another user makes in it, its owner can neither write nor remove.

use std::fs;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use crate::store::command_line::{line_as, name_of, owner_of, quoted};
use crate::store::error::Error;

/// Where a disk is mounted; nobody but root may look into it.
pub(super) const LOST_FOUND: &str = "lost+found";
/// What a server writes in its data directory, besides sled and what is put aside of it.
const WRITTEN: [&str; 5] = ["LOCK", "begun", "clean", "format", "journal"];

/// Refuses a directory that belongs to somebody else, before anything is made in it. `command`: what its owner runs
/// instead.
pub(super) fn must_be_owner(data: &Path, command: &str) -> Result<(), Error> {
    let refused = |reason| Error::Directory {
        path: data.to_owned(),
        reason,
    };
    let us = geteuid().as_raw();
    // root may write everything, so nothing fails here: the owner's next start does.
    let owner = owner_of(&data.join("format"));
    if let (0, Some(owner)) = (us, owner.filter(|owner| *owner != us)) {
        return Err(refused(format!(
            "it belongs to user {name}, who could not use what root makes in it; nothing was changed. Run this as that \
             user: {line}. If root is to use it from now on: chown -R 0: {path}",
            name = name_of(owner),
            line = line_as(owner, command, data),
            path = quoted(data),
        )));
    }
    let Some((file, owner)) = foreign_file(data, us) else {
        return Ok(());
    };
    Err(refused(format!(
        "{file} in it belongs to user {owner}, and this program runs as user {us}, who may not write it; nothing was \
         changed. If the directory is to be used as {us}: sudo chown -R {us}: {path}",
        owner = name_of(owner),
        us = name_of(us),
        path = quoted(data),
    )))
}

/// Whether this process would leave behind in it what its owner cannot use.
pub(super) fn is_anothers(data: &Path) -> bool {
    owner_of(&data.join("format")).is_some_and(|owner| owner != geteuid().as_raw())
}

/// A file that the server writes, that another user owns and this one may not write.
fn foreign_file(data: &Path, us: u32) -> Option<(String, u32)> {
    for folder in ["", "journal", "sled"] {
        let entries = fs::read_dir(data.join(folder))
            .into_iter()
            .flatten()
            .flatten();
        let paths = entries
            .map(|entry| entry.path())
            .filter(|path| is_written(folder, path));
        for path in paths.chain([data.join(folder)]) {
            let owner = owner_of(&path).unwrap_or(us);
            // Another's file that this user may write is no harm: a group may share the directory.
            if owner != us && access(&path, Access::WRITE_OK).is_err() {
                let name = path.strip_prefix(data).unwrap_or(&path);
                return Some((format!("`{}`", name.display()), owner));
            }
        }
    }
    None
}

/// Whether the server writes or removes this. There may be more in its directory that belongs to others: keys that
/// root gave, or `lost+found` where a disk is mounted.
fn is_written(folder: &str, path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return false;
    };
    match folder {
        "" => WRITTEN.contains(&name) || name.starts_with("sled"),
        "journal" => path.extension().is_some_and(|of| of == "journal"),
        _ => name != LOST_FOUND,
    }
}
