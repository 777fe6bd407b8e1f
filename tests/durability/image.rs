//! A directory in memory: taken, changed, and put back onto the disk, as a new directory or in place
//! of the one it was taken of.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

/// A whole directory: the contents of every file, and the (perhaps empty) directories.
pub(crate) type Image = BTreeMap<String, Entry>;

/// When each file was last written.
pub(crate) type Times = BTreeMap<String, SystemTime>;

/// A file with its bytes, or a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A file.
    File(Vec<u8>),
    /// A directory; what is in it has entries of its own.
    Dir,
}

/// The directory as it is, and when its files were written.
pub(crate) fn look(dir: &Path) -> (Image, Times) {
    let mut found = (Image::new(), Times::new());
    look_into(dir, "", &mut found);
    found
}

fn look_into(dir: &Path, prefix: &str, found: &mut (Image, Times)) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        let (image, times) = &mut *found;
        if entry.file_type().unwrap().is_dir() {
            image.insert(path.clone(), Entry::Dir);
            look_into(&entry.path(), &format!("{path}/"), found);
        } else {
            times.insert(path.clone(), entry.metadata().unwrap().modified().unwrap());
            let bytes = fs::read(entry.path()).unwrap();
            let bytes = unmarked(&path, bytes);
            image.insert(path, Entry::File(bytes));
        }
    }
}

/// A mark of a start or a clean stop without what tells a copy of it, or of other files: as earlier versions left it.
pub(crate) fn unmarked(path: &str, bytes: Vec<u8>) -> Vec<u8> {
    if !["begun", "clean"].contains(&path) {
        return bytes;
    }
    let first = serde_json::Deserializer::from_slice(&bytes)
        .into_iter()
        .next();
    match first {
        Some(Ok(serde_json::Value::Object(mut mark))) => {
            mark.remove("mark");
            serde_json::to_vec_pretty(&mark).unwrap()
        }
        _ => bytes,
    }
}

/// What the image has below a directory of it.
pub(crate) fn below(image: &Image, dir: &str) -> Image {
    let inner = |path: &str| Some(path.strip_prefix(dir)?.strip_prefix('/')?.to_owned());
    image
        .iter()
        .filter_map(|(path, entry)| Some((inner(path)?, entry.clone())))
        .collect()
}

/// The image as it is inside of a directory.
pub(crate) fn inside(image: &Image, dir: &str) -> Image {
    let put = |(path, entry): (&String, &Entry)| (format!("{dir}/{path}"), entry.clone());
    image.iter().map(put).collect()
}

/// Gives the files that are there the times they had.
pub(crate) fn set_times(dir: &Path, times: &Times) {
    for (path, time) in times {
        let path = dir.join(path);
        // A server can tell that times were set, and takes it for a backup that was copied over its directory.
        let same = fs::metadata(&path).is_ok_and(|data| data.modified().unwrap() == *time);
        if let (false, Ok(file)) = (same, File::options().write(true).open(&path)) {
            file.set_modified(*time).unwrap();
        }
    }
}

/// Makes `dir` what the image says. What has the same name and kind keeps its inode, and what is the same is not
/// written, so that a server finds its own directory again, and not a copy of it.
pub(crate) fn put(image: &Image, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    clear(image, dir, "");
    for (path, entry) in image {
        let path = dir.join(path);
        match entry {
            Entry::Dir if path.is_dir() => {}
            Entry::Dir => fs::create_dir(&path).unwrap(),
            Entry::File(bytes) if fs::read(&path).is_ok_and(|there| there == *bytes) => {}
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
