//! Views that were put aside: under which name, and for how long.

use std::fs;

use tracing::{info, warn};

use super::Directory;
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

impl Directory {
    /// Puts sled aside under another name, which is returned. Those that were put aside earlier stay until the new
    /// one is complete: [`Self::remove_set_aside`]. Only a loss is a warning: the caller knows whether it is damage,
    /// a copy, or what was asked for.
    pub fn set_sled_aside(&self, aside: Aside, now_ms: u64) -> Result<Option<String>, Error> {
        let sled = self.sled();
        if fs::symlink_metadata(&sled).is_err() {
            return Ok(None);
        }
        let name = match aside {
            Aside::Damaged => format!("{DAMAGED}{now_ms}"),
            Aside::Ahead => format!("sled.ahead-{now_ms}"),
        };
        // Durable before a new one is made: after a power cut, the old one must not stand under this name again.
        self.place.rename("sled", &name)?;
        self.place.sync()?;
        let path = self.path().join(&name);
        match aside {
            Aside::Damaged => info!(path = %path.display(),
                "put the readable view aside: it is removed at the next start that finds the new one sound"),
            Aside::Ahead => warn!(path = %path.display(),
                "put the readable view aside: it holds messages that the journal lacks; it stays until you delete it"),
        }
        Ok(Some(name))
    }

    /// Removes the damaged views that were put aside, but for one.
    pub fn remove_set_aside(&self, keep: Option<&str>) -> Result<(), Error> {
        let directory = self.path();
        for entry in fs::read_dir(directory).map_err(Error::io("list", directory))? {
            let path = entry.map_err(Error::io("list", directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_none_or(|name| !name.starts_with(DAMAGED) || Some(name) == keep) {
                continue;
            }
            // Of a link, what it points to is not ours to remove.
            let removed = if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(Error::io("remove", &path))?;
        }
        Ok(())
    }
}
