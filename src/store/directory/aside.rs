//! Views that were put aside: under which name, and for how long.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::Directory;
use super::identity::files_of;
use crate::store::error::Error;

/// Why sled is put aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aside {
    /// The journal gives all that was in it.
    Damaged,
    /// It holds entries that the journal lacks.
    Ahead,
}

/// How the names of damaged views begin that were put aside.
const DAMAGED: &str = "sled.damaged-";
/// How the names of views of an earlier format begin that were put aside.
const EARLIER: &str = "sled.format-";

impl Directory {
    /// Puts sled aside under another name, which is returned. Those that were put aside earlier stay until the new
    /// one is complete: [`Self::remove_set_aside`]. Only a loss is a warning: the caller knows whether it is damage,
    /// a copy, or what was asked for.
    pub fn set_sled_aside(&self, aside: Aside, now_ms: u64) -> Result<Option<String>, Error> {
        let sled = self.sled();
        // An empty one may be a mount point, which has no other name.
        let empty = || sled.is_dir() && files_of(&sled).is_ok_and(|files| files.is_empty());
        if fs::symlink_metadata(&sled).is_err() || empty() {
            return Ok(None);
        }
        if aside == Aside::Damaged && self.earlier_aside()?.is_some() {
            // An upgrade did not complete it.
            remove(&sled)?;
            return Ok(None);
        }
        let earlier = self.earlier_format();
        let name = match (aside, earlier) {
            (Aside::Damaged, Some(version)) => format!("{EARLIER}{version}-{now_ms}"),
            (Aside::Damaged, None) => format!("{DAMAGED}{now_ms}"),
            (Aside::Ahead, _) => format!("sled.ahead-{now_ms}"),
        };
        // Durable before a new one is made: after a power cut, the old one must not stand under this name again.
        let renamed = self.place.rename("sled", &name);
        renamed.map_err(|e| self.explain_mount_point(e))?;
        self.place.sync()?;
        let path = self.path().join(&name);
        let path = path.display();
        if aside == Aside::Ahead {
            warn!(%path, "put the readable view aside: it holds messages that the journal lacks; it stays until you delete it");
        } else {
            let until = match earlier {
                Some(_) => "when the upgrade is complete",
                None => "at the next start",
            };
            info!(%path, "put the readable view aside: it is removed {until}");
        }
        Ok(Some(name))
    }

    /// The view of the earlier format that an upgrade has put aside. While it is there, and the format is still the
    /// earlier one, `sled` is what that upgrade made before it was cut short.
    pub(super) fn earlier_aside(&self) -> Result<Option<PathBuf>, Error> {
        if self.earlier_format().is_none() {
            return Ok(None);
        }
        Ok(self.with_names(EARLIER)?.pop())
    }

    /// Those whose names begin so.
    fn with_names(&self, begin: &str) -> Result<Vec<PathBuf>, Error> {
        let directory = self.path();
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
            let path = entry.map_err(Error::io("list", directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with(begin)) {
                found.push(path);
            }
        }
        Ok(found)
    }

    fn explain_mount_point(&self, error: Error) -> Error {
        match error {
            Error::Io { source, .. } if source.kind() == ErrorKind::ResourceBusy => {
                let reason = "its `sled` is a mount point, so the readable view in it cannot be set aside to be \
                              rebuilt: remove all that is in it, not the directory itself, and start again; \
                              everything in it is in the journal too";
                Error::Directory {
                    path: self.path().to_owned(),
                    reason: reason.into(),
                }
            }
            other => other,
        }
    }

    /// Removes the views that were put aside damaged or of an earlier format, but for one. To be called once the new
    /// one is complete.
    pub fn remove_set_aside(&self, keep: Option<&str>) -> Result<(), Error> {
        let mut found = self.with_names(DAMAGED)?;
        found.extend(self.with_names(EARLIER)?);
        for path in found {
            if keep.is_some_and(|keep| path.ends_with(keep)) {
                continue;
            }
            remove(&path)?;
        }
        Ok(())
    }
}

/// Of a link, what it points to is not ours to remove.
fn remove(path: &Path) -> Result<(), Error> {
    let removed = if path.is_dir() && !path.is_symlink() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    removed.map_err(Error::io("remove", path))
}
