//! The log: events of `tracing` as lines of text or JSON on standard error.

mod queue;
mod repeats;

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use self::queue::Queue;
use self::repeats::Repeats;
use crate::config::{LogConfig, LogFormat};

/// How long the end of the program waits for whoever reads what it says.
const PATIENCE: Duration = Duration::from_secs(1);

/// The log of this process. What is logged just before it goes away is still written, unless nobody reads it.
#[derive(Debug)]
pub struct Log {
    queue: Queue,
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Log {
    /// Starts the log. A second one in a process gets no lines.
    pub fn start(config: &LogConfig) -> Self {
        let filter = EnvFilter::try_new(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
        let (filter, handle) = reload::Layer::new(filter);
        let queue = Queue::default();
        let writer = match queue.write_to(io::stderr()) {
            Ok(()) => {
                let queue = queue.clone();
                BoxMakeWriter::new(move || queue.clone())
            }
            // Without a thread, whoever logs must write.
            Err(_) => BoxMakeWriter::new(io::stderr),
        };
        let lines = fmt::layer()
            // What cannot be written is lost. To say so, it would print to standard error, and that ends the
            // process where standard error is the pipe of a program that is gone, or a terminal that was closed.
            .log_internal_errors(false)
            .with_writer(writer);
        let lines = match config.format {
            LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        let started = tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .with(filter_fn(is_discreet))
            .with(Repeats::default())
            .try_init();
        if started.is_err() {
            tracing::debug!("the log was started before");
        }
        Self {
            queue,
            filter: handle,
        }
    }

    /// Waits until all that was logged is written; for a moment only, if nobody reads it.
    pub fn flush(&self) {
        self.queue.flush(PATIENCE);
    }

    /// Logs by another filter from now on. One that cannot be parsed changes nothing.
    pub fn set_filter(&self, filter: &str) {
        if let Ok(filter) = EnvFilter::try_new(filter)
            && self.filter.reload(filter).is_err()
        {
            tracing::debug!("another log is in use");
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Writes a text that the program cannot go on without saying, to standard output or error. A reader that hangs
/// holds it up for a moment only: the text is left to a thread then.
pub fn say<W: Write + Send + 'static>(out: fn() -> W, text: String) -> io::Result<()> {
    let text = Arc::new(text);
    let write = move |text: &str| {
        let mut out = out();
        out.write_all(text.as_bytes())?;
        out.flush()
    };
    let (done, written) = mpsc::sync_channel(1);
    let own = Arc::clone(&text);
    let thread = thread::Builder::new()
        .name("say".to_owned())
        .spawn(move || {
            // After a while nobody waits for it any more.
            drop(done.send(write(&own)));
        });
    match thread {
        Ok(_) => written.recv_timeout(PATIENCE).unwrap_or(Ok(())),
        // Where no thread can be started, that is what there is to say.
        Err(_) => write(&text),
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
        let log = Log::start(&LogConfig {
            filter: "info".to_owned(),
            format: LogFormat::Text,
        });
        // sled asks this before it puts a line together.
        assert_eq!(LevelFilter::current(), LevelFilter::INFO);
        log.set_filter("warn");
        assert_eq!(LevelFilter::current(), LevelFilter::WARN);
        log.set_filter("a=b=c");
        assert_eq!(LevelFilter::current(), LevelFilter::WARN);
    }
}
