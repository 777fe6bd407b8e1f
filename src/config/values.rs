//! Values of options that a parser would take, and that cannot be meant.

use std::path::PathBuf;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// Crates whose lines may be asked for: those that log something, as far as Halley uses them.
const LOGGED: [&str; 12] = [
    "halley",
    "hyper",
    "hyper_util",
    "mio",
    "polling",
    "sled",
    "tokio",
    "tokio_util",
    "tungstenite",
    "ureq",
    "ureq_proto",
    "warp",
];

/// A word that is no level would be taken for a crate's name, and silence all others.
pub(super) fn parse_filter(text: &str) -> Result<String, String> {
    const LEVELS: &str = "off, error, warn, info, debug, trace";
    let level = |text: &str| text.parse::<LevelFilter>().is_ok();
    for directive in text.split(',').map(str::trim) {
        let (target, wanted) = directive.split_once('=').unwrap_or(("", directive));
        // An empty one is the level error to the filter's parser.
        if wanted.is_empty() || !level(wanted) {
            return Err(format!("{wanted:?} is no level; levels are {LEVELS}"));
        }
        let name = target.split("::").next().unwrap_or_default();
        if directive.contains('=') && !LOGGED.contains(&name) {
            return Err(format!(
                "nothing called {target:?} logs here; there are {}",
                LOGGED.join(", ")
            ));
        }
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Refuses what is left in a path when nobody expanded or unquoted it, as in a container's file of variables: a
/// server would begin a new log in a strange place.
pub(super) fn parse_directory(text: &str) -> Result<PathBuf, &'static str> {
    if text.is_empty() {
        Err("it is empty")
    } else if text.chars().any(char::is_control) {
        Err("it holds a control character, such as the end of a line from Windows")
    } else if text.trim() != text {
        Err("there is a blank before or after it")
    } else if text.starts_with(['"', '\'']) {
        Err("there are quotes around it, which nothing here takes away")
    } else if text.starts_with('~') {
        Err("only a shell expands ~: write the directory itself, or ./~ if it has this name")
    } else if text.contains("${") || text.contains("$(") || text.starts_with('$') {
        Err("nothing here expands a variable: write the directory itself")
    } else if text.contains("://") {
        Err("it is a URL, not a directory")
    } else {
        Ok(PathBuf::from(text))
    }
}
