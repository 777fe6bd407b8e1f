//! `halley tail`: follows a user's inbox, over restarts of the server, without losing or repeating a message.
//!
//! It does what every client should do: keep the cursor of the last reply, ask again with it, and after a
//! failure wait a little longer each time.

use std::io::{self, Write};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, ClientError, ServerArgs, encoded};
use super::{Failure, line, output};
use crate::config::Config;

/// How long the server holds each request: what survives most networks in between.
const WAIT: Duration = Duration::from_secs(30);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// A server that asks for more patience than this is asked earlier all the same.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// User whose inbox to follow
    #[arg(long)]
    user: String,
    /// Cursor to begin after, 0 for everything, or now
    #[arg(long, value_name = "CURSOR", default_value = "now")]
    after: String,
    /// Print each message as JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Deserialize)]
struct Inbox {
    messages: Vec<Box<RawValue>>,
    next: String,
}

pub(super) fn run(args: &Args, config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    let client = Client::new(&args.server, config)?;
    let user = encoded(&args.user);
    // The first request is not held: until it is answered, "now" is no fixed point.
    let mut wait = Duration::ZERO;
    let mut after = args.after.clone();
    let mut lost: Option<Duration> = None;
    loop {
        let path = format!(
            "/v1/users/{user}/inbox?after={}&wait={}",
            encoded(&after),
            wait.as_secs()
        );
        match client.get::<Inbox>(&path, wait) {
            Ok(inbox) => {
                if lost.take().is_some() {
                    tell(&format!("connected again, from cursor {after} on"))?;
                } else if wait.is_zero() {
                    tell(&format!(
                        "following {} from cursor {} on",
                        args.user, inbox.next
                    ))?;
                }
                for message in &inbox.messages {
                    line::write(message, args.json, out).map_err(output)?;
                }
                after = inbox.next;
                wait = WAIT.min(config.limits.poll_wait_max);
            }
            Err(error) if error.is_passing() => {
                let pause = lost.map_or(RETRY_FIRST, |last| (last * 2).min(RETRY_LAST));
                if lost.replace(pause).is_none() {
                    tell(&format!(
                        "{}; trying again, from cursor {after} on",
                        chain(&error)
                    ))?;
                }
                sleep(pause.max(error.retry_after().min(RETRY_AFTER_MAX)));
            }
            Err(error) => {
                if let ClientError::Refused {
                    restart: Some(cursor),
                    ..
                } = &error
                {
                    tell(&format!("start over with --after {cursor}"))?;
                }
                return Err(error.into());
            }
        }
    }
}

fn chain(error: &ClientError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error} ({cause})"),
        None => error.to_string(),
    }
}

fn tell(text: &str) -> Result<(), Failure> {
    writeln!(io::stderr(), "halley: {text}")
        .map_err(|error| Failure::Io("write to standard error", error))
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing here can tell when a server is back"
)]
fn sleep(pause: Duration) {
    std::thread::sleep(pause);
}
