//! A command as the owner of a data directory types it: what another user makes in it, its owner can neither write nor
//! remove.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The command as the user to whom a data directory belongs types it.
pub(super) fn line(data: &Path, command: &str) -> String {
    line_as(owner_of(data).unwrap_or(0), command, data)
}

pub(super) fn line_as(owner: u32, command: &str, data: &Path) -> String {
    let (name, path) = (name_of(owner), quoted(data));
    if owner == 0 {
        format!("halley {command} --data {path}")
    } else {
        format!("sudo -u {name} halley {command} --data {path}")
    }
}

pub(super) fn owner_of(path: &Path) -> Option<u32> {
    fs::symlink_metadata(path).map(|data| data.uid()).ok()
}

/// A user's name, or the number as `sudo` takes it.
pub(super) fn name_of(user: u32) -> String {
    let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = known.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(user)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("'#{user}'"))
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
