//! The command line: one file a command under this one.
//!
//! Options and commands may stand in any order; every option may also come from the environment or the
//! configuration file (see [`crate::config`]). Output goes to the writer that is passed down; only the
//! log and what is not output (progress, retries) goes to standard error.

mod client;
mod config;
mod demo;
mod history;
mod interrupt;
mod line;
mod push;
mod rebuild;
mod serve;
mod tail;
mod token;
mod verify;
mod version;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::{Config, ConfigError, Options, Setting};
use crate::logging::Log;
use crate::secret::SecretError;

#[derive(Debug, Parser)]
#[command(name = "halley", version, about, subcommand_required = false)]
#[command(
    after_help = "Without a command, halley serves. Every option may also be set in the \
                        environment or in the file given by --config; a flag wins over the \
                        environment, and that over the file."
)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<Commands>,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Run the server (what halley does without a command)
    Serve,
    /// Show what Halley does: a chat page on a server that keeps nothing
    Demo,
    /// Make a token for a user, without asking the server
    Token(token::Args),
    /// Push a message
    Push(push::Args),
    /// Follow what a user receives
    Tail(tail::Args),
    /// Show messages of a conversation or a group
    History(history::Args),
    /// Prove that a data directory, or a copy of one, is whole
    Verify(verify::Args),
    /// Rebuild the readable view from the journal
    Rebuild(rebuild::Args),
    /// Show the configuration in effect, or check it
    Config(config::Args),
    /// Show the versions of the program and of its data
    Version(version::Args),
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Wrong flags or configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An argument that is wrong in a way that clap cannot see.
    #[error("{0}")]
    Usage(String),
    /// A key or secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// Standard input or output failed.
    #[error("cannot {0}")]
    Io(&'static str, #[source] io::Error),
    /// The data directory cannot be used, or is not whole.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// The server stopped with an error.
    #[error(transparent)]
    Serve(Box<dyn std::error::Error + Send + Sync>),
}

impl Failure {
    /// Clap's own error, which prints itself.
    pub fn as_clap(&self) -> Option<&clap::Error> {
        match self {
            Self::Config(ConfigError::Options(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether the reader of our output went away.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io(_, error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// 2 for wrong flags or configuration, 1 for the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Usage(_) => 2,
            Self::Secret(_) | Self::Client(_) | Self::Store(_) | Self::Io(..) | Self::Serve(_) => 1,
        }
    }
}

/// Writing to standard output failed.
fn output(error: io::Error) -> Failure {
    Failure::Io("write the output", error)
}

/// Runs one command; `arguments` begin with the program's name.
pub fn run(arguments: &[OsString], out: &mut dyn Write) -> Result<(), Failure> {
    let (cli, settings) = parse(arguments)?;
    if let Some(Commands::Demo) = cli.command {
        return demo::run(cli.options, &settings, out);
    }
    let config = Config::from_options(cli.options)?;
    let log = Log::start(&config.log);
    crate::config::warn(&command(), &settings);
    match cli.command {
        None | Some(Commands::Serve | Commands::Demo) => {
            let started = serve::Started {
                arguments,
                settings,
            };
            serve::run(config, &log, &started)
        }
        Some(Commands::Token(args)) => token::run(&args, &config, out),
        Some(Commands::Push(args)) => push::run(args, &config, out),
        Some(Commands::Tail(args)) => tail::run(&args, &config, out),
        Some(Commands::History(args)) => history::run(&args, &config, out),
        Some(Commands::Verify(args)) => verify::run(&args, &config, out),
        Some(Commands::Rebuild(args)) => rebuild::run(&args, &config, out),
        Some(Commands::Config(args)) => config::run(&args, &config, &settings, out),
        Some(Commands::Version(args)) => version::run(&args, out),
    }
}

/// What the command line, the environment and the configuration file say.
fn parse(arguments: &[OsString]) -> Result<(Cli, Vec<Setting>), ConfigError> {
    let (matches, from_file) = crate::config::load(&command(), arguments)?;
    let cli = Cli::from_arg_matches(&matches)?;
    Ok((cli, crate::config::settings(&matches, &from_file)))
}

/// All commands take all options, so that one environment or file serves all; the help text of each
/// shows those that it uses.
fn command() -> Command {
    let options: Vec<clap::Arg> = crate::config::options_command()
        .get_arguments()
        .cloned()
        .collect();
    Cli::command().mut_subcommands(|sub| {
        let name = sub.get_name().to_owned();
        let unused = options.iter().filter(|arg| {
            let option = arg.get_long().unwrap_or_default();
            match options_used(&name) {
                Some(used) => !used.contains(&option),
                None => name == "demo" && DEMO_HAS_OWN.contains(&option),
            }
        });
        unused.fold(sub, |sub, arg| sub.arg(arg.clone().hide(true)))
    })
}

/// What the demo makes for itself.
const DEMO_HAS_OWN: &[&str] = &[
    "data",
    "must-exist",
    "token-secret",
    "token-secret-file",
    "token-public-key-file",
];

/// `None`: all of them.
fn options_used(command: &str) -> Option<&'static [&'static str]> {
    match command {
        "serve" | "demo" | "config" => None,
        "token" => Some(&["data", "config", "token-secret", "token-secret-file"]),
        "push" | "tail" | "history" => Some(&[
            "data",
            "config",
            "admin-listen",
            "admin-key",
            "admin-key-file",
        ]),
        "version" => Some(&[]),
        _ => Some(&["data", "config"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn options_used_are_options() {
        let names: Vec<String> = crate::config::option_table()
            .into_iter()
            .map(|row| row.name)
            .collect();
        for sub in command().get_subcommands() {
            let used = options_used(sub.get_name()).unwrap_or_default();
            for used in used.iter().chain(DEMO_HAS_OWN) {
                assert!(names.iter().any(|name| name == used), "{used}");
            }
        }
    }
}
