//! The tables of options, errors and endpoints are those of the program.

use std::collections::HashSet;

use serde_json::Value;

use crate::program::{halley, succeed};
use crate::server::Server;

const API: &str = include_str!("../../docs/api.md");
const ERRORS: &str = include_str!("../../docs/errors.md");
const OPTIONS: &str = include_str!("../../docs/options.md");

/// What stands between two lines of a document.
fn between(document: &'static str, begin: &str, end: &str) -> &'static str {
    let (_, rest) = document.split_once(begin).expect("it has a begin");
    rest.split_once(end).expect("it has an end").0
}

#[test]
fn the_options_are_those_of_the_program() {
    let table = succeed(&mut halley(&["config", "table"]));
    assert_eq!(
        between(OPTIONS, "<!-- options -->\n", "<!-- /options -->"),
        table,
        "put the output of `halley config table` between the markers"
    );
}

#[test]
fn the_option_of_the_client_commands_is_named() {
    for command in ["push", "tail", "history"] {
        let help = succeed(&mut halley(&[command, "--help"]));
        assert!(help.contains("--server <URL>"), "{help}");
        assert!(help.contains("HALLEY_SERVER"), "{help}");
    }
    assert!(OPTIONS.contains("(`push`, `tail`, `history`) also take `--server` (`HALLEY_SERVER`)"));
}

#[test]
fn every_endpoint_has_a_heading() {
    let parts = [
        between(API, "\n## For clients", "\n## For backends"),
        between(API, "\n## For backends", "\n## On both"),
    ];
    let index = between(API, "\n## Endpoints", "\n## ");
    let (_, both) = API.split_once("\n## On both").unwrap();
    for (document, part) in Server::start("data").documents().iter().zip(parts) {
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys() {
                let heading = format!("### `{} {path}", method.to_uppercase());
                let stands_in = |text: &str| {
                    text.lines().any(|line| {
                        line.strip_prefix(&heading)
                            .is_some_and(|rest| rest.starts_with(['`', '?']))
                    })
                };
                assert!(stands_in(part) || stands_in(both), "{heading}");
                let entry = format!("| [`{} {path}`](#", method.to_uppercase());
                assert!(index.contains(&entry), "{entry}");
            }
        }
    }
}

#[test]
fn the_table_of_errors_has_every_code_and_no_other() {
    let mut known = HashSet::new();
    for document in Server::start("data").documents() {
        let mut codes = 0;
        for operation in operations(&document) {
            for (status, reply) in operation["responses"].as_object().unwrap() {
                for code in codes_of(reply) {
                    let row = format!("| {status} | `{code}` |");
                    assert!(ERRORS.contains(&row), "{row}");
                    codes += 1;
                }
            }
        }
        assert!(codes > 20, "the document names codes where this looks");
        let enumeration = &document["components"]["schemas"]["ErrorCode"]["enum"];
        let all = enumeration.as_array().unwrap().iter();
        known.extend(all.map(|code| code.as_str().unwrap().to_owned()));
    }
    let rows = ERRORS
        .lines()
        .filter(|line| line.starts_with("| 4") || line.starts_with("| 5"));
    let codes = rows.map(|row| row.split('`').nth(1).unwrap().to_owned());
    assert_eq!(codes.collect::<HashSet<_>>(), known);
}

fn operations(document: &Value) -> impl Iterator<Item = &Value> {
    let paths = document["paths"].as_object().unwrap();
    paths
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
}

/// The codes that an operation's reply may have.
fn codes_of(reply: &Value) -> Vec<String> {
    let codes = reply["x-codes"].as_array().into_iter().flatten();
    codes
        .map(|code| code.as_str().unwrap().to_owned())
        .collect()
}
