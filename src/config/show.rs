//! The configuration as it is shown: every option with its default, or with its value and where that is from.

use std::borrow::Cow;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};
use serde::Serialize;

use super::FromFile;

/// One option, for documents.
#[derive(Debug, Clone, Serialize)]
pub struct OptionRow {
    /// Flag without dashes before it, and key of the file.
    pub name: String,
    /// Environment variable.
    pub env: String,
    /// Default as written, or what stands for one; empty without any.
    pub default: String,
    /// One sentence.
    pub help: String,
}

/// Where a value is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A flag on the command line.
    Flag,
    /// An environment variable.
    Environment,
    /// The configuration file.
    File,
    /// Nobody set it.
    Default,
}

/// One option's value in effect.
#[derive(Debug, Clone, Serialize)]
pub struct Setting {
    /// Flag without dashes before it, and key of the file.
    pub name: String,
    /// As written; none: not set; several: an option that may be repeated. Secrets are hidden.
    pub values: Vec<String>,
    /// Where it is from.
    pub source: Source,
    /// Whether the value is not shown.
    pub secret: bool,
    /// Whether it may be repeated.
    pub repeatable: bool,
    /// Environment variable.
    pub env: String,
}

/// Every option in the order of the help text.
pub fn option_table() -> Vec<OptionRow> {
    super::options_command().get_arguments().map(row).collect()
}

fn row(arg: &Arg) -> OptionRow {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let written: Vec<Cow<'_, str>> = arg
        .get_default_values()
        .iter()
        .map(|value| value.to_string_lossy())
        .collect();
    // A default that is worked out stands in brackets at the end of the help text.
    let (help, default) = match help.split_once(" [default: ") {
        Some((help, default)) => (help.to_owned(), default.trim_end_matches(']').to_owned()),
        None => (help, written.join(",")),
    };
    OptionRow {
        name: name(arg),
        env: env(arg),
        default,
        help,
    }
}

/// Every option with its value; `from_file` tells apart what clap calls a default.
pub fn settings(matches: &ArgMatches, from_file: &FromFile) -> Vec<Setting> {
    let setting = |arg: &Arg| {
        let id = arg.get_id().as_str();
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Source::Flag,
            Some(ValueSource::EnvVariable) => Source::Environment,
            _ if from_file.0.iter().any(|set| set == id) => Source::File,
            _ => Source::Default,
        };
        let secret = arg.is_hide_env_values_set();
        let shown = |value: &std::ffi::OsStr| {
            if secret {
                "(hidden)".to_owned()
            } else {
                value.to_string_lossy().into_owned()
            }
        };
        Setting {
            name: name(arg),
            values: matches
                .get_raw(id)
                .into_iter()
                .flatten()
                .map(shown)
                .collect(),
            source,
            secret,
            repeatable: matches!(arg.get_action(), clap::ArgAction::Append),
            env: env(arg),
        }
    };
    super::options_command()
        .get_arguments()
        .map(setting)
        .collect()
}

fn name(arg: &Arg) -> String {
    arg.get_long().unwrap_or_default().to_owned()
}

fn env(arg: &Arg) -> String {
    arg.get_env()
        .map(|env| env.to_string_lossy().into_owned())
        .unwrap_or_default()
}
