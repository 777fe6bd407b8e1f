//! Secrets: the admin key and the token secret, and the files that hold them.
//!
//! A secret is at least 16 characters of printable ASCII, so that it can stand in a header. It is never shown: `Debug` hides it. A file that Halley makes
//! itself appears complete or not at all, with mode 0600; a file that is named by the operator must exist.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Shorter ones can be guessed; 16 random bytes in hexadecimal are 32 characters.
const SECRET_BYTES_MIN: usize = 16;
/// A key file is one line. More than this is some other file, named by mistake.
const FILE_BYTES_MAX: u64 = 16 * 1024;
/// What is drawn for a new secret: 256 bits, the output size of HS256's hash.
const RANDOM_BYTES: usize = 32;

/// A text that must not appear in logs, errors or `Debug` output.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for comparing and signing only.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Draws a new one from the operating system: 64 hexadecimal digits.
    pub fn random() -> Result<Self, SecretError> {
        let mut bytes = [0_u8; RANDOM_BYTES];
        getrandom::fill(&mut bytes).map_err(SecretError::Random)?;
        let digit = |value: u8| char::from_digit(u32::from(value), 16);
        Ok(Self(
            bytes
                .iter()
                .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
                .flatten()
                .collect(),
        ))
    }

    /// Refuses what is too short to be one, or could not be sent in a header.
    fn checked(self, origin: &str) -> Result<Self, SecretError> {
        let origin = || origin.to_owned();
        match self.0.len() {
            0 => Err(SecretError::Empty { origin: origin() }),
            length if length < SECRET_BYTES_MIN => Err(SecretError::Short {
                origin: origin(),
                length,
            }),
            // A header's value begins and ends with its first and last character that is no blank.
            _ if self.0.trim() != self.0
                || !self.0.bytes().all(|byte| (b' '..=b'~').contains(&byte)) =>
            {
                Err(SecretError::NotPrintable { origin: origin() })
            }
            _ => Ok(self),
        }
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Where a secret comes from.
#[derive(Debug, Clone)]
pub enum KeySource {
    /// The value of an option or environment variable, with the option's name.
    Given(Secret, &'static str),
    /// A file named by the operator: never made by Halley.
    File(PathBuf),
    /// The file in the data directory: made at the first start.
    DataFile(PathBuf),
}

impl KeySource {
    /// Reads the secret. Nothing is written.
    pub fn load(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Given(secret, option) => secret.clone().checked(option),
            Self::File(path) => load(path, Owners::OursOrRoot),
            Self::DataFile(path) => load(path, Owners::AlsoDirectorys),
        }
    }

    /// Reads the secret; makes it first if it belongs into the data directory and is not there yet.
    /// Only for who holds the data directory's lock: two makers would not see each other.
    pub fn load_or_create(&self) -> Result<Secret, SecretError> {
        match self {
            Self::DataFile(path) if !path.exists() => create(path),
            _ => self.load(),
        }
    }
}

/// Who may own a file with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// The user of this process, or root.
    OursOrRoot,
    /// Also who owns the directory: root may look at the data of a service.
    AlsoDirectorys,
}

/// What a shell is told to read a secret, whatever is in the path: within single quotes only the quote itself ends
/// them, so it stands outside.
pub(crate) fn shell_reading(path: &Path) -> String {
    let path = path.display().to_string().replace('\'', "'\\''");
    format!("$(cat '{path}')")
}

/// Why there is no usable secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read or written.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{origin} is empty: a secret has at least {SECRET_BYTES_MIN} characters")]
    Empty {
        /// The file or option.
        origin: String,
    },
    /// It could be guessed.
    #[error("{origin} has {length} characters: a secret has at least {SECRET_BYTES_MIN}")]
    Short {
        /// The file or option.
        origin: String,
        /// How long it is.
        length: usize,
    },
    /// It has several lines, or could not be sent in a header.
    #[error(
        "{origin} does not hold one line of printable ASCII characters without blanks around it"
    )]
    NotPrintable {
        /// The file or option.
        origin: String,
    },
    /// The file is far longer than a key.
    #[error("{} is longer than {FILE_BYTES_MAX} bytes: it is not a key file", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// It belongs to somebody who is neither us nor root.
    #[error(
        "{} belongs to user {owner}, who may know the key in it: chown it to user {us}, as whom Halley runs, or to root",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// As whom the process runs.
        us: u32,
    },
    /// Everybody may write to it.
    #[error("every user of this machine may write to {}, which holds a key: chmod 600 it", path.display())]
    Writable {
        /// The file.
        path: PathBuf,
    },
    /// The operating system gave no random bytes.
    #[error("cannot draw random bytes: {0}")]
    Random(getrandom::Error),
}

