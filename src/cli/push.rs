//! `halley push`: hands one message to the server and prints its receipt.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::client::{Client, ServerArgs, encoded};
use super::{Failure, output};
use crate::clock;
use crate::config::Config;
use crate::model::Body;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("receiver").required(true))]
pub(super) struct Args {
    /// User who sends it
    #[arg(long, value_name = "USER")]
    from: String,
    /// User who gets it
    #[arg(long, value_name = "USER", group = "receiver")]
    to: Option<String>,
    /// Group that gets it
    #[arg(long, value_name = "GROUP", group = "receiver")]
    group: Option<String>,
    /// JSON value, or with --text any text; - reads it from standard input
    #[arg(allow_negative_numbers = true)]
    body: String,
    /// Take the body as text
    #[arg(long)]
    text: bool,
    /// Idempotency key: a push that is sent again with it is stored once
    #[arg(long, value_name = "KEY", value_parser = parse_key)]
    key: Option<String>,
    /// Print the receipt as JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Push<'a> {
    from: &'a str,
    body: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct Receipt {
    sequence: String,
    id: u64,
    prev: u64,
    at: u64,
    duplicate: bool,
}

pub(super) fn run(args: Args, config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    let body = body(args.body, args.text, config.limits.request_bytes_max)?;
    let client = Client::new(&args.server, config)?;
    let path = match (&args.to, &args.group) {
        (Some(to), _) => format!("/v1/direct/{}/messages", encoded(to)),
        (None, group) => {
            format!(
                "/v1/groups/{}/messages",
                encoded(group.as_deref().unwrap_or_default())
            )
        }
    };
    let push = serde_json::to_string(&Push {
        from: &args.from,
        body: &body,
    })
    .map_err(|error| Failure::Io("write the request", error.into()))?;
    let receipt: Receipt = client.post(&path, &push, args.key.as_deref())?;
    if args.json {
        let text = serde_json::to_string(&receipt)
            .map_err(|error| Failure::Io("write the output", error.into()))?;
        return writeln!(out, "{text}").map_err(output);
    }
    let Receipt {
        sequence,
        id,
        prev,
        at,
        duplicate,
    } = receipt;
    let again = if duplicate { ", was pushed before" } else { "" };
    writeln!(
        out,
        "{sequence} {id} (after {prev}) at {}{again}",
        clock::rfc3339(at)
    )
    .map_err(output)
}

/// The body as the JSON that is sent, byte for byte what was given.
fn body(given: String, text: bool, bytes_max: usize) -> Result<Box<RawValue>, Failure> {
    let mut given = given;
    if given == "-" {
        given = String::new();
        let limit = u64::try_from(bytes_max)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        io::stdin()
            .take(limit)
            .read_to_string(&mut given)
            .map_err(|error| Failure::Io("read standard input", error))?;
        if given.len() > bytes_max {
            return Err(Failure::Usage(format!(
                "standard input exceeds {bytes_max} bytes (request-bytes-max)"
            )));
        }
    }
    if text {
        return serde_json::value::to_raw_value(&given)
            .map_err(|error| Failure::Io("write the request", error.into()));
    }
    let raw = RawValue::from_string(given).map_err(|error| {
        Failure::Usage(format!(
            "the body is not JSON ({error}); --text sends it as text"
        ))
    })?;
    Body::from_json(&raw).map_err(|fault| Failure::Usage(fault.to_string()))?;
    Ok(raw)
}

fn parse_key(text: &str) -> Result<String, &'static str> {
    if (1..=255).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        Ok(text.to_owned())
    } else {
        Err("an idempotency key is 1 to 255 printable ASCII characters")
    }
}
