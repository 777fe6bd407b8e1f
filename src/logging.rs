//! The log: events of `tracing` as lines of text or JSON on standard error.

use std::io::{self, IsTerminal};

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogConfig, LogFormat};

/// Starts the log of this process. A second call changes nothing.
pub fn start(config: &LogConfig) {
    let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // What cannot be written is lost. To say so, it would print to standard error, and that ends the process
        // where standard error is the pipe of a program that is gone, or a terminal that was closed.
        .log_internal_errors(false)
        .with_writer(io::stderr);
    let started = match config.format {
        LogFormat::Text => lines
            .with_ansi(io::stderr().is_terminal())
            .finish()
            .with(filter_fn(is_discreet))
            .try_init(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .finish()
            .with(filter_fn(is_discreet))
            .try_init(),
    };
    if started.is_err() {
        tracing::debug!("the log was started before");
    }
}

/// Whether an event is fit for a log, whatever the filter asks for: at their finest level, sled tells the rows that it
/// writes and tungstenite its frames, and with them messages and fresh tokens.
fn is_discreet(event: &Metadata<'_>) -> bool {
    let tells_all = ["sled", "tungstenite"]
        .iter()
        .any(|name| event.target().starts_with(name));
    *event.level() < Level::TRACE || !tells_all
}

#[cfg(test)]
mod tests {
    use tracing::level_filters::LevelFilter;

    use super::*;

    #[test]
    fn what_is_not_logged_is_not_even_looked_at() {
        start(&LogConfig {
            filter: "info".to_owned(),
            format: LogFormat::Text,
        });
        // sled asks this before it puts a line together.
        assert_eq!(LevelFilter::current(), LevelFilter::INFO);
    }
}
