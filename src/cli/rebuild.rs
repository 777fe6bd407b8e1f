//! `halley rebuild`: rebuilds the readable view from the journal.

use std::io::Write;

use super::interrupt::until_signal;
use super::{Failure, output};
use crate::config::Config;
use crate::hub::{Rebuilt, rebuild};
use crate::server::hub_options;

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
    let (options, accept_loss) = (hub_options(config), args.accept_loss);
    let rebuilt = until_signal(move || rebuild(&options, accept_loss));
    let Rebuilt { offset, heads } = rebuilt.map_err(|e| Failure::Serve(e.into()))??;
    if args.json {
        let made = serde_json::json!({ "entries": offset, "messages": heads });
        return writeln!(out, "{made}").map_err(output);
    }
    writeln!(
        out,
        "rebuilt the readable view from {offset} entries: {} direct and {} group messages",
        heads.direct, heads.group
    )
    .map_err(output)
}
