//! `halley version`: what this program is, and which data it can open.

use std::io::Write;

use super::{Failure, output};
use crate::store::FORMAT_VERSION;

/// As pinned in the manifest: sled's files depend on its exact version.
const SLED_VERSION: &str = "0.34.7";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    let halley = env!("CARGO_PKG_VERSION");
    if args.json {
        let versions =
            serde_json::json!({ "halley": halley, "sled": SLED_VERSION, "format": FORMAT_VERSION });
        writeln!(out, "{versions}").map_err(output)
    } else {
        writeln!(
            out,
            "halley {halley}\nsled {SLED_VERSION}\ndata format {FORMAT_VERSION}"
        )
        .map_err(output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_sled_is_the_pinned_one() {
        let manifest = include_str!("../../Cargo.toml");
        assert!(manifest.contains(&format!("\nsled = \"={SLED_VERSION}\"")));
    }
}
