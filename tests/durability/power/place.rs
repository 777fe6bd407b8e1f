//! Puts an image onto the real disk: as a new directory, or in place of the one it was taken of.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use super::disk::{Entry, Image};

/// Makes `dir` what the image says. What has the same name and kind keeps its inode, so that a
/// server finds its own directory again, and not a copy of it.
pub(super) fn put(image: &Image, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    clear(image, dir, "");
    for (path, entry) in image {
        let path = dir.join(path);
        match entry {
            Entry::Dir if path.is_dir() => {}
            Entry::Dir => fs::create_dir(&path).unwrap(),
            Entry::File(bytes) => {
                let mut file = File::options()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(&path)
                    .unwrap();
                file.write_all(bytes).unwrap();
            }
        }
    }
}

/// Removes what the image does not have, or has as another kind.
fn clear(image: &Image, dir: &Path, prefix: &str) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let is_dir = entry.file_type().unwrap().is_dir();
        match (image.get(&path), is_dir) {
            (Some(Entry::Dir), true) => clear(image, &entry.path(), &format!("{path}/")),
            (Some(Entry::File(_)), false) => {}
            (_, true) => fs::remove_dir_all(entry.path()).unwrap(),
            (_, false) => fs::remove_file(entry.path()).unwrap(),
        }
    }
}
