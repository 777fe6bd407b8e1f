//! The note that the view is damaged. Who finds that while it is served leaves it, and the next start rebuilds the view: it
//! has no time to read all of it.

use std::fs;
use std::io::Write;
use std::sync::Arc;

use super::Directory;
use super::files::is_there;
use super::place::Place;
use crate::store::error::Error;

const DAMAGED: &str = "damaged";

/// Leaves the note in a data directory.
#[derive(Debug)]
pub struct DamageNote(Arc<Place>);

impl DamageNote {
    /// Says durably what was found.
    pub fn leave(&self, found: &str) -> Result<(), Error> {
        let mut file = self.0.create_new(DAMAGED)?;
        // On a full disk, its name alone says it.
        drop(writeln!(file, "{found}"));
        self.0.finish_new(DAMAGED, &file)
    }
}

impl Directory {
    /// To leave the note with.
    pub fn damage_note(&self) -> DamageNote {
        DamageNote(Arc::clone(self.place()))
    }

    /// What was found damaged in the view, if anything was.
    pub fn noted_damage(&self) -> Result<Option<String>, Error> {
        let path = self.path().join(DAMAGED);
        if !is_there(&path)? {
            return Ok(None);
        }
        let found = fs::read(&path).map_err(Error::io("read", &path))?;
        let found = String::from_utf8_lossy(&found);
        Ok(Some(match found.trim() {
            "" => "the last run found it damaged".to_owned(),
            found => found.to_owned(),
        }))
    }

    /// Removes the note. To be called once the view that it speaks of is put aside.
    pub fn forget_damage(&self) -> Result<(), Error> {
        if self.place.remove(DAMAGED)? {
            self.place.sync()?;
        }
        Ok(())
    }
}
