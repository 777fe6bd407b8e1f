//! Who owns a data directory: what another user makes in it, its owner can neither write nor remove.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::geteuid;

use crate::store::error::Error;

/// Where a disk is mounted; nobody but root may look into it.
pub(in crate::store) const LOST_FOUND: &str = "lost+found";
/// What a server writes in its data directory, besides sled and what is put aside of it.
const WRITTEN: [&str; 5] = ["LOCK", "begun", "clean", "format", "journal"];

/// Refuses a directory that belongs to somebody else, before anything is made in it. `command`: what its owner runs
/// instead.
pub(in crate::store) fn must_be_owner(data: &Path, command: &str) -> Result<(), Error> {
    let refused = |reason| Error::Directory {
        path: data.to_owned(),
        reason,
    };
    let us = geteuid().as_raw();
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
pub(in crate::store) fn is_anothers(data: &Path) -> bool {
    owner_of(&data.join("format")).is_some_and(|owner| owner != geteuid().as_raw())
}

/// The command as the user to whom a data directory belongs types it.
pub(in crate::store) fn line(data: &Path, command: &str) -> String {
    line_as(owner_of(data).unwrap_or(0), command, data)
}

fn line_as(owner: u32, command: &str, data: &Path) -> String {
    let (name, path) = (name_of(owner), quoted(data));
    if owner == 0 {
        format!("halley {command} --data {path}")
    } else {
        format!("sudo -u {name} halley {command} --data {path}")
    }
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

fn owner_of(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).map(|data| data.uid()).ok()
}

/// A user's name, or the number as `sudo` takes it.
fn name_of(user: u32) -> String {
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = known.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(user)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("'#{user}'"))
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
