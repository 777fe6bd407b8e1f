//! What is done with a damaged journal where its loss is accepted.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use tracing::warn;

use super::Journal;
use super::follow::Follower;
use crate::store::directory::Directory;
use crate::store::directory::files::sync_directory;
use crate::store::directory::segments::segments;
use crate::store::error::Error;

impl Journal {
    /// Cuts a damaged journal off where the damage begins; what is behind it is set aside. Returns whether
    /// there was any; the directory then expects the loss.
    pub fn cut_damage(of: &mut Directory, now_ms: u64) -> Result<bool, Error> {
        let directory = of.journal();
        let mut lost = false;
        loop {
            let (path, position, reason) = match Follower::checked(of).and_then(Follower::drain) {
                Ok(()) => return Ok(lost),
                Err(Error::Journal {
                    path,
                    position,
                    reason,
                }) => (path, position, reason),
                Err(e) => return Err(e),
            };
            warn!(path = %path.display(), position, reason, "cutting the journal off here");
            let known = segments(&directory)?;
            let number = known.iter().position(|(_, known)| *known == path);
            let kept = |number: &usize| *number > 0 || position > 0;
            let Some(number) = number.filter(kept) else {
                let reason = format!("{reason}; before it there is nothing that could be kept");
                return Err(Error::Journal {
                    path,
                    position,
                    reason,
                });
            };
            of.expect_loss()?;
            // Of the damaged segment, what is before the damage stays, if that is anything.
            for (_, behind) in known.iter().skip(number + usize::from(position > 0)) {
                fs::rename(behind, aside(behind, now_ms))
                    .map_err(Error::io("set aside", behind))?;
            }
            if position > 0 {
                let kept = aside(&path, now_ms);
                // On disk before the original is cut.
                let copied = fs::copy(&path, &kept).and_then(|_| File::open(&kept)?.sync_all());
                copied.map_err(Error::io("copy", &path))?;
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

/// A name under which a segment is no longer read.
fn aside(segment: &Path, now_ms: u64) -> PathBuf {
    segment.with_extension(format!("damaged-{now_ms}"))
}
