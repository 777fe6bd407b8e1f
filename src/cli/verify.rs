//! `halley verify`: proves that a data directory is whole, such as a backup before it is needed.

use std::io::{self, IsTerminal, Write};

use super::{Failure, output};
use crate::config::Config;
use crate::hub::{Compared, Verified, verify};
use crate::model::Position;
use crate::store::{Error, FORMAT_VERSION};

/// Entries between two lines of progress.
const PROGRESS_ENTRIES: u64 = 10_000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    let mut terminal = io::stderr();
    let shown = terminal.is_terminal() && !args.json;
    let mut good = (0, Position::default());
    let mut progress = |entries: u64, messages: Position| {
        good = (entries, messages);
        if shown && entries.is_multiple_of(PROGRESS_ENTRIES) {
            // Progress is not output: if it cannot be shown, the work goes on.
            drop(write!(terminal, "\r{entries} entries"));
        }
    };
    let found = verify(&config.data, config.store.cache_bytes, &mut progress);
    if shown {
        drop(write!(terminal, "\r\x1b[K"));
    }
    if let Err(e @ (Error::Journal { .. } | Error::JournalBehind { .. })) = &found {
        let (entries, messages) = good;
        if args.json {
            let found = serde_json::json!({
                "ok": false, "entries": entries, "messages": messages, "error": e.to_string(),
            });
            writeln!(out, "{found}").map_err(output)?;
        } else {
            writeln!(
                out,
                "{} is damaged. Good up to there: {entries} entries in the journal, direct messages up to {} and group \
                 messages up to {}.",
                config.data.display(),
                messages.direct,
                messages.group
            )
            .map_err(output)?;
        }
    }
    let Verified {
        entries,
        messages,
        view,
    } = found?;
    if args.json {
        let found = serde_json::json!({
            "ok": true, "entries": entries, "messages": messages, "view_compared": view == Compared::Same,
        });
        return writeln!(out, "{found}").map_err(output);
    }
    let view = match view {
        Compared::Same => "holds the same, row by row".to_owned(),
        Compared::NotStopped => {
            "was not compared: it was not closed by a clean stop, so the next start checks it, or rebuilds it from the \
             journal"
                .to_owned()
        }
        Compared::Older => {
            "was not compared: an older version wrote it, so the next start rebuilds it from the journal".to_owned()
        }
        Compared::ReadOnly => "was not compared: to open it, the directory must be writable".to_owned(),
        Compared::Earlier(format) => format!(
            "was not compared: the directory is of format {format}, and the next start upgrades it to format \
             {FORMAT_VERSION}, for which it rebuilds the view from the journal"
        ),
    };
    writeln!(
        out,
        "{} is whole: {entries} entries in the journal, {} direct and {} group messages, every checksum, id, \
         prev chain and number right.\nThe readable view (sled) {view}.",
        config.data.display(),
        messages.direct,
        messages.group
    )
    .map_err(output)
}
