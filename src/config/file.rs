//! The optional configuration file: TOML whose keys are the names of the flags.
//!
//! The file is read as if its lines were flags, so that every value is checked by the rules the flags have.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, Command};

use crate::secret::{self, Owners, SecretError};

/// The file's values by option name, each as text; an option that may be repeated has several.
pub(super) type Values = BTreeMap<String, Vec<String>>;

/// Options whose value is a key itself.
const KEYS: [&str; 2] = ["admin-key", "token-secret"];

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// It holds a key, and somebody else may have put it there.
    #[error(transparent)]
    Key(Box<SecretError>),
    /// It is not TOML, or a key or value is wrong.
    #[error("in {}: {reason}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, naming the key.
        reason: String,
    },
}

/// Reads and checks the file. `options` holds the options and nothing else, without their variables.
pub(super) fn read(path: &Path, options: &Command) -> Result<Values, FileError> {
    let wrong = |reason| FileError::Wrong {
        path: path.to_owned(),
        reason,
    };
    let unreadable = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(unreadable)?;
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| wrong(error.to_string().trim().to_owned()))?;

    if KEYS.iter().any(|key| table.contains_key(*key)) {
        secret::check_trust(&file, path, Owners::OursOrRoot)
            .map_err(|source| FileError::Key(Box::new(source)))?;
    }
    let mut values = Values::new();
    for (key, value) in &table {
        if value.is_table() {
            return Err(wrong(format!(
                "key {key} is a table; options stand at the top of the file, in no table"
            )));
        }
        let arg = options
            .get_arguments()
            .find(|arg| is_key(arg, key))
            .ok_or_else(|| wrong(unknown(key, options)))?;
        let texts = texts(value, arg).map_err(|reason| wrong(format!("key {key} {reason}")))?;
        check(options, key, &texts).map_err(|reason| wrong(format!("key {key}: {reason}")))?;
        values.insert(key.clone(), texts);
    }
    Ok(values)
}

/// A file cannot name another file.
fn is_key(arg: &Arg, key: &str) -> bool {
    key != "config" && key != "help" && arg.get_long() == Some(key)
}

fn texts(value: &toml::Value, arg: &Arg) -> Result<Vec<String>, &'static str> {
    use toml::Value::{Array, Boolean, Float, Integer, String as Text};

    let repeatable = matches!(arg.get_action(), ArgAction::Append);
    let flag = arg.get_value_parser().type_id() == TypeId::of::<bool>();
    match value {
        Boolean(on) if flag => Ok(vec![on.to_string()]),
        Text(text) => Ok(vec![text.clone()]),
        Integer(number) => Ok(vec![number.to_string()]),
        Array(items) if repeatable => items
            .iter()
            .map(|item| {
                item.as_str()
                    .map(str::to_owned)
                    .ok_or("takes an array of strings")
            })
            .collect(),
        Array(_) => Err("takes one value, not an array"),
        Boolean(_) | Float(_) => Err("takes a string or a whole number"),
        toml::Value::Datetime(_) | toml::Value::Table(_) => {
            Err("takes a string or a whole number, not a time")
        }
    }
}

/// Gives the values to clap as flags: what it accepts here, it accepts as a default too.
fn check(options: &Command, key: &str, texts: &[String]) -> Result<(), String> {
    let flags = texts.iter().map(|text| format!("--{key}={text}").into());
    refusal(options, flags).map_or(Ok(()), Err)
}

/// Why clap refuses these flags, without a flag's name: they stand for a key or a variable.
pub(super) fn refusal(
    options: &Command,
    flags: impl IntoIterator<Item = OsString>,
) -> Option<String> {
    let arguments = std::iter::once(OsString::from("halley")).chain(flags);
    let error = options.clone().try_get_matches_from(arguments).err()?;
    let reason = super::first_paragraph(&error);
    let named = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => format!(" for '{argument}'"),
        _ => return Some(reason),
    };
    Some(reason.replacen(&named, "", 1))
}

/// Clap takes any flag for near that shares some letters; a shared beginning is the least.
fn resembles(key: &str, flag: &str) -> bool {
    key.chars().next() == flag.chars().next()
}

/// Clap knows which of its flags is nearest to a wrong one.
fn unknown(key: &str, options: &Command) -> String {
    let error = options
        .clone()
        .try_get_matches_from(["halley".to_owned(), format!("--{key}")]);
    let nearest = error
        .err()
        .and_then(|error| match error.get(ContextKind::SuggestedArg) {
            Some(ContextValue::String(flag)) => Some(flag.trim_start_matches('-').to_owned()),
            _ => None,
        });
    match nearest {
        Some(nearest) if nearest != "config" && nearest != "help" && resembles(key, &nearest) => {
            format!("unknown key {key}; did you mean {nearest}?")
        }
        _ => format!("unknown key {key}; the command `halley config` shows every key"),
    }
}