fn load(path: &Path, owners: Owners) -> Result<Secret, SecretError> {
    let failed = |source| SecretError::Io {
        doing: "read",
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() > FILE_BYTES_MAX {
        return Err(SecretError::TooLong {
            path: path.to_owned(),
        });
    }
    check_trust(&file, path, owners)?;
    warn_if_readable(path);
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(failed)?;
    Secret(text.trim_end_matches(['\n', '\r']).to_owned()).checked(&path.display().to_string())
}

/// Refuses a file into which somebody else may have put a key that they know.
pub(crate) fn check_trust(file: &File, path: &Path, owners: Owners) -> Result<(), SecretError> {
    let metadata = file.metadata().map_err(|source| SecretError::Io {
        doing: "read",
        path: path.to_owned(),
        source,
    })?;
    let (owner, mode) = (metadata.uid(), metadata.permissions().mode());
    let us = rustix::process::geteuid().as_raw();
    let is_directorys = || {
        let directory = path.parent().map(fs::metadata);
        matches!(directory, Some(Ok(directory)) if directory.uid() == owner)
    };
    let trusted =
        owner == us || owner == 0 || (owners == Owners::AlsoDirectorys && is_directorys());
    if !trusted {
        return Err(SecretError::Foreign {
            path: path.to_owned(),
            owner,
            us,
        });
    }
    // Links and pipes are open to all by their mode, and files are what others can write to.
    if metadata.is_file() && mode & 0o002 != 0 {
        return Err(SecretError::Writable {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Warns if other users of the machine may read a file with a key.
pub(crate) fn warn_if_readable(path: &Path) {
    let readable = |file: fs::Metadata| file.is_file() && file.permissions().mode() & 0o004 != 0;
    if fs::metadata(path).is_ok_and(readable) {
        tracing::warn!(path = %path.display(), "every user of this machine may read the key in this file: chmod o-r");
    }
}

/// Written under another name first: a file cut short by a crash must not become the key.
fn create(path: &Path) -> Result<Secret, SecretError> {
    let secret = Secret::random()?;
    let new = path.with_extension("new");
    let write = || -> io::Result<()> {
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)?;
        writeln!(file, "{}", secret.expose())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        match path.parent() {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| SecretError::Io {
        doing: "write",
        path: path.to_owned(),
        source,
    })?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn file_with(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("some.key");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_missing_file_of_the_data_directory_is_made_once_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.key");
        let source = KeySource::DataFile(path.clone());
        assert!(source.load().is_err(), "reading makes nothing");

        let made = source.load_or_create().unwrap();
        assert_eq!(made.expose().len(), 64);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(source.load_or_create().unwrap(), made);
        assert_eq!(source.load().unwrap(), made);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_left_behind_does_not_become_the_key() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("admin.new"), "half").unwrap();
        let source = KeySource::DataFile(folder.path().join("admin.key"));
        assert_eq!(source.load_or_create().unwrap().expose().len(), 64);
    }

    #[test]
    fn a_named_file_is_never_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent.key");
        let error = KeySource::File(path.clone()).load_or_create().unwrap_err();
        assert!(error.to_string().contains("absent.key"), "{error}");
        assert!(!path.exists());
    }

    #[test]
    fn the_line_end_does_not_count() {
        let (_folder, path) = file_with("0123456789abcdef\r\n");
        assert_eq!(
            KeySource::File(path).load().unwrap().expose(),
            "0123456789abcdef"
        );
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused_without_showing_it() {
        for (text, reason) in [
            ("", "is empty"),
            ("\n", "is empty"),
            ("hunter2hunter2\n", "has 14 characters"),
            ("0123456789abcdef\nsecond line\n", "one line"),
            ("fünfzehn Zeichen und mehr", "ASCII"),
            ("0123456789abcdef \n", "without blanks"),
            (" 0123456789abcdef", "without blanks"),
            (&"x".repeat(20_000), "longer than"),
        ] {
            let (_folder, path) = file_with(text);
            let error = KeySource::File(path).load().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let given = KeySource::Given(Secret::from("short".to_owned()), "admin-key");
        assert!(
            given
                .load()
                .unwrap_err()
                .to_string()
                .starts_with("admin-key has 5 characters")
        );
    }

    #[test]
    fn debug_output_hides_it() {
        let source = KeySource::Given(Secret::from("very secret indeed".to_owned()), "admin-key");
        assert!(!format!("{source:?}").contains("very"));
    }

    #[test]
    fn a_shell_reads_the_file_whatever_its_path_holds() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["it's", "a b", "''", "$HOME `id` \"x\" \\", "a\nb", "*"] {
            let path = folder.path().join(name);
            fs::write(&path, "a key of the file\n").unwrap();
            let read = shell_reading(&path);
            // As the server says it to be pasted, and as the demo does.
            let script = format!("KEY={read}\nprintf '%s|%s' \"$KEY\" \"Bearer {read}\"");
            let said = Command::new("sh").arg("-c").arg(&script).output().unwrap();
            assert_eq!(
                String::from_utf8_lossy(&said.stdout),
                "a key of the file|Bearer a key of the file",
                "{script}"
            );
        }
    }
}
