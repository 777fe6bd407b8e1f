//! `halley history`: one page of a conversation or a group, as a user sees it.

use std::io::{self, Write};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::client::{Client, ServerArgs, encoded};
use super::{Failure, line, output};
use crate::config::Config;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("conversation").required(true))]
pub(super) struct Args {
    /// Read as this user
    #[arg(long)]
    user: String,
    /// The other user of a conversation
    #[arg(long, value_name = "USER", group = "conversation")]
    peer: Option<String>,
    /// The group whose messages to read
    #[arg(long, group = "conversation")]
    group: Option<String>,
    /// The newest messages before this id
    #[arg(long, value_name = "ID", conflicts_with = "after")]
    before: Option<u64>,
    /// The oldest messages after this id
    #[arg(long, value_name = "ID")]
    after: Option<u64>,
    /// Most messages to show
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: u32,
    /// Print each message as JSON, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Deserialize)]
struct Page {
    messages: Vec<Box<RawValue>>,
    more: bool,
}

#[derive(Deserialize)]
struct Id {
    id: u64,
}

pub(super) fn run(args: &Args, config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    let client = Client::new(&args.server, config)?;
    let page: Page = client.get(&path(args), Duration::ZERO)?;
    for message in &page.messages {
        line::write(message, args.json, out).map_err(output)?;
    }
    if page.more {
        tell_more(args, &page)?;
    }
    Ok(())
}

fn path(args: &Args) -> String {
    let user = encoded(&args.user);
    let conversation = match (&args.peer, &args.group) {
        (Some(peer), _) => format!("direct/{}", encoded(peer)),
        (None, group) => format!("groups/{}", encoded(group.as_deref().unwrap_or_default())),
    };
    let bound = match (args.before, args.after) {
        (Some(id), _) => format!("&before={id}"),
        (None, Some(id)) => format!("&after={id}"),
        (None, None) => String::new(),
    };
    format!(
        "/v1/users/{user}/{conversation}/messages?limit={}{bound}",
        args.limit
    )
}

/// Not part of the output: how to go on.
fn tell_more(args: &Args, page: &Page) -> Result<(), Failure> {
    let (edge, option) = match args.after {
        Some(_) => (page.messages.last(), "after"),
        None => (page.messages.first(), "before"),
    };
    let Some(Ok(Id { id })) = edge.map(|message| serde_json::from_str(message.get())) else {
        return Ok(());
    };
    writeln!(io::stderr(), "halley: there are more: --{option} {id}")
        .map_err(|error| Failure::Io("write to standard error", error))
}
