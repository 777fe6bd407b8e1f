//! `halley serve`: runs the server until it is told to stop.

use std::ffi::OsString;

use tracing::{error, info, warn};

use super::Failure;
use crate::config::{Config, ConfigError, Setting};
use crate::logging::Log;
use crate::server::{self, Hooks, Server};
use crate::signals::Hangup;

/// What the server was started with.
#[derive(Debug)]
pub(super) struct Started<'a> {
    /// The command line.
    pub(super) arguments: &'a [OsString],
    /// Every option.
    pub(super) settings: Vec<Setting>,
}

pub(super) fn run(config: Config, log: &Log, started: &Started<'_>) -> Result<(), Failure> {
    config.check_for_server()?;
    let hooks = Hooks {
        ready: |server: &Server, config: &Config| {
            // What was logged of the start stands before its last words.
            log.flush();
            server::greet(server, config)
        },
        reload: || reload(log, started),
        hangup: Hangup::Reloads,
    };
    server::serve(config, hooks).map_err(|error| Failure::Serve(error.into()))
}

/// Reads the configuration again. Only what is logged can change while the server runs; what else has changed is
/// named.
fn reload(log: &Log, started: &Started<'_>) {
    match read(started.arguments) {
        Ok((config, settings)) => {
            log.set_filter(&config.log.filter);
            info!(log = config.log.filter, "the log's filter is reloaded");
            tell_changed(&settings, &started.settings);
        }
        Err(e) => error!(reason = %e, "the configuration is not reloaded, since it is wrong"),
    }
}

fn tell_changed(now: &[Setting], then: &[Setting]) {
    let changed: Vec<&str> = now
        .iter()
        .zip(then)
        .filter(|(now, then)| now.name != "log" && now.values != then.values)
        .map(|(now, _)| now.name.as_str())
        .collect();
    if !changed.is_empty() {
        warn!(
            options = changed.join(", "),
            "these options have changed and take effect after a restart"
        );
    }
}

fn read(arguments: &[OsString]) -> Result<(Config, Vec<Setting>), ConfigError> {
    let (cli, settings) = super::parse(arguments)?;
    let config = Config::from_options(cli.options)?;
    config.check_for_server()?;
    Ok((config, settings))
}
