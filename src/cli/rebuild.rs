//! `halley rebuild`: makes the readable view anew from the journal.

use std::io::Write;

use super::{Failure, output};
use crate::config::Config;
use crate::hub::{Rebuilt, rebuild};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Cut a damaged journal where the damage begins, and go on under a new log id. What is behind the damage
    /// is lost to readers; it is put aside in the data directory
    #[arg(long)]
    accept_loss: bool,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    let Rebuilt { offset, heads } =
        rebuild(&config.data, args.accept_loss, config.store.cache_bytes)?;
    if args.json {
        let made = serde_json::json!({ "entries": offset, "messages": heads });
        return writeln!(out, "{made}").map_err(output);
    }
    writeln!(
        out,
        "made the readable view anew from {offset} entries: {} direct and {} group messages",
        heads.direct, heads.group
    )
    .map_err(output)
}
