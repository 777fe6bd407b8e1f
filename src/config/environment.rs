//! Variables of the environment with Halley's prefix: wrong ones are told by their own names, unknown ones are
//! named.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, Command, parser::ValueSource};

use super::file;

const PREFIX: &str = "HALLEY_";

/// What is wrong with the first variable that cannot be used. Clap would name the flag, which nobody gave.
/// `options` holds the options and nothing else, without their variables.
pub(super) fn wrong(options: &Command) -> Option<String> {
    super::options_command().get_arguments().find_map(|arg| {
        let (variable, name) = (arg.get_env()?, arg.get_long()?);
        let value = std::env::var_os(variable)?;
        let reason = if value.is_empty() {
            empty(variable.to_string_lossy().as_ref())
        } else {
            let flag = format!("--{name}=");
            let mut flag = OsString::from(flag);
            flag.push(&value);
            let reason = file::refusal(options, [flag])?;
            format!("{}: {reason}", variable.to_string_lossy())
        };
        Some(reason)
    })
}

/// An empty variable that is in effect; where a flag wins over it, it does no harm.
pub(super) fn empty_in_effect(matches: &ArgMatches) -> Option<String> {
    super::options_command().get_arguments().find_map(|arg| {
        let variable = arg.get_env()?;
        let id = arg.get_id().as_str();
        let in_effect = matches.value_source(id) == Some(ValueSource::EnvVariable);
        let is_empty = std::env::var_os(variable)?.is_empty();
        (in_effect && is_empty).then(|| empty(variable.to_string_lossy().as_ref()))
    })
}

fn empty(variable: &str) -> String {
    format!("{variable} is empty: give it a value, or unset it")
}

/// Every variable with the prefix that neither the program nor a command of it reads, with the one that it may stand
/// for. In a container they may come from elsewhere (Kubernetes tells of a service that is called halley), so they are
/// no errors.
pub(super) fn unknown_variables(command: &Command) -> Vec<String> {
    let known = variables(command);
    let mut unknown: Vec<String> = std::env::vars_os()
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .filter(|name| name.to_uppercase().starts_with(PREFIX) && !known.contains(name))
        .map(|name| match nearest(&name, &known) {
            Some(nearest) => format!("{name} (did you mean {nearest}?)"),
            None => name,
        })
        .collect();
    unknown.sort_unstable();
    unknown
}

/// Those of a command and of all below it.
fn variables(command: &Command) -> Vec<String> {
    command
        .get_arguments()
        .filter_map(Arg::get_env)
        .map(|name| name.to_string_lossy().into_owned())
        .chain(command.get_subcommands().flat_map(variables))
        .collect()
}

fn nearest<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    // A third of a name may be wrong: beyond that, it is another word.
    let near = name.len().saturating_sub(PREFIX.len()) / 3;
    known
        .iter()
        .map(|known| (distance(&name.to_uppercase(), known), known))
        .min()
        .filter(|(distance, _)| *distance <= near.max(1))
        .map(|(_, known)| known.as_str())
}

/// How many characters must be added, left out or replaced to make one text of the other (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, to) in row.iter_mut().skip(1).zip(b.chars()) {
            let replaced = diagonal + usize::from(from != to);
            diagonal = *cell;
            left = replaced.min(diagonal + 1).min(left + 1);
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_no_far_one() {
        let known = ["HALLEY_LISTEN", "HALLEY_ADMIN_LISTEN", "HALLEY_DATA"].map(str::to_owned);
        for (name, expected) in [
            ("HALLEY_LISEN", Some("HALLEY_LISTEN")),
            ("HALLEY_LISTNE", Some("HALLEY_LISTEN")),
            ("halley_listen", Some("HALLEY_LISTEN")),
            ("HALLEY_ADMINLISTEN", Some("HALLEY_ADMIN_LISTEN")),
            ("HALLEY_DAT", Some("HALLEY_DATA")),
            ("HALLEY_PORT", None),
            ("HALLEY_SERVICE_HOST", None),
            ("HALLEY_", None),
        ] {
            assert_eq!(nearest(name, &known), expected, "{name}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
