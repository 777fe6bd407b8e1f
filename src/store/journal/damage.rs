//! What is done with a damaged journal where its loss is accepted.

use std::fs::{self, OpenOptions};
use std::path::Path;

use tracing::warn;

use super::Journal;
use super::follow::Follower;
use crate::store::directory::Directory;
use crate::store::directory::files::sync_directory;
use crate::store::directory::segments::segments;
use crate::store::error::Error;

impl Journal {
    /// Cuts a damaged journal off where the damage begins; what is behind it is put aside. Whether there
    /// was any; the directory then expects the loss.
    pub fn cut_damage(of: &mut Directory, now_ms: u64) -> Result<bool, Error> {
        let directory = of.journal();
        let mut lost = false;
        loop {
            let damage = match Follower::read_only(of).and_then(Follower::drain) {
                Ok(()) => return Ok(lost),
                Err(Error::Journal {
                    path,
                    position,
                    reason,
                }) => (path, position, reason),
                Err(e) => return Err(e),
            };
            let (path, position, reason) = damage;
            warn!(path = %path.display(), position, reason, "cutting the journal off here");
            let known = segments(&directory)?;
            let number = known.iter().position(|(_, known)| *known == path);
            // Nothing is before it that could be kept.
            let Some(number) = number.filter(|number| *number > 0 || position > 0) else {
                let reason = format!("{reason}; before it there is nothing that could be kept");
                return Err(Error::Journal {
                    path,
                    position,
                    reason,
                });
            };
            of.expect_loss()?;
            for (_, behind) in known.iter().skip(number + usize::from(position > 0)) {
                put_aside(behind, now_ms)?;
            }
            if position > 0 {
                let copy = path.with_extension(format!("damaged-{now_ms}"));
                fs::copy(&path, &copy).map_err(Error::io("copy", &path))?;
                let file = OpenOptions::new().write(true).open(&path);
                let cut =
                    file.and_then(|file| file.set_len(position).and_then(|()| file.sync_all()));
                cut.map_err(Error::io("cut", &path))?;
            }
            sync_directory(&directory)?;
            lost = true;
        }
    }
}

/// Gives a segment a name under which it is no longer read.
fn put_aside(path: &Path, now_ms: u64) -> Result<(), Error> {
    let aside = path.with_extension(format!("damaged-{now_ms}"));
    fs::rename(path, &aside).map_err(Error::io("put aside", path))
}
